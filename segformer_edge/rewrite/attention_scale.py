"""Exact rewrite 3: the attention scale 1/sqrt(d) of equation 1 folded into the query projection."""

from __future__ import annotations

import torch

from segformer_edge.model.segformer import EfficientSelfAttention, SegFormer


@torch.no_grad()
def fold_attention_scale(model: SegFormer) -> SegFormer:
    """Multiply every query projection by its attention's scale and set that scale to 1, in place."""
    for module in model.modules():
        if isinstance(module, EfficientSelfAttention):
            module.q.weight.mul_(module.scale)
            module.q.bias.mul_(module.scale)
            module.scale = 1.0
    return model
