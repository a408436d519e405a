"""``segformer-edge COMMAND`` and ``python -m segformer_edge COMMAND``: every command under one name."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from segformer_edge import __version__
from segformer_edge.cli import EXIT_OK, run
from segformer_edge.commands import COMMANDS
from segformer_edge.errors import UsageError
from segformer_edge.suggestions import did_you_mean


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command with the rest of ``argv``; returns its exit code. Raises UsageError for an unknown one."""
    name, *rest = (sys.argv[1:] if argv is None else list(argv)) or ["--help"]
    if name in ("-h", "--help", "help"):
        print(usage())
        return EXIT_OK
    if name in ("-V", "--version"):
        print(f"segformer-edge {__version__}")
        return EXIT_OK
    if name not in COMMANDS:
        raise UsageError(f"There is no command '{name}'.", hint=did_you_mean(name, COMMANDS))
    return COMMANDS[name].main(rest)


def usage() -> str:
    """The commands, one a line."""
    lines = [f"  {name:<12} {command.about}" for name, command in COMMANDS.items()]
    return "\n".join([
        "usage: segformer-edge COMMAND [options]", "",
        "SegFormer on devices with little memory: quantize, export, run and measure.", "", *lines, "",
        "segformer-edge COMMAND --help says what a command takes.",
    ])  # fmt: skip


def entry() -> int:
    """What the installed program ``segformer-edge`` calls."""
    if len(sys.argv) > 1 and sys.argv[1] in COMMANDS and COMMANDS[sys.argv[1]].guarded:
        from segformer_edge.guard import stand_guard

        stand_guard()
    return run(main)


if __name__ == "__main__":
    sys.exit(entry())
