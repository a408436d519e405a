"""Exact rewrite 1: the all-MLP head folded to one 1x1 convolution per stage at native resolution.

Equation 4 of the paper projects each stage to the decoder width, upsamples, concatenates and fuses with a 1x1
convolution and BatchNorm. A 1x1 convolution commutes with bilinear interpolation, whose weights sum to 1, so

    fuse(cat(up(P_i f_i))) = sum_i up(W_i' f_i) + b',    W_i' = diag(bn) W_fuse[:, slice_i] P_i

which removes the fuse convolution at 1/4 resolution (half of B0's multiply-accumulates) and the concatenation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segformer_edge.model.segformer import AllMLPHead, SegFormer, to_map, to_tokens


class FoldedHead(nn.Module):
    """Feature maps at 1/4 to 1/32 -> logits ``(B, classes, H/4, W/4)``; the first projection carries the bias."""

    def __init__(self, widths: tuple[int, ...], dim: int, num_classes: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(width, dim, bias=index == 0) for index, width in enumerate(widths))
        self.classifier = nn.Conv2d(dim, num_classes, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        size = features[0].shape[2:]
        total: Tensor | None = None
        for projection, feature in zip(self.projections, features, strict=True):
            x = to_map(projection(to_tokens(feature)), *feature.shape[2:])
            x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
            total = x if total is None else total + x
        return self.classifier(F.relu(total))


def folded_projections(head: AllMLPHead) -> tuple[list[Tensor], Tensor]:
    """The weights W_i' ``(dim, width)`` of each stage, and the bias b' ``(dim,)`` of their sum. Differentiable."""
    norm = head.norm
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    # Published checkpoints concatenate the deepest stage first, so the last stage owns the first slice.
    slices = head.fuse.weight[:, :, 0, 0].chunk(len(head.projections), dim=1)[::-1]
    weights, bias = [], norm.bias - norm.running_mean * scale
    for projection, fuse in zip(head.projections, slices, strict=True):
        weights.append(scale[:, None] * (fuse @ projection.weight))
        bias = bias + scale * (fuse @ projection.bias)
    return weights, bias


@torch.no_grad()
def fold_head(model: SegFormer) -> SegFormer:
    """Replace ``model.decode_head`` by the equal :class:`FoldedHead`, in place; dtype is kept."""
    head: AllMLPHead = model.decode_head
    dim, config = head.classifier.in_channels, model.config
    folded = FoldedHead(config.embed_dims, dim, config.num_classes).to(head.fuse.weight)
    weights, bias = folded_projections(head)
    for target, weight in zip(folded.projections, weights, strict=True):
        target.weight.copy_(weight)
    folded.projections[0].bias.copy_(bias)
    folded.classifier.load_state_dict(head.classifier.state_dict())
    model.decode_head = folded.train(model.training)
    return model
