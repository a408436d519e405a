"""Instructions of one inference on emulated ARM CPUs, default pipelines against ours, held to a recorded baseline.

    python benchmarks/arm_instructions.py                     # 1 where a count moved by more than 2 %
    python benchmarks/arm_instructions.py --update            # record what is counted now
    python benchmarks/arm_instructions.py --sides ours        # no default is built or counted
    python benchmarks/arm_instructions.py --files a.tflite b.onnx --on cortex-a76

An emulated CPU's wall time says nothing; the instructions that it executes are the same on every machine. Files are
built where they are missing: the defaults once, ours in each run (--keep counts those of the last run).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from arm_baseline import CPUS, GOALS, PRECISIONS, TARGETS, Case, Change, Row, choose, compare, find, load, merge, save
from arm_files import Files
from rich.table import Table

from segformer_edge.cli import EXIT_FAILED, EXIT_OK, Parser, run
from segformer_edge.emulation.plugins import plugin_emulator
from segformer_edge.emulation.sysroot import open_cpu
from segformer_edge.errors import SegformerEdgeError, UsageError
from segformer_edge.instructions.count import InstructionCount, count
from segformer_edge.progress import Progress, progress_for_terminal
from segformer_edge.report.table import console_for

BASELINE = Path(__file__).with_name("arm_instructions.json")
Count = Callable[[Path, str], InstructionCount]


def measure(
    cases: Sequence[Case], find_file: Callable[[Case], Path], count: Count, tell: Progress, done: Callable[[Row], None]
) -> list[Row]:
    """Count each case; what fails is in its row. ``done`` gets each row at once: all of them take a quarter hour."""
    rows = []
    for case in cases:
        rows.append(_row(case, find_file, count, tell))
        done(rows[-1])
    return rows


def _row(case: Case, find_file: Callable[[Case], Path], count: Count, tell: Progress) -> Row:
    if case.lacking:
        return Row(case, error=case.lacking)
    try:
        file = find_file(case)
        tell.step(f"count {case.name} (a minute or two)")
        found = count(file, case.cpu)
    except SegformerEdgeError as error:
        return Row(case, error=str(error).splitlines()[0])
    return Row(case, found.instructions, found.runtime, found.versions)


def line(row: Row) -> str:
    """One row on the terminal, while the others are still to come."""
    counted = f"{row.instructions:>14,}" if row.instructions is not None else f"{row.error}"
    return f"{row.case.name:38} {counted}"


def table(changes: Sequence[Change], known: Sequence[Row]) -> Table:
    """Counts in billions, what share they are of the two files that matter, and the baseline.

    ``known`` has the counts of those two.
    """
    made = Table(box=None, pad_edge=False)
    for name in ("CPU", "runtime", "file"):
        made.add_column(name)
    for name in ("10^9 instructions", "of default INT8", "of our float", "recorded", "change"):
        made.add_column(name, justify="right")
    made.add_column("")
    for change in changes:
        case, recorded = change.row.case, change.recorded.instructions if change.recorded else None
        others = [("default", "int8"), ("ours", "float")]
        made.add_row(
            case.cpu, change.row.runtime or case.target, f"{case.side} {case.precision}",
            _billions(change.row.instructions),
            *(_share(change.row.instructions, find(known, Case(case.cpu, case.target, *other))) for other in others),
            _billions(recorded), "-" if change.share is None else f"{change.share:+.2%}",
            change.verdict or change.row.error or "",
        )  # fmt: skip
    return made


def _billions(instructions: int | None) -> str:
    return "-" if instructions is None else f"{instructions / 1e9:.3f}"


def _share(part: int | None, whole: int | None) -> str:
    return f"{part / whole:.2f}" if part and whole else "-"


def goal_lines(rows: Sequence[Row]) -> list[str]:
    """What our INT8 file should take, and whether it does; a missed goal is told, and fails nothing."""
    lines = []
    for goal in GOALS:
        ratio = goal.ratio(rows)
        if ratio is not None:
            verdict = "met" if ratio <= goal.share else "missed"
            other = f"{'our' if goal.side == 'ours' else 'the default'} {goal.precision}'s"
            lines.append(
                f"goal on cortex-a76 with LiteRT: our int8_attention at most {goal.share} of {other}: "
                f"{ratio:.3f}, {verdict}"
            )
    return lines


def count_files(files: Sequence[Path], cpus: Sequence[str], tell: Progress) -> None:
    """Count any files, and print each; nothing is compared."""
    for file in files:
        for cpu in cpus:
            tell.step(f"count {file.name} on {cpu}")
            found = count(file, cpu)
            print(f"{cpu:12} {found.instructions:>14,}  {found.runtime:32} {file}", flush=True)


def build_parser() -> Parser:
    """All options, with their defaults."""
    parser = Parser("python benchmarks/arm_instructions.py", "Instructions of one inference on emulated ARM CPUs.")
    parser.add_argument("--files", nargs="+", type=Path, metavar="FILE", help="count these, and compare with nothing")
    parser.add_argument("--on", default=",".join(CPUS), metavar="CPU,...", help=f"default {','.join(CPUS)}")
    parser.add_argument("--targets", default=",".join(TARGETS), metavar="LIST", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--sides", default=",".join(PRECISIONS), metavar="LIST", help=f"of {', '.join(PRECISIONS)}")
    parser.add_argument("--update", action="store_true", help="record what is counted as the baseline")
    parser.add_argument("--keep", action="store_true", help="count our files of an earlier run, build none anew")
    parser.add_argument("--baseline", type=Path, default=BASELINE, metavar="FILE", help="where the counts are recorded")
    parser.add_argument("--defaults", type=Path, default=Path("out/memory/defaults"), metavar="DIR", help="their files")
    parser.add_argument("--ours", type=Path, default=Path("out/arm"), metavar="DIR", help="our files")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Count, print the table; returns 1 where a count is not within 2 % of the recorded one, or is missing."""
    options = build_parser().parse_args(argv)
    cpus, targets = options.on.split(","), options.targets.split(",")
    # What is missing is found before the first minute of work.
    for cpu in cpus:
        open_cpu(cpu)
    plugin_emulator().check()
    with progress_for_terminal() as tell:
        if options.files:
            if options.update:
                raise UsageError("--update records the baseline's own files, not those of --files.")
            count_files(options.files, cpus, tell)
            return EXIT_OK
        cases = choose(cpus, targets, options.sides.split(","))
        recorded = [] if options.update and not options.baseline.exists() else load(options.baseline)
        files = Files(options.defaults, options.ours, options.keep, tell)
        rows = measure(cases, files, count, tell, lambda row: print(line(row), flush=True))
    return report(rows, recorded, options.baseline if options.update else None)


def report(rows: Sequence[Row], recorded: Sequence[Row], update: Path | None) -> int:
    """Print the table and what follows from it; write the baseline to ``update``. Returns the exit code."""
    changes, known = compare(rows, recorded), merge(rows, recorded)
    console = console_for()
    console.print(table(changes, known))
    for text in goal_lines(known):
        console.print(text)
    for text in sorted({change.other_versions for change in changes} - {""}):
        console.print(f"recorded with other versions: {text}")
    failed = [row for row in rows if row.instructions is None and not row.case.lacking]
    if update is not None:
        save(update, known)
        console.print(f"recorded in {update}")
        return EXIT_FAILED if failed else EXIT_OK
    moved = [change for change in changes if change.verdict]
    for change in moved:
        share = f" ({change.share:+.2%})" if change.share is not None else ""
        print(f"{change.row.case.name}: {change.verdict}{share}", file=sys.stderr)
    if moved:
        print("Where this is meant, record it: make bench-arm UPDATE=1", file=sys.stderr)
    return EXIT_FAILED if moved else EXIT_OK


if __name__ == "__main__":
    sys.exit(run(main))
