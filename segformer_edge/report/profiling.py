"""Looks into a checked file for the report: the memory timeline from its graph, the time of its slowest operators.

Nothing here fails a run: what cannot be found out is a note.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segformer_edge.errors import SegformerEdgeError
from segformer_edge.memory.plot import timeline_svg
from segformer_edge.memory.profiling import MICRO, FileProfile, profile_file
from segformer_edge.memory.timeline import short_name
from segformer_edge.report.profile import MemoryTimeline, OperatorCost, OperatorTimes, TargetProfile
from segformer_edge.report.schema import TargetReport
from segformer_edge.timing.operators import OperatorProfile
from segformer_edge.timing.profiling import profile_operators
from segformer_edge.timing.table import label

#: Operators that are listed by name, and kinds of operators.
SLOWEST = 10
#: At most this many inferences with the profiler on and as many without, and about this long in all.
_RUNS, _SECONDS = 10, 4.0
#: Inferences of ``profile_operators`` that are not counted: three of each kind.
_WARM_UP = 3
#: A profiler that hangs must not hold up the report.
_TIMEOUT = 120.0


@dataclass(frozen=True)
class Looked:
    """What the report says of one file, and the timeline as inline SVG (None where it was not drawn)."""

    profile: TargetProfile
    svg: str | None = None


def look_into(report: TargetReport, folder: Path) -> Looked | None:
    """Profile the file of ``report`` in ``folder``; None where there is none, or it is not made for this machine."""
    if not report.files or report.npu is not None:
        return None
    path = folder / report.files[0]
    timeline, svg, timeline_note = _timeline(path, report.target)
    operators, operators_note = _operators(path, report)
    return Looked(TargetProfile(operators, timeline, operators_note, timeline_note), svg)


def runs_within(median_ms: float) -> int:
    """How many inferences of ``median_ms`` to time so that all takes about ``_SECONDS``; 0 where one is too long."""
    affordable = int(_SECONDS * 1e3 / (2 * max(median_ms, 1e-3))) - _WARM_UP
    return max(0, min(_RUNS, affordable))


def _timeline(path: Path, target: str) -> tuple[MemoryTimeline | None, str | None, str | None]:
    """The timeline, its chart, and a note."""
    try:
        found = profile_file(path, on=MICRO if target == "tflm" else "host", measuring=False)
        timeline = _as_timeline(found)
    except Exception as error:  # readers ask runtimes, which raise anything
        return None, None, f"No memory timeline: {_reason(error, path.parent)}"
    try:
        return timeline, timeline_svg(found, prefix=target), None
    except Exception as error:  # without matplotlib, or for a graph that it cannot draw
        return timeline, None, f"Not drawn: {_reason(error, path.parent)}"


def _as_timeline(found: FileProfile) -> MemoryTimeline:
    live = found.reading.live
    where = live.peak_operator
    return MemoryTimeline(
        live_bytes=tuple(live.live_bytes),
        peak_bytes=live.peak_bytes,
        peak_operator=None if where is None else short_name(found.reading.graph.operators[where].name),
        planned_bytes=found.planned,
        order_from=found.reading.order_from,
    )


def _operators(path: Path, report: TargetReport) -> tuple[OperatorTimes | None, str | None]:
    """The times, and a note."""
    if report.target == "tflm":
        return None, "Not timed: TFLite Micro runs here without a profiler."
    if report.latency_ms is None:
        return None, None
    runs = runs_within(report.latency_ms.median)
    if not runs:
        again = f"python -m segformer_edge.profile {path.name} --operators"
        return None, f"Not timed: an inference takes {report.latency_ms.median / 1e3:.1f} s. Run: {again}"
    try:
        found = profile_operators(path, runs=runs, timeout=_TIMEOUT)
        times = _as_times(found)
    except Exception as error:  # the file is good; only its profile is missing
        return None, f"Not timed: {_reason(error, path.parent)}"
    busy = "Other programs took the CPU meanwhile: the operators' medians add up to less than the whole."
    return times, busy if found.disturbed else None


def _as_times(found: OperatorProfile) -> OperatorTimes:
    slowest = sorted(found.operators, key=lambda op: -(op.ms or 0.0))[:SLOWEST]
    return OperatorTimes(
        runtime=found.runtime,
        device=found.device,
        threads=found.threads,
        runs=len(found.inference),
        inference_ms=found.inference_ms,
        operators=len(found.operators),
        kinds=tuple(
            OperatorCost(t.type, "", t.kernel, t.delegated, t.precision, t.ms, found.share(t.ms), t.count)
            for t in found.totals()[:SLOWEST]
        ),
        slowest=tuple(
            OperatorCost(
                op.type, label(op), op.kernel, op.delegate is not None, op.precision, op.ms, found.share(op.ms)
            )
            for op in slowest
        ),
        outside_ms=found.unattributed_ms,
    )


def _reason(error: Exception, folder: Path) -> str:
    """What happened and what to try; without the ``folder`` it was built in, which is gone by the time this is read."""
    if isinstance(error, SegformerEdgeError):
        text = f"{error.args[0]} {error.hint}".strip()
    else:
        text = f"{type(error).__name__}: {error}".splitlines()[0]
    return text.replace(f"{folder}/", "")
