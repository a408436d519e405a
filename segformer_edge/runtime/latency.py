"""How long an inference takes: one way of timing for every runtime and for torch."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np


def grey_image(size: tuple[int, int]) -> np.ndarray:
    """A uint8 RGB image (H, W, 3) to time with: what a picture shows does not change the time."""
    return np.full((*size, 3), 128, dtype=np.uint8)


def measure_latency(
    infer: Callable[[np.ndarray], np.ndarray], batch: np.ndarray, runs: int, warm_up: int
) -> list[float]:
    """Milliseconds of each of ``runs`` calls of ``infer(batch)``, after ``warm_up`` more that are not counted."""
    taken = []
    for _ in range(warm_up + runs):
        start = time.perf_counter()
        infer(batch)
        taken.append((time.perf_counter() - start) * 1e3)
    return taken[warm_up:]
