"""Torch operators as LiteRT operators: one function each, and the table of them."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from segformer_edge.errors import ArtifactError
from segformer_edge.export.tflite_emitter import RELU, Emitter, Handler, Value, argument_of, shape_of
from segformer_edge.export.tflite_graph import Kind, Quantization, Tensor, constant, quantized
from segformer_edge.export.tflite_view_ops import VIEW_HANDLERS
from segformer_edge.export.tflite_views import CHANNELS_LAST, View, plain

_ATEN = torch.ops.aten
_SAME, _VALID = 0, 1
#: LiteRT keeps biases of int16 convolutions in 64 bits; the kernels for them take 32-bit values nevertheless.
_BIAS = {"int8": "int32", "int16": "int64"}
#: Of labels that are quantized as shares of 256 classes.
LABELS = Kind("uint8", Quantization((1 / 256,), (0,)))


def _pair(value: Any) -> tuple[int, int]:
    sides = list(value) if isinstance(value, list | tuple) else [value]
    return int(sides[0]), int(sides[-1])


def _gaps(side: int, given: int, kernel: int, stride: int, padding: int) -> tuple[tuple[int, int], bool]:
    """Zeros needed before and after one axis, and whether LiteRT's padding ``SAME`` adds just these.

    ``SAME`` puts half of the zeros, rounded down, in front.
    """
    after = max((given - 1) * stride + kernel - side - padding, 0)
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return (padding, after), given == -(-side // stride) and (padding, after) == (total // 2, total - total // 2)


def _bias(emitter: Emitter, bias: Tensor | None, image: Tensor, weight: Tensor, channels: int) -> Tensor:
    """The bias of a convolution; of an integer one, in steps of input scale times weight scale."""
    if bias is None:
        bias = emitter.once(("no bias", channels), lambda: constant(np.zeros(channels, np.float32)))
    real = bias.real().astype(np.float64)
    if image.kind.quantization is None or weight.kind.quantization is None:
        return emitter.as_float(bias)
    scales = float(np.float32(image.kind.quantization.scale[0])) * np.array(weight.kind.quantization.scale, np.float64)
    dtype, limits = _BIAS[image.dtype], np.iinfo(np.int32)
    steps = np.rint(real / scales).clip(limits.min, limits.max).astype(dtype)
    quantization = Quantization(tuple(map(float, scales.astype(np.float32))), (0,) * len(scales))
    return constant(steps, Kind(dtype, quantization))


def _conv2d(emitter: Emitter, node: Node) -> None:
    image, weight = (emitter.values[argument] for argument in node.args[:2])
    bias = argument_of(node, 2, "bias")
    stride, padding = _pair(argument_of(node, 3, "stride", 1)), argument_of(node, 4, "padding", 0)
    groups, channels = argument_of(node, 6, "groups", 1), image.view.shape[1]
    if _pair(argument_of(node, 5, "dilation", 1)) != (1, 1) or groups not in (1, channels):
        raise ArtifactError(f"The convolution '{emitter.where}' is dilated or grouped.")
    if not weight.tensor.constant:
        raise ArtifactError(f"The weight of the convolution '{emitter.where}' is computed in the network.")
    if _is_channel_mean(weight.tensor):
        _channel_mean(emitter, node, image, bias)
        return
    out, kernel = shape_of(node), weight.view.shape[2:]
    depthwise = groups > 1
    axes = [_gaps(*each) for each in zip(image.view.shape[2:], out[2:], kernel, stride, _pair(padding), strict=True)]
    same = all(fits for _, fits in axes)
    gaps = [(0, 0) if same else gap for gap, _ in axes]
    tensor = emitter.padded(emitter.tensor(image, CHANNELS_LAST), [(0, 0), *gaps, (0, 0)])
    view = View(out, CHANNELS_LAST)

    def constants(taken: Tensor) -> tuple[Tensor, Tensor]:
        kernels = emitter.transposed(weight.tensor, (1, 2, 3, 0) if depthwise else (0, 2, 3, 1))
        if taken.kind.quantization is None:
            kernels = emitter.as_float(kernels)
        floats = emitter.values[bias].tensor if bias is not None else None
        return kernels, emitter.once(
            ("bias", floats, taken.kind, kernels), lambda: _bias(emitter, floats, taken, kernels, out[1])
        )

    if weight.tensor.dtype != "int8":  # no integer kernel takes a float weight
        tensor = emitter.as_float(tensor)
    options = {"padding": _SAME if same else _VALID, "strideH": stride[0], "strideW": stride[1]}
    options |= {"fusedActivationFunction": 0, "dilationWFactor": 1, "dilationHFactor": 1}
    if depthwise:
        options["depthMultiplier"] = out[1] // channels
    code = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    emitter.compute(node, code, [tensor], view.stored, view, constants, **options)


def _is_channel_mean(weight: Tensor) -> bool:
    """Whether a convolution in float with this weight ``(1, C, 1, 1)`` takes the mean over channels, as norms do."""
    values = weight.values
    if values is None or weight.dtype != "float32" or values.shape[:1] + values.shape[2:] != (1, 1, 1):
        return False
    return bool(np.allclose(values, 1 / values.shape[1], rtol=1e-6))


def _channel_mean(emitter: Emitter, node: Node, image: Value, bias: Node) -> None:
    """The mean of rows in memory: XNNPACK has no fast product with a matrix of one column."""
    taken = emitter.as_float(emitter.tensor(image, CHANNELS_LAST))
    view = View(shape_of(node), CHANNELS_LAST)
    mean = emitter.emit("MEAN", [taken, emitter.integers([3])], view.stored, keepDims=True)
    shift = emitter.once(("shift", bias), lambda: constant(emitter.values[bias].tensor.real().reshape(1, 1, 1, 1)))
    emitter.compute(node, "ADD", [mean, shift], view.stored, view, fusedActivationFunction=0, potScaleInt16=False)


def _operand(emitter: Emitter, argument: Any, rank: int) -> Value:
    if isinstance(argument, Node):
        value = emitter.values[argument]
        return Value(value.tensor, value.view.expanded(rank))
    number = emitter.once(("number", argument), lambda: constant(np.full((1,) * rank, argument, np.float32)))
    return Value(number, View((1,) * rank, plain(rank)))


def _binary(code: str, **options: Any) -> Handler:
    def handle(emitter: Emitter, node: Node) -> None:
        if argument_of(node, 2, "alpha", 1) != 1:
            raise ArtifactError(f"'{emitter.where}' adds with a factor (alpha).")
        shape = shape_of(node)
        values = [_operand(emitter, argument, len(shape)) for argument in node.args[:2]]
        largest = max(values, key=lambda value: (not value.tensor.constant, prod(value.view.shape)))
        view = View(shape, largest.view.order)
        if values[0].view == values[1].view and values[0].tensor.shape == values[1].tensor.shape:
            tensors, stored = [value.tensor for value in values], values[0].tensor.shape
        else:
            tensors, stored = [emitter.tensor(value, view.order) for value in values], view.stored
        emitter.compute(node, code, tensors, stored, view, fusedActivationFunction=0, **options)

    return handle


def _unary(code: str) -> Handler:
    def handle(emitter: Emitter, node: Node) -> None:
        value = emitter.values[node.args[0]]
        emitter.compute(node, code, [value.tensor], value.tensor.shape, value.view)

    return handle


def _gelu(emitter: Emitter, node: Node) -> None:
    value, kind = emitter.values[node.args[0]], emitter.wanted(node)
    tanh = node.kwargs.get("approximate", "none") == "tanh"
    tensor = value.tensor
    if kind is None or {tensor.dtype, kind.dtype} != {"int8"} or "GATHER" not in emitter.kernels:
        emitter.compute(node, "GELU", [tensor], tensor.shape, value.view, approximate=tanh)
        return
    table = emitter.once(("gelu", tensor.kind, kind, tanh), lambda: _gelu_table(tensor.kind, kind, tanh))
    # Requantized to the same scale and a zero point 128 higher, -128..127 become the indices 0..255.
    assert tensor.kind.quantization is not None
    (scale,), (zero_point,) = tensor.kind.quantization.scale, tensor.kind.quantization.zero_point
    indices = Kind("int32", Quantization((scale,), (zero_point + 128,)))
    places = emitter.emit("QUANTIZE", [tensor], tensor.shape, indices)
    emitter.values[node] = Value(emitter.emit("GATHER", [table, places], tensor.shape, kind, axis=0), value.view)


def _gelu_table(taken: Kind, given: Kind, tanh: bool) -> Tensor:
    """GELU of each of the 256 integers of ``taken``, rounded to ``given``: what LiteRT's int8 kernel looks up too."""
    real = constant(np.arange(-128, 128).astype(np.int8), taken).real()
    gelu = torch.nn.functional.gelu(torch.from_numpy(real), approximate="tanh" if tanh else "none")
    return quantized(constant(gelu.numpy()), given)


def _softmax(emitter: Emitter, node: Node) -> None:
    value = emitter.values[node.args[0]]
    rank = len(value.view.shape)
    last = int(node.args[1]) % rank
    order = value.view.order
    if order[-1] != last:
        order = (*(axis for axis in order if axis != last), last)
    tensor, view = emitter.tensor(value, order), View(value.view.shape, order)
    emitter.compute(node, "SOFTMAX", [tensor], tensor.shape, view, beta=1.0)


def _bmm(emitter: Emitter, node: Node) -> None:
    left, right = (emitter.values[argument] for argument in node.args[:2])
    # Kernels multiply rows with rows, so a right side that lies transposed is as good, and often better.
    swapped = _swapped(right.view)
    tensors = [emitter.tensor(left, (0, 1, 2)), emitter.tensor(right, (0, 2, 1) if swapped else (0, 1, 2))]
    view = View(shape_of(node), (0, 1, 2))
    emitter.compute(node, "BATCH_MATMUL", tensors, view.stored, view, adjX=False, adjY=swapped)


def _swapped(view: View) -> bool:
    """Whether the last axis of a matrix comes before the one before it in memory."""
    return view.order.index(2) < view.order.index(1)


def _upsample(emitter: Emitter, node: Node) -> None:
    if node.args[2]:
        raise ArtifactError(f"'{emitter.where}' upsamples with align_corners.")
    value, shape = emitter.values[node.args[0]], shape_of(node)
    tensor = emitter.tensor(value, CHANNELS_LAST)
    if tensor.kind != emitter.wanted(node):  # integer resizing keeps its input's parameters
        tensor = emitter.as_float(tensor)
    view = View(shape, CHANNELS_LAST)
    emitter.compute(
        node,
        "RESIZE_BILINEAR",
        [tensor],
        view.stored,
        view,
        lambda taken: (emitter.integers(shape[2:]),),
        alignCorners=False,
        halfPixelCenters=True,
    )


def _argmax(emitter: Emitter, node: Node) -> None:
    value = emitter.values[node.args[0]]
    dim = argument_of(node, 1, "dim")
    if dim is None or argument_of(node, 2, "keepdim", False):
        raise ArtifactError(f"'{emitter.where}' takes the argmax over all axes, or keeps the axis.")
    dim %= len(value.view.shape)
    order = value.view.order
    tensor = emitter.tensor(value, order)
    view = View(shape_of(node), tuple(other - (other > dim) for other in order if other != dim))
    if "ARG_MAX" not in emitter.kernels and _is_for_labels(node) and tensor.dtype == "int8":
        emitter.values[node] = Value(_labels(emitter, tensor, order.index(dim)), view)
        return
    if tensor.dtype not in emitter.kernels.get("ARG_MAX", ()):
        tensor = emitter.as_float(tensor)
    axis = emitter.once(("axis", order.index(dim)), lambda: constant(np.array(order.index(dim), np.int32)))
    output = emitter.emit("ARG_MAX", [tensor, axis], view.stored, Kind("int32"), outputType="int32")
    emitter.values[node] = Value(output, view)


def _is_for_labels(argmax: Node) -> bool:
    """Whether all that is made of ``argmax``, over at most 256 classes, are integers of 8 bits."""
    classes = argmax.args[0].meta["val"].shape[argument_of(argmax, 1, "dim")]
    made = [value for user in argmax.users if (value := user.meta.get("val")) is not None]  # None: an assertion
    return classes <= 256 and all(value.dtype == torch.uint8 for value in made)


def _labels(emitter: Emitter, logits: Tensor, axis: int) -> Tensor:
    """The argmax of int8 ``logits`` over ``axis`` by operators that XNNPACK has, which has no argmax.

    From every logit, in steps of its scale, the class's number / 256 is taken: the largest of these is the largest
    logit's, of equal ones the first class's, and its distance to the next integer is the number. A quarter of that
    unit, sixteen times what rounding can move it, keeps it off the integers. That distance is left to
    ``finished_labels``, once for all bands.
    """
    assert logits.kind.quantization is not None
    (scale,), classes = logits.kind.quantization.scale, logits.shape[axis]
    parts = -scale * (np.arange(classes) + 0.25) / 256
    shape = [classes if i == axis else 1 for i in range(len(logits.shape))]
    numbers = emitter.once(("numbers", scale, *shape), lambda: constant(parts.astype(np.float32).reshape(shape)))
    whole, sides = logits.shape, [side for i, side in enumerate(logits.shape) if i != axis]
    taken = [emitter.as_float(logits), numbers]
    marked = emitter.emit("ADD", taken, whole, fusedActivationFunction=0, potScaleInt16=False)
    largest = emitter.emit("REDUCE_MAX", [marked, emitter.integers([axis])], sides, keepDims=False)
    steps = emitter.once(("steps", scale), lambda: constant(np.full((1,) * len(sides), -1 / scale, np.float32)))
    return emitter.emit("MUL", [largest, steps], sides, fusedActivationFunction=0)


def finished_labels(emitter: Emitter, marked: Tensor) -> Tensor:
    """The uint8 labels of what ``_labels`` made, or of several of these joined."""
    below = emitter.emit("FLOOR", [marked], marked.shape)
    share = emitter.emit("SUB", [marked, below], marked.shape, fusedActivationFunction=0, potScaleInt16=False)
    return emitter.emit("QUANTIZE", [share], marked.shape, LABELS)


def _cast(emitter: Emitter, node: Node) -> None:
    value, dtype = emitter.values[node.args[0]], node.meta["val"].dtype
    name = str(dtype).removeprefix("torch.")
    if node.args[0].meta["val"].dtype != dtype and value.tensor.dtype != "float32":
        tensor = value.tensor
        if tensor.dtype != "int32" or name != "uint8":
            raise ArtifactError(f"'{emitter.where}' converts {tensor.dtype} to {name}.")
        name = _label_type(emitter, node.args[0])
        output = emitter.emit("CAST", [tensor], tensor.shape, Kind(name), inDataType=tensor.dtype, outDataType=name)
        value = Value(output, value.view)
    emitter.values[node] = value


def _label_type(emitter: Emitter, labels: Node) -> str:
    """The narrowest integers that the kernels give and that hold every class of the argmax ``labels``."""
    classes = labels.args[0].meta["val"].shape[labels.args[1]] if labels.target is _ATEN.argmax.default else 256
    return next(name for name in emitter.kernels["CAST"] if classes - 1 <= np.iinfo(name).max)


#: Function by torch operator.
HANDLERS: dict[Any, Handler] = {
    **VIEW_HANDLERS,
    _ATEN.conv2d.default: _conv2d,
    _ATEN.add.Tensor: _binary("ADD", potScaleInt16=False),
    _ATEN.mul.Tensor: _binary("MUL"),
    _ATEN.rsqrt.default: _unary("RSQRT"),
    _ATEN.gelu.default: _gelu,
    RELU: _unary("RELU"),
    _ATEN.softmax.int: _softmax,
    _ATEN._softmax.default: _softmax,
    _ATEN.bmm.default: _bmm,
    _ATEN.upsample_bilinear2d.vec: _upsample,
    _ATEN.upsample_bilinear2d.default: _upsample,
    _ATEN.argmax.default: _argmax,
    _ATEN.to.dtype: _cast,
    _ATEN._to_copy.default: _cast,
}
