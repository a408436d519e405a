"""The network as it is deployed: the rewritten SegFormer as convolutions, with quantization sites.

Every linear layer is a 1x1 convolution on the feature map, so channels stay the last axis of memory in the runtimes'
own NHWC layout and no transpose is needed but around the heads of the attention. All tensors are ``(B, C, H, W)``.
Maps are passed on as bands of rows; the order of the operators is the order in which they run on the device, and with
it what is alive at the same time.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quantization.sites import Mode, QuantConv2d, Site
from segformer_edge.errors import UsageError
from segformer_edge.model.config import STRIDE
from segformer_edge.model.segformer import (
    Block,
    EfficientSelfAttention,
    MixFFN,
    OverlapPatchEmbedding,
    SegFormer,
    Stage,
)
from segformer_edge.rewrite import FoldedHead, RmsNorm, rewrite_exactly
from segformer_edge.rewrite.space_to_depth import ImageBlocks, block_convolution
from segformer_edge.rewrite.tiling import (
    RowBands,
    Rows,
    Tiling,
    convolve_rows,
    join,
    output_groups,
    split,
    upsample_rows,
)

#: Softmax lies in [0, 1]; every runtime's int8 softmax kernel asks for exactly these parameters.
SOFTMAX_PARAMS = (1.0 / 256.0, -128)


class VarianceSite(Site):
    """The mean of squares. A variance that rounds to zero counts as one step, since its reciprocal root is taken."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if self.mode in (Mode.FLOAT, Mode.OBSERVE) or self.mode.exports or self.params is None:
            return y  # runtimes saturate the root of zero on their own
        return y.clamp_min(self.params.scale)


class Norm(nn.Module):
    """RMS norm over channels: the mean of squares is a C -> 1 convolution whose bias is epsilon.

    The sites between the operators are for recipes without float; ``product`` is the normalised tensor, which then
    goes through ``weight`` and ``bias`` where the affine part could not be folded, and leaves as ``output``.
    """

    def __init__(self, norm: RmsNorm, role: str) -> None:
        super().__init__()
        mean = nn.Conv2d(norm.mean.shape[1], 1, 1).to(norm.mean)
        with torch.no_grad():
            mean.weight.copy_(norm.mean[:, :, None, None])
            mean.bias.fill_(norm.eps)
        self.input, self.square = Site("norm_input"), Site("norm_square")
        self.mean = QuantConv2d("norm_variance", mean).requires_grad_(False)
        self.mean.output = VarianceSite("norm_variance")
        self.rsqrt, self.product = Site("norm_rsqrt"), Site("norm_product")
        self.weight = None if norm.weight is None else nn.Parameter(norm.weight[None, :, None, None].clone())
        self.bias = None if norm.bias is None else nn.Parameter(norm.bias[None, :, None, None].clone())
        if self.weight is not None:
            self.weight_operand, self.scaled = Site("norm_weight"), Site("norm_scaled")
        if self.bias is not None:
            self.bias_operand, self.shifted = Site("norm_bias"), Site("norm_shifted")
        self.output = Site(role)

    def forward(self, x: Tensor) -> Tensor:
        x = self.input(x)
        x = self.product(x * self.rsqrt(torch.rsqrt(self.mean(self.square(x * x)))))
        if self.weight is not None:
            x = self.scaled(x * self.weight_operand(self.weight))
        if self.bias is not None:
            x = self.shifted(x + self.bias_operand(self.bias))
        return self.output(x)


class Embedding(nn.Module):
    """Overlap patch embedding; the norm's affine part and the centring are one C -> C convolution."""

    def __init__(self, embedding: OverlapPatchEmbedding) -> None:
        super().__init__()
        norm, affine = embedding.norm
        self.proj = QuantConv2d("patch_embedding", embedding.proj)
        self.norm = Norm(norm, "embedding_norm")
        self.affine = QuantConv2d.from_linear("embedding_affine", affine)

    def height(self, x: RowBands | ImageBlocks) -> int:
        """Rows of the embedding of ``x``."""
        conv = self.proj
        return (x.height + 2 * conv.padding[0] - conv.kernel_size[0]) // conv.stride[0] + 1

    def rows(self, x: RowBands | ImageBlocks, start: int, stop: int) -> Tensor:
        """Rows [start, stop) of the embedding of ``x``."""
        return self.affine(self.norm(convolve_rows(self.proj, x.rows, x.height, start, stop)))


class Attention(nn.Module):
    """Efficient self-attention on a normalised feature map; products are 3-D bmm over ``B * heads``.

    Called with a band of queries, against the ``keys_values`` of the whole map.
    """

    def __init__(self, attention: EfficientSelfAttention) -> None:
        super().__init__()
        self.heads = attention.heads
        self.query = QuantConv2d.from_linear("query", attention.q)
        self.key = QuantConv2d.from_linear("key", attention.k)
        self.value = QuantConv2d.from_linear("value", attention.v)
        self.proj = QuantConv2d.from_linear("attention_output", attention.proj)
        self.reduction = None
        if attention.reduction is not None:
            self.reduction = QuantConv2d("sequence_reduction", attention.reduction.conv)
            self.reduction_norm = Norm(attention.reduction.norm, "reduction_norm")
        self.query_operand, self.key_operand = Site("attention_query"), Site("attention_key")
        self.value_operand = Site("attention_value")
        self.scores, self.softmax_input = Site("attention_scores"), Site("softmax_input")
        self.probabilities = Site("attention_probabilities", fixed=SOFTMAX_PARAMS)
        self.weighted, self.context = Site("attention_weighted"), Site("attention_context")

    def _heads(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B*heads, H*W, C/heads)."""
        batch, dim, height, width = x.shape
        x = x.permute(0, 2, 3, 1).reshape(batch, height * width, self.heads, dim // self.heads)
        return x.permute(0, 2, 1, 3).reshape(batch * self.heads, height * width, dim // self.heads)

    def _again(self, site: Site, x: Tensor) -> Tensor:
        """Behind a view, integer kernels find their operand's parameters only if these are repeated."""
        return site(x) if self.scores.active else x

    def keys_values(self, rows: Rows, height: int, bands: int) -> tuple[Tensor, Tensor]:
        """Keys ``(B*heads, C/heads, N)`` and values ``(B*heads, N, C/heads)`` of a map of ``height`` rows."""
        if self.reduction is None:
            source = rows(0, height)
        else:
            ratio = self.reduction.stride[0]
            parts = [self.reduction(rows(a * ratio, b * ratio)) for a, b in split(height // ratio, bands)]
            reduced = RowBands(parts, self.reduction.output)
            source = self.reduction_norm(reduced.rows(0, reduced.height))
        key = self._again(self.key.output, self._heads(self.key(source)).permute(0, 2, 1))
        return key, self._again(self.value.output, self._heads(self.value(source)))

    def forward(self, x: Tensor, key: Tensor, value: Tensor) -> Tensor:
        batch, dim, height, width = x.shape
        query = self._again(self.query.output, self._heads(self.query(x)))
        scores = self.softmax_input(self.scores(torch.bmm(self.query_operand(query), self.key_operand(key))))
        context = torch.bmm(self.probabilities(scores.softmax(dim=-1)), self.value_operand(value))
        context = self._again(self.context, self.weighted(context))
        context = context.reshape(batch, self.heads, height * width, dim // self.heads).permute(0, 2, 1, 3)
        context = context.reshape(batch, height, width, dim).permute(0, 3, 1, 2)
        return self.proj(self.context(context))


class FeedForward(nn.Module):
    """Mix-FFN, with a halo of one row around a band; each group of hidden channels by itself up to ``fc2``."""

    def __init__(self, ffn: MixFFN) -> None:
        super().__init__()
        self.fc1 = QuantConv2d.from_linear("fc1", ffn.fc1)
        self.depthwise = QuantConv2d("depthwise", ffn.depthwise)
        self.activation = Site("gelu")
        self.fc2 = QuantConv2d.from_linear("fc2", ffn.fc2)

    def tile(self, groups: int) -> None:
        """Cut the hidden channels."""
        self.fc1 = nn.ModuleList(output_groups(self.fc1, groups))
        self.depthwise = nn.ModuleList(output_groups(self.depthwise, groups))

    def rows(self, rows: Rows, height: int, start: int, stop: int) -> Tensor:
        """Rows [start, stop) of the output for a map of ``height`` rows."""
        rows = functools.cache(rows)  # every group reads the same
        hidden = []
        for fc1, depthwise in zip(_group(self.fc1), _group(self.depthwise), strict=True):

            def expanded(first: int, last: int, fc1: QuantConv2d = fc1) -> Tensor:
                return fc1(rows(first, last))

            hidden.append(self.activation(F.gelu(convolve_rows(depthwise, expanded, height, start, stop))))
        return self.fc2(join(hidden, 1, self.activation))


def _group(conv: nn.Module) -> list[QuantConv2d]:
    """The convolutions that stand for ``conv``, of which there is one unless it was cut."""
    return list(conv) if isinstance(conv, nn.ModuleList) else [conv]


class EdgeBlock(nn.Module):
    """One transformer block on a centred residual stream."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.queries, self.recompute_norm = 1, False
        self.norm1, self.norm2 = Norm(block.norm1, "norm"), Norm(block.norm2, "norm")
        self.attention = Attention(block.attention)
        self.ffn = FeedForward(block.ffn)
        self.branch1, self.branch2 = Site("residual_branch"), Site("residual_branch")
        self.residual1, self.residual2 = Site("residual"), Site("residual")

    def _attended(self, x: RowBands) -> RowBands:
        bands, parts = len(x.parts), []
        if self.recompute_norm and bands > 1:
            stream = x

            def rows(start: int, stop: int) -> Tensor:
                return self.norm1(stream.rows(start, stop))
        else:
            rows = x.map(self.norm1, self.norm1.output).rows
        # Every band of the reduction packs its weights anew; a normalised map that is kept anyway needs few.
        key, value = self.attention.keys_values(rows, x.height, bands if self.recompute_norm else -(-bands // 4))
        for (start, stop), part in x:
            blocks = [(start + a, start + b) for a, b in split(stop - start, self.queries)]
            branch = [self.branch1(self.attention(rows(a, b), key, value)) for a, b in blocks]
            parts.append(self.residual1(part + join(branch, 2, self.branch1)))
        return RowBands(parts, self.residual1)

    def forward(self, x: RowBands) -> RowBands:
        x = self._attended(x)
        parts = []
        for (start, stop), part in x:
            branch = self.ffn.rows(lambda a, b: self.norm2(x.rows(a, b)), x.height, start, stop)
            parts.append(self.residual2(part + self.branch2(branch)))
        return RowBands(parts, self.residual2)


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
        ranges = split(self.embedding.height(x), self.bands)
        stream = RowBands([self.start(self.embedding.rows(x, a, b)) for a, b in ranges], self.start)
        for block in self.blocks:
            stream = block(stream)
        return stream.map(self.norm, self.norm.output)


class Waiting(NamedTuple):
    """A stage's feature map until the head reads it, once for each group of the head's channels."""

    maps: list[RowBands]
    #: Whether ``maps`` are the groups' projections, rather than each the whole feature map.
    projected: bool


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

    def tile(self, bands: int, groups: int) -> None:
        """Cut the rows and the channels."""
        self.bands = bands
        self.projections = nn.ModuleList(nn.ModuleList(output_groups(each, groups)) for each in self.projections)

    def waiting(self, index: int, feature: RowBands) -> Waiting:
        """What is kept of stage ``index`` until the head runs: its projections where they are no larger."""
        groups = _group(self.projections[index])
        if index and sum(each.out_channels for each in groups) <= groups[0].in_channels:
            return Waiting([feature.map(each, each.output) for each in groups], projected=True)
        return Waiting([feature] * len(groups), projected=False)

    def _upsampled(self, index: int, group: int, waiting: Waiting, height: int, start: int, stop: int) -> Tensor:
        projection, feature = _group(self.projections[index])[group], waiting.maps[group]

        def rows(first: int, last: int) -> Tensor:
            x = feature.rows(first, last)
            return x if waiting.projected else projection(x)

        site = projection.output if self.fused.active and self.sums[0].active else None
        return upsample_rows(rows, feature.height, height // feature.height, start, stop, site)

    def _fused(self, group: int, features: list[Waiting], start: int, stop: int) -> Tensor:
        """One group's channels of rows [start, stop), ready for the classifier."""
        largest = features[0].maps[group]
        total = _group(self.projections[0])[group](largest.rows(start, stop))
        for i, waiting in enumerate(features[1:]):
            total = total + self._upsampled(i + 1, group, waiting, largest.height, start, stop)
            if i < len(self.sums):
                total = self.sums[i](total)
        return self.fused(F.relu(total))

    def forward(self, features: list[Waiting]) -> Iterator[Tensor]:
        """The logits, band by band."""
        groups = range(len(features[0].maps))
        for start, stop in split(features[0].maps[0].height, self.bands):
            fused = [self._fused(group, features, start, stop) for group in groups]
            yield self.classifier(join(fused, 1, self.fused))


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
        self.decode_head = Head(folded.decode_head)
        self.eval()

    def tile(self, tiling: Tiling) -> EdgeSegFormer:
        """Compute by ``tiling`` from now on; call it once, after encodings are set."""
        self.tiling = tiling
        for stage, bands, queries, hidden in zip(self.stages, tiling.bands, tiling.queries, tiling.hidden, strict=True):
            stage.bands = bands
            for block in stage.blocks:
                block.queries, block.recompute_norm = queries, tiling.recompute_norm
                block.ffn.tile(hidden)
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
        waiting = []
        for index, stage in enumerate(self.stages):
            source = feature = stage(source)
            waiting.append(self.decode_head.waiting(index, feature))
        bands = self.decode_head(waiting)
        if self.output_form == "labels":
            bands = (logits.argmax(dim=1).to(torch.uint8) for logits in bands)
        parts = list(bands)
        if len(parts) == 1:
            return parts[0]
        if self.output_form == "labels":
            return torch.cat(parts, dim=1)
        return join(parts, 2, self.decode_head.classifier.output)
