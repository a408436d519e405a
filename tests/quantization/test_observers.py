"""Observers against numpy, and what they must not lose or swallow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from quantization.observers import (
    OBSERVERS,
    HistogramObserver,
    MinMaxObserver,
    MovingAverageObserver,
    MseObserver,
    PercentileObserver,
)
from quantization.params import params_from_range

#: Shared machines stall, and every run tries the same examples.
relaxed = settings(deadline=None, derandomize=True, max_examples=60)

TENSORS = st.lists(
    arrays(np.float32, st.integers(1, 30), elements=st.floats(-1e4, 1e4, width=32)), min_size=1, max_size=5
)
EVERY = pytest.mark.parametrize("name", OBSERVERS)


def observed(observer, tensors):
    for tensor in tensors:
        observer.observe(torch.as_tensor(tensor))
    return observer


@relaxed
@given(TENSORS)
def test_min_max_is_exact(tensors):
    everything = np.concatenate(tensors)
    assert observed(MinMaxObserver(), tensors).range() == (everything.min(), everything.max())


@relaxed
@given(TENSORS, st.floats(0.01, 1.0))
def test_moving_average_follows_its_formula(tensors, momentum):
    low, high = float(tensors[0].min()), float(tensors[0].max())
    for tensor in tensors[1:]:
        low = (1 - momentum) * low + momentum * float(tensor.min())
        high = (1 - momentum) * high + momentum * float(tensor.max())
    assert observed(MovingAverageObserver(momentum), tensors).range() == pytest.approx((low, high), abs=1e-9)


@relaxed
@given(TENSORS)
def test_histogram_loses_no_count_when_its_range_doubles(tensors):
    observer = observed(HistogramObserver(), tensors)
    everything = np.concatenate(tensors)
    assert observer.counts.sum().item() == everything.size
    assert observer.limit >= np.abs(everything).max()


def test_histogram_counts_large_maps_in_pieces(monkeypatch):
    """torch.histc counts in float32."""
    monkeypatch.setattr(HistogramObserver, "PIECE", 100)
    whole, observer = torch.linspace(-1, 1, 1001), HistogramObserver()
    observer.observe(whole)
    expected = torch.histc(whole, HistogramObserver.BINS, -observer.limit, observer.limit)
    assert torch.equal(observer.counts, expected.double())


def test_histogram_keeps_old_counts_where_they_were():
    first, second = np.linspace(-1, 1, 999, dtype=np.float32), np.array([6.5], np.float32)
    observer = observed(HistogramObserver(), [first, second])
    assert observer.limit == 8.0
    inside = observer.centres().abs() < 1.0 + 8.0 / observer.BINS
    assert observer.counts[inside].sum() == 999
    assert observer.counts.sum() == 1000


@pytest.mark.parametrize("percentile", [100.0, 99.9, 99.0, 95.0])
def test_percentile_is_near_numpys(percentile):
    generator = np.random.default_rng(1)
    tensors = [generator.normal(0.3, scale, 20000).astype(np.float32) for scale in (0.5, 2.0, 1.0)]
    observer = observed(PercentileObserver(percentile), tensors)
    everything = np.concatenate(tensors)
    expected = np.percentile(everything, [100.0 - percentile, percentile])
    assert observer.range() == pytest.approx(tuple(expected), abs=2 * 2 * observer.limit / observer.BINS)


@relaxed
@given(TENSORS)
def test_the_hundredth_percentile_is_min_max(tensors):
    observer = observed(PercentileObserver(100.0), tensors)
    assert observer.range() == pytest.approx((observer.low, observer.high), abs=1e-6 * observer.limit)


@relaxed
@given(TENSORS, st.sampled_from(["int8", "int16"]))
def test_mse_range_is_never_worse_than_min_max(tensors, dtype):
    observer = observed(MseObserver(dtype), tensors)
    low, high = observer.range()
    full = min(observer.low, 0.0), max(observer.high, 0.0)
    assert full[0] <= low <= 0.0 <= high <= full[1]
    assert observer._error(low, high) <= observer._error(*full)


@relaxed
@given(TENSORS)
def test_symmetric_mse_range_is_never_worse_than_the_whole(tensors):
    observer = observed(MseObserver("int8", symmetric=True), tensors)
    low, high = observer.range()
    whole = max(-observer.low, observer.high, 0.0)
    assert low == -high and 0.0 <= high <= whole
    assert observer._error(low, high) <= observer._error(-whole, whole)


def test_mse_clips_a_far_outlier_that_min_max_keeps():
    values = torch.randn(2_000_000, generator=torch.Generator().manual_seed(0))
    values[0] = 60.0
    low, high = observed(MseObserver(), [values]).range()
    assert high < 20.0
    assert low < -3.0
    assert observed(MinMaxObserver(), [values]).range()[1] == 60.0


@EVERY
@pytest.mark.parametrize("value", [0.0, 3.7, -2.5, 1e-20])
def test_constant_tensors_give_a_range_that_represents_them(name, value):
    x = torch.full((4, 5), value)
    params = params_from_range(*observed(OBSERVERS[name](), [x, x]).range(), "int8")
    represented = (
        np.clip(round(value / params.scale) + params.zero_point, -128, 127) - params.zero_point
    ) * params.scale
    assert represented == pytest.approx(value, abs=1.01 * params.scale)


@EVERY
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_is_not_finite_is_not_swallowed(name, value, place):
    tensors = [torch.randn(10), torch.randn(10), torch.randn(10)]
    tensors[place][4] = value
    assert not np.isfinite(observed(OBSERVERS[name](), tensors).range()).all()


@EVERY
def test_an_observer_that_saw_nothing_says_so(name):
    low, high = OBSERVERS[name]().range()
    assert low > high


@EVERY
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_range_lies_within_what_was_seen(name, scale):
    x = torch.randn(3, 500, generator=torch.Generator().manual_seed(2)) * scale
    low, high = observed(OBSERVERS[name](), list(x)).range()
    assert x.min() <= low < 0 < high <= x.max()
