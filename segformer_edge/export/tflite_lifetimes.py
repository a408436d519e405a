"""A tiled graph for XNNPACK with shorter lifetimes: the same bits, less of the workspace alive at once.

XNNPACK computes in place where nothing else reads what an operator takes. A norm reads its input twice, for the squares
and for the product: dequantized once, the float map stays beside its squares; dequantized for each reader, both are in
place, and the norm's peak is half of it. Blocks of queries that are cut out before their axes are exchanged need a
transpose each; exchanged before, one serves all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from segformer_edge.export.tflite_graph import EmittedGraph, Operator, Tensor, constant

_Readers = dict[Tensor, list[Operator]]


def with_short_lifetimes(graph: EmittedGraph) -> EmittedGraph:
    """``graph`` with one reader for each dequantized map that a norm squares, and blocks cut behind one transpose."""
    for rewrite in (_squared_apart, _transposed_once):
        graph = replace(graph, operators=list(rewrite(graph, _readers(graph))))
    return graph


def _readers(graph: EmittedGraph) -> _Readers:
    found: _Readers = defaultdict(list)
    for op in graph.operators:
        for tensor in dict.fromkeys(tensor for tensor in op.inputs if tensor is not None):
            found[tensor].append(op)
    return found


def _squared_apart(graph: EmittedGraph, _: _Readers) -> Iterator[Operator]:
    """Every other reader of a map whose squares are taken dequantizes it for itself."""
    makers = {op.output: op for op in graph.operators}
    squared: set[Tensor] = set()
    for op in graph.operators:
        taken = op.inputs[0]
        if op.code == "MUL" and taken is op.inputs[1] and taken in makers and makers[taken].code == "DEQUANTIZE":
            squared.add(taken)
            yield Operator("SQUARE", (taken,), op.output, {}, op.where)
            continue
        inputs = list(op.inputs)
        for place, tensor in enumerate(inputs):
            if tensor is not None and tensor in squared:
                again = Tensor(tensor.shape, tensor.kind, name=tensor.name)
                yield replace(makers[tensor], output=again)
                inputs[place] = again
        yield replace(op, inputs=tuple(inputs))


def _transposed_once(graph: EmittedGraph, readers: _Readers) -> Iterator[Operator]:
    """Slices of one tensor that are all transposed alike become slices of the transposed tensor."""
    whole: dict[Tensor, Tensor] = {}
    known: dict[tuple[int, ...], Tensor] = {}
    done: set[Operator] = set()
    for op in graph.operators:
        turn = _common_transpose(op, readers)
        if op in done:
            continue
        if turn is None or op.inputs[0] is None:
            yield op
            continue
        source, order = op.inputs[0], _integers(turn.inputs[1])
        if source not in whole:
            whole[source] = Tensor(tuple(source.shape[i] for i in order), source.kind, name=turn.output.name)
            yield replace(turn, inputs=(source, turn.inputs[1]), output=whole[source])
        places = (tuple(_integers(each)[i] for i in order) for each in op.inputs[1:])
        numbers = [known.setdefault(each, constant(np.array(each, np.int32))) for each in places]
        yield replace(op, inputs=(whole[source], *numbers), output=turn.output)
        done.add(turn)


def _common_transpose(op: Operator, readers: _Readers) -> Operator | None:
    """What transposes the slice ``op``, where all that reads its source are slices that only such a transpose reads."""
    if op.code != "SLICE" or op.inputs[0] is None:
        return None
    slices = readers[op.inputs[0]]
    turns = [turn for each in slices for turn in readers[each.output]]
    alike = {(turn.code, _integers(turn.inputs[1])) for turn in turns if turn.code == "TRANSPOSE"}
    plain = all(each.code == "SLICE" and len(readers[each.output]) == 1 for each in slices)
    if len(slices) < 2 or not plain or len(alike) != 1 or any(turn.code != "TRANSPOSE" for turn in turns):
        return None
    return readers[op.output][0]


def _integers(tensor: Tensor | None) -> tuple[int, ...]:
    assert tensor is not None and tensor.values is not None
    return tuple(int(value) for value in tensor.values)
