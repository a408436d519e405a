"""How much the commands say. One setting for the process and its children, made where options are parsed (cli.Parser).

It is kept in the environment, which child processes inherit: exporters and measurements run in such.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from enum import Enum

_VARIABLE = "SEGFORMER_EDGE_VERBOSITY"
_START = time.monotonic()


class Verbosity(Enum):
    """``--quiet``: the result and errors. ``--verbose``: also steps with their times, tools' messages, child output."""

    QUIET = "quiet"
    NORMAL = "normal"
    VERBOSE = "verbose"


def set_verbosity(level: Verbosity) -> None:
    """From here on, in this process and in those it starts."""
    os.environ[_VARIABLE] = level.value
    if level is Verbosity.QUIET:
        warnings.simplefilter("ignore")


def verbosity() -> Verbosity:
    """What was asked for; NORMAL where nothing was."""
    value = os.environ.get(_VARIABLE, "")
    return Verbosity(value) if value in {level.value for level in Verbosity} else Verbosity.NORMAL


def is_quiet() -> bool:
    """Whether nothing but the result and errors is wanted."""
    return verbosity() is Verbosity.QUIET


def is_verbose() -> bool:
    """Whether details are wanted."""
    return verbosity() is Verbosity.VERBOSE


def warn(text: str) -> None:
    """Something the user should know, though the work goes on; on stderr."""
    if not is_quiet():
        print(f"warning: {text}", file=sys.stderr, flush=True)


def detail(text: str) -> None:
    """One line on stderr with the seconds since the start, where details are wanted."""
    if is_verbose():
        print(f"[{time.monotonic() - _START:7.1f} s] {text}", file=sys.stderr, flush=True)


def child_output(name: str, text: str) -> None:
    """What a child process or a tool called ``name`` wrote, line by line, where details are wanted."""
    if is_verbose():
        for line in text.splitlines():
            print(f"[{name}] {line}", file=sys.stderr, flush=True)
