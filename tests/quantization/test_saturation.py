"""Widened weight scales keep every pair of products within 16 bits, and cost no more than they must."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantization.params import weight_scales
from quantization.saturation import pair_safe_scales


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 5), st.sampled_from([1, 3]))
def test_no_pair_of_neighbouring_products_leaves_int16(seed: int, inputs: int, outputs: int, kernel: int) -> None:
    weight = torch.randn(outputs, inputs, kernel, kernel, generator=torch.Generator().manual_seed(seed))
    scales = weight_scales(weight)
    safe = pair_safe_scales(weight, scales)
    integer = (weight / safe[:, None, None, None]).round().clamp(-127, 127)
    padded = torch.nn.functional.pad(integer, (0, 0, 0, 0, 0, inputs % 2))
    orders = [padded.permute(0, 2, 3, 1).flatten(1), integer.permute(0, 2, 3, 1).flatten(1), integer.flatten(1)]
    for order in orders:
        for i in range(0, order.shape[1] - 1, 2):
            for low, high in ((0.0, 255.0), (255.0, 0.0), (255.0, 255.0)):
                sums = low * order[:, i] + high * order[:, i + 1]
                assert sums.min() >= -32768 and sums.max() <= 32767


def test_scales_without_a_large_pair_stay_as_they_are() -> None:
    weight = torch.zeros(2, 4, 1, 1)
    weight[0, 0] = weight[1, 3] = 1.0
    scales = weight_scales(weight)
    assert torch.equal(pair_safe_scales(weight, scales), scales)


def test_scales_are_widened_at_most_twofold() -> None:
    weight = torch.ones(3, 8, 3, 3)
    scales = weight_scales(weight)
    assert (pair_safe_scales(weight, scales) / scales).max() <= 2.01
