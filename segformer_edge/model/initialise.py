"""Starting weights for training from nothing, as the paper's code (and timm) sets them."""

from __future__ import annotations

import math

from torch import nn

from segformer_edge.model.segformer import SegFormer


def initialise(model: SegFormer) -> None:
    """Set every weight in place: linear truncated normal (std 0.02), convolution fan-out normal, norms 1 and 0."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
        elif isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
            nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
        elif isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
            nn.init.ones_(module.weight)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    # As mmseg's conv_seg: near-zero logits, so that the first loss is ln(classes).
    nn.init.normal_(model.decode_head.classifier.weight, std=0.01)
