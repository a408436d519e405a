"""How long inferences and frames take: one way of timing for every runtime, for torch and for the apps."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class FrameTimes:
    """Milliseconds of a frame's parts: image to network input, the network, its output to a full-size label map."""

    preprocess_ms: float
    inference_ms: float
    postprocess_ms: float

    @property
    def total_ms(self) -> float:
        """The three parts together."""
        return self.preprocess_ms + self.inference_ms + self.postprocess_ms

    @property
    def postprocess_share(self) -> float:
        """Share of the total that postprocessing takes, 0 to 1."""
        return self.postprocess_ms / self.total_ms

    @classmethod
    def median(cls, frames: Sequence[FrameTimes]) -> FrameTimes:
        """Each part's median over ``frames``, of which there is at least one."""
        return cls(*(statistics.median(getattr(frame, part.name) for frame in frames) for part in fields(cls)))


class Stopwatch:
    """Starts when it is made."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap_ms(self) -> float:
        """Milliseconds since the last lap ended, or since the start."""
        before, self._last = self._last, time.perf_counter()
        return (self._last - before) * 1e3


def grey_image(size: tuple[int, int]) -> np.ndarray:
    """A uint8 RGB image (H, W, 3) to time with: what a picture shows does not change a network's time."""
    return np.full((*size, 3), 128, dtype=np.uint8)


def measure_latency(
    infer: Callable[[np.ndarray], np.ndarray], batch: np.ndarray, runs: int, warm_up: int
) -> list[float]:
    """Milliseconds of each of ``runs`` calls of ``infer(batch)``, after ``warm_up`` more that are not counted."""
    taken = []
    for _ in range(warm_up + runs):
        watch = Stopwatch()
        infer(batch)
        taken.append(watch.lap_ms())
    return taken[warm_up:]


def measure_frames(
    segment: Callable[[np.ndarray], tuple[np.ndarray, FrameTimes]], frame: np.ndarray, runs: int, warm_up: int
) -> list[FrameTimes]:
    """Times of each of ``runs`` calls of ``segment(frame)``, such as Segmenter.timed, after ``warm_up`` more."""
    return [segment(frame)[1] for _ in range(warm_up + runs)][warm_up:]
