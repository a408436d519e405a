"""Integer operators in a ``.tflite`` graph: what stands between dequantize and quantize computes in int8 or int16.

The converter has a pass of its own for this, which merges a change of width (int8 to int16) into the operator before
it, where no kernel exists for the mixture. Here every site keeps exactly the parameters of the encodings, and an
operator whose operands and result do not share one width stays in float. Operators whose output only views its input
(reshape, transpose, padding with zero, resizing) keep its parameters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from segformer_edge.export.tflite_graph import (
    TYPES,
    Constant,
    axis_after_reshape,
    drop_unused,
    parameters_of,
    quantization,
    read_model,
    shape_of,
    type_and_step,
    write_model,
)

_OP = schema.BuiltinOperator
_VIEWS = (_OP.RESHAPE, _OP.TRANSPOSE, _OP.PAD, _OP.SLICE, _OP.RESIZE_BILINEAR)
_CONVOLUTIONS = (_OP.CONV_2D, _OP.DEPTHWISE_CONV_2D)


class _Rewriter:
    """Walks the operators in order; ``integer`` says which integer tensor stands for a float one, ``same`` which
    quantized tensor equals an earlier one."""

    def __init__(self, model: Any) -> None:
        self.model, self.graph = model, model.subgraphs[0]
        self.tensors: list[Any] = self.graph.tensors
        self.producer = {int(t): op for op in self.graph.operators for t in op.outputs}
        self.consumers: dict[int, list[Any]] = {}
        for op in self.graph.operators:
            for t in op.inputs:
                self.consumers.setdefault(int(t), []).append(op)
        self.integer: dict[int, int] = {}
        self.same: dict[int, int] = {}
        #: Float tensors that exist in the new graph.
        self.floats: set[int] = set()
        self.kept: list[Any] = []

    def code(self, op: Any) -> int:
        entry = self.model.operatorCodes[op.opcodeIndex]
        return int(max(entry.builtinCode, entry.deprecatedBuiltinCode))

    # -- constants

    def constant(self, t: int) -> Constant | None:
        """The value of tensor ``t``, or None where it depends on the image."""
        tensor = self.tensors[t]
        data = self.model.buffers[tensor.buffer].data
        if data is not None and len(data):
            array = np.frombuffer(bytes(data), TYPES[tensor.type]).reshape(shape_of(tensor))
            return Constant(array, *parameters_of(tensor))
        op = self.producer.get(t)
        if op is None or self.code(op) not in (_OP.QUANTIZE, _OP.DEQUANTIZE, _OP.TRANSPOSE, _OP.RESHAPE):
            return None
        source = self.constant(int(op.inputs[0]))
        return None if source is None else self._folded(op, source, tensor)

    def _folded(self, op: Any, source: Constant, tensor: Any) -> Constant:
        code = self.code(op)
        if code == _OP.TRANSPOSE:
            order = self.constant(int(op.inputs[1]))
            assert order is not None
            axis = order.values.tolist().index(source.axis)
            return Constant(source.values.transpose(order.values), source.scales, source.zero_points, axis)
        if code == _OP.RESHAPE:
            axis = axis_after_reshape(source, shape_of(tensor))
            return Constant(source.values.reshape(shape_of(tensor)), source.scales, source.zero_points, axis)
        if code == _OP.DEQUANTIZE:
            return source  # stays integer; ``dequantized`` gives the real numbers
        scales, zeros, axis = parameters_of(tensor)
        assert scales is not None and zeros is not None
        return source.quantized(scales, zeros, axis, TYPES[tensor.type])

    def add_tensor(self, name: bytes, shape: Any, kind: int, parameters: Any, values: np.ndarray | None = None) -> int:
        """Append a tensor; returns its index."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, np.asarray(shape, np.int32), kind
        tensor.quantization = parameters
        tensor.hasRank, tensor.buffer = True, 0
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def add_constant(self, name: bytes, constant: Constant) -> int:
        """A constant integer tensor with its parameters."""
        kind = next(kind for kind, dtype in TYPES.items() if dtype == constant.values.dtype)
        parameters = None
        if constant.scales is not None and constant.zero_points is not None:
            parameters = quantization(constant.scales, constant.zero_points, constant.axis)
        return self.add_tensor(name, constant.values.shape, kind, parameters, constant.values)

    # -- operators

    def known(self, t: int) -> int | None:
        """The integer tensor that stands for float tensor ``t``, if there is one."""
        if t not in self.integer:
            constant = self.constant(t)
            if constant is None or constant.scales is None:
                return None
            self.integer[t] = self.add_constant(self.tensors[t].name, constant)
        return self.integer[t]

    def in_float(self, t: int) -> int:
        """Tensor ``t`` for an operator that stays in float: dequantized where only its integers exist by now."""
        if t < 0 or self.tensors[t].type != schema.TensorType.FLOAT32 or t in self.floats:
            return t
        constant = self.constant(t)
        if constant is not None:
            return self.add_constant(self.tensors[t].name, Constant(constant.dequantized()))
        self.floats.add(t)
        if t in self.integer:
            self._emit(_OP.DEQUANTIZE, [self.integer[t]], [t])
        return t

    def wanted(self, t: int) -> Any | None:
        """The one quantized tensor that float tensor ``t`` ends in, perhaps behind views; None if there is no such."""
        found = []
        for reader in self.consumers.get(t, []):
            if self.code(reader) == _OP.QUANTIZE:
                found.append(self.tensors[int(reader.outputs[0])])
            elif self.code(reader) in _VIEWS:
                found.append(self.wanted(int(reader.outputs[0])))
            else:
                return None
        if None in found or len({type_and_step(tensor) for tensor in found}) != 1:
            return None
        return found[0]

    def run(self) -> None:
        """Replace the operators, and what the graph takes and gives."""
        for t in (int(t) for t in self.graph.inputs):
            like = self.wanted(t)
            if like is None:
                self.floats.add(t)
            else:
                self.integer[t] = self.add_like(t, like)
        for op in self.graph.operators:
            self._rewrite(op)
        self.graph.operators = self.kept
        for name in ("inputs", "outputs"):
            setattr(self.graph, name, [self.integer.get(int(t), int(t)) for t in getattr(self.graph, name)])
        for signature in self.model.signatureDefs or []:
            for entry in (*signature.inputs, *signature.outputs):
                entry.tensorIndex = self.integer.get(entry.tensorIndex, entry.tensorIndex)

    def _rewrite(self, op: Any) -> None:
        code, inputs, out = self.code(op), [int(t) for t in op.inputs], int(op.outputs[0])
        if self.constant(out) is not None:
            return  # folded where it is read
        if code == _OP.DEQUANTIZE:
            self.integer[out] = self.same.get(inputs[0], inputs[0])
        elif code == _OP.QUANTIZE:
            self._quantize(op, inputs[0], out)
        elif code in _VIEWS and inputs[0] in self.integer:
            self.integer[out] = self.add_like(out, self.tensors[self.integer[inputs[0]]])
            self._keep(op, [self.integer[inputs[0]], *inputs[1:]], self.integer[out])
        else:
            self._compute(op, code, inputs, out)

    def _quantize(self, op: Any, source: int, target: int) -> None:
        current = self.integer.get(source)
        if current is None:
            self._keep(op, [self.in_float(source)], target)
        elif type_and_step(self.tensors[current]) == type_and_step(self.tensors[target]):
            self.same[target] = current
        else:  # another width or step
            self._keep(op, [current], target)

    def _compute(self, op: Any, code: int, inputs: list[int], out: int) -> None:
        gives_float = self.tensors[out].type == schema.TensorType.FLOAT32
        like = self.wanted(out) if gives_float else None
        convolves = code in (*_CONVOLUTIONS, _OP.FULLY_CONNECTED)
        operands = inputs[:2] if convolves else [t for t in inputs if self._is_float(t)]
        integers = [self.known(t) for t in operands]
        activations = integers[:1] if convolves and self.constant(inputs[1]) is not None else integers
        widths = {self.tensors[t].type for t in activations if t is not None} | ({like.type} if like else set())
        if None in integers or (gives_float and like is None) or len(widths) != 1:
            self.floats.add(out)
            self._keep(op, [self.in_float(t) for t in inputs], out)
            return
        if code == _OP.FULLY_CONNECTED and self.constant(inputs[1]) is None:
            self._as_matmul(op)
            inputs = inputs[:2]
        replaced = {t: integer for t, integer in zip(operands, integers, strict=True) if integer is not None}
        taken = [replaced.get(t, t) for t in inputs]
        if convolves and len(inputs) > 2 and inputs[2] >= 0:
            taken[2] = self._bias(inputs[2], self.tensors[taken[0]], self.tensors[taken[1]])
        if like is not None:
            self.integer[out] = self.add_like(out, like)
        self._keep(op, taken, self.integer.get(out, out))

    def _is_float(self, t: int) -> bool:
        return t >= 0 and bool(self.tensors[t].type == schema.TensorType.FLOAT32)

    def _keep(self, op: Any, inputs: list[Any], output: int) -> None:
        op.inputs, op.outputs = inputs, [output]
        self.kept.append(op)

    def _emit(self, code: int, inputs: list[int], outputs: list[int]) -> None:
        op = schema.OperatorT()
        op.opcodeIndex, op.inputs, op.outputs = self.add_code(code), inputs, outputs
        self.kept.append(op)

    def add_code(self, code: int) -> int:
        """The index of a new operator code."""
        entry = schema.OperatorCodeT()
        entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, min(code, 127), 1
        self.model.operatorCodes.append(entry)
        return len(self.model.operatorCodes) - 1

    def add_like(self, t: int, like: Any) -> int:
        """An integer tensor of the name and shape of ``t`` with the type and parameters of ``like``."""
        old = self.tensors[t]
        return self.add_tensor(old.name, shape_of(old), like.type, like.quantization)

    def _bias(self, t: int, image: Any, weight: Any) -> int:
        """The bias in steps of input scale times weight scale: int32, or int64 where the input is int16."""
        known = self.constant(t)
        assert known is not None
        scales = np.float64(image.quantization.scale[0]) * np.asarray(weight.quantization.scale, np.float64)
        dtype = np.int64 if image.type == schema.TensorType.INT16 else np.int32
        limits = np.iinfo(np.int32)  # kernels for int64 biases want 32-bit values, too
        steps = np.rint(known.dequantized().astype(np.float64).ravel() / scales).clip(limits.min, limits.max)
        bias = Constant(steps.astype(dtype), scales.astype(np.float32), np.zeros(scales.size, np.int64))
        return self.add_constant(self.tensors[t].name, bias)

    def _as_matmul(self, op: Any) -> None:
        """Two activations: a fully connected operator would ask for int8 weights."""
        op.opcodeIndex = self.add_code(_OP.BATCH_MATMUL)
        op.builtinOptionsType = schema.BuiltinOptions.BatchMatMulOptions
        op.builtinOptions = schema.BatchMatMulOptionsT()
        op.builtinOptions.adjY = True


def integer_graph(content: bytes) -> bytes:
    """The model ``content`` with integer operators wherever operands and result are quantized to one width.

    Convolutions take int8 weights in either width. Raises ArtifactError for a weight whose channels are taken apart.
    """
    model = read_model(content)
    _Rewriter(model).run()
    drop_unused(model)
    return write_model(model)
