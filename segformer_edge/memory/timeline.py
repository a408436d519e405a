"""A profile as data: the timeline, its peak, and the JSON of ``python -m segformer_edge.profile --json``.

::

    schema_version  1
    file, format, file_bytes, on ("host" or a CPU), threads, delegate, compiled
    metadata        null without a sidecar, else model, target, size, output, recipe, weights
    versions        what was asked about the file
    graph           operators, integer, float, delegated: counts; types: {type: count}; order_from; constant_bytes
    timeline        one entry an operator, in the order of execution: name, type, dtype, delegate (or null), live_bytes,
                    scratch_bytes, kept_bytes (indirection buffers), reads and writes (indices into tensors)
    tensors         name, shape, dtype, bytes, kind, area, alias_of (index or null), first and last operator (or null)
    peak            null without operators, else operator (index), name, type, bytes, tensors (indices, largest first),
                    scratch_bytes
    lower_bound_bytes  the peak: the least that this order of operators can do with
    greedy_bytes    what a planner that fits the largest first makes of all tensors together
    plans           what, bytes (or null), weights_bytes, source, in_use, parts
    outside_plan    estimates of what a delegate takes outside the plan: {what: bytes}
    measured        null, else the fields of segformer_edge.memory.measurement.Measurement
    gap             null, else planned_bytes, measured_bytes (activations and indirection at the peak of a run), bytes,
                    explained, unexplained_bytes
    notes           what is not known, and why

All sizes are bytes. What is not known is null.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from segformer_edge.memory.graph import MemoryGraph
from segformer_edge.memory.liveness import greedy_by_size
from segformer_edge.memory.profiling import FileProfile

SCHEMA_VERSION = 1
_INTEGERS = ("int2", "int4", "uint4", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool")
#: Between number formats: neither integer nor float arithmetic.
CONVERSIONS = ("QUANTIZE", "DEQUANTIZE", "QuantizeLinear", "DequantizeLinear", "Convert", "Reorder")


@dataclass(frozen=True)
class Counts:
    """Operators of a graph by what they compute in; conversions are in ``total`` and ``delegated`` alone."""

    total: int
    integer: int
    float: int
    delegated: int
    types: dict[str, int]


def count_operators(graph: MemoryGraph) -> Counts:
    """How many operators of each type, width and executor."""
    computing = [op for op in graph.operators if op.type not in CONVERSIONS]
    integer = sum(op.dtype in _INTEGERS for op in computing)
    delegated = sum(op.delegate is not None for op in graph.operators)
    types = Counter(op.type for op in graph.operators)
    return Counts(len(graph.operators), integer, len(computing) - integer, delegated, dict(types.most_common()))


def short_name(name: str, width: int = 48) -> str:
    """The last part of a name that converters have strung together from modules, at most ``width`` characters."""
    part = next((part for part in name.split(";") if part), name).rstrip("/").rsplit("/", 1)[-1]
    return part if len(part) <= width else "..." + part[-(width - 3) :]


def to_json(profile: FileProfile) -> dict[str, Any]:
    """The profile as the module's docstring describes it."""
    reading, graph, live = profile.reading, profile.reading.graph, profile.reading.live
    spans = {block.tensor: (block.first, block.last) for block in live.blocks if block.tensor >= 0}
    counts = count_operators(graph)
    return {
        "schema_version": SCHEMA_VERSION,
        "file": str(profile.path),
        "format": profile.format,
        "file_bytes": profile.file_bytes,
        "on": profile.on,
        "threads": profile.threads,
        "delegate": profile.delegate,
        "compiled": profile.compiled,
        "metadata": _about(profile),
        "versions": dict(reading.versions),
        "graph": {
            "operators": counts.total,
            "integer": counts.integer,
            "float": counts.float,
            "delegated": counts.delegated,
            "types": counts.types,
            "order_from": reading.order_from,
            "constant_bytes": graph.constant_bytes,
        },
        "timeline": [
            {
                "name": op.name,
                "type": op.type,
                "dtype": op.dtype,
                "delegate": op.delegate,
                "live_bytes": count,
                "scratch_bytes": op.scratch,
                "kept_bytes": op.kept,
                "reads": list(op.inputs),
                "writes": list(op.outputs),
            }
            for op, count in zip(graph.operators, live.live_bytes, strict=True)
        ],
        "tensors": [
            {
                **asdict(tensor),
                "shape": list(tensor.shape),
                "first": spans[i][0] if i in spans else None,
                "last": spans[i][1] if i in spans else None,
            }
            for i, tensor in enumerate(graph.tensors)
        ],
        "peak": _peak(profile),
        "lower_bound_bytes": live.peak_bytes,
        "greedy_bytes": greedy_by_size(live.blocks),
        "plans": [
            {
                "what": plan.what,
                "bytes": plan.bytes,
                "weights_bytes": plan.weights,
                "source": plan.source,
                "in_use": plan.in_use,
                "parts": dict(plan.parts),
            }
            for plan in reading.plans
        ],
        "outside_plan": profile.outside_plan,
        "measured": None if profile.measured is None else asdict(profile.measured),
        "gap": _gap(profile),
        "notes": list(profile.notes),
    }


def _about(profile: FileProfile) -> dict[str, Any] | None:
    about = profile.metadata
    if about is None:
        return None
    return {
        "model": about.model,
        "target": about.target,
        "size": list(about.size),
        "output": about.output.kind,
        "recipe": about.recipe,
        "weights": about.weights.source,
    }


def _peak(profile: FileProfile) -> dict[str, Any] | None:
    graph, live = profile.reading.graph, profile.reading.live
    where = live.peak_operator
    if where is None:
        return None
    return {
        "operator": where,
        "name": graph.operators[where].name,
        "type": graph.operators[where].type,
        "bytes": live.peak_bytes,
        "tensors": [block.tensor for block in live.live_at(where) if block.tensor >= 0],
        "scratch_bytes": graph.operators[where].scratch,
    }


def _gap(profile: FileProfile) -> dict[str, Any] | None:
    gap = profile.gap
    if gap is None:
        return None
    return {
        "planned_bytes": gap.planned,
        "measured_bytes": gap.measured,
        "bytes": gap.bytes,
        "explained": dict(gap.outside),
        "unexplained_bytes": gap.unexplained,
    }
