"""Exact rewrite 5: the first patch embedding behind a space-to-depth, on an image as cameras give it, ``(B, H, W, 3)``.

A 7x7 convolution with stride 4 and padding 3 over 3 channels equals a 2x2 convolution with stride 1 over the 48 values
of each 4x4 block, with one block of padding above and on the left: rows 4y-3 to 4y+3 lie in blocks y-1 and y. XNNPACK
keeps a pointer for every kernel tap and output pixel of a convolution: 49 of them are 6.4 MB at 512x512, 4 are 0.5 MB.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quantization.sites import QuantConv2d, Site
from segformer_edge.rewrite.tiling import behind_view, with_quantization_of

BLOCK = 4


class ImageBlocks:
    """An image ``(B, H, W, 3)`` as a map of 4x4 blocks ``(B, 48, H/4 + 1, W/4 + 1)``, whose first row and column are
    padding. Takes the place of RowBands before the first stage.
    """

    def __init__(self, image: Tensor, site: Site) -> None:
        self.image, self.site = image, site
        self.height = image.shape[1] // BLOCK + 1

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop) of the map; only these rows of the image are touched."""
        first, last = max(start - 1, 0) * BLOCK, (stop - 1) * BLOCK
        x = self.image
        if (first, last) != (0, x.shape[1]):
            x = behind_view(self.site, x[:, first:last])
        batch, rows, width, channels = x.shape
        x = x.reshape(batch, rows // BLOCK, BLOCK, width // BLOCK, BLOCK * channels).permute(0, 1, 3, 2, 4)
        x = x.reshape(batch, rows // BLOCK, width // BLOCK, BLOCK * BLOCK * channels).permute(0, 3, 1, 2)
        return behind_view(self.site, F.pad(behind_view(self.site, x), (1, 0, int(start == 0), 0)))


def block_weight(weight: Tensor) -> Tensor:
    """The 2x2 kernel ``(out, 48, 2, 2)`` of the 7x7 kernel ``(out, 3, 7, 7)``; channels are (row, column, colour)."""
    out, channels = weight.shape[:2]
    padded = F.pad(weight, (1, 0, 1, 0)).reshape(out, channels, 2, BLOCK, 2, BLOCK)
    return padded.permute(0, 3, 5, 1, 2, 4).reshape(out, BLOCK * BLOCK * channels, 2, 2)


@torch.no_grad()
def block_convolution(conv: QuantConv2d) -> QuantConv2d:
    """The convolution over blocks that equals ``conv``, with its weight's scales, output site and mode."""
    weight = block_weight(conv.weight)
    plain = nn.Conv2d(weight.shape[1], weight.shape[0], 2, bias=conv.bias is not None).to(weight)
    plain.weight.copy_(weight)
    if conv.bias is not None:
        plain.bias.copy_(conv.bias)
    result = with_quantization_of(conv, plain)
    result.set_scales(conv.scales)
    return result
