"""LiteRT's CompiledModel with its profiler. Structures and numbers as in segformer_edge.runtime.litert_api."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_char_p, c_int, c_int32, c_size_t, c_uint64
from pathlib import Path
from typing import NamedTuple

from segformer_edge.runtime.tflite_compiled import CompiledFile

#: Where operators' times are among the events (LiteRtProfilerEventType).
KERNEL_EVENT, DELEGATED_EVENT = 2, 8


class ProfiledEvent(NamedTuple):
    """What ran, the kind of event, how long it took, and its index in the delegate's graph or in ``subgraph``."""

    tag: str
    type: int
    ms: float
    operator: int
    subgraph: int


class _ProfiledEventData(ctypes.Structure):
    """Times are in whole microseconds."""

    _fields_ = (
        ("tag", c_char_p),
        ("type", c_int32),
        ("start", c_uint64),
        ("elapsed", c_uint64),
        ("memory", c_size_t * 6),
        ("operator", c_uint64),
        ("subgraph", c_uint64),
        ("source", c_int32),
    )


class ProfiledFile(CompiledFile):
    """``path`` in a CompiledModel that records what its operators take."""

    def __init__(self, path: Path, threads: int, kernels: str) -> None:
        super().__init__(path, threads, kernels, "enable_profiling = true\n")
        self._profiler = self._api.make("CompiledModelGetProfiler", self._native["model"])

    def events(self) -> list[ProfiledEvent]:
        """What the profiler has recorded since this was last called; nothing the first time, which starts it."""
        count = c_int()
        self._api.call("GetNumProfilerEvents", self._profiler, byref(count))
        found = (_ProfiledEventData * count.value)()
        if count.value:
            self._api.call("GetProfilerEvents", self._profiler, count, found)
        # The profiler owns the tags, so they are copied before it forgets them.
        copied = [
            ProfiledEvent(e.tag.decode("utf-8", "replace"), e.type, e.elapsed / 1e3, e.operator, e.subgraph)
            for e in found
        ]
        self._api.call("ResetProfiler", self._profiler)
        self._api.call("StartProfiler", self._profiler)
        return copied
