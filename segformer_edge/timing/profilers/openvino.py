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
        self._runs: list[list[Event]] = []
        self._graph: dict[str, Any] = {}

    def collect(self) -> None:
        if not self._graph:
            self._graph = {
                node.get_friendly_name(): node for node in self._compiled.get_runtime_model().get_ordered_ops()
            }
        self._runs.append([
            _event(counter, self._graph.get(counter.node_name))
            for counter in self._request.get_profiling_info()
            # The rest was fused into others, is a view, or was done once when compiling.
            if str(counter.status).endswith("EXECUTED")
        ])  # fmt: skip

    def events(self) -> list[list[Event]]:
        return self._runs


def _event(counter: Any, node: Any) -> Event:
    dtypes: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    if node is not None:
        read = [port.get_source_output() for port in node.inputs()]
        activations = [port for port in read if port.get_node().get_rt_info()["layerType"].value not in _CONSTANTS]
        ports = [*activations, *node.outputs()]
        names = [port.get_element_type().to_string() for port in ports]
        dtypes = tuple(_FLOATS.get(name, name.replace("i", "int").replace("u", "uint")) for name in names)
        first = next(iter(node.outputs()), None)
        if first is not None and not first.get_partial_shape().is_dynamic:
            shape = tuple(map(int, first.get_shape()))
    return Event(
        counter.real_time.total_seconds() * 1e3,
        counter.node_type,
        counter.node_name,
        counter.exec_type,
        dtypes=dtypes,
        shape=shape,
    )
