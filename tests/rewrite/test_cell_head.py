"""The head by cells gives the numbers of the head that resizes and adds."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from quantization.calibration import calibrate
from quantization.params import ActivationParams, params_covering
from quantization.recipe import load_recipe
from quantization.sites import Mode, set_mode
from segformer_edge.rewrite.cell_head import CellHead, interpolation, sources
from segformer_edge.rewrite.graph import EdgeSegFormer
from segformer_edge.rewrite.head import Head
from segformer_edge.rewrite.tiling import Tiling

SCALES = st.sampled_from([(2, 4, 8), (8,), (2, 4), (1, 2)])


@given(SCALES)
def test_weights_are_exact_as_int8(scales):
    weights = interpolation(scales)
    assert weights.shape == (scales[-1] ** 2, sum((scales[-1] // scale + 2) ** 2 for scale in scales))
    steps = weights * 256
    np.testing.assert_array_equal(steps, steps.round())
    assert weights.min() >= 0 and (1 in scales or steps.max() <= 255)
    np.testing.assert_array_equal(weights.sum(axis=1), len(scales))


@given(st.sampled_from([(2, 4, 8), (8,), (2, 4)]))
def test_two_neighbouring_weights_leave_room_for_seven_bits(scales):
    """Kernels without VNNI add two products in 16 bits: 256 * 127 fits."""
    weights = interpolation(scales)
    even = weights[:, : weights.shape[1] // 2 * 2]
    assert (even[:, 0::2] + even[:, 1::2]).max() <= 1


@settings(max_examples=30, deadline=None)
@given(SCALES, st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_the_product_is_the_sum_of_the_upsampled_maps(scales, down, across, channels):
    cell = scales[-1]
    generator = torch.Generator().manual_seed(down * 10 + across)
    maps = [
        torch.randn(1, channels, down * cell // s, across * cell // s, generator=generator, dtype=torch.float64)
        for s in scales
    ]
    wanted = sum(
        F.interpolate(x, size=(down * cell, across * cell), mode="bilinear", align_corners=False) for x in maps
    )
    pixels = torch.cat([x.permute(0, 2, 3, 1).flatten(1, 2) for x in maps], dim=1)[0]
    near = pixels[torch.as_tensor(sources(scales, down, across))]
    made = torch.as_tensor(interpolation(scales)) @ near
    made = made.reshape(down, across, cell, cell, channels).permute(4, 0, 2, 1, 3).reshape(wanted.shape)
    torch.testing.assert_close(made, wanted, rtol=0, atol=1e-13)


@pytest.mark.parametrize("output", ["logits", "labels"])
@pytest.mark.parametrize("cells", [1, 3, 99])
def test_a_network_in_float_gives_the_same(build, image, output, cells):
    model, x = build("b0", depths=(1, 1, 1, 1)), image(96, 64, batch=2)
    network = EdgeSegFormer(model, output).tile(Tiling(head_cells=cells))
    assert isinstance(network.decode_head, CellHead)
    with torch.no_grad():
        wanted, got = EdgeSegFormer(model, output)(x), network(x)
    if output == "labels":
        assert (wanted == got).float().mean() >= 0.999
    else:
        assert (wanted - got).abs().max() <= 1e-12 * wanted.abs().max()


@pytest.fixture(scope="module")
def mixed(build, image):
    network = EdgeSegFormer(build("b0", torch.float32, depths=(1, 1, 1, 1)))
    calibrate(network, [image(64, 96, dtype=torch.float32)], load_recipe("mixed"))
    return network


def test_quantized_it_differs_by_rounding_alone(mixed, image):
    plain, cells = copy.deepcopy(mixed), copy.deepcopy(mixed).tile(Tiling(head_cells=2))
    x, made = image(64, 96, dtype=torch.float32), []
    for network in (plain, cells):
        set_mode(network, Mode.FAKE)
        with torch.no_grad():
            made.append(network(x))
    step = plain.decode_head.classifier.output.params.scale
    assert (made[0] - made[1]).abs().mean() <= step
    assert not torch.equal(*made)  # the smaller maps share a range


def test_smaller_maps_share_the_range_that_holds_all_of_theirs(mixed):
    before = [each.output.params for each in mixed.decode_head.projections]
    head = copy.deepcopy(mixed).tile(Tiling(head_cells=2)).decode_head
    after = [each.output.params for each in head.projections]
    assert after[0] == before[0] and after[1] == after[2] == after[3] == head.pixel_operand.params
    low, high = after[1].range
    assert low <= min(each.range[0] for each in before[1:]) + after[1].scale
    assert high >= max(each.range[1] for each in before[1:]) - after[1].scale


def test_params_covering_one_are_its_own():
    params = ActivationParams("int8", 0.5, -28)
    assert params_covering([params]) == params and params.range == (-50.0, 77.5)


def test_integer_sums_keep_the_head_that_they_belong_to(build, image):
    network = EdgeSegFormer(build("b0", torch.float32, depths=(1, 1, 1, 1)))
    calibrate(network, [image(64, 96, dtype=torch.float32)], load_recipe("full"))
    with pytest.raises(ValueError, match="sums"):
        CellHead(network.decode_head, 2, (2, 4, 8))
    network.tile(Tiling(head_channels=2, head_cells=2))
    assert isinstance(network.decode_head, Head) and len(network.decode_head.projections[0]) == 2
