"""``segformer-edge completion bash``: completion of commands, options and files for a shell, written by shtab."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from segformer_edge.cli import EXIT_OK, Parser, run
from segformer_edge.errors import MissingBackendError
from segformer_edge.verbosity import is_quiet

SHELLS = ("bash", "zsh", "fish")
PROGRAM = "segformer-edge"
#: Where a shell looks for completions of a user's own.
_PLACES = {
    "bash": "~/.local/share/bash-completion/completions/segformer-edge",
    "zsh": "~/.zfunc/_segformer-edge",
    "fish": "~/.config/fish/completions/segformer-edge.fish",
}


def build_parser() -> Parser:
    """All options, with their defaults."""
    parser = Parser(
        f"{PROGRAM} completion",
        "Print the completion of segformer-edge for a shell.",
        epilog=f"example: {PROGRAM} completion bash > {_PLACES['bash']}",
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell to write for")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code. Raises MissingBackendError without shtab."""
    options = build_parser().parse_args(argv)
    try:
        import shtab
    except ModuleNotFoundError as error:
        raise MissingBackendError("shtab, which writes completions,", "completion") from error
    print(shtab.complete(whole_parser(), options.shell))
    if not is_quiet():  # on stderr, since stdout is the script
        print(f"next: {PROGRAM} completion {options.shell} > {_PLACES[options.shell]}", file=sys.stderr)
    return EXIT_OK


def whole_parser() -> argparse.ArgumentParser:
    """All commands as sub-commands of one parser; names of files and folders are completed as such."""
    import shtab

    from segformer_edge.commands import COMMANDS

    parser = argparse.ArgumentParser(PROGRAM)
    parser.add_argument("-V", "--version", action="store_true", help="print the version")
    places = parser.add_subparsers(dest="command", parser_class=argparse.ArgumentParser)
    for name, command in COMMANDS.items():
        own = places.add_parser(name, parents=[command.parser()], add_help=False, help=command.about)
        for action in own._actions:
            if action.metavar in ("FILE", "W", "NAME_OR_FILE", "OUT", "OUT.mp4"):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
            elif action.metavar == "DIR":
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
