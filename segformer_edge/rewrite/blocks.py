"""The parts of a stage as they are deployed: norm, patch embedding, attention, Mix-FFN. Maps are ``(B, C, H, W)``."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quantization.sites import Mode, QuantConv2d, Site
from segformer_edge.model.segformer import Block, EfficientSelfAttention, MixFFN, OverlapPatchEmbedding
from segformer_edge.rewrite import RmsNorm
from segformer_edge.rewrite.space_to_depth import ImageBlocks
from segformer_edge.rewrite.tiling import RowBands, Rows, convolve_rows, cut, groups_of, join, output_groups, split

#: Softmax lies in [0, 1]; every runtime's int8 softmax kernel asks for exactly these parameters.
SOFTMAX_PARAMS = (1.0 / 256.0, -128)


class VarianceSite(Site):
    """The mean of squares. A variance that rounds to zero counts as one step, since its reciprocal root is taken."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if self.mode in (Mode.FLOAT, Mode.OBSERVE, Mode.EXPORT) or self.params is None:
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
        self.bands = 1
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

    def forward(self, x: Tensor, key: Tensor, value: Tensor, blocks: int = 1) -> Tensor:
        """One band's queries, ``blocks`` of them one after the other."""
        batch, dim, height, width = x.shape
        query = self._again(self.query.output, self._heads(self.query(x)))
        tokens = split(height * width, blocks)
        # All blocks are cut out before the first attends: the whole is dead by then, and its room the contexts' own.
        parts = [query] if len(tokens) == 1 else [self._again(self.query.output, query[:, a:b]) for a, b in tokens]
        context = join([self._attend(part, key, value) for part in parts], 1, self.context)
        context = context.reshape(batch, self.heads, height * width, dim // self.heads).permute(0, 2, 1, 3)
        context = context.reshape(batch, height, width, dim).permute(0, 3, 1, 2)
        return self.proj(self.context(context))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scores = self.softmax_input(self.scores(torch.bmm(self.query_operand(query), self.key_operand(key))))
        context = torch.bmm(self.probabilities(scores.softmax(dim=-1)), self.value_operand(value))
        return self._again(self.context, self.weighted(context))


class FeedForward(nn.Module):
    """Mix-FFN, with a halo of one row around a band; each group of hidden channels by itself up to ``fc2``."""

    def __init__(self, ffn: MixFFN) -> None:
        super().__init__()
        self.bands = 1
        self.fc1 = QuantConv2d.from_linear("fc1", ffn.fc1)
        self.depthwise = QuantConv2d("depthwise", ffn.depthwise)
        self.activation = Site("gelu")
        self.fc2 = QuantConv2d.from_linear("fc2", ffn.fc2)

    def tile(self, groups: int, bands: int) -> None:
        """Cut the hidden channels, and every band of rows."""
        self.bands = bands
        if groups > 1:
            self.fc1 = nn.ModuleList(output_groups(self.fc1, groups))
            self.depthwise = nn.ModuleList(output_groups(self.depthwise, groups))

    def rows(self, rows: Rows, height: int, start: int, stop: int) -> Tensor:
        """Rows [start, stop) of the output for a map of ``height`` rows."""
        rows = functools.cache(rows)  # every group reads the same
        hidden = []
        for fc1, depthwise in zip(groups_of(self.fc1), groups_of(self.depthwise), strict=True):

            def expanded(first: int, last: int, fc1: QuantConv2d = fc1) -> Tensor:
                return fc1(rows(first, last))

            hidden.append(self.activation(F.gelu(convolve_rows(depthwise, expanded, height, start, stop))))
        return self.fc2(join(hidden, 1, self.activation))


def _once(site: Site, before: Site, x: Tensor) -> Tensor:
    """``x`` out of ``before`` through ``site``, which stays out where it would only round integers again."""
    return x if before.active and before.mode.emulates and before.dtype == site.dtype else site(x)


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
        self.attention.proj.output.sums = self.branch1.sums = (self.residual1,)
        self.ffn.fc2.output.sums = self.branch2.sums = (self.residual2,)

    def _attended(self, x: RowBands) -> RowBands:
        bands, parts = len(x.parts), []
        if self.recompute_norm and bands > 1:
            stream = x

            def rows(start: int, stop: int) -> Tensor:
                pieces = [stream.rows(max(a, start), min(b, stop)) for (a, b), _ in stream if a < stop and start < b]
                return join([self.norm1(piece) for piece in pieces], 2, self.norm1.output)
        else:
            rows = x.map(self.norm1, self.norm1.output).rows
        # Every band of the reduction packs its weights anew; a normalised map that is kept anyway needs few.
        key, value = self.attention.keys_values(rows, x.height, bands if self.recompute_norm else -(-bands // 4))
        for (start, stop), part in x:
            branch = self.attention(rows(start, stop), key, value, self.queries)
            parts.append(self.residual1(part + _once(self.branch1, self.attention.proj.output, branch)))
        return RowBands(parts, self.residual1)

    def forward(self, x: RowBands) -> RowBands:
        x = self._attended(x)
        parts = []
        for (start, stop), _ in x:
            rows = self._normed(x, start, stop)
            made = []
            for a, b in split(stop - start, self.ffn.bands):
                branch = self.ffn.rows(rows, x.height, start + a, start + b)
                branch = _once(self.branch2, self.ffn.fc2.output, branch)
                made.append(self.residual2(x.rows(start + a, start + b) + branch))
            parts.append(join(made, 2, self.residual2))
        return RowBands(parts, self.residual2)

    def recomputed(self, x: Rows, height: int, bands: int) -> Rows:
        """Rows of the output from ``x``, rows of the input, anew for every reader: only the keys and values stay.

        ``bands``: into how many the sequence reduction is cut.
        """
        key, value = self.attention.keys_values(lambda a, b: self.norm1(x(a, b)), height, bands)

        def attended(a: int, b: int) -> Tensor:
            part = x(a, b)
            branch = self.attention(self.norm1(part), key, value, self.queries)
            return self.residual1(part + _once(self.branch1, self.attention.proj.output, branch))

        def rows(a: int, b: int) -> Tensor:
            first = max(a - 1, 0)
            part = attended(first, min(b + 1, height))
            normed = self.norm2(part)
            branch = self.ffn.rows(lambda c, d: cut(normed, c - first, d - first, self.norm2.output), height, a, b)
            branch = _once(self.branch2, self.ffn.fc2.output, branch)
            return self.residual2(cut(part, a - first, b - first, self.residual1) + branch)

        return rows

    def _normed(self, x: RowBands, start: int, stop: int) -> Rows:
        """Rows of what the Mix-FFN reads for the band [start, stop), whose cuts share what is normalised."""
        if self.ffn.bands == 1:
            return lambda a, b: self.norm2(x.rows(a, b))
        first = max(start - 1, 0)
        band = self.norm2(x.rows(first, min(stop + 1, x.height)))
        return lambda a, b: cut(band, a - first, b - first, self.norm2.output)
