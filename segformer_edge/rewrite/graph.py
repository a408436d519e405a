"""The network as it is deployed: the rewritten SegFormer as convolutions, with quantization sites.

Every linear layer is a 1x1 convolution on the feature map, so channels stay the last axis of memory in the runtimes'
own NHWC layout and no transpose is needed but around the heads of the attention. All tensors are ``(B, C, H, W)``.
Maps are passed on as bands of rows; the order of the operators is the order in which they run on the device, and with
it what is alive at the same time.
"""

from __future__ import annotations

import operator
from itertools import accumulate

import torch
from torch import Tensor, nn

from quantization.sites import Site
from segformer_edge.errors import UsageError
from segformer_edge.model.config import STRIDE, SegformerConfig
from segformer_edge.model.segformer import SegFormer, Stage
from segformer_edge.rewrite import rewrite_exactly
from segformer_edge.rewrite.blocks import EdgeBlock, Embedding, Norm
from segformer_edge.rewrite.cell_head import CellHead
from segformer_edge.rewrite.head import Head
from segformer_edge.rewrite.space_to_depth import ImageBlocks, block_convolution
from segformer_edge.rewrite.tiling import RecomputedRows, RowBands, Tiling, join, split


class EdgeStage(nn.Module):
    """Patch embedding, blocks and the stage norm, whose output is the stage's feature map."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.bands = 1
        self.embedding = Embedding(stage.patch_embedding)
        self.start = Site("residual")
        self.blocks = nn.ModuleList(EdgeBlock(block) for block in stage.blocks)
        self.norm = Norm(stage.norm, "feature")

    def forward(self, x: RowBands | ImageBlocks) -> RowBands:
        stream = RowBands(
            [self._embedded(x, *rows) for rows in split(self.embedding.height(x), self.bands)], self.start
        )
        for block in self.blocks:
            stream = block(stream)
        return stream.map(self.norm, self.norm.output)

    def recomputed(self, x: RowBands | ImageBlocks) -> RecomputedRows:
        """The feature map, of which no row is kept."""
        height = self.embedding.height(x)

        def rows(a: int, b: int) -> Tensor:
            return self._embedded(x, a, b)

        for block in self.blocks:
            rows = block.recomputed(rows, height, self.bands)
        return RecomputedRows(lambda a, b: self.norm(rows(a, b)), height, self.norm.output)

    def _embedded(self, x: RowBands | ImageBlocks, start: int, stop: int) -> Tensor:
        """Rows [start, stop) of the stream that the blocks begin with."""
        cuts = split(stop - start, self.embedding.bands)
        parts = [self.start(self.embedding.rows(x, start + a, start + b)) for a, b in cuts]
        return join(parts, 2, self.start)


class EdgeSegFormer(nn.Module):
    """Deployable SegFormer: an image ``(B, 3, H, W)`` in; logits ``(B, classes, H/4, W/4)`` or labels out.

    ``output="labels"`` takes the argmax inside the graph: uint8 ``(B, H/4, W/4)``. Raises UsageError for another form,
    or an image whose sides are not multiples of 32.
    """

    def __init__(self, model: SegFormer, output: str = "logits") -> None:
        super().__init__()
        if output not in ("logits", "labels"):
            raise UsageError(f"The output form is 'logits' or 'labels'; got '{output}'.")
        folded = rewrite_exactly(model)
        self.config = model.config
        self.output_form = output
        self.channels_last = False
        self.tiling: Tiling | None = None
        self.image = Site("image")
        self.stages = nn.ModuleList(EdgeStage(stage) for stage in folded.stages)
        self.decode_head: Head | CellHead = Head(folded.decode_head)
        self.eval()

    def tile(self, tiling: Tiling) -> EdgeSegFormer:
        """Compute by ``tiling`` from now on; call it once, after encodings are set."""
        self.tiling = tiling
        parts = zip(self.stages, tiling.bands, tiling.queries, tiling.hidden, tiling.ffn, tiling.embedding, strict=True)
        for stage, bands, queries, hidden, ffn, embedding in parts:
            stage.bands, stage.embedding.bands = bands, embedding
            for block in stage.blocks:
                block.queries, block.recompute_norm = queries, tiling.recompute_norm
                block.ffn.tile(hidden, ffn)
        if tiling.head_cells and self.decode_head.adds_in_float:
            self.decode_head = CellHead(self.decode_head, tiling.head_cells, _scales(self.config))
        else:
            self.decode_head.tile(tiling.head, tiling.head_channels)
        return self

    def take_channels_last(self) -> EdgeSegFormer:
        """Take the image as ``(B, H, W, 3)`` from now on, through a space-to-depth; call it after encodings are set."""
        if not self.channels_last:
            self.stages[0].embedding.proj = block_convolution(self.stages[0].embedding.proj)
            self.channels_last = True
        return self

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[1:3] if self.channels_last else image.shape[2:]
        if height % STRIDE or width % STRIDE:
            raise UsageError(f"The input is {height}x{width}; both sides must be multiples of {STRIDE}.")
        image = self.image(image)
        source: RowBands | ImageBlocks
        source = ImageBlocks(image, self.image) if self.channels_last else RowBands([image], self.image)
        tiling, waiting = self.tiling or Tiling(), []
        for index, stage in enumerate(self.stages):
            recompute = tiling.recompute_first and not index
            source = feature = stage.recomputed(source) if recompute else stage(source)
            waiting.append(self.decode_head.waiting(index, feature))
        bands = self.decode_head(waiting)
        labels = self.output_form == "labels"
        if labels and not tiling.join_logits:
            return join([_decided(logits) for logits in bands], 1, None)
        logits = join(list(bands), 2, self.decode_head.classifier.output)
        return _decided(logits) if labels else logits


def _scales(config: SegformerConfig) -> tuple[int, ...]:
    """What each feature map but the first is smaller by than the first."""
    return tuple(accumulate(config.patch_strides[1:], operator.mul))


def _decided(logits: Tensor) -> Tensor:
    """Labels ``(B, H, W)``, uint8."""
    return logits.argmax(dim=1).to(torch.uint8)
