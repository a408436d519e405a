"""What a site does in each mode, and that all modes compute the same numbers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from quantization.params import ActivationParams, fake_quantize, params_from_range, weight_scales
from quantization.recipe import Recipe, apply_recipe
from quantization.sites import Mode, QuantConv2d, Site, keep_widths, named_sites, named_weights, set_mode

#: Shared machines stall, and every run tries the same examples.
relaxed = settings(deadline=None, derandomize=True, max_examples=60)


def targets(model: nn.Module, x: torch.Tensor) -> list[str]:
    """Operators of the exported graph."""
    program = torch.export.export(model, (x,))
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


@relaxed
@given(
    arrays("float32", st.integers(1, 50), elements=st.floats(-200, 200, width=32)),
    st.floats(-100, 100, width=32),
    st.floats(-100, 100, width=32),
    st.sampled_from(["int8", "int16"]),
)
def test_fake_quantize_equals_the_exported_operators_bit_for_bit(values, a, b, dtype):
    x, site = torch.from_numpy(values), Site("any")
    site.dtype, site.params = dtype, params_from_range(min(a, b), max(a, b), dtype)
    site.mode = Mode.FAKE
    fake = site(x)
    site.mode = Mode.EXPORT
    assert torch.equal(site(x), fake)


@relaxed
@given(arrays("float32", (4, 2, 3, 3), elements=st.floats(-50, 50, width=32)))
def test_weight_is_the_same_in_every_quantized_mode(values):
    conv = nn.Conv2d(2, 4, 3)
    conv.weight.data = torch.from_numpy(values.copy())
    quantized = QuantConv2d("any", conv)
    quantized.weight_dtype = "int8"
    quantized.set_scales(weight_scales(quantized.weight))
    weights = []
    for mode in (Mode.FAKE, Mode.EXPORT):
        set_mode(quantized, mode)
        weights.append(quantized.quantized_weight().detach())
    assert torch.equal(weights[0], weights[1])


@torch.no_grad()
def test_exported_network_computes_the_reference_bit_for_bit(calibrated, batch):
    expected = calibrated(batch)
    set_mode(calibrated, Mode.EXPORT)
    assert torch.equal(calibrated(batch), expected)
    assert torch.equal(torch.export.export(calibrated, (batch,)).module()(batch), expected)


def test_float_and_observe_modes_change_nothing(net, all_int8, batch):
    with torch.no_grad():
        expected = net(batch)
        apply_recipe(net, all_int8)
        for mode in (Mode.FLOAT, Mode.OBSERVE):
            set_mode(net, mode)
            assert torch.equal(net(batch), expected)


@pytest.mark.parametrize("mode", [Mode.FAKE, Mode.EXPORT])
def test_site_the_recipe_leaves_out_passes_through_in_every_mode(mode):
    site, x = Site("any"), torch.randn(5)
    site.mode = mode
    assert site(x) is x


@pytest.mark.parametrize("mode", [Mode.FAKE, Mode.EXPORT])
def test_uncalibrated_network_says_what_to_do(net, all_int8, batch, mode):
    apply_recipe(net, all_int8)
    set_mode(net, mode)
    with pytest.raises(RuntimeError, match=r"'image'.*calibrate or load encodings"):
        net(batch)


def test_uncalibrated_weight_says_what_to_do(net, batch):
    apply_recipe(net, Recipe("weights_only", weights={"second": "int8"}))
    set_mode(net, Mode.FAKE)
    with pytest.raises(RuntimeError, match=r"'second'.*calibrate or load encodings"):
        net(batch)


def test_gradients_reach_weights_and_input_in_fake_mode(calibrated, batch):
    x = batch.clone().requires_grad_()
    calibrated(x).square().sum().backward()
    for tensor in (x, calibrated.first.weight, calibrated.second.weight, calibrated.first.bias):
        assert torch.isfinite(tensor.grad).all() and tensor.grad.abs().sum() > 0


def test_export_has_int8_weights_as_constants(calibrated, batch):
    set_mode(calibrated, Mode.EXPORT)
    operators = targets(calibrated, batch)
    assert not [name for name in operators if "quantize_per_channel" in name and "dequantize" not in name]
    assert sum("dequantize_per_channel" in name for name in operators) == 2
    assert sum(".quantize_per_tensor" in name for name in operators) == 5  # image, two outputs, softmax, residual


@torch.no_grad()
def test_export_follows_weights_that_training_moved(calibrated, batch):
    calibrated.first.weight.mul_(0.7)
    expected = calibrated(batch)
    set_mode(calibrated, Mode.EXPORT)
    assert torch.equal(calibrated(batch), expected)


def test_scales_do_not_enter_the_checkpoint(net, calibrated):
    assert {key.rsplit(".", 1)[1] for key in calibrated.state_dict()} == {"weight", "bias"}


@pytest.mark.parametrize("groups", [1, 4])
@torch.no_grad()
def test_float_convolution_is_the_one_it_was_made_of(groups):
    conv, x = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=groups, bias=groups == 1), torch.randn(1, 4, 9, 7)
    assert torch.equal(QuantConv2d("any", conv)(x), conv(x))


@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_linear_becomes_a_pointwise_convolution(bias):
    linear, x = nn.Linear(5, 3, bias=bias), torch.randn(2, 5, 4, 6)
    expected = F.linear(x.permute(0, 2, 3, 1), linear.weight, linear.bias).permute(0, 3, 1, 2)
    torch.testing.assert_close(QuantConv2d.from_linear("any", linear)(x), expected)


@pytest.mark.parametrize("options", [{"dilation": 2}, {"padding": 1, "padding_mode": "reflect"}])
def test_convolution_it_would_compute_wrongly_is_refused(options):
    with pytest.raises(ValueError, match="'odd'"):
        QuantConv2d("odd", nn.Conv2d(2, 2, 3, **options))


def test_sites_and_weights_are_found_by_path(net):
    assert [name for name, _ in named_sites(net)] == [
        "image",
        "first.output",
        "probabilities",
        "second.output",
        "residual",
    ]
    assert [name for name, _ in named_weights(net)] == ["first", "second"]


def test_a_runtime_without_a_width_computes_those_sites_in_float():
    model = nn.Sequential(QuantConv2d("wide", nn.Conv2d(3, 4, 1)), Site("narrow"), Site("wide"))
    for name, site in named_sites(model):
        site.dtype = "int8" if name == "1" else "int16"
        site.params = ActivationParams(site.dtype, 0.1, 0)
    model[0].weight_dtype = "int8"
    model[0].set_scales(weight_scales(model[0].weight))
    set_mode(model, Mode.FAKE)
    image = torch.randn(1, 3, 4, 4)
    exact = F.conv2d(image, model[0].weight, model[0].bias)
    keep_widths(model, ("int8",))
    assert torch.equal(model(image), fake_quantize(exact, ActivationParams("int8", 0.1, 0)))
