"""Exact rewrite 4: the network by bands of rows. A tile computes with the parameters of the whole, so with its bits.

The residual stream of a stage is held as bands, never as one tensor: attention takes one band of queries at a time
against the keys and values of the whole map, the Mix-FFN one band with a halo of one row, and the head one band through
to its logits or labels. A band is dead once its successor exists, so the peak is the stream and the feature maps that
wait for the head, plus one band's work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quantization.sites import QuantConv2d, Site
from segformer_edge.errors import UsageError

#: Rows [start, stop) of a map.
Rows = Callable[[int, int], Tensor]


@dataclass(frozen=True)
class Tiling:
    """Into how many parts each stage, and the head, is cut; 1 is untiled. Raises UsageError below 1.

    A count above what there is to cut means one row, or one channel, a part. ``recompute_norm``: a band is normalised
    once for the keys and again for its queries, so that the normalised map never exists as a whole.
    """

    #: Bands of rows of each stage's residual stream.
    bands: tuple[int, ...] = (1, 1, 1, 1)
    #: Of each stage's bands, how many blocks of queries attend one after the other.
    queries: tuple[int, ...] = (1, 1, 1, 1)
    #: Groups of the Mix-FFN's hidden channels, up to where they meet in its second linear.
    hidden: tuple[int, ...] = (1, 1, 1, 1)
    #: Bands of rows of the head.
    head: int = 1
    #: Groups of the head's channels, up to where they meet in the classifier.
    head_channels: int = 1
    recompute_norm: bool = False
    #: Of each stage's bands, how many the Mix-FFN cuts one into.
    ffn: tuple[int, ...] = (1, 1, 1, 1)
    #: The same for the patch embedding.
    embedding: tuple[int, ...] = (1, 1, 1, 1)
    #: Whether the head's bands are joined as logits, and labels made of them at once: fewer operators.
    join_logits: bool = False
    #: Whether the first stage's rows are made anew for every reader: its feature map, half of all, never waits.
    recompute_first: bool = False
    #: Groups of cells of the head where it adds in float, in place of its bands and groups of channels; 0 for no cells.
    #: The one count that is not exact where projections are integer: those of the smaller maps get one range.
    head_cells: int = 0

    def __post_init__(self) -> None:
        stages = (*self.bands, *self.queries, *self.hidden, *self.ffn, *self.embedding)
        if min(*stages, self.head, self.head_channels) < 1 or self.head_cells < 0:
            raise UsageError(f"A tiling has at least one part everywhere; got {self}.")

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Tiling:
        """The inverse of ``dataclasses.asdict`` after a trip through JSON."""
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
        return cls(**fields)


def split(rows: int, bands: int) -> list[tuple[int, int]]:
    """At most ``bands`` ranges [start, stop) that cover ``rows``, of one height but for a smaller last one."""
    height = -(-rows // min(bands, rows))
    return [(start, min(start + height, rows)) for start in range(0, rows, height)]


class RecomputedRows:
    """A map of ``height`` rows that is never whole: ``rows`` makes what is asked for anew. Takes the place of RowBands
    where a map is read by rows alone.
    """

    def __init__(self, rows: Rows, height: int, site: Site) -> None:
        self.rows, self.height, self.site = rows, height, site


class RowBands:
    """A map ``(B, C, H, W)`` as bands of rows from top to bottom, which came out of ``site``."""

    def __init__(self, parts: Sequence[Tensor], site: Site) -> None:
        self.parts, self.site = list(parts), site
        self.ranges: list[tuple[int, int]] = []
        for part in self.parts:
            start = self.ranges[-1][1] if self.ranges else 0
            self.ranges.append((start, start + part.shape[2]))

    @property
    def height(self) -> int:
        """Rows of the whole map."""
        return self.ranges[-1][1]

    def __iter__(self) -> Iterator[tuple[tuple[int, int], Tensor]]:
        return zip(self.ranges, self.parts, strict=True)

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop) as one tensor ``(B, C, stop - start, W)``, cut out of the bands they lie in."""
        pieces = [
            cut(part, max(start, first) - first, min(stop, last) - first, self.site)
            for (first, last), part in self
            if first < stop and start < last
        ]
        return join(pieces, 2, self.site)

    def map(self, function: Callable[[Tensor], Tensor], site: Site) -> RowBands:
        """The same bands with ``function`` applied, which gives the same rows at ``site``."""
        return RowBands([function(part) for part in self.parts], site)


def join(parts: Sequence[Tensor], dim: int, site: Site | None) -> Tensor:
    """``parts`` of what came out of ``site`` as one tensor; labels came out of none.

    XNNPACK concatenates up to four at a time, TFLite Micro up to ten.
    """
    parts = list(parts)
    while len(parts) > 1:
        groups = [parts[i : i + 4] for i in range(0, len(parts), 4)]
        parts = [group[0] if len(group) == 1 else behind_view(site, torch.cat(group, dim)) for group in groups]
    return parts[0]


def behind_view(site: Site | None, x: Tensor) -> Tensor:
    """``x``, a view of what came out of ``site``: integer kernels find its parameters only if they are repeated.

    Quantizing what is already quantized so changes nothing.
    """
    return site(x) if site is not None and site.active and site.mode.emulates else x


def cut(x: Tensor, start: int, stop: int, site: Site) -> Tensor:
    """Rows [start, stop) of ``x``, itself where that is all of it."""
    if (start, stop) == (0, x.shape[2]):
        return x
    return behind_view(site, x[:, :, start:stop])


def convolve_rows(conv: QuantConv2d, rows: Rows, height: int, start: int, stop: int) -> Tensor:
    """Rows [start, stop) of ``conv``'s output on a map of ``height`` rows, from ``rows(a, b)`` of its input.

    Rows of padding exist only at the map's edges. There the convolution pads both ends, as its operator must, and the
    row too many is cut off again.
    """
    kernel, stride, padding = conv.kernel_size[0], conv.stride[0], conv.padding[0]
    low, high = start * stride - padding, (stop - 1) * stride - padding + kernel
    taken = rows(max(low, 0), min(high, height))
    if low >= 0 and high <= height:
        return conv(taken, padding=(0, conv.padding[1]))
    y = conv(taken)
    # Only a stride of 1 reaches below the map; its first row is then one of the padding's.
    first = start if low < 0 else padding
    return cut(y, first, first + stop - start, conv.output)


@torch.no_grad()
def output_groups(conv: QuantConv2d, groups: int) -> list[QuantConv2d]:
    """``conv`` as convolutions that give its output channels group by group, with its scales, output site and mode.

    A depthwise convolution takes the same groups of its input.
    """
    if groups == 1:
        return [conv]
    made = []
    for start, stop in split(conv.out_channels, groups):
        depthwise = conv.groups > 1
        inputs = stop - start if depthwise else conv.in_channels
        plain = nn.Conv2d(
            inputs, stop - start, conv.kernel_size, conv.stride, conv.padding, groups=inputs if depthwise else 1,
            bias=conv.bias is not None,
        ).to(conv.weight)  # fmt: skip
        plain.weight.copy_(conv.weight[start:stop])
        if conv.bias is not None:
            plain.bias.copy_(conv.bias[start:stop])
        part = with_quantization_of(conv, plain)
        part.set_scales(None if conv.scales is None else conv.scales[start:stop].clone())
        made.append(part)
    return made


def groups_of(conv: nn.Module) -> list[QuantConv2d]:
    """The convolutions that stand for ``conv``, of which there is one unless it was cut."""
    return list(conv) if isinstance(conv, nn.ModuleList) else [conv]


def with_quantization_of(conv: QuantConv2d, plain: nn.Conv2d) -> QuantConv2d:
    """``plain`` in the role of ``conv``: its weight's width, output site and mode. Scales are the caller's to set."""
    result = QuantConv2d(conv.role, plain)
    result.mode, result.weight_dtype, result.output = conv.mode, conv.weight_dtype, conv.output
    return result


def upsample_rows(rows: Rows, height: int, scale: int, start: int, stop: int, site: Site | None) -> Tensor:
    """Rows [start, stop) of a map of ``height`` rows after bilinear upsampling by ``scale`` (half-pixel centres).

    ``site`` is the map's own where the resizing is integer, which keeps its input's parameters; None in float.
    """
    first = max(0, (2 * start + 1 - scale) // (2 * scale))
    last = min(height, (2 * stop - 1 - scale) // (2 * scale) + 2)
    x = rows(first, last)
    size = (x.shape[2] * scale, x.shape[3] * scale)
    y = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
    if site is None:
        return y if y.shape[2] == stop - start else y[:, :, start - first * scale : stop - first * scale]
    return cut(behind_view(site, y), start - first * scale, stop - first * scale, site)
