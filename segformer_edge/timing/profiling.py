"""``profile_operators``: the time of each operator of an exported file, of whatever origin."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from segformer_edge.errors import ArtifactError, UsageError
from segformer_edge.memory.graph import MemoryGraph, Operator
from segformer_edge.memory.profiling import metadata_of, read_file
from segformer_edge.progress import Progress
from segformer_edge.runtime.base import check_runs_on_cpus
from segformer_edge.runtime.formats import format_of
from segformer_edge.timing.naming import name_operators
from segformer_edge.timing.operators import Event, OperatorProfile, OperatorTime, precision_of
from segformer_edge.timing.profilers.executorch import BETWEEN
from segformer_edge.worker_process import answer_of, host_environment

_WORKER = "segformer_edge.timing.worker"
#: Formats whose profiler names operators by itself.
_NAMED = ("onnx", "openvino")
_BETWEEN_NOTE = (
    "Operators outside of delegates have no times of their own (ExecuTorch's Python package is built without its event "
    "tracer): the time between two delegate calls is given for all that run there, with the set-up of the next call."
)


def profile_operators(
    path: Path,
    *,
    threads: int = 1,
    delegate: bool = True,
    runs: int = 20,
    timeout: float = 600.0,
    tell: Progress | None = None,
) -> OperatorProfile:
    """Run ``path`` under its runtime's profiler in a process of its own, ``runs`` times after a warm-up.

    ``delegate=False`` runs a ``.tflite`` with built-in kernels alone. Inputs are random numbers. Raises UsageError for
    what cannot be asked of this format or with the runtime that is installed, ArtifactError for a file that is missing,
    damaged or refused, MeasurementError where the process ends otherwise or takes longer than ``timeout`` seconds.
    """
    tell = tell or Progress()
    form = format_of(path)
    for name, value in (("--threads", threads), ("--runs", runs)):
        if value < 1:
            raise UsageError(f"{name} is at least 1; got {value}.")
    if not delegate and form.name != "tflite":
        raise UsageError(f"--no-delegate is for .tflite files; '{path}' is {form.name}.")
    form.check(path)
    metadata = metadata_of(path, [])
    if metadata is not None:
        check_runs_on_cpus(path, metadata)
    graph, notes = None, []
    if form.name not in _NAMED:
        tell.step(f"Reading {path.name}")
        reading = read_file(path, threads=threads, delegate=delegate)
        graph, notes = reading.graph, list(reading.notes)
    tell.step(f"Timing {path.name}: {runs} inferences without the profiler, {runs} with it")
    device = f"host {platform.machine()}"
    arguments = [form.name, "delegate" if delegate else "no-delegate", str(threads), str(runs), str(path.absolute())]
    command = [sys.executable, "-m", _WORKER, *arguments]
    answer = answer_of(command, host_environment(threads), path, device, timeout)
    events = [_event(each) for each in answer["events"]]
    if graph is None:
        operators = [_as_named(event) for event in events]
    elif form.name == "executorch":
        operators = _executorch(graph, events)
        if any(op.delegate is None for op in operators):
            notes.append(_BETWEEN_NOTE)
    else:
        operators = name_operators(graph, events)
    if not operators:
        raise ArtifactError(f"'{path}': its profile has no operators.")
    return OperatorProfile(
        file=str(path),
        format=form.name,
        runtime=answer["runtime"],
        versions=answer["versions"],
        device=device,
        threads=threads,
        inference=tuple(answer["inference"]),
        rest=tuple(answer["rest"]),
        plain=tuple(answer["plain"]),
        operators=tuple(operators),
        notes=(*notes, *answer["notes"]),
    )


def _event(fields: Mapping[str, Any]) -> Event:
    lists = {name: tuple(fields[name]) for name in ("dtypes", "shape", "fused")}
    return Event(**{**fields, **lists})


def _as_named(event: Event) -> OperatorTime:
    return OperatorTime(
        event.type, event.name, event.kernel, event.delegate, precision_of(event.dtypes), event.shape, event.ms,
        event.fused, event.min_ms,
    )  # fmt: skip


def _executorch(graph: MemoryGraph, events: Sequence[Event]) -> list[OperatorTime]:
    """Delegates' operators named; between them, one entry for all that the program runs itself.

    Where the events are not those of the file's delegate calls, its operators are listed without times.
    """
    calls = [list(group) for _, group in groupby(graph.operators, lambda op: op.delegate)]
    outside: dict[int, list[Operator]] = {}
    number = 0
    for group in calls:
        if group[0].delegate is None:
            outside[number] = group
        else:
            number += 1
    gaps = [event for event in events if event.kernel == BETWEEN]
    if len(gaps) != number + 1:
        return [_together(graph, [op]) for op in graph.operators]
    named = iter(name_operators(graph, [event for event in events if event.kernel != BETWEEN]))
    found, gap = [], 0
    for event in events:
        if event.kernel != BETWEEN:
            found.append(next(named))
            continue
        if gap in outside:
            found.append(_together(graph, outside[gap], event))
        gap += 1
    return found


def _together(graph: MemoryGraph, group: Sequence[Operator], event: Event | None = None) -> OperatorTime:
    """Operators of the file as one entry, without a time unless there is an event."""
    first, last = group[0], group[-1]
    used = [graph.tensors[t] for op in group for t in (*op.inputs, *op.outputs)]
    return OperatorTime(
        " + ".join(dict.fromkeys(op.type for op in group)),
        first.name if first is last else f"{first.name} to {last.name}",
        "" if first.delegate else "ExecuTorch kernel",
        first.delegate,
        precision_of(tensor.dtype for tensor in used if tensor.kind != "constant"),
        graph.tensors[last.outputs[0]].shape if last.outputs else (),
        event.ms if event else None,
        min_ms=event.min_ms if event else None,
    )
