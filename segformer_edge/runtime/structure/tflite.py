"""The structure of a ``.tflite``: schema.fbs of TensorFlow Lite, and what its indices and sizes must agree on."""

from __future__ import annotations

from math import prod

from segformer_edge.errors import ArtifactError
from segformer_edge.memory.flatbuffer import Buffer, Table, root_table
from segformer_edge.runtime.structure.flatbuffers import Schema, Union, verify

IDENTIFIER = b"TFL3"
SCHEMA: Schema = {
    "Model": ("I", "[OperatorCode]", "[SubGraph]", "text", "[Buffer]", "[i]", "[Metadata]", "[SignatureDef]"),
    "OperatorCode": ("b", "text", "i", "i"),
    "SubGraph": ("[Tensor]", "[i]", "[i]", "[Operator]", "text", "i"),
    "Tensor": ("[i]", "b", "I", "text", "Quantization", "b", "Sparsity", "[i]", "b", "[VariantSubType]"),
    "Quantization": ("[f]", "[f]", "[f]", "[q]", "B", Union({1: "CustomQuantization"}), "i"),
    "CustomQuantization": ("[B]",),
    "Sparsity": ("[i]", "[i]", "[DimensionMetadata]"),
    "DimensionMetadata": ("b", "i", "B", Union(dict.fromkeys((1, 2, 3), "Indices")) , "B",
                          Union(dict.fromkeys((1, 2, 3), "Indices"))),
    "VariantSubType": ("[i]", "b", "b"),
    "Operator": ("I", "[i]", "[i]", "B", Union({17: "Numbers", 30: "Numbers"}), "[B]", "b", "[b]", "[i]", "Q", "Q",
                 "B", Union()),
    # The options that hold a list: Reshape's new shape, Squeeze's dimensions.
    "Numbers": ("[i]",),
    "Indices": (),
    "Buffer": ("[B]", "Q", "Q"),
    "Metadata": ("text", "I"),
    "SignatureDef": ("[TensorMap]", "[TensorMap]", "text", "text", "I"),
    "TensorMap": ("text", "I"),
}  # fmt: skip
#: Type of a tensor -> bits an element; texts, resources and variants have no fixed one.
_BITS = {
    0: 32, 1: 16, 2: 32, 3: 8, 4: 64, 6: 8, 7: 16, 8: 64, 9: 8, 10: 64, 11: 128, 12: 64, 15: 32, 16: 16, 17: 4, 18: 16,
    19: 2,
}  # fmt: skip
_TEXTS = (5, 13, 14)
#: So many numbers no tensor of a network for small devices has; a product beyond it overflows in native code.
_MOST_ELEMENTS = 1 << 31


def check_structure(data: Buffer) -> None:
    """Raise ArtifactError naming the part that is damaged."""
    verify(data, SCHEMA, "Model")
    model = root_table(data)
    if model.scalar(0, "I") != 3:
        raise ArtifactError(f"it has schema version {model.scalar(0, 'I')}, not 3")
    sizes = [_stored(buffer, i, len(data)) for i, buffer in enumerate(model.tables(4))]
    graphs = model.tables(2)
    if not graphs:
        raise ArtifactError("it holds no graph")
    codes = len(model.tables(1))
    for graph in graphs:
        tensors = graph.tables(0)
        for i, tensor in enumerate(tensors):
            _check_tensor(tensor, i, sizes)
        for field, what in ((1, "inputs"), (2, "outputs")):
            _check_indices(graph, field, len(tensors), f"the graph's {what}", optional=False)
        for i, op in enumerate(graph.tables(3)):
            if op.scalar(0, "I") >= codes:
                raise ArtifactError(f"damaged: operator {i} names code {op.scalar(0, 'I')} of {codes}")
            _check_indices(op, 1, len(tensors), f"operator {i}", optional=True)
            _check_indices(op, 2, len(tensors), f"operator {i}", optional=False)
            _check_indices(op, 8, len(tensors), f"operator {i}", optional=True)
            _check_extent(op.scalar(9, "Q"), op.scalar(10, "Q"), len(data), f"the options of operator {i}")
    for entry in model.tables(6):
        if entry.scalar(1, "I") >= len(sizes):
            raise ArtifactError(f"damaged: an entry of the metadata names buffer {entry.scalar(1, 'I')}")
    for signature in model.tables(7):
        number = signature.scalar(4, "I")
        if number >= len(graphs):
            raise ArtifactError(f"damaged: a signature names graph {number} of {len(graphs)}")
        count = len(graphs[number].tables(0))
        if any(entry.scalar(1, "I") >= count for field in (0, 1) for entry in signature.tables(field)):
            raise ArtifactError(f"damaged: a signature names a tensor that is none of {count}")


def _stored(buffer: Table, number: int, size: int) -> int:
    """Bytes of a buffer, in the flatbuffer or behind it."""
    offset, length = buffer.scalar(1, "Q"), buffer.scalar(2, "Q")
    _check_extent(offset, length, size, f"buffer {number}")
    return len(buffer.octets(0)) or int(length)


def _check_tensor(tensor: Table, number: int, sizes: list[int]) -> None:
    what = f"tensor {number}"
    shape, kind, buffer = tensor.numbers(0, "i"), tensor.scalar(1, "b"), tensor.scalar(2, "I")
    if kind not in _BITS and kind not in _TEXTS:
        raise ArtifactError(f"damaged: {what} has type {kind}")
    if any(side < 0 for side in shape) or prod(shape) >= _MOST_ELEMENTS:
        raise ArtifactError(f"damaged: {what} has shape {list(shape)}")
    if buffer >= len(sizes) and buffer:
        raise ArtifactError(f"damaged: {what} names buffer {buffer} of {len(sizes)}")
    stored = sizes[buffer] if sizes else 0
    needed = (prod(shape) * _BITS.get(kind, 0) + 7) // 8
    if stored and kind in _BITS and tensor.table(6) is None and stored != needed:
        raise ArtifactError(f"damaged: {what} has {stored} bytes stored and needs {needed}")
    quantization = tensor.table(4)
    if quantization is not None:
        scales, zeros = len(quantization.numbers(2, "f")), len(quantization.numbers(3, "q"))
        axis = quantization.scalar(6, "i")
        if scales > 1 and not (0 <= axis < len(shape) and shape[axis] == scales):
            raise ArtifactError(f"damaged: {what} has {scales} scales along axis {axis} of {list(shape)}")
        if zeros not in (0, 1, scales):
            raise ArtifactError(f"damaged: {what} has {zeros} zero points for {scales} scales")


def _check_indices(table: Table, field: int, count: int, what: str, optional: bool) -> None:
    for number in table.numbers(field, "i"):
        if not (0 <= number < count or (optional and number == -1)):
            raise ArtifactError(f"damaged: {what} names tensor {number} of {count}")


def _check_extent(offset: int, length: int, size: int, what: str) -> None:
    # 1 marks a buffer whose place was never filled in.
    if offset > 1 and offset + length > size:
        raise ArtifactError(f"damaged: {what} ends at byte {offset + length} of {size}")
