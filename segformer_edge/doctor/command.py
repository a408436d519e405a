"""The command: what was found, as a table or JSON, and whether the default targets work."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from segformer_edge.cli import EXIT_FAILED, EXIT_OK, Parser, print_next, unused_folder

if TYPE_CHECKING:
    from segformer_edge.doctor.findings import Finding


def build_parser() -> Parser:
    """All options, with their defaults."""
    parser = Parser(
        "segformer-edge doctor",
        "Look at this machine: CPU, memory, Python, the packages of every target and whether they load, tools. "
        "Exit code 0 where the default targets work, else 1.",
    )
    parser.add_argument("--json", action="store_true", help="only JSON on stdout")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0 where every default target works, else 1."""
    options = build_parser().parse_args(argv)

    from segformer_edge.doctor.machine import machine_findings
    from segformer_edge.doctor.packages import AREA as TARGET_AREA
    from segformer_edge.doctor.packages import target_findings
    from segformer_edge.doctor.tools import tool_findings
    from segformer_edge.export.targets import CPU_TARGETS
    from segformer_edge.progress import progress_for_terminal

    with progress_for_terminal() as tell:
        found = [*machine_findings(), *target_findings(tell), *tool_findings()]
    failing = [each for each in found if each.area == TARGET_AREA and each.name in CPU_TARGETS and not each.works]
    if options.json:
        print(json.dumps(to_json(found, works=not failing), indent=2))
    else:
        _print(found)
        if failing:
            print(f"{len(failing)} of the {len(CPU_TARGETS)} default targets do not work: {failing[0].fix}")
        else:
            print_next("python", "-m", "segformer_edge.quantize", "--out", unused_folder("out/first"))
    return EXIT_FAILED if failing else EXIT_OK


def to_json(found: Sequence[Finding], works: bool) -> dict[str, object]:
    """``works``: whether the default targets do. One entry a finding; ``fix`` is null where nothing is to mend."""
    rows = [{**vars(each), "state": each.state.value, "fix": each.fix or None} for each in found]
    return {"schema_version": 1, "works": works, "findings": rows}


def _print(found: Sequence[Finding]) -> None:
    from rich.box import ASCII2, SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from segformer_edge.doctor.findings import State
    from segformer_edge.report.table import ascii_only, console_for

    styles = {State.OK: "green", State.OTHER_VERSION: "yellow", State.MISSING: "yellow", State.BROKEN: "bold red"}
    console = console_for()
    table = Table(box=ASCII2 if ascii_only(console) else SIMPLE_HEAD, pad_edge=False)
    for name in ("", "state", "found"):
        table.add_column(name, overflow="fold")
    area = found[0].area
    for each in found:
        if each.area != area:
            table.add_section()
            area = each.area
        detail = Text(each.detail)
        if each.fix:
            detail.append(f"\n{each.fix}", style="bold")
        table.add_row(Text(each.name), Text(each.state.value, styles.get(each.state, "")), detail)
    console.print(table)
