"""How fast it goes: frames a second and percentiles of latency, in memory that does not grow."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

import numpy as np

from segformer_edge.camera.device import Throttling
from segformer_edge.runtime.latency import FrameTimes

#: Percentiles are those of so many latest frames.
LATEST = 4096
#: Seconds over which frames a second are counted.
_WINDOW = 5.0


@dataclass(frozen=True)
class Percentiles:
    """Milliseconds of a frame from picture to label map; None before the first frame."""

    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True)
class Status:
    """What the window, the page and the summary show. ``temperature`` in degrees Celsius, None off a Pi."""

    frames: int
    dropped: int
    corrupt: int
    fps: float
    latency_ms: Percentiles
    memory_bytes: int | None
    temperature: float | None
    throttling: Throttling | None


class Statistics:
    """One thread adds, any thread asks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parts = np.zeros((LATEST, 3), np.float32)
        self._times: deque[float] = deque(maxlen=1000)
        self.frames = 0

    def add(self, times: FrameTimes) -> None:
        """One more frame was segmented."""
        with self._lock:
            self._parts[self.frames % LATEST] = (times.preprocess_ms, times.inference_ms, times.postprocess_ms)
            self.frames += 1
            self._times.append(time.monotonic())

    def fps(self) -> float:
        """Segmented frames a second in the last five seconds."""
        now = time.monotonic()
        with self._lock:
            recent = [when for when in self._times if now - when <= _WINDOW]
        if len(recent) < 2:
            return 0.0
        # While frames come, the gap since the last one says nothing; when they stop, it does.
        span = max(recent[-1] - recent[0], 1e-6)
        return (len(recent) - 1) / (span if now - recent[-1] < 2 * span / (len(recent) - 1) else now - recent[0])

    def latency(self) -> Percentiles:
        """Of the whole frame."""
        with self._lock:
            total = self._parts[: min(self.frames, LATEST)].sum(axis=1)
        if not len(total):
            return Percentiles(None, None, None)
        return Percentiles(*(float(value) for value in np.percentile(total, (50, 95, 99))))

    def median_parts(self) -> FrameTimes | None:
        """The median of each part, None before the first frame."""
        with self._lock:
            parts = self._parts[: min(self.frames, LATEST)].copy()
        return FrameTimes(*(float(value) for value in np.median(parts, axis=0))) if len(parts) else None
