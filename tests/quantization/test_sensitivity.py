"""Switching parts of a calibrated network: what is chosen is quantized, and nothing else."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from quantization.params import fake_quantize, fake_quantize_weight
from quantization.sensitivity import Part, parts_by_module, parts_by_role, quantized_only, whole_of
from quantization.sites import Mode, named_sites, named_weights, set_mode


def modes(model):
    return [module.mode for _, module in (*named_sites(model), *named_weights(model))]


def test_every_quantized_site_has_one_role_and_lies_below_one_path(quantized_edge):
    whole = whole_of(quantized_edge)
    assert whole.sites and whole.weights
    paths = ["image", *(f"stages.{i}" for i in range(4)), "decode_head", "nowhere"]
    by_role, by_path = parts_by_role(quantized_edge), parts_by_module(quantized_edge, paths)
    assert list(by_path) == paths[:-1]
    for parts in (by_role, by_path):
        for field in ("sites", "weights"):
            names = [name for part in parts.values() for name in getattr(part, field)]
            assert sorted(names) == sorted(getattr(whole, field))
    assert by_role["image"] == by_path["image"] == Part(frozenset({"image"}))
    assert "residual" not in by_role  # the recipe leaves it in float
    assert len(by_role["depthwise"].weights) == 4 and all("depthwise" in name for name in by_role["depthwise"].weights)


def test_a_path_is_not_a_prefix_of_letters(net, batch, calibrated):
    assert parts_by_module(calibrated, ["fi"]) == {}


def test_only_the_chosen_are_quantized(calibrated, batch):
    """Against the same network written out by hand."""
    net = calibrated

    def by_hand(sites=(), weights=()):
        def site(name, x):
            return fake_quantize(x, dict(named_sites(net))[name].params) if name in sites else x

        def conv(name, x, **more):
            module = getattr(net, name)
            weight = fake_quantize_weight(module.weight, module.scales) if name in weights else module.weight
            return site(f"{name}.output", F.conv2d(x, weight, module.bias, **more))

        x = F.relu(conv("first", site("image", batch), padding=1))
        return site("residual", x + conv("second", site("probabilities", x.softmax(1))))

    with torch.inference_mode():
        plain = by_hand()
        for sites, weights in [
            ((), ()), (("image",), ()), (("first.output",), ()), ((), ("first",)), (("residual",), ("first", "second")),
            (("probabilities", "second.output"), ("second",)),
        ]:  # fmt: skip
            with quantized_only(net, Part(frozenset(sites), frozenset(weights))):
                found = net(batch)
            assert torch.equal(found, by_hand(sites, weights))
            assert torch.equal(found, plain) == (not sites and not weights)


def test_all_of_it_is_the_quantized_reference_and_none_of_it_is_float(quantized_edge, pictures):
    picture = pictures[2:]
    with torch.inference_mode():
        reference = quantized_edge(picture)
        with quantized_only(quantized_edge, whole_of(quantized_edge)):
            assert torch.equal(quantized_edge(picture), reference)
        with quantized_only(quantized_edge, Part()):
            nothing = quantized_edge(picture)
        assert torch.equal(quantized_edge(picture), reference)
        set_mode(quantized_edge, Mode.FLOAT)
        try:
            assert torch.equal(quantized_edge(picture), nothing)
        finally:
            set_mode(quantized_edge, Mode.FAKE)


def test_modes_come_back_after_an_error(calibrated):
    next(site for _, site in named_sites(calibrated)).mode = Mode.OBSERVE
    before = modes(calibrated)
    with pytest.raises(RuntimeError, match="stop"), quantized_only(calibrated, Part(frozenset({"residual"}))):
        assert modes(calibrated) != before
        raise RuntimeError("stop")
    assert modes(calibrated) == before


def test_what_the_model_does_not_quantize_is_named(quantized_edge):
    site = "stages.0.blocks.0.residual1"  # there, but float in this recipe
    with (
        pytest.raises(ValueError, match=rf"{site}, stages\.9"),
        quantized_only(quantized_edge, Part(frozenset({site, "stages.9"}))),
    ):
        pass
