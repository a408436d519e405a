"""report.html in a real browser: quiet, offline, light and dark, on a phone. ``make test-browser`` installs Chromium.

``REPORT`` names the folder of an earlier run to look at, such as out/demo; without it a tiny network's is made.
``--screenshots DIR`` also writes the pictures of the docs.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from segformer_edge.report.html import write_html
from segformer_edge.report.schema import Report
from segformer_edge.report.terminal_svg import terminal_svg
from tests.browser import on_phone, requests_of, theme
from tests.report.test_page import PNG, example

pytestmark = pytest.mark.browser
SECTIONS = ("summary", "classes", "examples", "sensitivity", "memory", "operators", "figures", "reproduce")


@pytest.fixture(scope="module")
def folder(request) -> Path:
    """A run's output."""
    found = os.environ.get("REPORT")
    return Path(found) if found else request.getfixturevalue("tiny_run").out


@pytest.fixture
def made(report, over_budget, tmp_path) -> Path:
    """A page with everything that a good run has not: failures, long words, the sensitivity plot."""
    failed = replace(report.targets[2], error="kernel/" * 60)
    long = replace(over_budget, target="ethos-u85-256-with-a-long-name", error="over " * 40)
    whole = replace(report, weights="runs/" + "deep/" * 40, targets=(*report.targets[:2], failed, long))
    write_html(tmp_path / "report.html", whole, [example()], ["note " * 40], PNG)
    return tmp_path


def open_page(browser, folder: Path) -> str:
    """Opens the report, as a double click would; returns its address."""
    requests_of(browser)
    address = (folder / "report.html").resolve().as_uri()
    browser.get(address)
    return address


def check_quiet(browser, address: str) -> None:
    """No complaint on the console, and nothing asked for but the page itself."""
    assert browser.get_log("browser") == []
    assert {each.partition("#")[0] for each in requests_of(browser)} == {address}


def test_every_section_of_a_run_is_there_and_nothing_is_fetched(browser, folder):
    address = open_page(browser, folder)
    for name in SECTIONS:
        browser.find_element("css selector", f"nav a[href='#{name}']").click()
        section = browser.find_element("id", name)
        assert section.is_displayed() and len(section.text) > 40, name
        assert abs(section.rect["y"] - browser.execute_script("return scrollY")) < 60 or name in SECTIONS[-2:]
    broken = "return [...document.images].filter(image => !image.complete || !image.naturalWidth).length"
    assert browser.execute_script(broken) == 0 and browser.execute_script("return document.images.length") > 8
    charts = browser.find_elements("css selector", "svg.timeline")
    assert len(charts) == 4 and all(chart.size["height"] > 150 for chart in charts)
    assert "PASS" in browser.find_element("id", "summary").text
    assert "SHA-256" in browser.find_element("id", "reproduce").text
    check_quiet(browser, address)


def test_one_files_pictures_are_shown_at_a_time_and_all_on_paper(browser, folder):
    open_page(browser, folder)

    def shown() -> list[str]:
        figures = browser.find_elements("css selector", "figure[data-target]")
        return [each.get_attribute("data-target") for each in figures if each.is_displayed()]

    assert set(shown()) == {"executorch"}
    browser.find_element("css selector", "#chooser input[value='onnx']").click()
    pictures = shown()
    assert set(pictures) == {"onnx"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert len(shown()) == 4 * len(pictures)


@pytest.mark.parametrize("kind", ["folder", "made"])
def test_it_fits_a_phone(browser, kind, request):
    on_phone(browser)
    address = open_page(browser, request.getfixturevalue(kind))
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    # What is wider scrolls in a region that the keyboard reaches.
    beyond = """return [...document.querySelectorAll("body *")]
        .filter(each => each.getBoundingClientRect().right > 360.5 && !each.closest(".wide[tabindex='0']"))
        .map(each => each.outerHTML)"""
    assert browser.execute_script(beyond) == []
    assert browser.find_element("id", "theme").is_displayed()
    check_quiet(browser, address)


#: The least contrast of any text with its ground, by the rule of WCAG 2.
CONTRAST = """
const parse = colour => colour.match(/[0-9.]+/g).map(Number);
const linear = v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
const ground = each => {
  for (; each; each = each.parentElement) {
    const colour = parse(getComputedStyle(each).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour;
  }
};
const texts = document.querySelectorAll("h1, p, a, td, th, dt, dd, small, figcaption, .pass, .fail, .origin, code");
return Math.min(...[...texts].map(each => {
  const [a, b] = [light(parse(getComputedStyle(each).color)), light(ground(each))];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}));
"""


def brightness(browser) -> int:
    colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    return sum(int(part) for part in colour.strip("rgb()").split(","))


def test_light_and_dark_can_be_read(browser, made):
    open_page(browser, made)
    for name in ("light", "dark"):
        theme(browser, name)
        assert brightness(browser) > 600 if name == "light" else brightness(browser) < 150
        assert browser.execute_script(CONTRAST) >= 4.5, name


def test_the_reader_chooses_the_theme(browser, made):
    from selenium.webdriver.support.select import Select

    address = open_page(browser, made)
    theme(browser, "light")
    choice = Select(browser.find_element("id", "theme"))
    for name, dark in (("dark", True), ("light", False), ("system", False)):
        choice.select_by_visible_text(name)
        assert (brightness(browser) < 150) is dark
    theme(browser, "dark")
    assert brightness(browser) < 150
    choice.select_by_visible_text("light")
    assert brightness(browser) > 600
    check_quiet(browser, address)


def test_screenshots(browser, folder, screenshots):
    for name, place, height in (("light", "", 770), ("dark", "#examples", 680)):
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": 1120, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        theme(browser, name)
        browser.get("about:blank")
        browser.get((folder / "report.html").resolve().as_uri() + place)
        (screenshots / f"report-{name}.png").write_bytes(browser.get_screenshot_as_png())
    report = Report.load(folder / "report.json")
    command = "make demo" if report.weights == "demo" else report.reproduce.command or "quantize"
    svg = terminal_svg(report, command)
    assert "//" not in svg.replace("http://www.w3.org/2000/svg", "") and len(svg) < 100_000
    (screenshots / "terminal.svg").write_text(svg)
    browser.get((screenshots / "terminal.svg").resolve().as_uri())
    assert "executorch" in browser.find_element("css selector", "svg").text
    pictures = [cv2.imread(str(screenshots / f"report-{name}.png")) for name in ("light", "dark")]
    assert all(picture.shape[1] == 1120 and picture.std() > 20 for picture in pictures)
    assert np.median(pictures[0]) > 200 and np.median(pictures[1]) < 80
