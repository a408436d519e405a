"""Labels without an argmax operator: the first of the largest logits, by each of LiteRT's kernels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from segformer_edge.export.tflite_emit import KERNELS, build_graph
from segformer_edge.export.tflite_write import tflite_bytes

SHAPE = (1, 8, 16)


class Labels(torch.nn.Module):
    """int8 logits of an awkward scale to labels, in two bands."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        ops = torch.ops.quantized_decomposed
        x = ops.quantize_per_tensor(x, self.scale, -3, -128, 127, torch.int8)
        x = ops.dequantize_per_tensor(x, self.scale, -3, -128, 127, torch.int8)
        return torch.cat([band.argmax(dim=1).to(torch.uint8) for band in x.split(4, 2)], 1)


@pytest.mark.parametrize("classes", [11, 256])
@pytest.mark.parametrize("scale", [0.0123, 3.7])
def test_labels_are_the_argmax_ties_too(classes, scale):
    program = torch.export.export(Labels(scale), (torch.zeros(1, classes, *SHAPE[1:]),))
    content = tflite_bytes(build_graph(program, KERNELS))
    random = np.random.default_rng(0)
    logits = [random.integers(-128, 128, (*SHAPE, classes), np.int8) for _ in range(4)]
    logits += [array // 60 for array in logits] + [np.full((*SHAPE, classes), each, np.int8) for each in (-128, 127)]
    for kinds in (OpResolverType.AUTO, OpResolverType.BUILTIN_REF):
        interpreter = Interpreter(model_content=content, experimental_op_resolver_type=kinds)
        interpreter.allocate_tensors()
        assert "ARG_MAX" not in {entry["op_name"] for entry in interpreter._get_ops_details()}
        (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
        assert given["dtype"] == np.uint8
        for array in logits:
            interpreter.set_tensor(taken["index"], array)
            interpreter.invoke()
            assert np.array_equal(interpreter.get_tensor(given["index"]), array.argmax(-1))
