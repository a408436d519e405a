"""``segformer-edge targets``: the table of targets, and what is installed for each."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from segformer_edge.cli import EXIT_OK, Parser, print_next, run, unused_folder
from segformer_edge.export.targets import TARGETS, Target
from segformer_edge.runtime.formats import RUNTIMES


def build_parser() -> Parser:
    """All options, with their defaults."""
    parser = Parser("segformer-edge targets", "What can be exported to, where it runs, and what is installed for it.")
    parser.add_argument("--json", action="store_true", help="only JSON on stdout")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = build_parser().parse_args(argv)
    rows = [describe(target) for target in TARGETS.values()]
    if options.json:
        print(json.dumps(rows, indent=2))
        return EXIT_OK
    _print(rows)
    ready = [row["target"] for row in rows if row["installed"]]
    if ready:
        out = unused_folder(f"out/{ready[0]}")
        print_next("python", "-m", "segformer_edge.quantize", "--targets", ready[0], "--out", out)
    else:
        print_next("segformer-edge", "doctor")
    return EXIT_OK


def _print(rows: Sequence[Mapping[str, Any]]) -> None:
    from rich.box import ASCII2, SIMPLE_HEAD
    from rich.table import Table

    from segformer_edge.report.table import ascii_only, console_for

    console = console_for()
    table = Table(box=ASCII2 if ascii_only(console) else SIMPLE_HEAD)
    for name in ("target", "file", "recipe", "integers", "runs on", "installed"):
        table.add_column(name, overflow="fold")
    for row in rows:
        installed = "yes" if row["installed"] else row["install"]
        # Squared brackets are markup to rich.
        cells = (row["target"], row["file"], row["recipe"], ", ".join(row["integers"]), row["about"], installed)
        table.add_row(*(cell.replace("[", r"\[") for cell in cells))
    console.print(table)


def describe(target: Target) -> dict[str, Any]:
    """One row: ``install`` is the command that brings what is missing, if anything is."""
    return {
        "target": target.name,
        "file": RUNTIMES[target.format].suffix,
        "recipe": target.recipe,
        "integers": list(target.widths),
        "about": target.about,
        "installed": all(find_spec(package) is not None for package in target.packages),
        "install": f"pip install 'segformer-edge[{target.extra}]'",
    }


if __name__ == "__main__":
    sys.exit(run(main))
