"""What ``segformer_edge.timing`` measures: plain numbers, ready for JSON with ``dataclasses.asdict``. No runtime."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from segformer_edge.memory.graph import BITS

#: What an operator computes in. "mixed" reads one and writes the other, as conversions do.
INT8, INTEGER, FLOAT, MIXED = "int8", "integer", "float", "mixed"


@dataclass(frozen=True)
class Event:
    """One operator in one inference, as a profiler reports it.

    ``type`` and ``name`` are the runtime's words for the operator, "" where it has none; ``kernel`` says what ran it.
    ``delegate`` numbers the delegate call that it is a part of, ``place`` is its index in the file where the profiler
    gives it. ``dtypes`` are those of the activations it reads and writes, ``shape`` is that of its first output.
    ``fused`` names the file's operators that it does, where the runtime says so.
    """

    ms: float | None
    type: str = ""
    name: str = ""
    kernel: str = ""
    delegate: str | None = None
    place: int | None = None
    dtypes: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    fused: tuple[str, ...] = ()
    #: The shortest of several inferences, once they are put together.
    min_ms: float | None = None


@dataclass(frozen=True)
class OperatorTime:
    """One operator. ``ms`` is the median over the runs and ``min_ms`` the shortest, None where they are not resolved.

    ``precision`` is one of INT8, INTEGER, FLOAT and MIXED, or None where it is not known. The rest as in Event.
    """

    type: str
    name: str
    kernel: str
    delegate: str | None
    precision: str | None
    shape: tuple[int, ...]
    ms: float | None
    fused: tuple[str, ...] = ()
    min_ms: float | None = None


@dataclass(frozen=True)
class Total:
    """All operators of one type, kernel and precision. ``ms`` is None where none of them has a time."""

    type: str
    kernel: str
    delegated: bool
    precision: str | None
    count: int
    ms: float | None
    min_ms: float | None


@dataclass(frozen=True)
class OperatorProfile:
    """The operators of one file in the order of execution, and the inferences they were timed in, in milliseconds.

    ``inference`` are the timed runs with the profiler on, ``rest`` what of each is in no operator, and ``plain`` as
    many runs without the profiler.
    """

    file: str
    format: str
    runtime: str
    versions: dict[str, str]
    device: str
    threads: int
    inference: tuple[float, ...]
    rest: tuple[float, ...]
    plain: tuple[float, ...]
    operators: tuple[OperatorTime, ...]
    notes: tuple[str, ...]

    @property
    def inference_ms(self) -> float:
        """Median with the profiler on."""
        return median(self.inference)

    @property
    def plain_ms(self) -> float:
        """Median without the profiler."""
        return median(self.plain)

    @property
    def attributed_ms(self) -> float:
        """The sum over the operators."""
        return known_sum(op.ms for op in self.operators) or 0.0

    @property
    def unattributed_ms(self) -> float:
        """Median of the rest: copies of input and output, the runtime between operators, the profiler itself."""
        return median(self.rest)

    @property
    def disturbed(self) -> bool:
        """Whether the parts fall short of the whole by a tenth: then other programs took the CPU now and again."""
        return self.attributed_ms + self.unattributed_ms < 0.9 * self.inference_ms

    def share(self, ms: float | None) -> float | None:
        """``ms`` as a fraction of the inference's parts: medians are less disturbed one by one than their sum is."""
        whole = self.attributed_ms + self.unattributed_ms
        return None if ms is None or whole <= 0 else ms / whole

    def totals(self) -> list[Total]:
        """Per type, kernel and precision, the longest first."""
        groups: dict[tuple[str, str, bool, str | None], list[OperatorTime]] = {}
        for op in self.operators:
            key = (op.type, op.kernel, op.delegate is not None, op.precision)
            groups.setdefault(key, []).append(op)
        found = [
            Total(*key, len(own), known_sum(op.ms for op in own), known_sum(op.min_ms for op in own))
            for key, own in groups.items()
        ]
        return sorted(found, key=lambda total: -(total.ms or 0))


def precision_of(dtypes: Iterable[str]) -> str | None:
    """The precision of an operator whose activations have ``dtypes`` (numpy's names)."""
    kinds = {
        FLOAT if "float" in dtype else INT8 if BITS.get(dtype, 32) <= 8 and dtype != "bool" else INTEGER
        for dtype in dtypes
    }
    if FLOAT in kinds:
        return MIXED if INT8 in kinds else FLOAT
    return INT8 if INT8 in kinds else INTEGER if kinds else None


def known_sum(times: Iterable[float | None]) -> float | None:
    """The sum of what is known; None where nothing is."""
    known = [ms for ms in times if ms is not None]
    return sum(known) if known else None


def attributed(run: Sequence[Event]) -> float:
    """Milliseconds of one inference that are in its events."""
    return known_sum(event.ms for event in run) or 0.0


def medians(runs: Sequence[Sequence[Event]]) -> list[Event] | None:
    """The events of one inference with their medians over ``runs``; None where the runs differ in more than time."""

    def what(event: Event) -> tuple[object, ...]:
        return event.type, event.name, event.kernel, event.delegate, event.place

    first = runs[0]
    if any(list(map(what, run)) != list(map(what, first)) for run in runs):
        return None
    found = []
    for same in zip(*runs, strict=True):
        known = [event.ms for event in same if event.ms is not None]
        if known:
            found.append(replace(same[0], ms=median(known), min_ms=min(known)))
        else:
            found.append(same[0])
    return found
