"""Exact rewrites: algebra that changes a network's cost and not its function."""

from __future__ import annotations

import copy

from segformer_edge.model.segformer import SegFormer
from segformer_edge.rewrite.attention_scale import fold_attention_scale
from segformer_edge.rewrite.head_fold import FoldedHead, fold_head
from segformer_edge.rewrite.layer_norm import RmsNorm, centre_residual_streams, fold_layer_norm_affine

__all__ = [
    "FoldedHead",
    "RmsNorm",
    "centre_residual_streams",
    "fold_attention_scale",
    "fold_head",
    "fold_layer_norm_affine",
    "rewrite_exactly",
]


def rewrite_exactly(model: SegFormer) -> SegFormer:
    """A copy of ``model`` with all foldings applied in float64, in eval mode and the model's own dtype."""
    dtype = next(model.parameters()).dtype
    folded = copy.deepcopy(model).double().eval()
    for rewrite in (fold_head, fold_layer_norm_affine, centre_residual_streams, fold_attention_scale):
        folded = rewrite(folded)
    return folded.to(dtype)
