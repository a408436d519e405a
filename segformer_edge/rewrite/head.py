"""The folded decode head as it is deployed: project, upsample, add, classify, by bands of rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from quantization.sites import QuantConv2d, Site
from segformer_edge.rewrite import FoldedHead
from segformer_edge.rewrite.tiling import RowBands, groups_of, join, output_groups, split, upsample_rows


class Waiting(NamedTuple):
    """A stage's feature map until the head reads it, once for each group of the head's channels."""

    maps: list[RowBands]
    #: Whether ``maps`` are the groups' projections, rather than each the whole feature map.
    projected: bool


def _bands(rows: int, coarsest: int, bands: int) -> list[tuple[int, int]]:
    """As ``split``; where a band is whole rows of the coarsest map, its edges lie in their middle.

    Upsampled rows are made whole source rows at a time. A middle edge needs one on either side of it, an edge between
    two source rows needs both again on either side.
    """
    scale, ranges = rows // coarsest, split(rows, bands)
    if (ranges[0][1] % scale) or len(ranges) == 1:
        return ranges
    edges = [start - scale // 2 for start, _ in ranges[1:]]
    return list(zip([0, *edges], [*edges, rows], strict=True))


class Head(nn.Module):
    """The folded head: project at native resolution, upsample, add, ReLU, classify; by bands, and by channel groups up
    to the classifier.
    """

    def __init__(self, head: FoldedHead) -> None:
        super().__init__()
        self.bands = 1
        self.projections = nn.ModuleList(QuantConv2d.from_linear("head_projection", p) for p in head.projections)
        #: One for every sum but the last, which the ReLU follows.
        self.sums = nn.ModuleList(Site("head_sum") for _ in head.projections[2:])
        self.fused = Site("head_fused")
        self.classifier = QuantConv2d("classifier", head.classifier)

    @property
    def adds_in_float(self) -> bool:
        """Whether what is upsampled and added is not rounded on the way."""
        return not any(site.active for site in self.sums)

    def tile(self, bands: int, groups: int) -> None:
        """Cut the rows and the channels."""
        self.bands = bands
        if groups > 1:
            self.projections = nn.ModuleList(nn.ModuleList(output_groups(each, groups)) for each in self.projections)

    def waiting(self, index: int, feature: RowBands) -> Waiting:
        """What is kept of stage ``index`` until the head runs: its projections where they are no larger."""
        groups = groups_of(self.projections[index])
        if index and sum(each.out_channels for each in groups) <= groups[0].in_channels:
            return Waiting([feature.map(each, each.output) for each in groups], projected=True)
        return Waiting([feature] * len(groups), projected=False)

    def _upsampled(self, index: int, group: int, waiting: Waiting, height: int, start: int, stop: int) -> Tensor:
        projection, feature = groups_of(self.projections[index])[group], waiting.maps[group]

        def rows(first: int, last: int) -> Tensor:
            x = feature.rows(first, last)
            return x if waiting.projected else projection(x)

        site = projection.output if self.fused.active and self.sums[0].active else None
        return upsample_rows(rows, feature.height, height // feature.height, start, stop, site)

    def _fused(self, group: int, features: list[Waiting], largest: Tensor, start: int, stop: int) -> Tensor:
        """One group's channels of rows [start, stop), ready for the classifier; ``largest`` are the largest map's."""
        total = groups_of(self.projections[0])[group](largest)
        height = features[0].maps[group].height
        for i, waiting in enumerate(features[1:]):
            total = total + self._upsampled(i + 1, group, waiting, height, start, stop)
            if i < len(self.sums):
                total = self.sums[i](total)
        return self.fused(F.relu(total))

    def forward(self, features: list[Waiting]) -> Iterator[Tensor]:
        """The logits, band by band."""
        groups = range(len(features[0].maps))
        first = features[0].maps[0]
        for start, stop in _bands(first.height, features[-1].maps[0].height, self.bands):
            largest = first.rows(start, stop)  # once for all groups: it may be made anew
            fused = [self._fused(group, features, largest, start, stop) for group in groups]
            yield self.classifier(join(fused, 1, self.fused))
