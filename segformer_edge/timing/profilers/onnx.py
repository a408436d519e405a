"""onnxruntime: the trace that its session writes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from segformer_edge.memory.subjects import ONNXRuntime
from segformer_edge.timing.operators import Event

_KERNEL = "_kernel_time"
_NAMES = {"float": "float32", "double": "float64"}


class ONNXProfiler(ONNXRuntime):
    """See segformer_edge.timing.worker.Profiler."""

    def __init__(self, path: Path, threads: int, delegate: bool, profiling: bool) -> None:
        super().__init__(path, threads, "")
        self._folder = TemporaryDirectory()
        if profiling:
            self.options.enable_profiling = True
            self.options.profile_file_prefix = str(Path(self._folder.name) / "trace")

    def collect(self) -> None:
        """The trace holds every run."""

    def events(self) -> list[list[Event]]:
        trace = json.loads(Path(self._session.end_profiling()).read_text())
        self._folder.cleanup()
        runs = sorted((e["ts"], e["ts"] + e["dur"]) for e in trace if e["name"] == "model_run")
        kernels = [e for e in trace if e.get("cat") == "Node" and e["name"].endswith(_KERNEL)]
        kernels.sort(key=lambda e: e["ts"])
        return [[_event(e) for e in _outermost(kernels) if start <= e["ts"] <= end] for start, end in runs]


def _outermost(kernels: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Without what runs inside a loop or a branch, whose own time holds it already."""
    end = 0
    for each in kernels:
        if each["ts"] >= end:
            end = each["ts"] + each["dur"]
            yield each


def _event(event: dict[str, Any]) -> Event:
    about = event["args"]
    given, made = about.get("input_type_shape", []), about.get("output_type_shape", [])
    # A trace does not tell weights from activations: biases and shapes are int32 and int64, zero points int8.
    dtypes = tuple(_NAMES.get(name, name) for tensor in [*given[:1], *made] for name in tensor)
    shape = next((tuple(sides) for tensor in made for sides in tensor.values()), ())
    provider = about.get("provider", "")
    return Event(
        event["dur"] / 1e3,
        about["op_name"],
        event["name"].removesuffix(_KERNEL),
        provider.removesuffix("ExecutionProvider") + " kernel" if provider else "",
        place=int(about["node_index"]),
        dtypes=dtypes,
        shape=shape,
    )
