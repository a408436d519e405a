"""The report as a table on the terminal, or as plain aligned text in a pipe."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import IO

from rich.box import ASCII2, SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from segformer_edge.report import gates
from segformer_edge.report.classes import worst_class
from segformer_edge.report.schema import Report, TargetReport

_STYLES = {"ok": "green", "failed": "bold red", "over_budget": "yellow", "below_accuracy": "yellow"}
#: Wide enough for every column; a pipe has no width of its own, and a wrapped table cannot be read by a script.
_PIPE_WIDTH = 200
NOT_MEASURED = "-"


def console_for(file: IO[str] | None = None) -> Console:
    """A console on ``file`` (stdout): coloured on a terminal unless NO_COLOR is set, wide and plain in a pipe."""
    console = Console(file=file, highlight=False, emoji=False, soft_wrap=False)
    if not console.is_terminal:
        return Console(file=file, highlight=False, emoji=False, no_color=True, width=_PIPE_WIDTH)
    return console


def ascii_only(console: Console) -> bool:
    """Whether box-drawing characters would not arrive."""
    encoding = (getattr(console.file, "encoding", None) or "utf-8").lower()
    return not encoding.startswith("utf") or os.environ.get("TERM") == "dumb"


def target_row(target: TargetReport) -> list[str]:
    """The cells of one target, in the order of COLUMNS."""
    return [read(target) for _, read in COLUMNS]


def table_for(report: Report, columns: Sequence[str] = (), plain_box: bool = False) -> Table:
    """A rich table: one row a target; all of COLUMNS, or those named."""
    table = Table(box=ASCII2 if plain_box else SIMPLE_HEAD, pad_edge=False)
    chosen = [(name, read) for name, read in COLUMNS if not columns or name in columns]
    for name, _ in chosen:
        table.add_column(name, justify="left" if name in ("target", "file", "status") else "right", no_wrap=True)
    for target in report.targets:
        styles = [_STYLES.get(target.status, "") if name == "status" else "" for name, _ in chosen]
        table.add_row(*(Text(read(target), style) for (_, read), style in zip(chosen, styles, strict=True)))
    return table


def print_report(report: Report, file: IO[str] | None = None) -> None:
    """Print the table on ``file`` (stdout), in two parts where the terminal is narrow, and why a target failed."""
    print_on(console_for(file), report)


def print_on(console: Console, report: Report) -> None:
    """The same on a console of the caller's."""
    height, width = report.size
    console.print(f"SegFormer-{report.model.upper()} INT8, {height}x{width}, {report.output}", style="bold")
    whole = table_for(report, (), ascii_only(console))
    needed = Measurement.get(console, console.options.update(width=10 * _PIPE_WIDTH), whole).maximum
    if needed <= console.width:
        console.print(whole)
    else:
        for columns in (_ACCURACY, [name for name, _ in COLUMNS if name == "target" or name not in _ACCURACY]):
            console.print(table_for(report, columns, ascii_only(console)))
    console.print(_caption(report), soft_wrap=True)
    worst = worst_class(report)
    if worst is not None:
        console.print(Text(f"worst class: {worst.name} {worst.change:+.4f} ({worst.target})"), soft_wrap=True)
    for target in report.targets:
        if target.npu:
            console.print(Text(f"{target.target}: {target.npu.verdict()}"), soft_wrap=True)
        if target.error:
            console.print(Text(f"{target.target}: {target.error}"), soft_wrap=True)
        if target.budget and target.status != "over_budget":  # whose error is the verdict
            console.print(Text(f"{target.target}: {target.budget.verdict()}"), soft_wrap=True)


def mib(count: int | None) -> str:
    """Bytes as text: "3.71 MiB"."""
    return NOT_MEASURED if count is None else f"{count / 2**20:.2f} MiB"


def _caption(report: Report) -> str:
    reference = report.reference
    parts = [f"float32 mIoU {_number(reference.fp32_miou)}", f"INT8 reference {_number(reference.int8_reference_miou)}"]
    if reference.images is not None:
        parts.append(f"{reference.images} images of {reference.dataset}")
    if report.seconds is not None:
        parts.append(f"{report.seconds:.0f} s")
    latency = next((target.latency_ms for target in report.targets if target.latency_ms), None)
    if latency:
        parts.append(f"latency: median, {latency.threads} thread{'s' * (latency.threads > 1)}, {latency.device}")
    return " | ".join(parts)


def _number(value: float | None, digits: int = 4) -> str:
    return NOT_MEASURED if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A share as ``gates.percent`` has it, or that there is none."""
    return NOT_MEASURED if value is None else gates.percent(value)


def _drop(target: TargetReport) -> str:
    return NOT_MEASURED if target.miou_drop is None else f"{target.miou_drop:+.4f}"


def _latency(target: TargetReport) -> str:
    return NOT_MEASURED if target.latency_ms is None else f"{target.latency_ms.median:.1f} ms"


def _ops(target: TargetReport) -> str:
    ops = target.ops
    if ops is None or (ops.int8 is None and ops.float is None):
        return NOT_MEASURED
    return " / ".join(NOT_MEASURED if count is None else str(count) for count in (ops.int8, ops.float))


COLUMNS: tuple[tuple[str, Callable[[TargetReport], str]], ...] = (
    ("target", lambda target: target.target),
    ("file", lambda target: target.files[0] if target.files else NOT_MEASURED),
    ("size", lambda target: mib(target.bytes)),
    ("mIoU", lambda target: _number(target.miou)),
    ("drop", _drop),
    ("= float32", lambda target: percent(target.agreement_fp32)),
    ("= INT8 ref", lambda target: percent(target.agreement_int8)),
    ("latency", _latency),
    ("peak memory", lambda target: mib(target.memory.peak_bytes if target.memory else None)),
    ("ops int8 / float", _ops),
    ("status", lambda target: target.status),
)
_ACCURACY = ("target", "mIoU", "drop", "= float32", "= INT8 ref", "status")
