"""Peak memory of the default pipelines' files and of ours: docs/memory.md's table, docs/memory.json.

    python benchmarks/memory.py --camvid DIR --calibration DIR --on cortex-a72

Default files are built in ``--defaults`` and ours in ``--ours`` where they are missing, half an hour in all; what is
there is used as it is. ``--no-defaults`` and ``--no-ours`` leave one side out; its figures are then "not measured".
Every figure is measured in this run, each file in a process of its own, and latencies in turns.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import memory_size
from defaults.build import built_file, main_file
from defaults.pipelines import PIPELINES
from latency import medians
from machine import machine
from marked_block import update
from memory_cases import CAMVID, CASES, FIGURES, RANDOM, Case, Row, Setting, Side
from memory_ours import Source, our_file, prepare_source
from memory_table import MARK, bytes_text, markdown

from segformer_edge.cli import EXIT_FAILED, EXIT_OK, Parser, run
from segformer_edge.errors import SegformerEdgeError, UsageError
from segformer_edge.jsonfile import write_bytes, write_json
from segformer_edge.memory.measure import measure
from segformer_edge.memory.measurement import Measurement
from segformer_edge.progress import Progress, progress_for_terminal
from segformer_edge.suggestions import did_you_mean

Measure = Callable[..., Measurement]
TimeFiles = Callable[[Sequence[Path], Sequence[str]], list[float]]
#: Why a side has no figures where it was left out.
LEFT_OUT = "left out of this run"


def default_file(case: Case, source: Source | None, folder: Path) -> Path:
    """The default pipeline's file for ``case``, built where it is missing. Raises SegformerEdgeError."""
    out, name = folder / case.setting.name, case.kind.default
    if source is None:
        file = main_file(out, PIPELINES[name])
        if not file.exists():
            raise SegformerEdgeError("no weights given for this row")
        return file
    return built_file(
        name, out, weights=str(source.weights), size=case.setting.size, calibration=str(source.calibration), images=16
    )


def measured(side: Side, case: Case, file: Path, on: str | None, measure: Measure) -> Side:
    """``side`` with the figures of ``file`` here, and on the emulated CPU ``on``."""
    figure = FIGURES[case.kind.figure]
    variant = case.kind.variant_of(side.label)
    try:
        here = measure(file, variant=variant)
    except SegformerEdgeError as error:
        return replace(side, error=first_line(error, file.parent))
    side = replace(
        side,
        file=file.name,
        file_bytes=here.file_bytes,
        figure_bytes=figure.read(here),
        measurement=asdict(replace(here, file=file.name)),
    )
    if on is None:
        return side
    try:
        return replace(side, arm_bytes=figure.read(measure(file, on=on, variant=variant)), arm_cpu=on)
    except SegformerEdgeError as error:
        return replace(side, arm_error=first_line(error, file.parent))


def first_line(error: Exception | str, folder: Path) -> str:
    """What went wrong, without ``folder``: the page is for other machines too."""
    return str(error).splitlines()[0].replace(f"{folder}{os.sep}", "")


def fill(
    case: Case,
    find_default: Callable[[Case], Path],
    find_ours: Callable[[Case, int | None], Path],
    on: str | None,
    tell: Progress,
    measure: Measure,
    time_files: TimeFiles | None,
) -> Row:
    """Find and measure the three files of ``case``. What fails is in the row, not an exception."""
    files: dict[str, Path] = {}

    def side(label: str, find: Callable[[], Path], on: str | None) -> Side:
        tell.step(f"{case.name}: {label}")
        try:
            files[label] = find()
        except SegformerEdgeError as error:
            return Side(label, error=str(error).splitlines()[0])
        return measured(Side(label), case, files[label], on, measure)

    default = side("default", lambda: find_default(case), on)
    limit = case.limit_from(default.figure_bytes)
    ours = (
        side("ours", lambda: find_ours(case, limit), on) if limit else Side("ours", error="no default to set the limit")
    )
    untiled = side("no budget", lambda: find_ours(case, None), None)
    row = Row(case, limit, default, ours, untiled)
    return _with_latencies(row, files, tell, time_files) if time_files else row


def _with_latencies(row: Row, files: Mapping[str, Path], tell: Progress, time_files: TimeFiles) -> Row:
    """``row`` with the time of every file that could be measured."""
    sides = {side.label: side for side in (row.default, row.ours, row.untiled)}
    good = [label for label, side in sides.items() if side.figure_bytes is not None]
    if not good:
        return row
    tell.step(f"{row.case.name}: latency of {', '.join(good)}")
    try:
        times = time_files([files[label] for label in good], [row.case.kind.variant_of(label) for label in good])
    except Exception as error:  # a file may end the process that runs it
        words = f"latency: {type(error).__name__}: {error}".splitlines()[0]
        return replace(row, ours=replace(row.ours, error=row.ours.error or words))
    sides |= {label: replace(sides[label], latency_ms=ms) for label, ms in zip(good, times, strict=True)}
    return replace(row, default=sides["default"], ours=sides["ours"], untiled=sides["no budget"])


def choose_cases(names: str) -> list[Case]:
    """The named cases, all for "". Raises UsageError."""
    known = {case.name: case for case in CASES}
    wanted = [name for name in names.split(",") if name]
    for name in wanted:
        if name not in known:
            raise UsageError(f"There is no row '{name}'.", hint=did_you_mean(name, known))
    return [known[name] for name in wanted] or list(CASES)


def line(row: Row) -> str:
    """One row on the terminal."""
    cells = [bytes_text(side.figure_bytes) for side in (row.default, row.untiled, row.ours)]
    verdict = {None: "-", True: "PASS", False: "FAIL"}[row.verdicts["within_limit"]]
    return f"{row.case.name:22} {cells[0]:>13} {cells[1]:>13} {cells[2]:>13}  {verdict}"


def build_parser() -> Parser:
    """All options, with their defaults."""
    parser = Parser("python benchmarks/memory.py", "Peak memory: the default pipelines' files against ours.")
    parser.add_argument("--weights", default="random:b0:150", metavar="W", help="for 512x512: folder or random:b0:150")
    parser.add_argument("--camvid", type=Path, metavar="DIR", help="CamVid checkpoint for 384x512, HF layout")
    parser.add_argument(
        "--calibration", type=Path, metavar="DIR", help="images to calibrate on (default: drawn scenes)"
    )
    parser.add_argument("--only", default="", metavar="ROW,...", help=f"of {', '.join(case.name for case in CASES)}")
    parser.add_argument("--on", metavar="CPU", help="also measure on this emulated CPU, like cortex-a72")
    parser.add_argument("--defaults", type=Path, default=Path("out/memory/defaults"), metavar="DIR", help="their files")
    parser.add_argument("--ours", type=Path, default=Path("out/memory/ours"), metavar="DIR", help="our files")
    parser.add_argument("--no-defaults", action="store_true", help="only ours")
    parser.add_argument("--no-ours", action="store_true", help="only the defaults")
    parser.add_argument("--no-latency", action="store_true", help="bytes alone, as on a machine with other work")
    parser.add_argument("--docs", type=Path, default=Path("docs"), metavar="DIR", help="where memory.md and .json are")
    return parser


def sources(options: Any, cases: Sequence[Case]) -> dict[str, Source]:
    """Weights and images of each setting that has weights. Raises UsageError."""
    options.ours.mkdir(parents=True, exist_ok=True)
    given = {RANDOM.name: options.weights, CAMVID.name: str(options.camvid) if options.camvid else None}
    wanted: dict[str, Setting] = {case.setting.name: case.setting for case in cases}
    return {
        name: prepare_source(setting, weights, options.calibration, options.ours)
        for name, setting in wanted.items()
        if (weights := given[name])
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a line a row, write the table; returns 1 where a limit does not hold."""
    options = build_parser().parse_args(argv)
    cases = choose_cases(options.only)
    found = sources(options, cases)

    def find_default(case: Case) -> Path:
        if options.no_defaults:
            raise SegformerEdgeError(LEFT_OUT)
        return default_file(case, found.get(case.setting.name), options.defaults)

    def find_ours(case: Case, budget: int | None) -> Path:
        if options.no_ours:
            raise SegformerEdgeError(LEFT_OUT)
        out = options.ours / (case.name if budget is not None else f"{case.name}-no-budget")
        return our_file(case, found.get(case.setting.name), budget, out)

    time_files = None if options.no_latency else medians
    rows = []
    print(f"{'row':22} {'default':>13} {'no budget':>13} {'ours':>13}  within its limit", flush=True)
    with progress_for_terminal() as tell:
        for case in cases:
            rows.append(fill(case, find_default, find_ours, options.on, tell, measure, time_files))
            print(line(rows[-1]), flush=True)
    options.docs.mkdir(exist_ok=True)
    write_json(
        options.docs / "memory.json",
        {"schema_version": 1, "machine": machine(), "rows": [row.to_json() for row in rows]},
    )
    update(options.docs / "memory.md", MARK, markdown(rows, machine()))
    curves = options.docs / "memory_size.json"
    if curves.exists():
        write_bytes(options.docs / "memory_size.svg", memory_size.plot(*memory_size.load(curves)))
    held = [value for row in rows for value in row.verdicts.values()]
    return EXIT_FAILED if False in held else EXIT_OK


if __name__ == "__main__":
    sys.exit(run(main))
