"""The tensors and constants of a ``.tflite`` graph, through the object form of its flatbuffer schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from segformer_edge.errors import ArtifactError

#: NumPy's names of the element types that occur here.
TYPES = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.INT8: np.int8,
    schema.TensorType.INT16: np.int16,
    schema.TensorType.INT32: np.int32,
    schema.TensorType.INT64: np.int64,
    schema.TensorType.UINT8: np.uint8,
}


@dataclass(frozen=True)
class Constant:
    """A tensor known now: its values, and for integers their parameters and the axis of per-channel scales."""

    values: np.ndarray
    scales: np.ndarray | None = None
    zero_points: np.ndarray | None = None
    axis: int = 0

    def dequantized(self) -> np.ndarray:
        """The real numbers."""
        if self.scales is None or self.zero_points is None:
            return self.values
        scales, zeros = (along_axis(each, self.values.ndim, self.axis) for each in (self.scales, self.zero_points))
        return ((self.values.astype(np.float32) - zeros) * scales).astype(np.float32)

    def quantized(self, scales: np.ndarray, zero_points: np.ndarray, axis: int, dtype: Any) -> Constant:
        """The nearest integers of type ``dtype`` to the real numbers."""
        steps, zeros = (along_axis(each, self.values.ndim, axis) for each in (scales, zero_points))
        limits: np.iinfo = np.iinfo(dtype)
        values = (np.rint(self.dequantized() / steps) + zeros).clip(limits.min, limits.max).astype(dtype)
        return Constant(values, scales, zero_points, axis)


def along_axis(values: np.ndarray, rank: int, axis: int) -> np.ndarray:
    """One value, or one per channel, shaped to broadcast along ``axis`` of a tensor of ``rank`` axes."""
    return values.reshape([-1 if i == axis else 1 for i in range(rank)]) if values.size > 1 else values


def axis_after_reshape(constant: Constant, shape: tuple[int, ...]) -> int:
    """Where the axis of the scales is in ``shape``. Raises ArtifactError where a reshape takes it apart."""
    if constant.scales is None or constant.scales.size == 1:
        return 0
    before = int(np.prod(constant.values.shape[: constant.axis]))
    for axis, side in enumerate(shape):
        if side == constant.values.shape[constant.axis] and int(np.prod(shape[:axis])) == before:
            return axis
    raise ArtifactError(f"A reshape to {shape} takes the channels of a weight apart.")


def shape_of(tensor: Any) -> tuple[int, ...]:
    """Sides of a tensor; a scalar has none."""
    return () if tensor.shape is None else tuple(int(side) for side in tensor.shape)


def parameters_of(tensor: Any) -> tuple[np.ndarray | None, np.ndarray | None, int]:
    """Scales, zero points and their axis; None for a tensor that is not quantized."""
    q = tensor.quantization
    if q is None or q.scale is None or not len(q.scale):
        return None, None, 0
    return np.asarray(q.scale, np.float32), np.asarray(q.zeroPoint, np.int64), int(q.quantizedDimension)


def quantization(scales: np.ndarray, zero_points: np.ndarray, axis: int) -> Any:
    """The inverse of ``parameters_of``."""
    parameters = schema.QuantizationParametersT()
    parameters.scale = np.asarray(scales, np.float32)
    parameters.zeroPoint = np.asarray(zero_points, np.int64)
    parameters.quantizedDimension = axis
    return parameters


def type_and_step(tensor: Any) -> tuple[Any, ...]:
    """What two per-tensor quantized tensors share if one may stand for the other."""
    scales, zeros, _ = parameters_of(tensor)
    assert scales is not None and zeros is not None
    return (tensor.type, float(scales[0]), int(zeros[0]))


def drop_unused(model: Any) -> None:
    """Leave out tensors, buffers and operator codes that nothing refers to any more."""
    graph = model.subgraphs[0]
    used = sorted(
        {int(t) for op in graph.operators for t in (*op.inputs, *op.outputs) if t >= 0}
        | {int(t) for t in (*graph.inputs, *graph.outputs)}
    )
    place = {old: new for new, old in enumerate(used)} | {-1: -1}
    for holder in (graph, *graph.operators):
        holder.inputs = [place[int(t)] for t in holder.inputs]
        holder.outputs = [place[int(t)] for t in holder.outputs]
    for signature in model.signatureDefs or []:
        for entry in (*signature.inputs, *signature.outputs):
            entry.tensorIndex = place[entry.tensorIndex]
    graph.tensors = [graph.tensors[t] for t in used]
    empty = schema.BufferT()
    buffers, moved = [empty], {}
    for holder in (*graph.tensors, *(model.metadata or [])):
        data = model.buffers[holder.buffer].data
        if data is None or not len(data):
            holder.buffer = 0
            continue
        if holder.buffer not in moved:
            moved[holder.buffer] = len(buffers)
            buffers.append(model.buffers[holder.buffer])
        holder.buffer = moved[holder.buffer]
    model.buffers = buffers
    codes = sorted({op.opcodeIndex for op in graph.operators})
    for op in graph.operators:
        op.opcodeIndex = codes.index(op.opcodeIndex)
    model.operatorCodes = [model.operatorCodes[index] for index in codes]


def read_model(content: bytes) -> Any:
    """The object form of a ``.tflite`` file."""
    return schema.ModelT.InitFromPackedBuf(bytearray(content), 0)


def write_model(model: Any) -> bytes:
    """The file of a model in object form."""
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
