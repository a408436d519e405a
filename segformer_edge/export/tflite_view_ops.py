"""Torch operators that compute nothing: quantize and dequantize, views, and what slices and joins."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import Node

from segformer_edge.errors import ArtifactError
from segformer_edge.export.tflite_emitter import (
    COPIES,
    DEQUANTIZE,
    PADS,
    PERMUTES,
    QUANTIZE,
    RESHAPES,
    SLICES,
    SPLITS,
    Emitter,
    Handler,
    Value,
    argument_of,
    kind_of,
    shape_of,
)
from segformer_edge.export.tflite_graph import Kind, Quantization, Tensor, constant
from segformer_edge.export.tflite_views import View, plain

_ATEN = torch.ops.aten


def _quantize(emitter: Emitter, node: Node) -> None:
    value = emitter.values[node.args[0]]
    emitter.values[node] = Value(emitter.as_kind(value.tensor, kind_of(node)), value.view)


def _dequantize(emitter: Emitter, node: Node) -> None:
    value = emitter.values[node.args[0]]
    if value.tensor.kind != kind_of(node):
        raise ArtifactError(f"'{emitter.where}' dequantizes with other parameters than it quantized with.")
    emitter.values[node] = value


def _dequantize_weight(emitter: Emitter, node: Node) -> None:
    integers, scales, zeros = (emitter.values[argument].tensor for argument in node.args[:3])

    def weight() -> Tensor:
        assert integers.values is not None and scales.values is not None and zeros.values is not None
        per_channel = tuple(map(float, scales.values)), tuple(map(int, zeros.values))
        return constant(integers.values, Kind(integers.dtype, Quantization(*per_channel, int(node.args[3]))))

    tensor = emitter.once(("weight", integers, scales), weight)
    emitter.values[node] = Value(tensor, View(tensor.shape, plain(len(tensor.shape))))


def _copy(emitter: Emitter, node: Node) -> None:
    emitter.values[node] = emitter.values[node.args[0]]


def _permute(emitter: Emitter, node: Node) -> None:
    value = emitter.values[node.args[0]]
    rank = len(value.view.shape)
    if node.target is _ATEN.transpose.int:
        dims = list(range(rank))
        a, b = (int(dim) % rank for dim in node.args[1:3])
        dims[a], dims[b] = b, a
    else:
        dims = [int(dim) % rank for dim in node.args[1]]
    emitter.values[node] = Value(value.tensor, value.view.permuted(tuple(dims)))


def reshaped(emitter: Emitter, value: Value, shape: tuple[int, ...]) -> Value:
    """``value.reshape(shape)``."""
    view = value.view.reshaped(shape)
    if view is None:
        value = emitter.arranged(value, value.view.order_to_reshape(shape))
        view = value.view.reshaped(shape)
        assert view is not None
    return Value(value.tensor, view)


def _reshape(emitter: Emitter, node: Node) -> None:
    emitter.values[node] = reshaped(emitter, emitter.values[node.args[0]], shape_of(node))


def _pixel_unshuffle(emitter: Emitter, node: Node) -> None:
    value, step = emitter.values[node.args[0]], int(node.args[1])
    batch, channels, height, width = value.view.shape
    value = reshaped(emitter, value, (batch, channels, height // step, step, width // step, step))
    emitter.values[node] = reshaped(
        emitter, Value(value.tensor, value.view.permuted((0, 1, 3, 5, 2, 4))), shape_of(node)
    )


def _part(emitter: Emitter, value: Value, dim: int, start: int, size: int) -> Value:
    """``size`` entries of axis ``dim`` from ``start`` on."""
    if size == value.view.shape[dim]:
        return value
    tensor, place = emitter.tensor(value, value.view.order), value.view.order.index(dim)
    shape = tuple(size if axis == dim else side for axis, side in enumerate(value.view.shape))
    view = View(shape, value.view.order)
    begin = [start if i == place else 0 for i in range(len(shape))]
    inputs = [tensor, emitter.integers(begin), emitter.integers(view.stored)]
    part = emitter.nearby(
        ("slice", tensor, start, place, size), lambda: emitter.emit("SLICE", inputs, view.stored, tensor.kind)
    )
    return Value(part, view)


def _slice(emitter: Emitter, node: Node) -> None:
    value = emitter.values[node.args[0]]
    dim = int(argument_of(node, 1, "dim", 0)) % len(value.view.shape)
    side, start = value.view.shape[dim], argument_of(node, 2, "start", 0) or 0
    if argument_of(node, 4, "step", 1) != 1:
        raise ArtifactError(f"'{emitter.where}' takes a slice with steps.")
    start = min(start + side if start < 0 else start, side)
    emitter.values[node] = _part(emitter, value, dim, start, shape_of(node)[dim])


def _getitem(emitter: Emitter, node: Node) -> None:
    """One part of a split, which is a slice; parts that nothing reads are none."""
    split, number = node.args
    value = emitter.values[split]
    dim = int(argument_of(split, 2, "dim", 0)) % len(value.view.shape)
    sizes = [part.shape[dim] for part in split.meta["val"]]
    emitter.values[node] = _part(emitter, value, dim, sum(sizes[:number]), sizes[number])


def _pad(emitter: Emitter, node: Node) -> None:
    value, amounts = emitter.values[node.args[0]], list(node.args[1])
    mode = argument_of(node, 2, "mode", "constant") if node.target is _ATEN.pad.default else "constant"
    if mode != "constant" or argument_of(node, 3 if node.target is _ATEN.pad.default else 2, "value", 0):
        raise ArtifactError(f"'{emitter.where}' pads with something else than zeros.")
    gaps = [(0, 0)] * len(value.view.shape)
    for i in range(len(amounts) // 2):  # torch begins with the last axis
        gaps[-1 - i] = (int(amounts[2 * i]), int(amounts[2 * i + 1]))
    tensor = emitter.tensor(value, value.view.order)
    tensor = emitter.padded(tensor, [gaps[axis] for axis in value.view.order])
    emitter.values[node] = Value(tensor, View(shape_of(node), value.view.order))


def _cat(emitter: Emitter, node: Node) -> None:
    values = [emitter.values[part] for part in node.args[0]]
    shape, order = shape_of(node), values[0].view.order
    dim = int(argument_of(node, 1, "dim", 0)) % len(shape)
    tensors, view = [emitter.tensor(value, order) for value in values], View(shape, order)
    kind = emitter.wanted(node)
    if kind is not None:
        tensors = [emitter.as_kind(tensor, kind) for tensor in tensors]
    elif len({tensor.kind for tensor in tensors}) > 1:
        tensors = [emitter.as_float(tensor) for tensor in tensors]
    options = {"axis": order.index(dim), "fusedActivationFunction": 0}
    emitter.values[node] = Value(emitter.emit("CONCATENATION", tensors, view.stored, tensors[0].kind, **options), view)


#: Function by torch operator.
VIEW_HANDLERS: dict[Any, Handler] = {
    QUANTIZE: _quantize,
    DEQUANTIZE: _dequantize,
    torch.ops.quantized_decomposed.dequantize_per_channel.default: _dequantize_weight,
    **dict.fromkeys((*SPLITS, *COPIES), _copy),
    **dict.fromkeys(PERMUTES, _permute),
    **dict.fromkeys(RESHAPES, _reshape),
    **dict.fromkeys(SLICES, _slice),
    **dict.fromkeys(PADS, _pad),
    operator.getitem: _getitem,
    _ATEN.pixel_unshuffle.default: _pixel_unshuffle,
    _ATEN.cat.default: _cat,
}
