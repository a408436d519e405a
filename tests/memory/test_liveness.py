"""Lifetimes and the arena planner, against brute force on random graphs."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segformer_edge.memory.graph import GraphBuilder, MemoryGraph, tensor_bytes, with_in_place
from segformer_edge.memory.liveness import Block, arrange_by_size, greedy_by_size, liveness


@st.composite
def graphs(draw: st.DrawFn) -> MemoryGraph:
    """Up to a dozen operators that read any earlier tensors; some results are outputs, some are never read."""
    builder = GraphBuilder()
    constant = builder.tensor("w", (draw(st.integers(1, 9)),), "int8", "constant", area="file")
    values = [builder.tensor("x", (draw(st.integers(0, 50)),), "int8", "input")]
    for i in range(draw(st.integers(1, 12))):
        inputs = draw(st.lists(st.sampled_from([*values, constant]), min_size=1, max_size=3))
        kind = "output" if draw(st.booleans()) else "intermediate"
        size = draw(st.one_of(st.integers(0, 50), st.just(builder.tensors[inputs[0]].bytes)))
        out = builder.tensor(f"t{i}", (size,), "int8", kind)
        builder.operator(
            draw(st.sampled_from(["Reshape", "Relu", "Conv"])), inputs, [out], scratch=draw(st.integers(0, 9))
        )
        values.append(out)
    return builder.build(holds_inputs=draw(st.booleans()))


def live_by_simulation(graph: MemoryGraph) -> list[int]:
    """Run the operators one by one over a set of what is stored; throw out what nobody will ask for again."""
    steps = len(graph.operators)

    def owner(t: int) -> int:
        while graph.tensors[t].alias_of is not None:
            t = graph.tensors[t].alias_of  # type: ignore[assignment]
        return t

    def needed_after(t: int, step: int) -> bool:
        names = [i for i in range(len(graph.tensors)) if owner(i) == t]
        made = {u for op in graph.operators[: step + 1] for u in op.outputs}
        read = any(u in op.inputs or u in op.outputs for op in graph.operators[step + 1 :] for u in names)
        given_out = any(graph.tensors[u].kind == "output" and u in made for u in names)
        held = graph.holds_inputs and any(graph.tensors[u].kind == "input" for u in names)
        return read or given_out or held

    stored = {owner(t) for t, tensor in enumerate(graph.tensors) if tensor.kind == "input"}
    result = []
    for step in range(steps):
        op = graph.operators[step]
        stored |= {owner(t) for t in (*op.inputs, *op.outputs)}
        counted = [t for t in stored if graph.tensors[t].kind != "constant"]
        result.append(sum(graph.tensors[t].bytes for t in counted) + op.scratch)
        stored = {t for t in stored if needed_after(t, step)}
    return result


@given(graphs())
def test_live_bytes_are_those_of_a_simulation(graph):
    assert list(liveness(graph).live_bytes) == live_by_simulation(graph)


@given(graphs())
def test_aliases_are_merged_and_never_raise_the_peak(graph):
    shared = with_in_place(graph, ["Reshape"], ["Relu"])
    assert list(liveness(shared).live_bytes) == live_by_simulation(shared)
    assert liveness(shared).peak_bytes <= liveness(graph).peak_bytes


@given(graphs())
def test_writing_in_place_never_destroys_what_is_read_later(graph):
    shared = with_in_place(graph, [], ["Relu"])
    for i, op in enumerate(shared.operators):
        for out in op.outputs:
            source = shared.tensors[out].alias_of
            if source is not None:
                later = {t for other in shared.operators[i + 1 :] for t in other.inputs}
                assert source not in later
                assert shared.tensors[source].kind == "intermediate"


BLOCKS = st.lists(
    st.builds(
        lambda size, first, length: Block(size, first, first + length),
        st.integers(0, 300), st.integers(0, 15), st.integers(0, 6),
    ),
    max_size=14,
)  # fmt: skip


@given(BLOCKS, st.sampled_from([1, 16, 64]))
def test_an_arrangement_lies_between_the_lower_bound_and_the_sum(blocks, alignment):
    placed = arrange_by_size(blocks, alignment)
    live = [sum(b.bytes for b in blocks if b.first <= step <= b.last) for step in range(32)]
    assert max(live) <= placed.bytes <= sum(-(-b.bytes // alignment) * alignment for b in blocks)
    spans = [(offset, offset + b.bytes, b) for offset, b in zip(placed.offsets, blocks, strict=True) if b.bytes]
    assert all(start % alignment == 0 and end <= placed.bytes for start, end, _ in spans)
    for i, (start, end, one) in enumerate(spans):
        for other_start, other_end, other in spans[:i]:
            together = one.first <= other.last and other.first <= one.last
            assert not (together and start < other_end and other_start < end)


def test_the_smallest_gap_that_fits_is_taken():
    blocks = [Block(100, 0, 9), Block(64, 0, 3), Block(60, 0, 9), Block(32, 0, 3), Block(30, 0, 9), Block(29, 5, 5)]
    # Free at step 5: 64 bytes at 100 and 32 at 224. The last one belongs into the 32.
    assert arrange_by_size(blocks, alignment=1).offsets == (0, 100, 164, 224, 256, 224)


def test_the_input_is_free_after_its_last_reader_unless_the_runtime_holds_it():
    builder = GraphBuilder()
    image = builder.tensor("image", (8,), "float32", "input")
    a, b, c = (builder.tensor(name, (2,), "float32") for name in "abc")
    out = builder.tensor("out", (1,), "float32", "output")
    for source, target in ((image, a), (a, b), (b, c), (c, out)):
        builder.operator("conv", [source], [target])
    assert liveness(builder.build()).live_bytes == (40, 16, 16, 12)
    assert liveness(builder.build(holds_inputs=True)).live_bytes == (40, 48, 48, 44)


def test_the_peak_names_what_is_live_there():
    builder = GraphBuilder()
    image = builder.tensor("image", (2,), "int8", "input")
    waiting = builder.tensor("waiting", (10,), "int8")
    large = builder.tensor("large", (20,), "int8")
    out = builder.tensor("out", (1,), "int8", "output")
    builder.operator("a", [image], [waiting])
    builder.operator("b", [image], [large], scratch=5)
    builder.operator("c", [large, waiting], [out])
    live = liveness(builder.build())
    assert live.peak_operator == 1
    assert [(block.bytes, block.tensor) for block in live.live_at(1)] == [
        (20, large), (10, waiting), (5, -1), (2, image),
    ]  # fmt: skip
    assert live.peak_bytes == 37


def test_a_graph_without_operators_has_no_peak():
    live = liveness(GraphBuilder().build())
    assert (live.peak_bytes, live.peak_operator, live.blocks) == (0, None, ())


@pytest.mark.parametrize(("shape", "dtype", "count"), [((3, 5), "int4", 8), ((), "float32", 4), ((2, -1), "int8", 0)])
def test_bytes_of_a_tensor(shape, dtype, count):
    assert tensor_bytes(shape, dtype) == count


def test_references_into_nothing_and_circles_are_refused():
    builder = GraphBuilder()
    builder.operator("a", [0], [])
    with pytest.raises(ValueError, match="names tensor 0"):
        builder.build()
    circle = GraphBuilder()
    circle.tensor("a", (1,), "int8", alias_of=1)
    circle.tensor("b", (1,), "int8", alias_of=0)
    circle.operator("x", [0], [1])
    with pytest.raises(ValueError, match="alias of itself"):
        liveness(circle.build())


def test_thousands_of_operators_are_planned_at_once():
    builder, values, chance = GraphBuilder(), [], random.Random(0)
    values.append(builder.tensor("x", (1000,), "int8", "input"))
    for i in range(3000):
        values.append(builder.tensor(f"t{i}", (chance.randrange(1, 10000),), "int8"))
        builder.operator("op", [values[-2], chance.choice(values[-30:-1])], [values[-1]])
    graph = builder.build()
    start = time.perf_counter()
    live = liveness(graph)
    arena = greedy_by_size(live.blocks)
    # Some 0.1 s; a quadratic planner would take ten times as long.
    assert time.perf_counter() - start < 1.5
    assert live.peak_bytes <= arena
