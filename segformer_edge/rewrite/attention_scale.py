"""Exact rewrite 3: the attention scale 1/sqrt(d) of equation 1 folded into the query projection."""

from __future__ import annotations

import torch
from torch import Tensor

from segformer_edge.model.segformer import EfficientSelfAttention, SegFormer


def scaled(values: tuple[Tensor, Tensor], scale: float) -> tuple[Tensor, Tensor]:
    """A query projection's weight and bias with the attention's ``scale`` in them."""
    return values[0] * scale, values[1] * scale


@torch.no_grad()
def fold_attention_scale(model: SegFormer) -> SegFormer:
    """Multiply every query projection by its attention's scale and set that scale to 1, in place."""
    for module in model.modules():
        if isinstance(module, EfficientSelfAttention):
            weight, bias = scaled((module.q.weight, module.q.bias), module.scale)
            module.q.weight.copy_(weight)
            module.q.bias.copy_(bias)
            module.scale = 1.0
    return model
