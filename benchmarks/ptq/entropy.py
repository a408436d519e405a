"""Entropy observer: the range that keeps most of the histogram's information (Migacz, GTC 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

from quantization.observers import HistogramObserver

LEVELS = 256


def _divergence(counts: Tensor, first: int, last: int) -> float:
    """KL of bins ``first..last``, the rest clipped into the outer two, against their LEVELS-step version."""
    kept = counts[first : last + 1]
    clipped = kept.clone()
    clipped[0] += counts[:first].sum()
    clipped[-1] += counts[last + 1 :].sum()
    level = torch.arange(kept.numel()) * LEVELS // kept.numel()
    filled = (kept > 0).double()
    sums = torch.zeros(LEVELS, dtype=torch.float64).scatter_add_(0, level, kept)
    sizes = torch.zeros(LEVELS, dtype=torch.float64).scatter_add_(0, level, filled)
    coarse = (sums / sizes.clamp_min(1.0))[level] * filled
    p, q = clipped / clipped.sum(), (coarse / coarse.sum().clamp_min(1e-12)).clamp_min(1e-12)
    some = p > 0
    return float((p[some] * (p[some] / q[some]).log()).sum())


class EntropyObserver(HistogramObserver):
    """Both ends move towards zero together, in 2 % steps of the seen range."""

    STEPS = 50

    def range(self) -> tuple[float, float]:
        if not self.usable:
            return self.low, self.high
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        width = 2.0 * self.limit / self.BINS
        tried = []
        for step in range(self.STEPS // 4, self.STEPS + 1):
            ends = low * step / self.STEPS, high * step / self.STEPS
            first, last = (min(max(int((end + self.limit) / width), 0), self.BINS - 1) for end in ends)
            if last - first >= LEVELS:
                tried.append((_divergence(self.counts, first, last), ends))
        return min(tried)[1] if tried else (low, high)
