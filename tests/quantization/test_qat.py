"""Learned ranges and live weight scales: their gradients, where they start, and that what they learn is deployed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from quantization.calibration import calibrate
from quantization.encodings import apply_encodings, encodings_of
from quantization.params import RANGES, ActivationParams, params_from_range, weight_scales
from quantization.qat import LearnedRange, LiveScales, freeze_scales, prepare_qat, range_parameters, transfer
from quantization.sites import Mode, named_sites, named_weights, set_mode

relaxed = settings(deadline=None, derandomize=True, max_examples=60)


@relaxed
@given(
    st.sampled_from(["int8", "int16"]),
    st.floats(-200, 200, width=32),
    st.floats(-200, 200, width=32),
)
def test_a_learner_starts_at_the_calibrated_parameters(dtype, a, b):
    for symmetric in (False, True):
        params = params_from_range(min(a, b), max(a, b), dtype, symmetric)
        assert LearnedRange(params).params() == params


@pytest.mark.parametrize(
    "params",
    [ActivationParams("int8", 0.05, 30), ActivationParams("int8", 0.05, 0, True), ActivationParams("int16", 0.0002, 0)],
)
def test_gradients_are_those_of_torch_s_own_learnable_kernel(params):
    """Two ways to the same derivative. Theirs rounds zero points below zero to the wrong integer, so it is above."""
    generator = torch.Generator().manual_seed(0)
    first, last = RANGES[params.dtype]
    learner = LearnedRange(params)
    x = 1.2 * learner.start.abs().max() * torch.randn(4, 50, generator=generator)
    weight = torch.randn(4, 50, generator=generator)
    ours = x.float().requires_grad_()
    y = learner(ours)
    (y * weight).sum().backward()

    ends = torch.zeros(len(learner.start), dtype=torch.float64, requires_grad=True)
    real = learner.start * ends.exp()
    if learner.symmetric or params.dtype == "int16":
        scale, zero_point = real / last, torch.zeros(1)
    else:
        scale = (real[1:] - real[:1]) / (last - first)
        zero_point = first - real[:1] / scale
    theirs = x.float().requires_grad_()
    kernel = torch._fake_quantize_learnable_per_tensor_affine(
        theirs, scale.float(), zero_point.float(), first, last, 1.0
    )
    (kernel * weight).sum().backward()
    torch.testing.assert_close(y, kernel, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(learner.log_ends.grad.double(), ends.grad, rtol=1e-3, atol=1e-3)


def test_a_range_that_is_too_wide_learns_to_fit():
    x = torch.randn(2000, generator=torch.Generator().manual_seed(1))
    learner = LearnedRange(params_from_range(-60.0, 100.0, "int8"))
    before = (learner(x) - x).square().mean()
    optimizer = torch.optim.Adam(learner.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        (learner(x) - x).square().mean().backward()
        optimizer.step()
    assert (learner(x) - x).square().mean() < 0.02 * before
    params = learner.params()
    assert RANGES["int8"][0] <= params.zero_point <= RANGES["int8"][1]


def test_an_end_at_zero_stays_there():
    learner = LearnedRange(params_from_range(0.0, 6.0, "int8"))
    learner(torch.linspace(-1, 8, 50)).sum().backward()
    assert learner.log_ends.grad[0] == 0 and learner.log_ends.grad[1] > 0


def test_scales_follow_the_weights_until_frozen():
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(2))
    narrow = 0.8 * weight_scales(weight)
    learner = LiveScales(weight, narrow)
    torch.testing.assert_close(learner(weight), narrow)
    torch.testing.assert_close(learner(3 * weight), 3 * narrow)
    learner.freeze(2 * weight)
    torch.testing.assert_close(learner(3 * weight), 2 * narrow)


def steps(net: nn.Module, batch: torch.Tensor, count: int = 3) -> None:
    optimizer = torch.optim.Adam([*(c.weight for _, c in named_weights(net)), *range_parameters(net)], lr=0.02)
    for _ in range(count):
        optimizer.zero_grad()
        net(batch).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("freeze", [False, True])
def test_what_was_learned_is_what_the_encodings_say(calibrated, net_again, other_net, batch, freeze):
    before = {name: site.params for name, site in named_sites(calibrated)}
    prepare_qat(calibrated)
    steps(calibrated, batch)
    if freeze:
        freeze_scales(calibrated)
        steps(calibrated, batch)
    weights = {name: value for name, value in calibrated.state_dict().items() if "learner" not in name}
    for net in (net_again, other_net):
        net.load_state_dict(weights)
    transfer(calibrated, net_again)
    params = {name: site.params for name, site in named_sites(net_again)}
    assert params["probabilities"] == before["probabilities"]  # fixed
    assert all(params[name] != before[name] for name in params if name != "probabilities")
    with torch.no_grad():
        learned, deployed = calibrated(batch), net_again(batch)
    # Training rounds x / scale before the zero point is added, inference after: a tie may fall the other way.
    assert (learned - deployed).abs().max() <= 2.1 * params["residual"].scale
    assert ((learned - deployed).abs() > 1e-5).float().mean() < 0.02
    apply_encodings(other_net, encodings_of(net_again, "all_int8"))
    assert torch.equal(other_net(batch), deployed)


def test_int16_stays_symmetric(net, batch, all_int8):
    recipe = type(all_int8)("wide", sites={**all_int8.sites, "residual": "int16"}, weights=all_int8.weights)
    calibrate(net, [batch], recipe)
    prepare_qat(net)
    start = net.residual.learner.params()
    steps(net, batch)
    learned = net.residual.learner.params()
    assert learned.zero_point == 0 and learned.dtype == "int16" and learned.scale != start.scale


def test_half_precision_activations_are_quantized_in_float32(calibrated, batch):
    prepare_qat(calibrated)
    with torch.autocast("cpu", torch.bfloat16):
        assert calibrated(batch).dtype == torch.float32


def test_only_a_calibrated_network_can_learn(net, all_int8):
    from quantization.recipe import apply_recipe

    apply_recipe(net, all_int8)
    with pytest.raises(RuntimeError, match="'image' has no parameters"):
        prepare_qat(net)


def test_sites_without_learners_pass_as_in_inference(calibrated, batch):
    """A network that is put into the learning mode by hand is quantized all the same."""
    expected = calibrated(batch)
    set_mode(calibrated, Mode.LEARN)
    torch.testing.assert_close(calibrated(batch), expected)
