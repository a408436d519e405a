"""LiteRT: the CompiledModel of its C API, as our own runtime sets it up, with its profiler."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segformer_edge.errors import ArtifactError, UsageError
from segformer_edge.memory.subjects import Inputs
from segformer_edge.runtime.base import backend
from segformer_edge.runtime.litert_api import VERSION, open_api
from segformer_edge.runtime.tflite_compiled import KERNELS, CompiledFile
from segformer_edge.timing.litert_profiler import DELEGATED_EVENT, KERNEL_EVENT, ProfiledFile
from segformer_edge.timing.operators import Event


class LiteRTProfiler:
    """See segformer_edge.timing.worker.Profiler. ``delegate`` False: built-in kernels alone."""

    def __init__(self, path: Path, threads: int, delegate: bool, profiling: bool) -> None:
        backend(["ai_edge_litert"], "runtime-tflite")
        try:
            open_api()
        except ImportError as error:
            raise UsageError(
                f"Operators of .tflite files are not timed here. {error}",
                hint=f"pip install ai-edge-litert=={VERSION}",
            ) from error
        self.versions = {"ai-edge-litert": VERSION}
        self.runtime = "LiteRT CompiledModel, " + ("XNNPACK" if delegate else "no delegate")
        self._kernels = KERNELS if delegate else 'kernel_mode = "builtin"\n'
        self._path, self._threads, self._profiling = path, threads, profiling
        self._runs: list[list[Event]] = []

    def load(self) -> None:
        kind = ProfiledFile if self._profiling else CompiledFile
        self._model: Any = kind(self._path, self._threads, self._kernels)

    def allocate(self) -> None:
        self._model.allocate()
        if self._profiling:
            self._model.events()

    def inputs(self) -> Inputs:
        found = []
        for place, info in enumerate(self._model.inputs):
            if any(side < 1 for side in info.shape):
                raise ArtifactError(f"Its input {place} has no fixed shape: {list(info.shape)}.")
            found.append((f"input {place}", *info))
        return tuple(found)

    def prepare(self, arrays: Sequence[np.ndarray]) -> Any:
        return arrays

    def run(self, prepared: Any) -> None:
        for place, array in enumerate(prepared):
            self._model.write(place, array)
        self._model.run()

    def collect(self) -> None:
        found, delegate = [], -1
        for event in self._model.events():
            # The time of a loop or a branch holds that of the graph it runs.
            if event.type == KERNEL_EVENT and event.subgraph == 0:
                found.append(Event(event.ms, event.tag, kernel="LiteRT kernel", place=event.operator))
            elif event.type == DELEGATED_EVENT:
                delegate += event.operator == 0  # each call counts its operators from 0
                found.append(Event(event.ms, kernel=event.tag, delegate=f"XNNPACK {delegate}"))
        self._runs.append(found)

    def events(self) -> list[list[Event]]:
        return self._runs
