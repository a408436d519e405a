"""Quantization sites: the named places of a network where a tensor may become integer.

A site is an ordinary module. Its mode says what it does with what passes: nothing, observe (calibration),
fake-quantize (reference inference and training), or emit ``quantized_decomposed`` operators with fixed parameters
(export). Which sites take part, and at which width, is a recipe's matter, not the network's.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

import torch
import torch.ao.quantization.fx._decomposed  # registers torch.ops.quantized_decomposed
import torch.nn.functional as F
from torch import Tensor, nn

from quantization.observers import Observer
from quantization.params import (
    RANGES,
    TORCH_DTYPES,
    ActivationParams,
    fake_quantize,
    fake_quantize_weight,
    weight_scales,
)


class Mode(Enum):
    """What every site of a model does."""

    FLOAT = "float"
    OBSERVE = "observe"
    FAKE = "fake"
    EXPORT = "export"


class Site(nn.Module):
    """One activation tensor. ``role`` is its class (``"fc1"``, ``"norm"``), which recipes speak of.

    ``fixed`` gives parameters that need no calibration, such as the softmax output's 1/256.
    """

    def __init__(self, role: str, fixed: tuple[float, int] | None = None) -> None:
        super().__init__()
        self.role = role
        self.fixed = fixed
        self.mode = Mode.FLOAT
        self.dtype = "float"
        self.observer: Observer | None = None
        self.params: ActivationParams | None = None

    @property
    def active(self) -> bool:
        """Whether the recipe quantizes this site."""
        return self.dtype != "float"

    def extra_repr(self) -> str:
        return f"role={self.role}, dtype={self.dtype}"

    def forward(self, x: Tensor) -> Tensor:
        if self.mode is Mode.FLOAT or not self.active:
            return x
        if self.mode is Mode.OBSERVE:
            if self.observer is not None:
                self.observer.observe(x)
            return x
        if self.params is None:
            raise RuntimeError(f"Site of role '{self.role}' has no parameters; calibrate or load encodings first.")
        if self.mode is Mode.FAKE:
            return fake_quantize(x, self.params)
        return self._quantize_dequantize(x, self.params)

    @staticmethod
    def _quantize_dequantize(x: Tensor, params: ActivationParams) -> Tensor:
        low, high = RANGES[params.dtype]
        arguments = (params.scale, params.zero_point, low, high, TORCH_DTYPES[params.dtype])
        ops = torch.ops.quantized_decomposed
        return ops.dequantize_per_tensor(ops.quantize_per_tensor(x, *arguments), *arguments)


class QuantConv2d(nn.Conv2d):
    """A convolution with per-channel symmetric int8 weights and a site at its output.

    Its input comes from another site. ``role`` names both the weight and, for the output, the site.
    """

    def __init__(self, role: str, conv: nn.Conv2d) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            groups=conv.groups,
            bias=conv.bias is not None,
        )
        self.to(conv.weight).load_state_dict(conv.state_dict())
        self.role = role
        self.mode = Mode.FLOAT
        self.weight_dtype = "float"
        self.scales: Tensor | None = None
        self.output = Site(role)

    @classmethod
    def from_linear(cls, role: str, linear: nn.Linear) -> QuantConv2d:
        """The 1x1 convolution that equals ``linear`` on a feature map."""
        conv = nn.Conv2d(linear.in_features, linear.out_features, 1, bias=linear.bias is not None).to(linear.weight)
        with torch.no_grad():
            conv.weight.copy_(linear.weight[:, :, None, None])
            if linear.bias is not None:
                conv.bias.copy_(linear.bias)
        return cls(role, conv)

    @property
    def active(self) -> bool:
        """Whether the recipe quantizes this convolution's weights."""
        return self.weight_dtype != "float"

    def quantized_weight(self) -> Tensor:
        """The weight as the current mode computes with it."""
        if not self.active or self.mode in (Mode.FLOAT, Mode.OBSERVE):
            return self.weight
        scales = weight_scales(self.weight) if self.scales is None else self.scales
        if self.mode is Mode.FAKE:
            return fake_quantize_weight(self.weight, scales)
        ops = torch.ops.quantized_decomposed
        arguments = (scales, torch.zeros_like(scales, dtype=torch.int64), 0, -127, 127, torch.int8)
        return ops.dequantize_per_channel(ops.quantize_per_channel(self.weight, *arguments), *arguments)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.quantized_weight(), self.bias, self.stride, self.padding, groups=self.groups)
        return self.output(x)


def named_sites(model: nn.Module) -> Iterator[tuple[str, Site]]:
    """Every activation site with its path in ``model``."""
    for name, module in model.named_modules():
        if isinstance(module, Site):
            yield name, module


def named_weights(model: nn.Module) -> Iterator[tuple[str, QuantConv2d]]:
    """Every convolution with a quantizable weight and its path in ``model``."""
    for name, module in model.named_modules():
        if isinstance(module, QuantConv2d):
            yield name, module


def set_mode(model: nn.Module, mode: Mode) -> None:
    """Put every site and weight of ``model`` into ``mode``."""
    for _, site in named_sites(model):
        site.mode = mode
    for _, conv in named_weights(model):
        conv.mode = mode
