"""OpenVINO: the CPU plugin's performance counters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segformer_edge.memory.subjects import OpenVINO
from segformer_edge.timing.operators import Event

_CONSTANTS = ("Const", "Constant")
_FLOATS = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "f64": "float64"}


class OpenVINOProfiler(OpenVINO):
    """See segformer_edge.timing.worker.Profiler."""

    def __init__(self, path: Path, threads: int, delegate: bool, profiling: bool) -> None:
        super().__init__(path, threads, "")
        if profiling:
            self.options["PERF_COUNT"] = True
        self._runs: list[Any] = []

    def collect(self) -> None:
        self._runs.append(self._request.get_profiling_info())

    def events(self) -> list[list[Event]]:
        graph = {node.get_friendly_name(): node for node in self._compiled.get_runtime_model().get_ordered_ops()}
        about = {name: _about(node) for name, node in graph.items()}
        # What was not executed was fused into others, is a view, or was done once when compiling.
        return [
            [_event(each, *about.get(each.node_name, ((), ()))) for each in run if each.status == each.EXECUTED]
            for run in self._runs
        ]


def _constant(node: Any) -> bool:
    """Whether it was computed when the model was compiled."""
    if node.get_rt_info()["layerType"].value in _CONSTANTS:
        return True
    sources = [port.get_source_output().get_node() for port in node.inputs()]
    return bool(sources) and all(map(_constant, sources))


def _about(node: Any) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Types of the activations, and the shape of the first output."""
    read = [port.get_source_output() for port in node.inputs()]
    ports = [*(port for port in read if not _constant(port.get_node())), *node.outputs()]
    names = [port.get_element_type().to_string() for port in ports]
    dtypes = tuple(_FLOATS.get(name, name.replace("i", "int").replace("u", "uint")) for name in names)
    first = next(iter(node.outputs()), None)
    fixed = first is not None and not first.get_partial_shape().is_dynamic
    return dtypes, tuple(map(int, first.get_shape())) if first is not None and fixed else ()


def _event(counter: Any, dtypes: tuple[str, ...], shape: tuple[int, ...]) -> Event:
    ms = counter.real_time.total_seconds() * 1e3
    return Event(ms, counter.node_type, counter.node_name, counter.exec_type, dtypes=dtypes, shape=shape)
