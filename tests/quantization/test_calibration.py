"""Calibration fixes every parameter from what passes, and refuses what cannot be quantized."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from quantization.calibration import CalibrationError, calibrate
from quantization.observers import OBSERVERS
from quantization.params import params_from_range, weight_scales
from quantization.recipe import load_recipe
from quantization.sites import Mode, Site, named_sites, named_weights


def with_observer(recipe, observer):
    return dataclasses.replace(recipe, observers={"default": observer})


def test_parameters_come_from_the_range_over_all_batches(net, all_int8, batch):
    calibrate(net, [batch, batch * 3 + 1], all_int8)
    low, high = (batch * 3 + 1).min().item(), (batch * 3 + 1).max().item()
    assert net.image.params == params_from_range(low, high, "int8")
    assert torch.equal(net.first.scales, weight_scales(net.first.weight))
    assert all(site.mode is Mode.FAKE and site.observer is None for _, site in named_sites(net))


def test_ranges_are_those_of_the_float_network(net, all_int8, batch):
    with torch.no_grad():
        expected = net(batch)
    calibrate(net, [batch], all_int8)
    assert net.residual.params == params_from_range(expected.min().item(), expected.max().item(), "int8")


def test_calibrating_again_forgets_the_first_time(net, all_int8, batch):
    calibrate(net, [batch * 100], all_int8)
    calibrate(net, [batch], all_int8)
    assert net.image.params == params_from_range(batch.min().item(), batch.max().item(), "int8")


def test_fixed_parameters_need_no_calibration(calibrated):
    params = calibrated.probabilities.params
    assert (params.scale, params.zero_point) == (1 / 256, -128)


def test_fixed_parameters_use_all_of_int16(net, all_int8, batch):
    calibrate(net, [batch], dataclasses.replace(all_int8, overrides={"probabilities": "int16"}))
    params = net.probabilities.params
    assert (params.dtype, params.scale, params.zero_point) == ("int16", 1 / 32768, 0)


@pytest.mark.parametrize("observer", OBSERVERS)
@torch.no_grad()
def test_every_observer_gives_a_close_network(net, all_int8, batch, observer):
    expected = net(batch)
    calibrate(net, [batch], with_observer(all_int8, observer))
    assert (net(batch) - expected).norm() < 0.05 * expected.norm()


def test_no_images_is_an_error(net, all_int8):
    with pytest.raises(CalibrationError, match="at least one image"):
        calibrate(net, [], all_int8)


@pytest.mark.parametrize("observer", OBSERVERS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 1])
def test_input_that_is_not_finite_names_the_site(net, all_int8, batch, observer, value, place):
    batches = [batch.clone(), batch.clone()]
    batches[place][0, 1, 2, 3] = value
    with pytest.raises(CalibrationError, match=r"'image'.*cannot be quantized"):
        calibrate(net, batches, with_observer(all_int8, observer))


@pytest.mark.parametrize("observer", OBSERVERS)
def test_weight_that_overflows_names_the_site_behind_it(net, all_int8, batch, observer):
    net.second.bias.data[0] = math.inf
    with pytest.raises(CalibrationError, match=r"'second\.output'"):
        calibrate(net, [batch], with_observer(all_int8, observer))


def test_site_outside_the_forward_pass_is_named(net, all_int8, batch):
    net.idle = Site("image")
    with pytest.raises(CalibrationError, match="'idle' saw no values"):
        calibrate(net, [batch], all_int8)


@pytest.mark.parametrize("observer", OBSERVERS)
@torch.no_grad()
def test_network_that_sees_only_zeros_can_be_calibrated(net, all_int8, observer):
    zeros = torch.zeros(1, 3, 8, 8)
    calibrate(net, [zeros], with_observer(all_int8, observer))
    assert torch.isfinite(net(zeros)).all()


@torch.no_grad()
def test_quantized_segformer_stays_close_to_float(edge, quantized_edge, pictures):
    expected, got = edge(pictures[2:]), quantized_edge(pictures[2:])
    assert not torch.equal(got, expected)
    assert (got - expected).norm() < 0.1 * expected.norm()
    assert (got.argmax(1) == expected.argmax(1)).float().mean() > 0.9


def test_every_convolution_of_the_mixed_recipe_but_the_stem_has_int8_around_it(quantized_edge):
    for name, conv in named_weights(quantized_edge):
        if conv.role not in ("embedding_affine", "norm_variance"):
            is_stem = name == "stages.0.embedding.proj"
            assert (conv.active, conv.output.active) == (not is_stem, not is_stem), name


@torch.no_grad()
def test_mixed_recipe_leaves_attention_products_and_residuals_float(quantized_edge):
    recipe = load_recipe("mixed")
    for role in ("attention_scores", "attention_probabilities", "residual", "embedding_norm"):
        assert recipe.width("x", role) == "float"
        assert not any(site.active for _, site in named_sites(quantized_edge) if site.role == role)


def test_terms_of_an_integer_sum_are_no_finer_than_kernels_add(net, all_int8, batch):
    with torch.no_grad():
        net.first.weight.mul_(1e-7)
        net.first.bias.mul_(1e-7)
    net.first.output.sums = (net.image,)
    calibrate(net, [batch], all_int8)
    assert net.first.output.params.scale == pytest.approx(net.image.params.scale / 1000)
