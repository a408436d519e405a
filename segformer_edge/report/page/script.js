"use strict";
// The theme: the system's unless the reader chooses.
const theme = document.getElementById("theme");
theme.parentElement.hidden = false;
theme.addEventListener("change", () => {
  document.documentElement.dataset.theme = theme.value;
});

// One file's pictures at a time; on paper and without this script all of them are there.
const chooser = document.getElementById("chooser");
if (chooser) {
  const show = () => {
    const chosen = chooser.querySelector("input:checked").value;
    for (const figure of document.querySelectorAll("figure[data-target]")) {
      figure.classList.toggle("other", figure.dataset.target !== chosen);
    }
  };
  chooser.hidden = false;
  chooser.addEventListener("change", show);
  show();
}
