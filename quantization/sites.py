"""Quantization sites: the named places of a network where a tensor may become integer.

A site is an ordinary module. Its mode says what it does with what passes: nothing, observe (calibration),
fake-quantize (reference inference and training), or emit ``quantized_decomposed`` operators with fixed parameters
(export). Which sites take part, and at which width, is a recipe's matter, not the network's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
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
)


class Mode(Enum):
    """What every site of a model does."""

    FLOAT = "float"
    OBSERVE = "observe"
    FAKE = "fake"
    #: Fake-quantize with the learners that ``quantization.qat`` attached.
    LEARN = "learn"
    #: Weights as int8 constants behind a dequantize.
    EXPORT = "export"

    @property
    def emulates(self) -> bool:
        """Whether sites compute with fixed parameters, or emit them."""
        return self in (Mode.FAKE, Mode.EXPORT)


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
        #: Sites of sums that this tensor is a term of.
        self.sums: tuple[Site, ...] = ()
        #: ``quantization.qat.LearnedRange`` while training.
        self.learner: nn.Module | None = None

    @property
    def active(self) -> bool:
        """Whether the recipe quantizes this site."""
        return self.dtype != "float"

    def fix(self, params: ActivationParams) -> None:
        """Quantize with ``params``, whatever the recipe says."""
        self.dtype, self.params = params.dtype, params

    def extra_repr(self) -> str:
        return f"role={self.role}, dtype={self.dtype}"

    def forward(self, x: Tensor) -> Tensor:
        if self.mode is Mode.FLOAT or not self.active:
            return x
        if self.mode is Mode.OBSERVE:
            if self.observer is not None:
                self.observer.observe(x)
            return x
        if self.mode is Mode.LEARN and self.learner is not None:
            return self.learner(x)
        if self.params is None:
            raise RuntimeError(f"Site of role '{self.role}' has no parameters; calibrate or load encodings first.")
        if self.mode is not Mode.EXPORT:
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
    Raises ValueError for a dilated convolution or one whose padding is not zeros.
    """

    scales: Tensor | None
    zero_points: Tensor | None
    int8_weight: Tensor | None

    def __init__(self, role: str, conv: nn.Conv2d) -> None:
        if set(conv.dilation) != {1} or conv.padding_mode != "zeros":
            raise ValueError(f"The convolution of role '{role}' is dilated or not padded with zeros: {conv}.")
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            conv.padding,
            groups=conv.groups,
            bias=conv.bias is not None,
        )
        self.to(conv.weight).load_state_dict(conv.state_dict())
        self.role = role
        self.mode = Mode.FLOAT
        self.weight_dtype = "float"
        self.register_buffer("scales", None, persistent=False)
        self.register_buffer("zero_points", None, persistent=False)
        self.register_buffer("int8_weight", None, persistent=False)
        #: ``quantization.qat.LiveScales`` while training.
        self.learner: nn.Module | None = None
        self.output = Site(role)

    @classmethod
    def from_linear(cls, role: str, linear: nn.Linear) -> QuantConv2d:
        """The 1x1 convolution that equals ``linear`` on a feature map. It always has a bias: exporters ask for one."""
        conv = nn.Conv2d(linear.in_features, linear.out_features, 1).to(linear.weight)
        with torch.no_grad():
            conv.weight.copy_(linear.weight[:, :, None, None])
            if linear.bias is None:
                conv.bias.zero_()
            else:
                conv.bias.copy_(linear.bias)
        return cls(role, conv)

    @property
    def active(self) -> bool:
        """Whether the recipe quantizes this convolution's weights."""
        return self.weight_dtype != "float"

    @torch.no_grad()
    def set_scales(self, scales: Tensor | None) -> None:
        """Fix the per-channel ``scales`` (``(out_channels,)``, float32), or clear them, and the integer weight."""
        self.scales, self.zero_points, self.int8_weight = scales, None, None
        if scales is not None:
            self.zero_points = torch.zeros_like(scales, dtype=torch.int64)
            self.int8_weight = torch.ops.quantized_decomposed.quantize_per_channel(self.weight, *self._arguments())

    def _arguments(self) -> tuple:
        return (self.scales, self.zero_points, 0, -127, 127, torch.int8)

    def quantized_weight(self) -> Tensor:
        """The weight as the current mode computes with it."""
        if not self.active or self.mode in (Mode.FLOAT, Mode.OBSERVE):
            return self.weight
        if self.mode is Mode.LEARN and self.learner is not None:
            return fake_quantize_weight(self.weight, self.learner(self.weight))
        if self.scales is None or self.int8_weight is None:
            raise RuntimeError(f"Weight of role '{self.role}' has no scales; calibrate or load encodings first.")
        if self.mode is not Mode.EXPORT:
            return fake_quantize_weight(self.weight, self.scales)
        return torch.ops.quantized_decomposed.dequantize_per_channel(self.int8_weight, *self._arguments())

    def forward(self, x: Tensor, padding: tuple[int, int] | None = None) -> Tensor:
        """``padding`` in place of the convolution's own is for a part of its input whose edge is not the edge."""
        padding = self.padding if padding is None else padding
        x = F.conv2d(x, self.quantized_weight(), self.bias, self.stride, padding, groups=self.groups)
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
    """Put every site and weight of ``model`` into ``mode``; for export the integer weights are made anew."""
    for _, site in named_sites(model):
        site.mode = mode
    for _, conv in named_weights(model):
        conv.mode = mode
        if mode is Mode.EXPORT:
            conv.set_scales(conv.scales)  # training may have moved the weights since the scales were fixed


def keep_widths(model: nn.Module, widths: Collection[str]) -> None:
    """Let every site of another width than ``widths`` pass in float, for a runtime without kernels for it.

    A convolution whose output is such a site computes in float as a whole.
    """
    dropped = {site for _, site in named_sites(model) if site.active and site.dtype not in widths}
    for site in dropped:
        site.dtype, site.params = "float", None
    for _, conv in named_weights(model):
        if conv.output in dropped:
            conv.weight_dtype = "float"
            conv.set_scales(None)
