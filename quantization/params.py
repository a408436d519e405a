"""Affine quantization parameters: ``real = scale * (integer - zero_point)``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: Integer range per dtype. int8 weights use the symmetric part, -127..127.
RANGES: dict[str, tuple[int, int]] = {"int8": (-128, 127), "int16": (-32768, 32767)}
TORCH_DTYPES: dict[str, torch.dtype] = {"int8": torch.int8, "int16": torch.int16}
#: A site that only ever saw one value still needs a usable scale.
MIN_SCALE = 1e-8


def is_scale(value: object) -> bool:
    """Whether ``value`` is a positive number that float32, as the runtimes store scales, holds as a normal number."""
    limits = torch.finfo(torch.float32)
    return isinstance(value, int | float) and not isinstance(value, bool) and limits.tiny <= value <= limits.max


@dataclass(frozen=True)
class ActivationParams:
    """Per-tensor parameters of one site."""

    dtype: str
    scale: float
    zero_point: int
    #: Whether the zero point stays 0 when the range moves; int16 always is.
    symmetric: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in RANGES:
            raise ValueError(f"dtype must be one of {', '.join(RANGES)}; got '{self.dtype}'.")
        if not is_scale(self.scale):
            raise ValueError(f"scale must be a positive float32; got {self.scale!r}.")
        low, high = RANGES[self.dtype]
        if type(self.zero_point) is not int:
            raise ValueError(f"zero_point must be an integer; got {self.zero_point!r}.")
        if not low <= self.zero_point <= high:
            raise ValueError(f"zero_point must lie in {low}..{high} for {self.dtype}; got {self.zero_point}.")
        if type(self.symmetric) is not bool:
            raise ValueError(f"symmetric must be true or false; got {self.symmetric!r}.")
        if self.symmetric and self.zero_point:
            raise ValueError(f"zero_point must be 0 where the scheme is symmetric; got {self.zero_point}.")

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest number that it represents."""
        low, high = RANGES[self.dtype]
        return self.scale * (low - self.zero_point), self.scale * (high - self.zero_point)


def params_from_range(low: float, high: float, dtype: str, symmetric: bool = False) -> ActivationParams:
    """Parameters that cover ``[low, high]`` and represent 0 exactly, as the integer 0 where ``symmetric``.

    int16 always is, as its kernels ask.
    """
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    first, last = RANGES[dtype]
    if symmetric or dtype == "int16":
        return ActivationParams(dtype, _float32(max(-low, high, MIN_SCALE) / last), 0, symmetric)
    scale = _float32(max(high - low, MIN_SCALE) / (last - first))
    zero_point = round(first - low / scale)
    return ActivationParams(dtype, scale, int(min(max(zero_point, first), last)))


def params_covering(all_params: Sequence[ActivationParams]) -> ActivationParams:
    """Parameters for tensors that must share them: the smallest range that holds the range of each."""
    lows, highs = zip(*(each.range for each in all_params), strict=True)
    return params_from_range(min(lows), max(highs), all_params[0].dtype, all(each.symmetric for each in all_params))


def _float32(value: float) -> float:
    """The float32 that every runtime will store, so that the reference computes with the same number."""
    return float(torch.tensor(value, dtype=torch.float32))


def weight_scales(weight: Tensor) -> Tensor:
    """Symmetric int8 scales, one per output channel (axis 0), float32: ``max|w| / 127``."""
    largest = weight.detach().flatten(1).abs().amax(dim=1)
    return (largest / 127.0).clamp_min(MIN_SCALE).float()


def fake_quantize(x: Tensor, params: ActivationParams) -> Tensor:
    """Quantize and dequantize; gradients pass straight through inside the range."""
    low, high = RANGES[params.dtype]
    if not _needs_gradient(x):
        # torch's kernel is not vectorised; the same steps one by one give the same bits in an eighth of the time.
        inverse = 1.0 / torch.tensor(params.scale, dtype=torch.float32)
        q = (x * inverse.item()).round_().add_(params.zero_point).clamp_(low, high)
        return q.sub_(params.zero_point).mul_(params.scale)
    return torch.fake_quantize_per_tensor_affine(x, params.scale, params.zero_point, low, high)


def fake_quantize_weight(weight: Tensor, scales: Tensor) -> Tensor:
    """Per-channel symmetric quantize-dequantize of ``weight`` along axis 0."""
    if not _needs_gradient(weight):
        per_channel = scales.reshape(-1, *[1] * (weight.ndim - 1))
        return (weight * (1.0 / per_channel)).round_().clamp_(-127, 127).mul_(per_channel)
    zeros = torch.zeros_like(scales, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scales, zeros, 0, -127, 127)


def _needs_gradient(x: Tensor) -> bool:
    return torch.is_grad_enabled() and x.requires_grad
