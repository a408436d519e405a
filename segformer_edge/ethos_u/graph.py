"""A LiteRT graph in the operators that an Ethos-U runs, with the same numbers.

- A label map stays int32, as the argmax gives it; NPUs convert no int32 tensors. A U55 or U65 does not join them
  either: there the bands' logits are joined, and the argmax is taken once.
- Bilinear resizing beyond what an NPU has is nearest resizing and a fixed depthwise convolution. With half-pixel
  centres and an even factor ``s``, each output is the mean of the nearest-resized map over a window of ``s`` pixels
  that begins and ends in the middle of one: weights ``1, 2, ..., 2, 1`` of ``2 s``. They are powers of two, so int8
  holds them exactly, and the sum is exact up to one rounding, which resizing has as well.
- GELU has no operator there. An int8 function of one int8 tensor is a table, and the NPU computes it by table; only the
  compiler has no name for it. It gets another function of the same tensors, and its table is replaced afterwards
  (segformer_edge/ethos_u/tables.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from segformer_edge.errors import ArtifactError
from segformer_edge.ethos_u.configurations import NpuConfig
from segformer_edge.ethos_u.tables import PLACEHOLDER, Tables, tables_of
from segformer_edge.export.tflite_graph import (
    EmittedGraph,
    Kind,
    Operator,
    Quantization,
    Tensor,
    constant,
    without_unused,
)

_SYMMETRIC = 1
_VALID = 1


def legal(graph: EmittedGraph, config: NpuConfig) -> EmittedGraph:
    """``graph`` in operators that ``config`` has, but for GELU. The host runs it as well.

    Raises ArtifactError for an operator that computes in float.
    """
    for op in graph.operators:
        if "float32" in {tensor.dtype for tensor in (*op.inputs, op.output) if tensor is not None}:
            raise ArtifactError(
                f"{op.code} in '{op.where or 'the whole'}' computes in float, which an Ethos-U cannot.",
                hint="Use a recipe without float, like --recipe npu.",
            )
    by_output = {op.output: op for op in graph.operators}
    same = {op.output: op.inputs[0] for op in graph.operators if op.code == "CAST"}
    operators: list[Operator] = []
    for op in graph.operators:
        if op.output in same:
            continue
        op = replace(op, inputs=tuple(same.get(tensor, tensor) if tensor else None for tensor in op.inputs))
        if op.output.dtype == "uint8":  # bands of labels
            op.output.kind = Kind("int32")
            if not config.joins_int32:
                operators += _labels_of_joined(op, [by_output[tensor] for tensor in op.inputs if tensor])
                continue
        operators += _resized(op, config)
    outputs = [same.get(tensor) or tensor for tensor in graph.outputs]
    for tensor in outputs:
        tensor.name = "output"
    return without_unused(EmittedGraph(graph.inputs, outputs, operators, graph.ordered))


def _labels_of_joined(joined: Operator, bands: list[Operator]) -> list[Operator]:
    """The labels of the bands' logits joined, in place of the labels of each, ``joined``."""
    logits = [band.inputs[0] for band in bands]
    first = logits[0]
    assert first is not None
    rows = Tensor((*joined.output.shape, first.shape[-1]), first.kind, name="logits")
    return [
        replace(joined, inputs=tuple(logits), output=rows),
        replace(bands[0], inputs=(rows, *bands[0].inputs[1:]), output=joined.output),
    ]


def with_placeholders(graph: EmittedGraph) -> tuple[EmittedGraph, Tables]:
    """``graph`` as the compiler gets it, and the tables to put into what it makes. ``graph`` is left as it is."""
    operators = [replace(op, code=PLACEHOLDER, options={}) if op.code == "GELU" else op for op in graph.operators]
    return replace(graph, operators=operators), tables_of(graph)


def _resized(op: Operator, config: NpuConfig) -> Iterator[Operator]:
    """``op``, or what stands for it where it resizes by more than the NPU can."""
    source = op.inputs[0]
    if op.code != "RESIZE_BILINEAR" or config.largest_resize is None or source is None:
        yield op
        return
    (_, height, width, channels), (_, rows, columns, _) = source.shape, op.output.shape
    factor = rows // height
    if (rows, columns) != (height * factor, width * factor) or not op.options.get("halfPixelCenters"):
        yield op  # no such resize in SegFormer; the compiler will say what it thinks
        return
    if factor <= config.largest_resize or factor % 2:
        yield op
        return
    pad, nearest = factor // 2, Tensor((1, rows, columns, channels), source.kind, name=f"{op.output.name}.nearest")
    size = constant(np.array([rows, columns], np.int32))
    yield Operator("RESIZE_NEAREST_NEIGHBOR", (source, size), nearest, {}, op.where)
    padded = Tensor((1, rows + factor, columns + factor, channels), source.kind, name=f"{op.output.name}.edge")
    gaps = constant(np.array([[0, 0], [pad, pad], [pad, pad], [0, 0]], np.int32))
    yield Operator("MIRROR_PAD", (nearest, gaps), padded, {"mode": _SYMMETRIC}, op.where)
    weight, bias = _window(factor, channels, source.kind)
    options = {
        "padding": _VALID, "strideH": 1, "strideW": 1, "depthMultiplier": 1, "fusedActivationFunction": 0,
        "dilationWFactor": 1, "dilationHFactor": 1,
    }  # fmt: skip
    yield Operator("DEPTHWISE_CONV_2D", (padded, weight, bias), op.output, options, op.where)


def _window(factor: int, channels: int, source: Kind) -> tuple[Tensor, Tensor]:
    """Weight ``(1, factor + 1, factor + 1, channels)`` and bias of the mean over a window."""
    assert source.quantization is not None
    ends = np.array([1, *[2] * (factor - 1), 1], np.int8)
    step = 1.0 / float(2 * factor) ** 2
    weight = np.ascontiguousarray(
        np.broadcast_to(np.outer(ends, ends)[None, :, :, None], (1, *[len(ends)] * 2, channels))
    )
    scales, zeros = (step,) * channels, (0,) * channels
    sums = Quantization(tuple(float(np.float32(source.quantization.scale[0] * step)) for _ in scales), zeros)
    return (
        constant(weight, Kind("int8", Quantization(scales, zeros, axis=3))),
        constant(np.zeros(channels, np.int32), Kind("int32", sums)),
    )
