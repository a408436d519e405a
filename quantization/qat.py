"""Quantization-aware training: ranges learned by gradient, weight scales that follow the weights.

The rounding passes gradients straight through. The ends of each range are learned as in LSQ+ (Bhalgat et al., CVPRW
2020, after LSQ, Esser et al., ICLR 2020), but as logarithms of their share of the starting range: one learning rate
then fits ranges of any size, an end keeps its sign, and an end at zero (behind a ReLU) stays there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quantization.params import MIN_SCALE, RANGES, ActivationParams, params_from_range, weight_scales
from quantization.sites import Mode, Site, named_sites, named_weights, set_mode


class _FakeQuantizeLearned(torch.autograd.Function):
    """Quantize and dequantize ``x`` (float32); gradients for ``x`` and for the logarithms of the range's ends.

    Ten times as fast on a CPU as torch's own learnable kernel, with the same gradients.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, log_ends: Tensor, params: ActivationParams) -> Tensor:
        first, last = RANGES[params.dtype]
        low, high = first - params.zero_point, last - params.zero_point
        y = torch.mul(x, 1.0 / params.scale).round_().clamp_(low, high).mul_(params.scale)
        ctx.save_for_backward(x, y)
        ctx.symmetric = log_ends.numel() == 1
        ctx.scale, ctx.low, ctx.high = params.scale, low, high
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, y = ctx.saved_tensors
        scale, low, high = ctx.scale, ctx.low, ctx.high
        inside = torch.ops.aten.hardtanh_backward(gradient, x, (low - 0.5) * scale, (high + 0.5) * scale)
        rounding = torch.dot(inside.reshape(-1), (y - x).reshape(-1))
        outside = (gradient - inside).reshape(-1)
        clipped = torch.dot(outside, y.reshape(-1))
        if ctx.symmetric:
            return inside, (rounding + clipped).reshape(1), None
        # Clipped values follow their end: d y / d log(low) = low = y below, and the same with high above.
        above = (clipped - low * scale * outside.sum()) / (high - low)  # sum over the values above, times scale
        at_high = above * high
        ends = torch.stack((clipped - at_high, at_high))
        return inside, ends + rounding / (high - low) * ends.new_tensor([-low, high]), None


class LearnedRange(nn.Module):
    """The learner of one site: starts as ``params``, and stays symmetric. ``learn=False`` keeps the range fixed."""

    start: Tensor

    def __init__(self, params: ActivationParams, learn: bool = True) -> None:
        super().__init__()
        self.dtype, self.symmetric = params.dtype, params.symmetric
        first, last = RANGES[params.dtype]
        one_end = params.symmetric or params.dtype == "int16"
        ends = [last] if one_end else [first - params.zero_point, last - params.zero_point]
        self.register_buffer("start", torch.tensor(ends, dtype=torch.float64) * params.scale)
        self.log_ends = nn.Parameter(torch.zeros(len(ends)), requires_grad=learn)

    def params(self) -> ActivationParams:
        """Parameters of the range as it is now."""
        ends = (self.start * self.log_ends.detach().double().exp()).tolist()
        return params_from_range(0.0 if len(ends) == 1 else ends[0], ends[-1], self.dtype, self.symmetric)

    def forward(self, x: Tensor) -> Tensor:
        return _FakeQuantizeLearned.apply(x.float(), self.log_ends, self.params())


class LiveScales(nn.Module):
    """The learner of one convolution's weight scales: a fixed share of ``max|w| / 127`` per channel, until frozen."""

    share: Tensor
    #: Zero until frozen.
    frozen: Tensor

    def __init__(self, weight: Tensor, scales: Tensor) -> None:
        super().__init__()
        self.register_buffer("share", scales / weight_scales(weight))
        self.register_buffer("frozen", torch.zeros_like(scales))

    def forward(self, weight: Tensor) -> Tensor:
        """Scales ``(out,)`` for ``weight`` ``(out, ...)``, without gradient."""
        live = (self.share * weight_scales(weight)).clamp_min(MIN_SCALE)
        return torch.where(self.frozen > 0, self.frozen, live)

    def freeze(self, weight: Tensor) -> None:
        """Keep the scales that ``weight`` has now."""
        self.frozen.copy_(self(weight))


def prepare_qat(model: nn.Module) -> None:
    """Give every active site and weight of a calibrated ``model`` its learner; leaves it in :attr:`Mode.LEARN`.

    Sites with fixed parameters keep them. Raises RuntimeError for an active site without parameters.
    """
    for name, site in named_sites(model):
        if not site.active:
            continue
        if site.params is None:
            raise RuntimeError(f"Site '{name}' has no parameters; calibrate or load encodings first.")
        site.learner = LearnedRange(site.params, learn=site.fixed is None)
    for name, conv in named_weights(model):
        if not conv.active:
            continue
        if conv.scales is None:
            raise RuntimeError(f"Weight '{name}' has no scales; calibrate or load encodings first.")
        conv.learner = LiveScales(conv.weight.detach(), conv.scales)
    set_mode(model, Mode.LEARN)


def range_parameters(model: nn.Module) -> list[nn.Parameter]:
    """What an optimizer moves to learn the ranges of ``model``'s sites."""
    learners = (site.learner for _, site in named_sites(model))
    return [m.log_ends for m in learners if isinstance(m, LearnedRange) and m.log_ends.requires_grad]


@torch.no_grad()
def freeze_scales(model: nn.Module) -> None:
    """From now on the weight scales of ``model`` stay what its weights make them now."""
    for _, conv in named_weights(model):
        if isinstance(conv.learner, LiveScales):
            conv.learner.freeze(conv.weight)


def _params(site: Site) -> ActivationParams | None:
    if not site.active:
        return None
    return site.learner.params() if isinstance(site.learner, LearnedRange) else site.params


@torch.no_grad()
def transfer(trained: nn.Module, model: nn.Module) -> None:
    """Give ``model``, of the same architecture, what ``trained`` has learned, and put it into :attr:`Mode.FAKE`.

    Weight scales that are not frozen are taken from ``model``'s own weights.
    """
    sites, weights = dict(named_sites(trained)), dict(named_weights(trained))
    for name, site in named_sites(model):
        site.dtype, site.params = sites[name].dtype, _params(sites[name])
    for name, conv in named_weights(model):
        source = weights[name]
        conv.weight_dtype = source.weight_dtype
        conv.set_scales(source.learner(conv.weight) if isinstance(source.learner, LiveScales) else None)
    set_mode(model, Mode.FAKE)
