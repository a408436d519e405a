"""The methods that are compared, as data, and how one is carried out."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from ptq.bias_correction import correct_biases
from ptq.entropy import EntropyObserver
from ptq.equalise import KINDS, equalise
from ptq.rounding import clip_weight_scales, learn_rounding
from quantization.calibration import calibrate
from quantization.observers import OBSERVERS, PercentileObserver
from quantization.recipe import Recipe
from segformer_edge.rewrite.graph import EdgeSegFormer

#: Observers that only this comparison knows.
EXTRA_OBSERVERS = {
    "percentile_99.9": partial(PercentileObserver, 99.9),
    "percentile_99.999": partial(PercentileObserver, 99.999),
    "entropy": EntropyObserver,
}
#: Methods that need all calibration images in memory at once take the first so many.
JOINT_IMAGES = 16


@dataclass(frozen=True)
class Method:
    """What is done besides plain min-max calibration."""

    #: Role or ``default`` -> observer, in place of the recipe's own; None keeps the recipe's.
    observers: Mapping[str, str] | None = field(default_factory=lambda: {"default": "min_max"})
    #: Name pattern -> width, in place of the recipe's own; None keeps the recipe's.
    overrides: Mapping[str, str] | None = field(default_factory=dict)
    #: Kinds of groups (see equalise.py), and the share of their unevenness that moves.
    equalise: Sequence[str] = ()
    strength: float = 0.5
    clip_weights: bool = False
    learn_rounding: bool = False
    bias_correction: bool = False


MSE = {"default": "mse", "image": "min_max"}
FLOAT_STEM = {"stages.0.embedding.proj*": "float"}
ROUGH_STEM = {**MSE, "patch_embedding": "percentile"}

METHODS: dict[str, Method] = {
    "recipe": Method(None, None),
    "min_max": Method(),
    "moving_average": Method({"default": "moving_average"}),
    "percentile_99.9": Method({"default": "percentile_99.9"}),
    "percentile_99.99": Method({"default": "percentile"}),
    "percentile_99.999": Method({"default": "percentile_99.999"}),
    "mse": Method({"default": "mse"}),
    "entropy": Method({"default": "entropy"}),
    "weight_mse": Method(clip_weights=True),
    "adaround": Method(learn_rounding=True),
    "bias_correction": Method(bias_correction=True),
    **{f"equalise_{kind}": Method(equalise=(kind,)) for kind in KINDS},
    "equalise_all": Method(equalise=KINDS),
    "mse_but_image": Method(MSE),
    "mse_bias": Method(MSE, bias_correction=True),
    "mse_equalise_embedding": Method(ROUGH_STEM, equalise=("embedding",), strength=1.0),
    "mse_equalise_all_bias": Method(ROUGH_STEM, equalise=KINDS, bias_correction=True),
    "mse_float_stem": Method(MSE, FLOAT_STEM),
    "mse_float_stem_bias": Method(MSE, FLOAT_STEM, bias_correction=True),
    "mse_float_stem_adaround": Method(MSE, FLOAT_STEM, learn_rounding=True),
}


def carry_out(method: Method, network: EdgeSegFormer, images: Sequence[Tensor], recipe: Recipe) -> EdgeSegFormer:
    """A calibrated copy of the float ``network``, ready to be scored."""
    OBSERVERS.update(EXTRA_OBSERVERS)
    given = {"observers": method.observers, "overrides": method.overrides}
    recipe = dataclasses.replace(recipe, **{key: value for key, value in given.items() if value is not None})
    quantized = copy.deepcopy(network)
    if method.equalise:
        equalise(quantized, images, method.equalise, method.strength)
    calibrate(quantized, images, recipe)
    if method.clip_weights:
        clip_weight_scales(quantized)
    if method.learn_rounding:
        learn_rounding(quantized, images[:JOINT_IMAGES])
    if method.bias_correction:
        correct_biases(quantized, images[:JOINT_IMAGES])
    return quantized
