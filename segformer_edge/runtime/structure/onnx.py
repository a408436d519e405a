"""The structure of an ``.onnx``: onnx.proto's messages to their ends, whole constants, names that something makes."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path

from segformer_edge.errors import ArtifactError
from segformer_edge.jsonfile import is_plain_name
from segformer_edge.memory.protobuf import Message

_MODEL_GRAPH, _OPSETS = 7, 8
_NODES, _INITIALIZERS, _INPUTS, _OUTPUTS, _SPARSE = 1, 5, 11, 12, 15
_NODE_INPUTS, _NODE_OUTPUTS, _ATTRIBUTES = 1, 2, 5
_TENSOR, _GRAPH, _TENSORS, _GRAPHS = 5, 6, 10, 11
_DIMS, _TYPE, _NAME, _RAW, _EXTERNAL, _LOCATION = 1, 2, 8, 9, 13, 14
#: Data type -> bits, and the field that holds its numbers where they are not raw.
_BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16,
         17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4}  # fmt: skip
_MOST_ELEMENTS = 1 << 31
_DEEPEST = 8


def check_structure(data: memoryview, folder: Path) -> None:
    """Raise ArtifactError naming the part that is damaged. ``folder`` is where external weights must lie."""
    model = Message(data)
    graphs = model.messages(_MODEL_GRAPH)
    if len(graphs) != 1 or not model.messages(_OPSETS):
        raise ArtifactError("it is no ONNX model: it holds no graph, or not one, or no operator set")
    _check_graph(graphs[0], folder, frozenset(), 0)


def _check_graph(graph: Message, folder: Path, outer: frozenset[str], depth: int) -> None:
    if depth > _DEEPEST:
        raise ArtifactError(f"damaged: graphs lie {depth} deep in each other")
    known = set(outer) | {info.text(1) for info in graph.messages(_INPUTS)}
    for tensor in graph.messages(_INITIALIZERS):
        _check_tensor(tensor, folder)
        known.add(tensor.text(_NAME))
    known.update(values.text(_NAME) for sparse in graph.messages(_SPARSE) for values in sparse.messages(1))
    for number, node in enumerate(graph.messages(_NODES)):
        for name in node.texts(_NODE_INPUTS):
            if name and name not in known:
                raise ArtifactError(f"damaged: node {number} reads '{name[:60]}', which nothing before it makes")
        for attribute in node.messages(_ATTRIBUTES):
            for tensor in (*attribute.messages(_TENSOR), *attribute.messages(_TENSORS)):
                _check_tensor(tensor, folder)
            for inner in (*attribute.messages(_GRAPH), *attribute.messages(_GRAPHS)):
                _check_graph(inner, folder, frozenset(known), depth + 1)
        known.update(node.texts(_NODE_OUTPUTS))
    for info in graph.messages(_OUTPUTS):
        if info.text(1) not in known:
            raise ArtifactError(f"damaged: nothing makes the output '{info.text(1)[:60]}'")


def _check_tensor(tensor: Message, folder: Path) -> None:
    what = f"constant '{tensor.text(_NAME)[:60]}'"
    shape, kinds = tensor.numbers(_DIMS), tensor.numbers(_TYPE)
    kind = kinds[-1] if kinds else 0
    if any(side >= _MOST_ELEMENTS for side in shape) or prod(shape) >= _MOST_ELEMENTS:
        raise ArtifactError(f"damaged: {what} has shape {shape[:8]}")
    raw = tensor.messages(_RAW)
    if tensor.numbers(_LOCATION)[-1:] == [1]:
        _check_external({entry.text(1): entry.text(2) for entry in tensor.messages(_EXTERNAL)}, what, folder)
    elif raw and kind in _BITS:
        needed = (prod(shape) * _BITS[kind] + 7) // 8
        if len(raw[-1].data) != needed:
            raise ArtifactError(f"damaged: {what} has {len(raw[-1].data)} bytes stored and needs {needed}")


def _check_external(entries: Mapping[str, str], what: str, folder: Path) -> None:
    """The location is a plain name beside the model, and holds what it should."""
    name = entries.get("location", "")
    if not is_plain_name(name):
        raise ArtifactError(f"{what} lies in {name[:60]!r}, which is not a plain file name in the same folder")
    file = folder / name
    if file.is_symlink() or not file.is_file():
        raise ArtifactError(f"{what} lies in '{name}', which is no file of its own in that folder")
    try:
        end = int(entries.get("offset", "0")) + int(entries.get("length", "0"))
    except ValueError as error:
        raise ArtifactError(f"damaged: {what} has no place in '{name}'") from error
    if not 0 <= end <= file.stat().st_size:
        raise ArtifactError(f"damaged: {what} ends at byte {end} of {file.stat().st_size} in '{name}'")
