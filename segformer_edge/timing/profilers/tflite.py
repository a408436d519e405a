"""LiteRT: the CompiledModel of its C API, as our own runtime sets it up, with its profiler."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segformer_edge.errors import ArtifactError
from segformer_edge.memory.subjects import Inputs
from segformer_edge.runtime.base import backend
from segformer_edge.runtime.tflite_compiled import XNNPACK_FLAGS
from segformer_edge.timing.litert_api import (
    DELEGATED_EVENT,
    ELEMENT_TYPES,
    KERNEL_EVENT,
    VERSION,
    ProfiledModel,
    open_api,
)
from segformer_edge.timing.operators import Event


class LiteRTProfiler:
    """See segformer_edge.timing.worker.Profiler. ``delegate`` False: built-in kernels alone."""

    def __init__(self, path: Path, threads: int, delegate: bool, profiling: bool) -> None:
        backend(["ai_edge_litert"], "runtime-tflite")
        open_api()
        self.versions = {"ai-edge-litert": VERSION}
        self.runtime = "LiteRT CompiledModel, " + ("XNNPACK" if delegate else "no delegate")
        kernels = f"flags = {XNNPACK_FLAGS}\n" if delegate else 'kernel_mode = "builtin"\n'
        self._options = f"num_threads = {threads}\n{kernels}"
        self._path, self._profiling = path, profiling
        self._runs: list[list[Event]] = []

    def load(self) -> None:
        self._model = ProfiledModel(self._path, self._options, self._profiling)

    def allocate(self) -> None:
        self._model.allocate()
        if self._profiling:
            self._model.events()

    def inputs(self) -> Inputs:
        found = []
        for place, kind in enumerate(self._model.inputs):
            if any(side < 1 for side in kind.shape):
                raise ArtifactError(f"Its input {place} has no fixed shape: {list(kind.shape)}.")
            found.append((f"input {place}", ELEMENT_TYPES.get(kind.element, f"type {kind.element}"), kind.shape))
        return tuple(found)

    def prepare(self, arrays: Sequence[np.ndarray]) -> Any:
        return [array.tobytes() for array in arrays]

    def run(self, prepared: Any) -> None:
        for place, data in enumerate(prepared):
            self._model.write(place, data)
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
