"""Arenas by search: nothing overlaps, none is larger than a greedy one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segformer_edge.memory.liveness import Block, Liveness, live_bytes
from segformer_edge.memory.packing import pack


@st.composite
def lives(draw: st.DrawFn) -> Liveness:
    steps = draw(st.integers(1, 12))
    blocks = []
    for _ in range(draw(st.integers(0, 20))):
        first = draw(st.integers(0, steps - 1))
        blocks.append(Block(draw(st.integers(0, 100)), first, draw(st.integers(first, steps - 1))))
    return Liveness(live_bytes(blocks, steps), tuple(blocks))


@given(lives(), st.sampled_from([1, 16]))
def test_no_two_blocks_share_a_byte_at_a_time(found, alignment):
    made = pack(found, alignment, attempts=5)
    placed = list(zip(found.blocks, made.offsets, strict=True))
    assert all(offset % alignment == 0 for _, offset in placed)
    assert all(offset + block.bytes <= made.bytes for block, offset in placed)
    for i, (one, a) in enumerate(placed):
        for other, b in placed[:i]:
            together = one.first <= other.last and other.first <= one.last
            assert not together or not one.bytes or not other.bytes or a + one.bytes <= b or b + other.bytes <= a
    assert made.bytes >= found.peak_bytes


@given(lives())
def test_the_search_makes_none_larger_and_repeats(found):
    made = pack(found, 16)
    assert made.bytes <= pack(found, 16, attempts=0).bytes
    assert made == pack(found, 16)


def test_the_search_finds_what_greedy_misses():
    """Largest first leaves a hole of 3 that nothing fits into."""
    blocks = (Block(4, 0, 1), Block(3, 1, 2), Block(3, 2, 3), Block(4, 3, 4), Block(4, 0, 0), Block(5, 4, 4))
    found = Liveness(live_bytes(blocks, 5), blocks)
    assert pack(found, 1).bytes == found.peak_bytes == pytest.approx(9)
