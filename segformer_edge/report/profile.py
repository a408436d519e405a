"""Where a file spends its time and its memory: the part of ``report.json`` that the report draws. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from segformer_edge.jsonfile import Fields

#: What an operator computes in, as in segformer_edge.timing.operators; null where it is not known.
PRECISIONS = ("int8", "integer", "float", "mixed")


@dataclass(frozen=True)
class OperatorCost:
    """One operator, or all ``count`` of a kind (no ``name``). ``ms`` is the median over the runs, ``share`` its part of
    the inference; None where the profiler does not resolve it.
    """

    type: str
    name: str
    kernel: str
    delegated: bool
    precision: str | None
    ms: float | None
    share: float | None
    count: int = 1


@dataclass(frozen=True)
class OperatorTimes:
    """The operators of one file that take longest, by its runtime's own profiler: by kind, and one by one.

    ``inference_ms`` is the median with the profiler on. ``operators`` counts all of them, ``outside_ms`` is what is in
    none: copies of input and output, the runtime between operators.
    """

    runtime: str
    device: str
    threads: int
    runs: int
    inference_ms: float
    operators: int
    kinds: tuple[OperatorCost, ...]
    slowest: tuple[OperatorCost, ...]
    outside_ms: float


@dataclass(frozen=True)
class MemoryTimeline:
    """Bytes that must be live at each operator, in the order of execution: estimated from the file's graph.

    ``peak_operator`` names where they are most; ``planned_bytes`` is what the runtime plans for them, None where it
    does not say.
    """

    live_bytes: tuple[int, ...]
    peak_bytes: int
    peak_operator: str | None
    planned_bytes: int | None
    order_from: str


@dataclass(frozen=True)
class TargetProfile:
    """Both of one target; None where there is none. The notes are sentences: why not, or what to keep in mind."""

    operators: OperatorTimes | None
    timeline: MemoryTimeline | None
    operators_note: str | None = None
    timeline_note: str | None = None


def read_profile(f: Fields) -> TargetProfile:
    """From a report. Raises the reader's own error naming the field."""
    return TargetProfile(
        operators=_operators(f.section("operators")) if f.raw("operators") is not None else None,
        timeline=_timeline(f.section("timeline")) if f.raw("timeline") is not None else None,
        operators_note=f.optional("operators_note", f.text),
        timeline_note=f.optional("timeline_note", f.text),
    )


def _operators(f: Fields) -> OperatorTimes:
    return OperatorTimes(
        runtime=f.text("runtime"),
        device=f.text("device"),
        threads=f.integer("threads", minimum=1),
        runs=f.integer("runs", minimum=1),
        inference_ms=f.number("inference_ms"),
        operators=f.integer("operators", minimum=1),
        kinds=tuple(_operator(entry) for entry in f.sections("kinds")),
        slowest=tuple(_operator(entry) for entry in f.sections("slowest")),
        outside_ms=f.number("outside_ms"),
    )


def _operator(f: Fields) -> OperatorCost:
    delegated = f.raw("delegated")
    if not isinstance(delegated, bool):
        f.fail("delegated", "is neither true nor false")
    return OperatorCost(
        type=f.text("type"),
        name=f.text("name"),
        kernel=f.text("kernel"),
        delegated=delegated,
        precision=f.text("precision", PRECISIONS) if f.raw("precision") is not None else None,
        ms=f.optional("ms", f.number),
        share=f.optional("share", f.number),
        count=f.integer("count", minimum=1),
    )


def _timeline(f: Fields) -> MemoryTimeline:
    return MemoryTimeline(
        live_bytes=f.integers("live_bytes"),
        peak_bytes=f.integer("peak_bytes", minimum=0),
        peak_operator=f.optional("peak_operator", f.text),
        planned_bytes=None if f.raw("planned_bytes") is None else f.integer("planned_bytes", minimum=0),
        order_from=f.text("order_from"),
    )
