"""The structure of an XNNPACK graph in a ``.pte``: runtime_schema.fbs of ExecuTorch's XNNPACK backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from segformer_edge.errors import ArtifactError
from segformer_edge.memory.flatbuffer import Table, root_table, unpack
from segformer_edge.memory.xnnpack import NO_VALUE, NODES
from segformer_edge.runtime.structure.flatbuffers import Schema, Union, verify

_CONVOLUTIONS, _CONCATENATIONS = (7, 13, 39), (32, 33, 34, 38)
SCHEMA: Schema = {
    "Graph": ("text", "[Node]", "[Value]", "I", "[I]", "[I]", "[Buffer]", "[I]", "[ConstantData]"),
    "Node": ("B", Union({
        **dict.fromkeys(range(1, len(NODES) + 1), "Numbers"), 5: "Transpose", 10: "Pad", 20: "Transpose",
        35: "Slice",
    }), "I", "Bounds"),
    "Numbers": ("I",) * 20,
    "Transpose": ("I", "[I]", "I", "I", "I"),
    "Pad": ("[I]", "[I]", "f", "I", "I", "I"),
    "Slice": ("I", "[I]", "[I]", "I", "I", "I"),
    "Bounds": ("f", "f"),
    "Value": ("B", Union({1: "Tensor", 2: "Quantized"})),
    "Tensor": ("h", "I", "[I]", "I", "I", "I", "I", "h"),
    "Quantized": ("Tensor", "B", Union({1: "PerChannel", 2: "PerTensor", 3: "PerToken", 4: "PerGroup"})),
    "PerChannel": ("[f]", "i", "I", "I"),
    "PerTensor": ("f", "i"),
    "PerToken": ("i",),
    "PerGroup": ("[f]", "i", "i", "[H]", "I", "I"),
    "Buffer": ("[B]",),
    "ConstantData": ("Q", "Q", "text"),
}  # fmt: skip
#: Type of a value -> bits an element.
_BITS = {1: 32, 2: 16, 3: 8, 4: 8, 5: 32, 6: 8, 7: 32, 8: 4, 9: 8, 10: 4, 11: 8, 12: 32, 13: 32, 14: 16}
_MOST_DIMS = 6


def check_blob(blob: memoryview, named: Mapping[str, int]) -> None:
    """Raise ArtifactError naming the part that is damaged. ``named``: bytes of the program's named segments."""
    constants = len(blob)
    graph = blob
    if bytes(blob[4:8]) == b"XH00":
        start, size = unpack(blob, "I", 10), unpack(blob, "I", 14)
        base = unpack(blob, "I", 18)
        if start + size > len(blob) or base > len(blob):
            raise ArtifactError("damaged: an XNNPACK graph is cut short")
        graph, constants = blob[start : start + size], len(blob) - base
    if bytes(graph[4:6]) != b"XN" or not bytes(graph[6:8]).isdigit():
        raise ArtifactError(f"damaged: an XNNPACK graph begins with {bytes(graph[:8])!r}")
    verify(graph, SCHEMA, "Graph")
    root = root_table(graph)
    sizes = [_stored(entry, i, constants, named) for i, entry in enumerate(root.tables(8))]
    sizes = sizes or [len(entry.octets(0)) for entry in root.tables(6)]
    values: dict[int, tuple[int, ...]] = {}
    externs = root.scalar(3, "I")
    for i, value in enumerate(root.tables(2)):
        number, shape = _check_value(value, i, sizes, externs)
        values[number] = shape
    for field, what in ((4, "inputs"), (5, "outputs")):
        _check_ids(root.numbers(field, "I"), values, f"the XNNPACK graph's {what}")
    for i, node in enumerate(root.tables(1)):
        _check_node(node, i, values)


def _stored(entry: Table, number: int, constants: int, named: Mapping[str, int]) -> int:
    offset, size, key = entry.scalar(0, "Q"), entry.scalar(1, "Q"), entry.text(2)
    if key:
        if key not in named:
            raise ArtifactError(f"damaged: XNNPACK constant {number} has a name that the program lacks")
        return named[key]
    if offset + size > constants:
        raise ArtifactError(f"damaged: XNNPACK constant {number} reaches past the end")
    return int(size)


def _check_value(value: Table, number: int, sizes: Sequence[int], externs: int) -> tuple[int, tuple[int, ...]]:
    """The value's id and shape."""
    what, content = f"XNNPACK value {number}", value.table(1)
    quantized = value.scalar(0, "B") == 2
    tensor = content.table(0) if quantized and content is not None else content
    if content is None or tensor is None:
        raise ArtifactError(f"damaged: {what} is empty")
    shape, kind = tensor.numbers(2, "I"), tensor.scalar(0, "h")
    if kind not in _BITS or tensor.scalar(1, "I") != len(shape) or len(shape) > _MOST_DIMS:
        raise ArtifactError(f"damaged: {what} has type {kind} and shape {list(shape)}")
    buffer, external = tensor.scalar(3, "I"), tensor.scalar(4, "I")
    if buffer and (buffer >= len(sizes) or sizes[buffer] < prod(shape) * _BITS[kind] // 8):
        raise ArtifactError(f"damaged: {what} is a constant that is not all there")
    if external != NO_VALUE and tensor.scalar(5, "I") & 3 and external >= externs:
        raise ArtifactError(f"damaged: {what} is argument {external} of {externs}")
    if quantized:
        _check_scales(content, what, shape, sizes)
    return tensor.scalar(6, "I"), shape


def _check_scales(content: Table, what: str, shape: Sequence[int], sizes: Sequence[int]) -> None:
    kind, params = content.scalar(1, "B"), content.table(2)
    if params is None:
        raise ArtifactError(f"damaged: {what} is quantized without parameters")
    if kind != 1:
        return
    axis, buffer, count = params.scalar(1, "i"), params.scalar(2, "I"), params.scalar(3, "I")
    inline = len(params.numbers(0, "f"))
    if not 0 <= axis < len(shape):
        raise ArtifactError(f"damaged: {what} has scales along axis {axis} of {list(shape)}")
    stored = sizes[buffer] // 4 if buffer and buffer < len(sizes) else 0
    if max(inline, min(count, stored)) < shape[axis]:
        raise ArtifactError(f"damaged: {what} has too few scales for {list(shape)}")


def _check_node(node: Table, number: int, values: Mapping[int, tuple[int, ...]]) -> None:
    what, kind, content = f"XNNPACK node {number}", node.scalar(0, "B"), node.table(1)
    if content is None or not 1 <= kind <= len(NODES):
        raise ArtifactError(f"damaged: {what} is of kind {kind}")
    _, form = NODES[kind - 1]
    ids = [content.scalar(field, "I", 0) for field in (*form.inputs, *form.outputs)]
    _check_ids(ids, values, what)
    if kind in (5, 20, 35):
        count = content.scalar(0, "I")
        if any(len(content.numbers(field, "I")) != count for field in ((1,) if kind != 35 else (1, 2))):
            raise ArtifactError(f"damaged: {what} has lists that are not {count} long")
    if kind == 10 and len(content.numbers(0, "I")) != len(content.numbers(1, "I")):
        raise ArtifactError(f"damaged: {what} pads {len(content.numbers(0, 'I'))} sides")


def _check_ids(ids: Sequence[int], values: Mapping[int, tuple[int, ...]], what: str) -> None:
    for number in ids:
        if number not in values and number != NO_VALUE:
            raise ArtifactError(f"damaged: {what} names value {number}, which is not there")
