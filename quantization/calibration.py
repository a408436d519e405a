"""Post-training calibration: run images through the float network, let the sites observe, fix their parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from quantization.observers import OBSERVERS, MseObserver
from quantization.params import ActivationParams, params_from_range, weight_scales
from quantization.recipe import Recipe, apply_recipe
from quantization.sites import Mode, Site, named_sites, named_weights, set_mode

#: XNNPACK adds int8 tensors whose scales are at least 2^-10 of the sum's; a little more for float32.
_LEAST_SCALE_RATIO = 1.0 / 1000.0


class CalibrationError(ValueError):
    """Calibration saw nothing, or something that cannot be quantized."""


def _observe_with(site: Site, observer: str, symmetric: bool) -> None:
    if observer == "mse":
        site.observer = MseObserver(site.dtype, symmetric)
    else:
        site.observer = OBSERVERS[observer]()


def _fixed_params(dtype: str, scale: float, zero_point: int) -> ActivationParams:
    """A fixed site's int8 parameters, or the int16 ones of the same range: 1/256, -128 becomes 1/32768, 0."""
    if dtype == "int8":
        return ActivationParams(dtype, scale, zero_point)
    return ActivationParams(dtype, scale * max(128 - zero_point, 128 + zero_point) / 32768.0, 0)


@torch.no_grad()
def _keep_addable(site: Site) -> None:
    """Coarsen a term of an integer sum that is so small that XNNPACK would leave the sum to slower kernels.

    Nothing is lost: steps of a thousandth are below the sum's rounding.
    """
    for total in site.sums:
        if site.params is not None and total.params is not None and site.dtype == total.dtype:
            least = total.params.scale * _LEAST_SCALE_RATIO
            site.params = replace(site.params, scale=max(site.params.scale, least))


def calibrate(model: nn.Module, batches: Iterable[Tensor], recipe: Recipe) -> None:
    """Apply ``recipe`` and calibrate every active site of ``model`` on ``batches`` (model inputs, float32).

    Leaves the model in :attr:`Mode.FAKE`. Raises CalibrationError without batches or when a site sees NaN or Inf.
    """
    apply_recipe(model, recipe)
    for _, site in named_sites(model):
        if site.active and site.fixed is None:
            _observe_with(site, recipe.observer(site.role), recipe.symmetric(site.role))
    set_mode(model, Mode.OBSERVE)
    count = 0
    for batch in batches:
        model(batch)
        count += 1
    if not count:
        raise CalibrationError("Calibration needs at least one image.")
    for name, site in named_sites(model):
        if not site.active:
            continue
        if site.fixed is not None:
            site.params = _fixed_params(site.dtype, *site.fixed)
            continue
        assert site.observer is not None
        low, high = site.observer.range()
        if low > high:
            raise CalibrationError(f"Site '{name}' saw no values; is it part of the forward pass?")
        if not (math.isfinite(low) and math.isfinite(high)):
            raise CalibrationError(f"Site '{name}' saw values from {low} to {high}; it cannot be quantized.")
        site.params = params_from_range(low, high, site.dtype, recipe.symmetric(site.role))
        site.observer = None
    for _, site in named_sites(model):
        _keep_addable(site)
    for _, conv in named_weights(model):
        conv.set_scales(weight_scales(conv.weight) if conv.active else None)
    set_mode(model, Mode.FAKE)
