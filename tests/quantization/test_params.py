"""Affine parameters and the arithmetic of quantize-dequantize."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from quantization.params import (
    MIN_SCALE,
    RANGES,
    ActivationParams,
    fake_quantize,
    fake_quantize_weight,
    params_from_range,
    weight_scales,
)

#: Shared machines stall, and every run tries the same examples.
relaxed = settings(deadline=None, derandomize=True, max_examples=60)

WIDTHS = st.sampled_from(list(RANGES))
ENDS = st.floats(-1e4, 1e4, width=32)
VALUES = arrays(np.float32, st.integers(1, 40), elements=st.floats(-1e3, 1e3, width=32))


def bounds(params: ActivationParams) -> tuple[float, float]:
    """Smallest and largest real number that ``params`` can represent."""
    first, last = RANGES[params.dtype]
    return (first - params.zero_point) * params.scale, (last - params.zero_point) * params.scale


@relaxed
@given(ENDS, ENDS, WIDTHS)
def test_zero_is_represented_exactly(a, b, dtype):
    params = params_from_range(min(a, b), max(a, b), dtype)
    assert fake_quantize(torch.zeros(1), params).item() == 0.0


@relaxed
@given(ENDS, ENDS, WIDTHS)
def test_range_and_zero_are_covered_within_half_a_step(a, b, dtype):
    low, high = min(a, b, 0.0), max(a, b, 0.0)
    params = params_from_range(min(a, b), max(a, b), dtype)
    first, last = bounds(params)
    half = 0.501 * params.scale
    assert first <= low + half and last >= high - half
    if dtype == "int8" and high - low > MIN_SCALE:
        assert first >= low - half and last <= high + half  # and no step is wasted


@relaxed
@given(ENDS, ENDS)
def test_int16_is_symmetric_and_int8_where_asked(a, b):
    low, high = min(a, b), max(a, b)
    assert params_from_range(low, high, "int16").zero_point == 0
    params = params_from_range(low, high, "int8", symmetric=True)
    assert params.symmetric and params.zero_point == 0
    assert 127 * params.scale == pytest.approx(max(-low, high, 0.0), rel=1e-6, abs=127 * MIN_SCALE)


@relaxed
@given(VALUES, WIDTHS)
def test_error_inside_the_range_is_half_a_step(values, dtype):
    x = torch.from_numpy(values)
    params = params_from_range(x.min().item(), x.max().item(), dtype)
    first, last = bounds(params)
    inside = (x >= first) & (x <= last)
    slack = 4e-7 * x.abs().max().item()  # float32 itself
    assert ((fake_quantize(x, params) - x).abs()[inside] <= params.scale / 2 + slack).all()


@relaxed
@given(VALUES, WIDTHS)
def test_quantizing_twice_changes_nothing(values, dtype):
    x = torch.from_numpy(values)
    params = params_from_range(x.min().item(), x.max().item(), dtype)
    once = fake_quantize(x, params)
    assert torch.equal(fake_quantize(once, params), once)


def test_values_outside_the_range_are_clipped():
    params = params_from_range(-1.0, 3.0, "int8")
    first, last = bounds(params)
    assert fake_quantize(torch.tensor([-50.0, 50.0]), params).tolist() == pytest.approx([first, last])


@pytest.mark.parametrize("value", [0.0, 1e-20])
def test_site_that_saw_one_tiny_value_still_has_a_usable_scale(value):
    params = params_from_range(value, value, "int8")
    assert params.scale > 0
    assert torch.isfinite(fake_quantize(torch.tensor([0.0, value]), params)).all()


@relaxed
@given(ENDS, ENDS, WIDTHS)
def test_scale_is_the_float32_that_runtimes_store(a, b, dtype):
    scale = params_from_range(min(a, b), max(a, b), dtype).scale
    assert float(np.float32(scale)) == scale


@pytest.mark.parametrize(
    ("dtype", "scale", "zero_point", "what"),
    [
        ("int4", 1.0, 0, "int4"),
        ("int8", 0.0, 0, "scale"),
        ("int8", -1.0, 0, "scale"),
        ("int8", float("nan"), 0, "scale"),
        ("int8", float("inf"), 0, "scale"),
        ("int8", 1e-300, 0, "scale"),
        ("int8", 10**400, 0, "scale"),
        ("int8", "1", 0, "scale"),
        ("int8", 1.0, 128, "zero_point"),
        ("int8", 1.0, 0.5, "zero_point"),
        ("int16", 1.0, -40000, "zero_point"),
    ],
)
def test_impossible_parameters_are_refused(dtype, scale, zero_point, what):
    with pytest.raises(ValueError, match=what):
        ActivationParams(dtype, scale, zero_point)


def test_a_symmetric_scheme_has_no_zero_point():
    with pytest.raises(ValueError, match=r"zero_point must be 0 .* got 3"):
        ActivationParams("int8", 1.0, 3, symmetric=True)


@relaxed
@given(arrays(np.float32, (4, 3, 2, 2), elements=st.floats(-100, 100, width=32)))
def test_weight_scales_are_per_channel_and_symmetric(values):
    weight = torch.from_numpy(values)
    scales = weight_scales(weight)
    expected = np.maximum(np.abs(values).reshape(4, -1).max(1) / np.float32(127), np.float32(MIN_SCALE))
    np.testing.assert_allclose(scales.numpy(), expected, rtol=1e-6)
    quantized = fake_quantize_weight(weight, scales)
    assert torch.equal(fake_quantize_weight(-weight, scales), -quantized)
    assert ((quantized - weight).abs() <= scales.view(-1, 1, 1, 1) * 0.500001).all()


def test_a_channel_of_zeros_keeps_its_zeros():
    weight = torch.stack([torch.zeros(3, 1, 1), torch.ones(3, 1, 1)])
    assert torch.equal(fake_quantize_weight(weight, weight_scales(weight)), weight)


def test_gradient_passes_inside_the_range_and_stops_outside():
    x = torch.tensor([-9.0, -0.4, 0.0, 0.7, 9.0], requires_grad=True)
    fake_quantize(x, params_from_range(-1.0, 1.0, "int8")).sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]


@relaxed
@given(ENDS, ENDS, WIDTHS)
def test_with_and_without_gradients_the_bits_are_the_same(a, b, dtype):
    params = params_from_range(min(a, b), max(a, b), dtype)
    first, last = RANGES[dtype]
    steps = torch.arange(first - 9, last + 9, 1 if dtype == "int8" else 131) - params.zero_point
    x = torch.cat([(steps + shift) * params.scale for shift in (0.0, 0.5, 0.31)]).float()
    trained = fake_quantize(x.clone().requires_grad_(), params)
    assert trained.requires_grad and torch.equal(fake_quantize(x, params), trained.detach())
    weight, scales = x[: x.numel() // 6 * 6].reshape(6, -1, 1, 1), torch.linspace(0.5, 2.0, 6) * params.scale
    trained = fake_quantize_weight(weight.clone().requires_grad_(), scales)
    assert trained.requires_grad and torch.equal(fake_quantize_weight(weight, scales), trained.detach())
