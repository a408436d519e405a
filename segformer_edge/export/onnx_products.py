"""Products of two activations as onnxruntime's fast kernels take them: uint8 times int8, the second factor signed.

With both factors uint8 the kernels multiply in 16 bits: a product of queries and keys takes 1.8 times as long. Kernels
without VNNI add two products in 16 bits, so the second factor is clipped to where no two can exceed them: to 7 bits for
keys, while probabilities, as the weights of an interpolation, add up to 256 at most and leave room for nearly 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from onnx import ModelProto, NodeProto

from quantization.params import ActivationParams
from quantization.saturation import PAIR_LIMIT
from segformer_edge.export.onnx_graph import GraphWriter
from segformer_edge.rewrite.blocks import SOFTMAX_PARAMS, Attention
from segformer_edge.rewrite.graph import EdgeSegFormer

#: Largest integer of a second factor beside any uint8, and beside those of which two add up to 256 at most.
_BESIDE_ANY, _BESIDE_SHARES = PAIR_LIMIT // 2, 127
#: What moves values without computing.
_VIEWS = ("Concat", "Gather", "Reshape", "Transpose")


def integer_products(network: EdgeSegFormer) -> None:
    """Let both products of ``network``'s attention take integers where the recipe has keys and values as such.

    Keys are rounded once more, to 7 bits; probabilities have the fixed parameters of an int8 softmax.
    """
    for attention in network.modules():
        if isinstance(attention, Attention):
            key, value = attention.key.output.params, attention.value.output.params
            if key is not None and value is not None and key.dtype == value.dtype == "int8":
                coarse = replace(key, scale=2 * key.scale, zero_point=key.zero_point // 2)
                attention.key_operand.fix(coarse)
                attention.value_operand.fix(value)
                attention.probabilities.fix(ActivationParams("int8", *SOFTMAX_PARAMS))


@dataclass
class _Graph(GraphWriter):
    """The graph, and what makes each of its tensors."""

    makers: dict[str, NodeProto]
    #: Second factors as integers, by what was rounded and how.
    integers: dict[tuple[str, ...], str] = field(default_factory=dict)

    def rounding(self, name: str) -> NodeProto | None:
        """The QuantizeLinear whose DequantizeLinear makes ``name``."""
        read = self.makers.get(name)
        quantize = None if read is None or read.op_type != "DequantizeLinear" else self.makers.get(read.input[0])
        return None if quantize is None or quantize.op_type != "QuantizeLinear" else quantize

    def signed(self, params: Sequence[str]) -> tuple[str, str]:
        """Scale and zero point for int8 where ``params`` are those for uint8."""
        scale, zero_point = params
        value = self.constants[zero_point].astype(np.int16) - 128
        return scale, self.constant(f"{zero_point}_signed", value.astype(np.int8))

    def shares(self, name: str) -> bool:
        """Whether the first factor ``name`` holds probabilities or the weights of an interpolation."""
        quantize = self.rounding(name)
        if quantize is None:
            return False
        maker = self.makers.get(quantize.input[0])
        return quantize.input[0] in self.constants or (maker is not None and maker.op_type == "Softmax")

    def as_integers(self, name: str, params: Sequence[str], limit: int) -> str:
        """``name`` rounded to ``params`` as early as possible: what only moves values moves integers.

        onnxruntime turns an int8 pair whose operators are neighbours to uint8; these are none.
        """
        key = (name, *params, str(limit))
        if key in self.integers:
            return self.integers[key]
        maker, made = self.makers.get(name), f"{name}_s8_{len(self.integers)}"
        if maker is not None and maker.op_type in _VIEWS:
            count = len(maker.input) if maker.op_type == "Concat" else 1
            integers = [self.as_integers(each, params, limit) for each in maker.input[:count]]
            self.copy(maker, [*integers, *maker.input[count:]], made)
        else:
            scale, zero_point = (self.constants[each].astype(np.float32) for each in params)
            bounds = [
                self.constant(f"{made}_{side}", np.asarray((np.float32(integer) - zero_point) * scale, np.float32))
                for side, integer in (("low", -limit), ("high", limit))
            ]
            clipped = self.add("Clip", [name, *bounds], f"{made}_clipped")
            self.add("QuantizeLinear", [clipped, *params], made)
        self.integers[key] = made
        return made

    def fold(self, node: NodeProto) -> None:
        """Store the constant first factor of ``node`` as uint8: onnxruntime would fold its pair to float."""
        quantize = self.rounding(node.input[0])
        if quantize is None or quantize.input[0] not in self.constants:
            return
        source, *params = quantize.input
        scale, zero_point = (self.constants[name] for name in params)
        integers = (np.rint(self.constants[source] / scale) + zero_point).clip(0, 255).astype(np.uint8)
        inputs = [self.constant(f"{source}_u8", integers), *params]
        node.input[0] = self.add("DequantizeLinear", inputs, f"{node.output[0]}_first")


def sign_second_factors(model: ModelProto) -> None:
    """Write the second factors of ``model``'s integer products, so far uint8, as clipped int8, in place."""
    work = _Graph(model, {output: node for node in model.graph.node for output in node.output})
    for node in model.graph.node:
        quantize = work.rounding(node.input[1]) if node.op_type == "MatMul" else None
        if quantize is not None:
            params = work.signed(quantize.input[1:3])
            limit = _BESIDE_SHARES if work.shares(node.input[0]) else _BESIDE_ANY
            integers = work.as_integers(quantize.input[0], params, limit)
            node.input[1] = work.add("DequantizeLinear", [integers, *params], f"{node.output[0]}_second")
            work.fold(node)
        work.nodes.append(node)
    work.write()
