"""The blocks that are cut for speed: how many, and that they change nothing."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segformer_edge.model.config import VARIANTS, variant_config
from segformer_edge.model.segformer import SegFormer
from segformer_edge.rewrite import cache_blocks as module
from segformer_edge.rewrite.cache_blocks import BLOCK_BYTES, cache_blocks
from segformer_edge.rewrite.graph import EdgeSegFormer
from segformer_edge.rewrite.tiling import Tiling


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(VARIANTS)), st.integers(1, 40), st.integers(1, 40))
def test_blocks_stay_within_the_cache_and_are_no_smaller_than_they_must(variant, rows, columns):
    config, size = variant_config(variant, 19), (32 * rows, 32 * columns)
    tiling = cache_blocks(config, size)
    assert tiling.bands == tiling.hidden == (1, 1, 1, 1) and tiling.head == 1
    tokens = [(size[0] // stride) * (size[1] // stride) for stride in (4, 8, 16, 32)]
    whole = [
        4 * count * (count // side**2) * heads
        for count, side, heads in zip(tokens, config.reduction_sides, config.num_heads, strict=True)
    ]
    cut = [*zip(whole, tiling.queries, strict=True), (4 * tokens[0] * config.decoder_dim, tiling.head_channels)]
    for nbytes, parts in cut:
        assert nbytes <= parts * BLOCK_BYTES and (parts == 1 or nbytes > parts // 2 * BLOCK_BYTES)


def test_small_inputs_are_not_cut():
    tiling = cache_blocks(variant_config("b0", 19), (128, 128))
    assert set(tiling.queries) == {1} and tiling.head_channels == 1


def test_what_is_cut_is_asked_for():
    config, size = variant_config("b0", 19), (512, 512)
    everything = cache_blocks(config, size, ("queries", "head_channels", "head_cells"))
    assert everything.head_cells == everything.head_channels > 1 and max(everything.queries) > 1
    assert cache_blocks(config, size).head_cells == 0
    assert cache_blocks(config, size, ("head_cells",)) == Tiling(head_cells=everything.head_cells)
    assert cache_blocks(config, size, ()) == Tiling()
    coarse = dataclasses.replace(config, patch_strides=(4, 2, 2, 4))  # weights of 1/1024 are not int8
    assert cache_blocks(coarse, size, ("head_cells",)).head_cells == 0


@pytest.mark.parametrize("limit", [1 << 10, 1 << 12])
def test_blocks_change_nothing(monkeypatch, limit):
    torch.manual_seed(0)
    model = SegFormer(variant_config("b0", 5)).double().eval()
    image = torch.randn(1, 3, 96, 64, dtype=torch.float64)
    monkeypatch.setattr(module, "BLOCK_BYTES", limit)
    tiling = cache_blocks(model.config, (96, 64))
    assert max(tiling.queries) > 1 and tiling.head_channels > 1
    with torch.no_grad():
        whole = EdgeSegFormer(model)(image)
        cut = EdgeSegFormer(model).tile(tiling)(image)
    assert (whole - cut).abs().max() <= 1e-12 * whole.abs().max()
