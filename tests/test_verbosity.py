"""``--quiet``, ``--verbose``, NO_COLOR and pipes: what is written where, and what is not."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

from segformer_edge.cli import Parser, on_terminal, print_next
from segformer_edge.commands import COMMANDS
from segformer_edge.errors import UsageError
from segformer_edge.progress import Progress
from segformer_edge.verbosity import Verbosity, child_output, verbosity, warn

TARGETS = [sys.executable, "-m", "segformer_edge", "targets"]
COLOUR = re.compile(r"\x1b\[[0-9;]*(3[0-7]|9[0-7]|38|48)[;m]")


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """The setting lies in the environment; each test ends with what it was."""
    monkeypatch.setenv("SEGFORMER_EDGE_VERBOSITY", "normal")


def say_all() -> None:
    """One of each kind of line."""
    tell = Progress()
    tell.step("calibrate")
    tell.warn("only 3 images")
    child_output("onnx", "exporting\ndone")
    print_next("segformer-edge", "evaluate", "my model.onnx")


@pytest.mark.parametrize(
    ("option", "out", "err"),
    [
        ([], "next: segformer-edge evaluate 'my model.onnx'\n", ["warning: only 3 images"]),
        (["--quiet"], "", []),
        (["-v"], "next: segformer-edge evaluate 'my model.onnx'\n",
         [r"\[ +\d+\.\d s\] calibrate", "warning: only 3 images", r"\[onnx\] exporting", r"\[onnx\] done"]),
    ],
)  # fmt: skip
def test_how_much_is_said(option, out, err, capsys):
    Parser("prog", "about").parse_args(option)
    say_all()
    shown = capsys.readouterr()
    assert shown.out == out
    assert re.fullmatch("".join(f"{line}\n" for line in err), shown.err), shown.err


def test_children_inherit_it():
    Parser("prog", "about").parse_args(["--verbose"])
    code = "from segformer_edge.verbosity import detail; detail('loads the runtime')"
    assert "loads the runtime" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr


def test_quiet_shows_no_bar_on_a_terminal(monkeypatch):
    monkeypatch.setattr("sys.stderr", os.fdopen(pty.openpty()[1], "w"))
    assert on_terminal()
    Parser("prog", "about").parse_args(["-q"])
    assert not on_terminal() and verbosity() is Verbosity.QUIET


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_both_options_but_not_together(name):
    parser = COMMANDS[name].parser()
    assert {"-q", "--quiet", "-v", "--verbose"} <= {
        option for action in parser._actions for option in action.option_strings
    }
    with pytest.raises(UsageError, match="not allowed with"):
        parser.parse_args(["--quiet", "--verbose"])


@pytest.mark.parametrize(("words", "guess"), [
    (["quantize", "--model", "B1"], "'b1'"), (["quantize", "--output", "lables"], "'labels'"),
    (["quantize", "--memory-bugdet", "2M"], "'--memory-budget'"), (["emulation", "prepair"], "'prepare'"),
])  # fmt: skip
def test_a_slip_in_an_option_or_its_value_is_told(words, guess):
    with pytest.raises(UsageError, match=f"Did you mean {guess}"):
        COMMANDS[words[0]].main(words[1:])


def test_a_pipe_gets_plain_text():
    done = subprocess.run(TARGETS, capture_output=True, text=True)
    assert done.returncode == 0 and "\x1b" not in done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith(
        "next: python -m segformer_edge.quantize --targets executorch --out out/"
    )
    quiet = subprocess.run([*TARGETS, "--quiet"], capture_output=True, text=True)
    assert quiet.stdout and "next:" not in quiet.stdout and quiet.stderr == ""


@pytest.mark.parametrize("no_color", ["", "1"])
def test_no_color_on_a_terminal(no_color):
    """A table with a coloured cell, as every command prints them, on a terminal of its own."""
    code = (
        "from rich.text import Text; from segformer_edge.report.table import console_for; "
        "console_for().print(Text('ok', 'green'))"
    )
    environment = {**os.environ, "TERM": "xterm-256color", "NO_COLOR": no_color}
    parent, child = pty.openpty()
    subprocess.run([sys.executable, "-c", code], stdout=child, env=environment, check=True)
    shown = os.read(parent, 4096).decode()
    assert "ok" in shown and bool(COLOUR.search(shown)) is not bool(no_color)


def test_warnings_go_to_stderr(capsys):
    warn("so it is")
    assert capsys.readouterr() == ("", "warning: so it is\n")
