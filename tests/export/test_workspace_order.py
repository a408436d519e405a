"""The numbers of a file's tensors: what they are chosen by is what XNNPACK takes, to the byte."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantization.calibration import calibrate
from quantization.recipe import load_recipe
from segformer_edge.export import workspace_order
from segformer_edge.export.tflite import ordered
from segformer_edge.export.tflite_memory import COMPILED, forecast, workspace_blocks
from segformer_edge.export.tflite_write import tflite_bytes
from segformer_edge.export.tracing import record_channels_last
from segformer_edge.export.workspace_order import with_packed_workspace
from segformer_edge.memory.liveness import Block
from segformer_edge.memory.measure import measure
from segformer_edge.memory.xnnpack import workspace
from segformer_edge.model.config import variant_config
from segformer_edge.model.segformer import SegFormer
from segformer_edge.rewrite.graph import EdgeSegFormer
from segformer_edge.rewrite.tiling import Tiling

SIZE = (96, 128)
TILINGS = (
    Tiling((3, 2, 1, 1), queries=(2, 3, 1, 1), head=4, ffn=(1, 2, 1, 1), join_logits=True),
    Tiling((3, 1, 1, 1), queries=(3, 2, 2, 1), head=3, embedding=(2, 1, 1, 1)),
)
#: XNNPACK's own addition to a workspace.
EXTRA = 32


@pytest.fixture(scope="module")
def graphs():
    """Graphs of one small network, in the order of first use."""
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = SegFormer(replace(variant_config("b0", 11), depths=(1, 1, 1, 1))).eval()
        image = torch.randn(1, 3, *SIZE)
    network = EdgeSegFormer(model, "labels")
    calibrate(network, [image], load_recipe("lean"))
    made = {}
    for tiling in TILINGS:
        program = record_channels_last(copy.deepcopy(network).tile(tiling), SIZE)
        made[tiling] = replace(ordered(program), numbering=None)
    return made


@pytest.mark.parametrize("tiling", TILINGS)
@pytest.mark.parametrize("attempts", [0, 100])
def test_the_workspace_is_the_runtimes_to_the_byte(graphs, tiling, attempts, tmp_path):
    """Places and numbers are XNNPACK's own, or its workspace would have another size.

    The forecast has the tiles of AVX-512 kernels; other CPUs' pointers and packed factors differ by some of them.
    """
    graph = with_packed_workspace(graphs[tiling], COMPILED, attempts)
    (tmp_path / "model.tflite").write_bytes(tflite_bytes(graph))
    found = measure(tmp_path / "model.tflite", variant="compiled")
    expected, sizes = forecast(graph, COMPILED).workspace + EXTRA, [block.size for block in found.blocks]
    if "avx512f" in Path("/proc/cpuinfo").read_text():
        assert expected in sizes
    else:
        assert min(abs(size - expected) for size in sizes) < 0.05 * expected


@pytest.mark.parametrize("tiling", TILINGS)
def test_packing_only_renumbers_and_never_takes_more(graphs, tiling):
    graph = graphs[tiling]
    packed = with_packed_workspace(graph, COMPILED, 100)
    assert set(packed.tensors()) == set(graph.tensors()) and packed.operators == graph.operators
    before, after = forecast(graph, COMPILED), forecast(packed, COMPILED)
    assert after.alive == before.alive <= after.workspace <= before.workspace
    assert list(with_packed_workspace(graph, COMPILED, 100).tensors()) == list(packed.tensors())


def test_a_gap_that_the_first_order_leaves_is_filled():
    """Two of equal size: taken in the other order, the second fits beside the first's successor."""
    blocks = [Block(100, 0, 3, 0), Block(60, 3, 5, 1), Block(60, 0, 1, 2), Block(60, 1, 3, 3), Block(50, 4, 5, 4)]
    least = max(sum(b.bytes for b in blocks if b.first <= i <= b.last) for i in range(6))
    ranks = workspace_order._packed(blocks, True, 50)
    assert least <= workspace(blocks, True, ranks).bytes <= workspace(blocks, True).bytes


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([16, 32, 64]), st.integers(0, 9), st.integers(0, 4)), min_size=1, max_size=14)
)
def test_packed_blocks_never_overlap(drawn):
    blocks = [Block(size, first, first + length, i) for i, (size, first, length) in enumerate(drawn)]
    ranks = workspace_order._packed(blocks, True, 30)
    placed = workspace(blocks, True, ranks)
    for i, one in enumerate(blocks):
        for j in range(i):
            if one.first <= blocks[j].last and blocks[j].first <= one.last:
                a, b = placed.offsets[i], placed.offsets[j]
                assert a + one.bytes <= b or b + blocks[j].bytes <= a


def test_scratch_has_no_number(graphs):
    blocks, owners = workspace_blocks(graphs[TILINGS[0]], COMPILED)
    assert [owner is None for owner in owners] == [block.tensor < 0 for block in blocks]
    assert any(owner is None for owner in owners)
