"""``segformer-edge completion``: what a shell offers at the TAB key."""

from __future__ import annotations

import subprocess
import sys

import pytest

from segformer_edge.commands import COMMANDS
from segformer_edge.completion import SHELLS, main
from segformer_edge.errors import MissingBackendError, UsageError

#: Calls the completion as bash does: the words so far, the cursor at the end of the last one.
BASH = """
source "$1"; shift
complete -p segformer-edge >/dev/null || exit 9
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
"$(complete -p segformer-edge | sed 's/.*-F \\([^ ]*\\) .*/\\1/')" segformer-edge "${COMP_WORDS[COMP_CWORD]}" ""
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def scripts() -> dict[str, str]:
    """Each shell's script."""
    command = [sys.executable, "-m", "segformer_edge", "completion"]
    return {
        shell: subprocess.run([*command, shell], capture_output=True, text=True, check=True).stdout for shell in SHELLS
    }


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["qu"], {"quantize"}),
        (["quantize", "--memo"], {"--memory-budget"}),
        (["quantize", "--output", ""], {"logits", "labels"}),
        (["train", "--enc"], {"--encodings"}),
        (["profile", "--op"], {"--operators"}),
        (["completion", "f"], {"fish"}),
        (["evaluate", "mod"], {"model.tflite"}),
    ],
)
def test_bash_offers(words, offered, scripts, tmp_path):
    (tmp_path / "model.tflite").touch()
    (tmp_path / "complete.sh").write_text(scripts["bash"])
    done = subprocess.run(
        ["bash", "-c", BASH, "-", "complete.sh", "segformer-edge", *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0 and set(done.stdout.split()) == offered, done.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_knows_every_command_and_option(shell, scripts):
    for name, command in COMMANDS.items():
        assert name in scripts[shell]
        for action in command.parser()._actions:
            for option in action.option_strings:
                # fish writes long options without their dashes.
                assert option in scripts[shell] or f"-l {option.lstrip('-')}" in scripts[shell], (name, option)


def test_a_slip_and_a_missing_package_are_told(monkeypatch):
    with pytest.raises(UsageError, match="Did you mean 'bash'"):
        main(["bsah"])
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(MissingBackendError, match=r"segformer-edge\[completion\]"):
        main(["bash"])
