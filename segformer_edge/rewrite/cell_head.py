"""Exact rewrite 6: the head by cells, whose upsampling and sums are one product with a constant matrix.

A cell is the pixels of the largest map over one pixel of the coarsest. Bilinear upsampling makes each of them of a few
pixels around the cell, with weights that are the same in every cell: for scales of 2, 4 and 8, 36 + 16 + 9 pixels of
the three smaller maps make 64. So three resizes and two sums of the head's widest maps become one product, which int8
kernels take. Its weights are multiples of 1/256 and below 1, so int8 holds them exactly. What follows works pixel by
pixel and does not mind their order, which only the logits change back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quantization.params import ActivationParams, params_covering
from quantization.sites import QuantConv2d, Site
from segformer_edge.rewrite.head import Head, Waiting
from segformer_edge.rewrite.tiling import RowBands, behind_view, groups_of, join, split

#: Side of the largest cell whose weights are multiples of 1/256.
LARGEST_CELL = 8
#: The weights as int8: scale and zero point.
WEIGHT_PARAMS = (1.0 / 256.0, -128)

Array = npt.NDArray[Any]


def _taps(cell: int, scale: int) -> Array:
    """Weights ``(cell, cell / scale + 2)`` of one axis: of the source pixels from the one before the cell on."""
    weights = np.zeros((cell, cell // scale + 2))
    for pixel in range(cell):
        position = (pixel + 0.5) / scale + 0.5  # 0 is the centre of the pixel before the cell
        low = int(position)
        weights[pixel, low] += 1.0 - (position - low)
        weights[pixel, low + 1] += position - low
    return weights


@cache
def interpolation(scales: Sequence[int]) -> Array:
    """Weights ``(cell * cell, sources)`` of maps that are upsampled by ``scales`` and summed; cell is the last scale.

    Half-pixel centres, as ``torch.nn.functional.interpolate`` with ``align_corners=False``.
    """
    taps = [_taps(scales[-1], scale) for scale in scales]
    return np.concatenate([np.kron(each, each) for each in taps], axis=1)


@cache
def sources(scales: Sequence[int], height: int, width: int) -> Array:
    """Where the pixels of ``interpolation`` lie, for ``height * width`` cells: ``(cells, sources)``, int32.

    The maps' pixels count row by row, one map behind the other. Those beyond a map's edge are the edge's.
    """
    found, first = [], 0
    for scale in scales:
        ratio = scales[-1] // scale
        rows, columns = (_around(count, ratio) for count in (height, width))
        pixels = rows[:, None, :, None] * (width * ratio) + columns[None, :, None, :]
        found.append(first + pixels.reshape(height * width, -1))
        first += height * width * ratio**2
    return np.concatenate(found, axis=1).astype(np.int32)


def _around(cells: int, ratio: int) -> Array:
    """Along one axis, the ``ratio`` source pixels of each cell and one on either side: ``(cells, ratio + 2)``."""
    pixels = np.arange(cells)[:, None] * ratio + np.arange(-1, ratio + 1)
    return pixels.clip(0, cells * ratio - 1)


class CellHead(nn.Module):
    """A :class:`Head` with the same logits, computed in ``parts`` groups of cells; ``scales`` of the smaller maps.

    Takes over the head's modules; where its projections are integer, those of the smaller maps get one range, which the
    product needs. Raises ValueError for a head that was cut, or whose sums are integer.
    """

    interpolation: Tensor

    def __init__(self, head: Head, parts: int, scales: tuple[int, ...]) -> None:
        super().__init__()
        if not head.adds_in_float:
            raise ValueError("The sums of this head have ranges of their own; cells add what is not rounded.")
        self.parts, self.scales = parts, scales
        weights = torch.as_tensor(interpolation(scales)).to(head.classifier.weight)
        self.register_buffer("interpolation", weights, persistent=False)
        self.projections, self.fused, self.classifier = head.projections, head.fused, head.classifier
        self.pixel_operand = Site("head_projection")
        self.weight_operand = Site("interpolation", fixed=WEIGHT_PARAMS)
        outputs = [self._projection(index).output for index in range(1, len(head.projections))]
        known = [site.params for site in outputs if site.active and site.params is not None]
        if len(known) == len(outputs):
            common = params_covering(known)
            for site in (*outputs, self.pixel_operand):
                site.fix(common)
            self.weight_operand.fix(ActivationParams("int8", *WEIGHT_PARAMS))
        for site in (self.pixel_operand, self.weight_operand):
            site.mode = head.fused.mode

    def _projection(self, index: int) -> QuantConv2d:
        (whole,) = groups_of(self.projections[index])
        return whole

    def waiting(self, index: int, feature: RowBands) -> Waiting:
        """The feature map of stage ``index`` as it is."""
        return Waiting([feature], projected=False)

    def _small_maps(self, maps: Sequence[RowBands]) -> Tensor:
        """The projections of all maps but the largest, pixel by pixel: ``(B, pixels, C)``."""
        parts = []
        for index, each in enumerate(maps, start=1):
            x = self._projection(index)(each.rows(0, each.height))
            parts.append(x.permute(0, 2, 3, 1).flatten(1, 2))
        return torch.cat(parts, dim=1)

    def forward(self, features: list[Waiting]) -> Iterator[Tensor]:
        """The logits ``(B, classes, H, W)``, in one piece."""
        maps = [waiting.maps[0] for waiting in features]
        cell, small = self.scales[-1], self._small_maps(maps[1:])
        largest, site = maps[0].rows(0, maps[0].height), maps[0].site
        batch, channels, height, width = largest.shape
        down, across = height // cell, width // cell
        pixels = largest.permute(0, 2, 3, 1).reshape(batch, down, cell, across, cell, channels)
        pixels = pixels.permute(0, 1, 3, 2, 4, 5).reshape(batch, down * across, cell * cell, channels)
        weights = self.weight_operand(self.interpolation)
        places = torch.as_tensor(sources(self.scales, down, across)).to(largest.device)
        logits = []
        for start, stop in split(down * across, self.parts):
            near = small.index_select(1, places[start:stop].flatten())
            near = self.pixel_operand(near.reshape(batch, stop - start, -1, near.shape[2]))
            part = behind_view(site, pixels[:, start:stop].permute(0, 3, 1, 2))
            total = self._projection(0)(part) + torch.matmul(weights, near).permute(0, 3, 1, 2)
            logits.append(self.classifier(self.fused(F.relu(total))).permute(0, 2, 3, 1))
        whole = join(logits, 1, self.classifier.output)
        whole = whole.reshape(batch, down, across, cell, cell, -1).permute(0, 1, 3, 2, 4, 5)
        whole = whole.reshape(batch, height, width, -1).permute(0, 3, 1, 2)
        yield behind_view(self.classifier.output, whole)
