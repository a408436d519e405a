"""OpenVINO: the CPU plugin's performance counters."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from segformer_edge.memory.readers.openvino import CONSTANTS, DTYPES
from segformer_edge.memory.subjects import OpenVINO
from segformer_edge.timing.operators import Event

#: Inferences with one compiled file, the first of them for warming up.
_INFERENCES, _WARM_UP = 8, 2


class OpenVINOProfiler(OpenVINO):
    """See segformer_edge.timing.worker.Profiler.

    A counter is the average of all inferences since the file was compiled, in whole microseconds
    (Graph::GetPerfData in OpenVINO's src/plugins/intel_cpu/src/graph.cpp). One inference is therefore the difference of
    two sums, which is off by up to a microsecond for each inference before it: after a few, the file is compiled anew.
    """

    def __init__(self, path: Path, threads: int, delegate: bool, profiling: bool) -> None:
        super().__init__(path, threads, "")
        if profiling:
            self.options["PERF_COUNT"] = True
        self._runs: list[list[tuple[Any, float]]] = []
        self._executed: set[int] = set()

    def load(self) -> None:
        super().load()
        self._count = 0
        self._sums: dict[int, int] = {}

    def run(self, prepared: Any) -> None:
        super().run(prepared)
        self._count, self._prepared = self._count + 1, prepared

    def collect(self) -> None:
        self._runs.append(self._counted())
        if self._count == _INFERENCES:
            self.load()
            self.allocate()
            for _ in range(_WARM_UP):
                self.run(self._prepared)
            self._counted()

    def events(self) -> list[list[Event]]:
        nodes = self._compiled.get_runtime_model().get_ordered_ops()
        about = {node.get_friendly_name(): _about(node) for node in nodes}
        # The rest was fused into others, is a view, or was done once when compiling.
        executed = sorted(self._executed)
        # Some names are numbered anew each time that the file is compiled.
        names = [counter.node_name for counter in self._counters]
        return [
            [_event(*run[place], names[place], about.get(names[place], {})) for place in executed] for run in self._runs
        ]

    def _counted(self) -> list[tuple[Any, float]]:
        """Each counter and its milliseconds since this was last called."""
        self._counters = self._request.get_profiling_info()
        found = []
        for place, counter in enumerate(self._counters):
            microseconds = counter.real_time // timedelta(microseconds=1) * self._count
            found.append((counter, max(0, microseconds - self._sums.get(place, 0)) / 1e3))
            self._sums[place] = microseconds
            if counter.status == counter.EXECUTED:
                self._executed.add(place)
        return found


def _constant(node: Any) -> bool:
    """Whether it was computed when the model was compiled."""
    if node.get_rt_info()["layerType"].value in CONSTANTS:
        return True
    sources = [port.get_source_output().get_node() for port in node.inputs()]
    return bool(sources) and all(map(_constant, sources))


def _about(node: Any) -> dict[str, Any]:
    """Of a node of the compiled graph, the fields of an event that its counter lacks."""
    read = [port.get_source_output() for port in node.inputs()]
    ports = [*(port for port in read if not _constant(port.get_node())), *node.outputs()]
    names = [port.get_element_type().to_string() for port in ports]
    first = next(iter(node.outputs()), None)
    fixed = first is not None and not first.get_partial_shape().is_dynamic
    return {
        "dtypes": tuple(DTYPES.get(name, name) for name in names),
        "shape": tuple(map(int, first.get_shape())) if first is not None and fixed else (),
        "fused": tuple(filter(None, node.get_rt_info()["originalLayersNames"].value.split(","))),
    }


def _event(counter: Any, ms: float, name: str, about: dict[str, Any]) -> Event:
    return Event(ms, counter.node_type, name, counter.exec_type, **about)
