"""The tiling that is fastest: what operators hand to the next one stays in a CPU's cache.

Attention scores are the largest tensors of the encoder and grow with the square of the input's area, and the head adds
maps of 256 channels at a quarter of the size. Each is written by one operator and read once by the next, so cutting
them into blocks costs a few operators and saves the way to main memory and back. Where a memory budget asks for a
tiling, its blocks are smaller still.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from segformer_edge.model.config import SegformerConfig
from segformer_edge.rewrite.cell_head import LARGEST_CELL
from segformer_edge.rewrite.tiling import Tiling

#: A block in bytes of float32: about the last-level cache of a core. Measured on B0 at 384x512 (benchmarks/speed.md).
BLOCK_BYTES = 3 * 1024 * 1024
_FLOAT = 4


def _parts(nbytes: int) -> int:
    """Into how many parts, a power of two, ``nbytes`` are cut."""
    parts = 1
    while nbytes > parts * BLOCK_BYTES:
        parts *= 2
    return parts


def cache_blocks(
    config: SegformerConfig, size: tuple[int, int], parts: Collection[str] = ("queries", "head_channels")
) -> Tiling:
    """Blocks of queries and groups of the head's channels, or cells, for an input of ``size`` (height, width).

    ``parts``: fields of the tiling that may be cut.
    """
    queries, stride = [], 1
    for patch, heads, reduction in zip(config.patch_strides, config.num_heads, config.reduction_sides, strict=True):
        stride *= patch
        tokens = (size[0] // stride) * (size[1] // stride)
        queries.append(_parts(tokens * (tokens // reduction**2) * heads * _FLOAT) if "queries" in parts else 1)
    quarter = (size[0] // config.patch_strides[0]) * (size[1] // config.patch_strides[0])
    head = _parts(quarter * config.decoder_dim * _FLOAT)
    in_cells = "head_cells" in parts and math.prod(config.patch_strides[1:]) <= LARGEST_CELL
    return Tiling(
        queries=tuple(queries),
        head_channels=head if "head_channels" in parts else 1,
        head_cells=head if in_cells else 0,
    )
