"""The forward pass that training uses: the decode head folded per stage, half the arithmetic of the whole network.

A 1x1 convolution commutes with bilinear interpolation, whose weights sum to 1, so each stage's projection and its
slice of the fusing convolution are one 1x1 convolution at the stage's own resolution. The product of the two weights
is taken in every step, so gradients and checkpoints are those of the paper's head.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from segformer_edge.model.segformer import SegFormer


class FoldedHeadTraining(nn.Module):
    """``model`` with the same parameters and the same outputs up to rounding; logits at 1/4 resolution."""

    def __init__(self, model: SegFormer) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        features, head = self.model.features(image), self.model.decode_head
        # Published checkpoints concatenate the deepest stage first.
        slices = head.fuse.weight[:, :, 0, 0].chunk(len(features), dim=1)[::-1]
        total: Tensor | None = None
        for projection, fuse, feature in zip(head.projections, slices, features, strict=True):
            x = F.conv2d(feature, (fuse @ projection.weight)[:, :, None, None], fuse @ projection.bias)
            if total is not None:
                x = total + F.interpolate(x, size=features[0].shape[2:], mode="bilinear", align_corners=False)
            total = x
        return head.classifier(head.dropout(F.relu(head.norm(total))))
