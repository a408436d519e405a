"""A graph as the bytes of a ``.tflite`` file, through the object form of LiteRT's schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from segformer_edge.export.tflite_graph import EmittedGraph, Kind, Operator, Tensor

_TYPES = {name: getattr(schema.TensorType, name.upper()) for name in ("float32", "int8", "int16", "int32", "int64")}
_TYPES["uint8"] = schema.TensorType.UINT8
#: Options table of an operator where it is not called after it.
_OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "ARG_MAX": "ArgMaxOptions",
    "MEAN": "ReducerOptions",
    "REDUCE_MAX": "ReducerOptions",
}
#: Operators that have no options table.
_BARE = ("RSQRT", "RELU", "LOGISTIC", "FLOOR")
#: Version of an operator by the width of its first input, where it is not 1.
_VERSIONS = {
    ("CONV_2D", "int8"): 3,
    ("CONV_2D", "int16"): 4,
    ("DEPTHWISE_CONV_2D", "int8"): 3,
    ("DEPTHWISE_CONV_2D", "int16"): 5,
    ("BATCH_MATMUL", "int8"): 2,
    ("BATCH_MATMUL", "int16"): 3,
    ("SOFTMAX", "int8"): 2,
    ("SOFTMAX", "int16"): 3,
    ("ADD", "int8"): 2,
    ("ADD", "int16"): 4,
    ("MUL", "int8"): 2,
    ("MUL", "int16"): 4,
    ("RSQRT", "int8"): 2,
    ("RSQRT", "int16"): 3,
    ("RELU", "int8"): 2,
    ("SPACE_TO_DEPTH", "int8"): 2,
    ("GELU", "int8"): 2,
    ("GATHER", "int8"): 2,
    ("LOGISTIC", "int8"): 2,
    ("RESIZE_NEAREST_NEIGHBOR", "int8"): 2,
    ("MIRROR_PAD", "int8"): 2,
    ("TRANSPOSE", "int8"): 2,
    ("TRANSPOSE", "int16"): 4,
    ("SLICE", "int8"): 2,
    ("SLICE", "int16"): 4,
    ("PAD", "int8"): 2,
    ("PAD", "int16"): 3,
    ("CONCATENATION", "int8"): 2,
    ("CONCATENATION", "int16"): 3,
    ("ARG_MAX", "int8"): 2,
    ("DEQUANTIZE", "int8"): 2,
    ("DEQUANTIZE", "int16"): 3,
    ("QUANTIZE", "int8"): 2,
    ("QUANTIZE", "int16"): 2,
    ("RESIZE_BILINEAR", "float32"): 3,
    ("RESIZE_BILINEAR", "int8"): 3,
    ("RESIZE_BILINEAR", "int16"): 4,
}
#: XNNPACK and NEON kernels load constants in whole vectors.
_ALIGNMENT = 16
_SCHEMA_VERSION = 3
#: Of TFLite Micro's offline memory plan, and its word for a tensor whose place the planner on the device finds.
_PLAN_VERSION, _UNPLANNED = 1, -1


class _Buffer(schema.BufferT):
    """Constant data at an aligned place of the file; the generated code aligns to single bytes."""

    def Pack(self, builder: Any) -> Any:  # noqa: N802
        content = bytes(self.data)
        builder.StartVector(1, len(content), _ALIGNMENT)
        builder.head -= len(content)
        builder.Bytes[builder.head : builder.head + len(content)] = content
        data = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


def _quantization(kind: Kind) -> Any:
    if kind.quantization is None:
        return None
    parameters = schema.QuantizationParametersT()
    parameters.scale = np.array(kind.quantization.scale, np.float32)
    parameters.zeroPoint = np.array(kind.quantization.zero_point, np.int64)
    parameters.quantizedDimension = kind.quantization.axis
    return parameters


class _Writer:
    """Collects tensors, buffers and operator codes, each once."""

    def __init__(self, graph: EmittedGraph) -> None:
        self.model, self.subgraph = schema.ModelT(), schema.SubGraphT()
        self.buffers: list[Any] = [schema.BufferT()]  # the first is empty by convention
        self.places: dict[bytes, int] = {}
        self.codes: dict[tuple[str, int], int] = {}
        self.index: dict[Tensor | None, int] = {None: -1}
        self.subgraph.tensors = []
        for tensor in graph.tensors():
            self.index[tensor] = len(self.subgraph.tensors)
            self.subgraph.tensors.append(self._tensor(tensor))
        self.subgraph.operators = [self._operator(op) for op in graph.operators]
        self.subgraph.inputs = [self.index[tensor] for tensor in graph.inputs]
        self.subgraph.outputs = [self.index[tensor] for tensor in graph.outputs]
        self.subgraph.name = "main"
        self.model.version, self.model.description = _SCHEMA_VERSION, "segformer_edge"
        self.model.subgraphs, self.model.buffers = [self.subgraph], self.buffers
        self.model.operatorCodes = [self._code(*key) for key in self.codes]
        self.model.signatureDefs = [self._signature(graph)]
        self.model.metadata = []
        if graph.ordered:
            self.model.metadata.append(self._metadata("model_control_dependencies", _chain(len(graph.operators))))
        if graph.offsets is not None:
            places = [graph.offsets.get(tensor, _UNPLANNED) for tensor in graph.tensors()]
            self.model.metadata.append(self._metadata("OfflineMemoryAllocation", _offline_plan(places)))

    def _tensor(self, tensor: Tensor) -> Any:
        entry = schema.TensorT()
        entry.shape, entry.type = np.array(tensor.shape, np.int32), _TYPES[tensor.dtype]
        entry.name, entry.hasRank = tensor.name, True
        entry.quantization = _quantization(tensor.kind)
        entry.buffer = 0 if tensor.values is None else self._buffer(tensor.values)
        return entry

    def _buffer(self, values: npt.NDArray[Any]) -> int:
        content = values.tobytes()
        if content not in self.places:
            self.places[content] = len(self.buffers)
            self.buffers.append(_Buffer(content))
        return self.places[content]

    def _metadata(self, name: str, content: bytes) -> Any:
        entry = schema.MetadataT()
        entry.name, entry.buffer = name, len(self.buffers)
        self.buffers.append(_Buffer(content))
        return entry

    def _operator(self, op: Operator) -> Any:
        entry, width = schema.OperatorT(), op.inputs[0].dtype if op.inputs[0] else ""
        key = (op.code, _VERSIONS.get((op.code, width), 1))
        entry.opcodeIndex = self.codes.setdefault(key, len(self.codes))
        entry.inputs = np.array([self.index[tensor] for tensor in op.inputs], np.int32)
        entry.outputs = np.array([self.index[op.output]], np.int32)
        if op.code not in _BARE:
            table = _OPTIONS.get(op.code) or "".join(part.capitalize() for part in op.code.split("_")) + "Options"
            entry.builtinOptionsType = getattr(schema.BuiltinOptions, table)
            entry.builtinOptions = getattr(schema, f"{table}T")()
            for name, value in op.options.items():
                setattr(entry.builtinOptions, name, _TYPES[value] if name.endswith("Type") else value)
        return entry

    @staticmethod
    def _code(code: str, version: int) -> Any:
        entry = schema.OperatorCodeT()
        entry.builtinCode = getattr(schema.BuiltinOperator, code)
        entry.deprecatedBuiltinCode, entry.version = min(entry.builtinCode, 127), version
        return entry

    def _signature(self, graph: EmittedGraph) -> Any:
        signature = schema.SignatureDefT()
        signature.signatureKey = "serving_default"
        for name in ("inputs", "outputs"):
            entries = []
            for tensor in getattr(graph, name):
                entry = schema.TensorMapT()
                entry.name, entry.tensorIndex = tensor.name, self.index[tensor]
                entries.append(entry)
            setattr(signature, name, entries)
        return signature


def _chain(operators: int) -> bytes:
    """Control dependencies of each operator on the one before it, so that a delegate takes runs of neighbours alone.

    The form is that of TFLite's metadata_util: a version, the number of graphs, then for each the number of edges and
    their two ends, all as protobuf varints and the ends zigzag-encoded.
    """
    content = bytearray()
    ends = (end for i in range(operators - 1) for end in (2 * i, 2 * (i + 1)))
    for value in (1, 1, max(operators - 1, 0), *ends):
        while value >= 128:
            content.append(value % 128 + 128)
            value //= 128
        content.append(value)
    return bytes(content)


def _offline_plan(offsets: Sequence[int]) -> bytes:
    """TFLite Micro's plan made in advance (its docs, offline_memory_plan.md): version, subgraph, then all offsets."""
    return np.array([_PLAN_VERSION, 0, len(offsets), *offsets], "<i4").tobytes()


def tflite_bytes(graph: EmittedGraph) -> bytes:
    """The content of a ``.tflite`` file. The same graph gives the same bytes."""
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(_Writer(graph).model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
