"""Which widths a recipe gives, counted."""

from __future__ import annotations

from quantization.precision import activation_widths, weight_widths
from quantization.recipe import Recipe, apply_recipe


def test_widths_are_counted_by_role(net):
    recipe = Recipe(
        "some",
        sites={"image": "int8", "first": "int16", "probabilities": "int8", "residual": "int8"},
        weights={"first": "int8"},
        overrides={"residual": "int16"},
    )
    apply_recipe(net, recipe)
    found = activation_widths(net)
    assert found == {
        "int8": {"image": 1, "probabilities": 1},
        "int16": {"first": 1, "residual": 1},
        "float": {"second": 1},
    }
    assert list(found) == ["int8", "int16", "float"]
    assert weight_widths(net) == {"int8": {"first": 1}, "float": {"second": 1}}


def test_every_site_of_a_segformer_is_counted_once(quantized_edge):
    from quantization.sites import named_sites, named_weights

    for found, all_of_them in (
        (activation_widths(quantized_edge), list(named_sites(quantized_edge))),
        (weight_widths(quantized_edge), list(named_weights(quantized_edge))),
    ):
        assert sum(sum(roles.values()) for roles in found.values()) == len(all_of_them)
    assert activation_widths(quantized_edge)["float"]["residual"] > 0
