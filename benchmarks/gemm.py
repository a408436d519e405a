"""A file of bare int8 matrix products for each runtime: how fast it multiplies where nothing else is to do.

``DEPTH`` 1x1 convolutions in a row, each the product of ``(rows, CHANNELS)`` with ``(CHANNELS, CHANNELS)``, integers in
between, as in the decode head. Converting at the ends costs little beside them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper, save
from torch import Tensor, nn

from quantization.calibration import calibrate
from quantization.recipe import Recipe
from quantization.sites import Mode, QuantConv2d, Site, set_mode
from segformer_edge.export.onnx import OPSET
from segformer_edge.export.tflite_emit import KERNELS, build_graph
from segformer_edge.export.tflite_write import tflite_bytes
from segformer_edge.export.tracing import trace
from segformer_edge.runtime.quiet import native_stderr_silenced

CHANNELS, DEPTH = 256, 8
_RECIPE = Recipe("gemm", sites={"image": "int8", "gemm": "int8"}, weights={"gemm": "int8"})


class Chain(nn.Module):
    """``(1, CHANNELS, H, W)`` -> the same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.image = Site("image")
        layers = (QuantConv2d.from_linear("gemm", nn.Linear(CHANNELS, CHANNELS)) for _ in range(DEPTH))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Integers between the layers."""
        return self.layers(self.image(x))


def macs(rows: int) -> int:
    """Multiply-accumulates of the file for ``rows`` rows."""
    return rows * CHANNELS * CHANNELS * DEPTH


def write_gemm(form: str, side: int, folder: Path) -> Path:
    """The file for the runtime ``form``, of ``side * side`` rows, in ``folder``."""
    if form in ("onnx", "openvino"):
        path = folder / "gemm.onnx"
        save(_onnx(side), path)
        if form == "onnx":
            return path
        import openvino

        openvino.save_model(openvino.convert_model(path), folder / "gemm.xml", compress_to_fp16=False)
        return folder / "gemm.xml"
    torch.manual_seed(0)
    chain, example = Chain().eval(), torch.randn(1, CHANNELS, side, side)
    calibrate(chain, [example], _RECIPE)
    set_mode(chain, Mode.EXPORT)
    program = trace(chain, example)
    if form == "tflite":
        path = folder / "gemm.tflite"
        path.write_bytes(tflite_bytes(build_graph(program, KERNELS)))
        return path
    with native_stderr_silenced():  # its import complains of libraries for GPUs
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

    path = folder / "gemm.pte"
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    path.write_bytes(lowered.to_executorch().buffer)
    return path


def _onnx(side: int) -> ModelProto:
    """uint8 activations and int8 weights in QDQ pairs, as in our files."""
    chance = np.random.default_rng(0)
    tensors = [
        numpy_helper.from_array(np.array(0.05, np.float32), "scale"),
        numpy_helper.from_array(np.array(128, np.uint8), "zero"),
        numpy_helper.from_array(np.full(CHANNELS, 0.002, np.float32), "weight_scale"),
        numpy_helper.from_array(np.zeros(CHANNELS, np.int8), "weight_zero"),
    ]
    nodes = [helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["integers"])]
    for i in range(DEPTH):
        weight = chance.integers(-64, 65, (CHANNELS, CHANNELS, 1, 1)).astype(np.int8)
        tensors.append(numpy_helper.from_array(weight, f"weight{i}"))
        taken, given = "integers" if i == 0 else f"integers{i - 1}", f"integers{i}"
        nodes += [
            helper.make_node("DequantizeLinear", [taken, "scale", "zero"], [f"map{i}"]),
            helper.make_node("DequantizeLinear", [f"weight{i}", "weight_scale", "weight_zero"], [f"real{i}"], axis=0),
            helper.make_node("Conv", [f"map{i}", f"real{i}"], [f"sum{i}"]),
            helper.make_node("QuantizeLinear", [f"sum{i}", "scale", "zero"], [given]),
        ]
    nodes.append(helper.make_node("DequantizeLinear", [f"integers{DEPTH - 1}", "scale", "zero"], ["output"]))
    shape = (1, CHANNELS, side, side)
    taken, given = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", "output"))
    graph = helper.make_graph(nodes, "gemm", [taken], [given], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
