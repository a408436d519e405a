"""Observers: what a site saw during calibration, and the range they make of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from quantization.params import RANGES


class Observer(Protocol):
    """Sees every calibration tensor, then answers with the range to quantize; not finite where a tensor was not."""

    def observe(self, x: Tensor) -> None: ...

    def range(self) -> tuple[float, float]: ...


def _smaller(a: float, b: float) -> float:
    """Like ``min``, but NaN if either is: ``min(0.0, nan)`` is 0.0."""
    return a if math.isnan(a) or a <= b else b


class MinMaxObserver:
    """The smallest and largest value seen: no clipping, so one outlier widens every step."""

    def __init__(self) -> None:
        self.low, self.high = float("inf"), float("-inf")

    def observe(self, x: Tensor) -> None:
        low, high = torch.aminmax(x)
        self.low, self.high = _smaller(self.low, low.item()), -_smaller(-self.high, -high.item())

    def range(self) -> tuple[float, float]:
        return self.low, self.high


class MovingAverageObserver:
    """Exponential moving average of each tensor's extremes (Jacob et al., CVPR 2018)."""

    def __init__(self, momentum: float = 0.1) -> None:
        self.momentum = momentum
        self.low: float | None = None
        self.high = 0.0

    def observe(self, x: Tensor) -> None:
        low, high = (value.item() for value in torch.aminmax(x))
        if self.low is None:
            self.low, self.high = low, high
            return
        self.low += self.momentum * (low - self.low)
        self.high += self.momentum * (high - self.high)

    def range(self) -> tuple[float, float]:
        return (float("inf") if self.low is None else self.low), self.high


class HistogramObserver(MinMaxObserver):
    """A histogram whose range grows by whole factors of two, so that old counts merge without error."""

    BINS = 2048
    #: Elements of one count: torch.histc counts in float32, exact up to here.
    PIECE = 1 << 24

    def __init__(self) -> None:
        super().__init__()
        self.limit = 0.0
        self.counts = torch.zeros(self.BINS, dtype=torch.float64)

    def observe(self, x: Tensor) -> None:
        super().observe(x)
        if not self.usable:
            return
        largest = max(abs(self.low), abs(self.high), 1e-12)
        if self.limit == 0.0:
            self.limit = largest
        while self.limit < largest:
            self._double()
        for piece in x.detach().float().flatten().split(self.PIECE):
            self.counts += torch.histc(piece, self.BINS, -self.limit, self.limit).double().cpu()

    @property
    def usable(self) -> bool:
        """Whether something was seen and all of it was finite."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def _double(self) -> None:
        half = self.counts.reshape(-1, 2).sum(1)
        self.counts = torch.zeros_like(self.counts)
        self.counts[self.BINS // 4 : self.BINS // 4 * 3] = half
        self.limit *= 2.0

    def centres(self) -> Tensor:
        width = 2.0 * self.limit / self.BINS
        return -self.limit + width * (torch.arange(self.BINS, dtype=torch.float64) + 0.5)


class PercentileObserver(HistogramObserver):
    """Clips the same share of values at both ends."""

    def __init__(self, percentile: float = 99.99) -> None:
        super().__init__()
        self.percentile = percentile

    def range(self) -> tuple[float, float]:
        if not self.usable:
            return self.low, self.high
        share = self.counts.cumsum(0) / self.counts.sum()
        tail = 1.0 - self.percentile / 100.0
        # The outer edges of the bins where the two tails end, so that 100 % is the range of min_max.
        half, centres = self.limit / self.BINS, self.centres()
        low = centres[int((share > tail).nonzero()[0])].item() - half
        high = centres[int((share >= 1.0 - tail).nonzero()[0])].item() + half
        return max(low, self.low), min(high, self.high)


class MseObserver(HistogramObserver):
    """The range whose quantization has the least mean squared error on the histogram.

    Each end is shrunk on its own by a coordinate search over 5 % steps of the seen range; where ``symmetric``, both
    together.
    """

    STEPS = 20

    def __init__(self, dtype: str = "int8", symmetric: bool = False) -> None:
        super().__init__()
        self.symmetric = symmetric
        first, last = RANGES[dtype]
        self.levels = last - first

    def _error(self, low: float, high: float) -> float:
        centres = self.centres()
        scale = max(high - low, 1e-12) / self.levels
        clipped = centres.clamp(low, high)
        # Inside the range the rounding error is uniform within a step, which bins cannot resolve: scale**2 / 12.
        error = (centres - clipped) ** 2 + scale * scale / 12.0
        return float((error * self.counts).sum())

    def range(self) -> tuple[float, float]:
        if not self.usable:
            return self.low, self.high
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        if self.symmetric:
            furthest = max(-low, high)
            tried_ends = (furthest * step / self.STEPS for step in range(1, self.STEPS + 1))
            end = min(tried_ends, key=lambda end: self._error(-end, end))
            return -end, end
        ends = [low, high]
        for _ in range(2):
            for end in (0, 1):
                full = (low, high)[end]
                tried = []
                for step in range(1, self.STEPS + 1):
                    candidate = list(ends)
                    candidate[end] = full * step / self.STEPS
                    tried.append((self._error(candidate[0], candidate[1]), candidate[end]))
                ends[end] = min(tried)[1]
        return ends[0], ends[1]


OBSERVERS: dict[str, Callable[[], Observer]] = {
    "min_max": MinMaxObserver,
    "moving_average": MovingAverageObserver,
    "percentile": PercentileObserver,
    "mse": MseObserver,
}
