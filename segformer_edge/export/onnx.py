"""ONNX with QuantizeLinear/DequantizeLinear pairs, for onnxruntime (and, through it, the OpenVINO exporter).

Activations are uint8 and weights int8, for which onnxruntime has its fastest kernels on x86 (2.7 times those of u8 x u8
with VNNI). Kernels for CPUs without VNNI saturate, so the weights' scales are widened where they could.
"""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import onnxscript
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnxscript import opset20 as op
from onnxscript.optimizer import optimize_ir

from quantization.saturation import avoid_saturation
from segformer_edge.export.exporter import Exported, float_specs
from segformer_edge.export.onnx_float import keep_in_float
from segformer_edge.export.onnx_graph import constants_of
from segformer_edge.export.onnx_layout import to_channels_last
from segformer_edge.export.onnx_products import integer_products, sign_second_factors
from segformer_edge.export.tracing import trace_maps
from segformer_edge.jsonfile import write_bytes
from segformer_edge.report.schema import Ops
from segformer_edge.rewrite.graph import EdgeSegFormer

#: The last whose QuantizeLinear has no ``output_dtype``, which onnxruntime's transpose optimizer drops from its copies;
#: and the first with Gelu.
OPSET = 20
_INTEGER_OPS = ("QLinear", "MatMulInteger", "ConvInteger", "DynamicQuantize")
_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")


def _int8(value: int) -> Any:
    return op.Constant(value=helper.make_tensor("zero_point", TensorProto.INT8, [], [int(value)]))


def _float(value: float) -> Any:
    return op.Constant(value_float=float(value))


def _quantize(input: Any, scale: float, zero_point: int, quant_min: int, quant_max: int, dtype: int) -> Any:
    return op.QuantizeLinear(input, _float(scale), _int8(zero_point))


def _dequantize(
    input: Any, scale: float, zero_point: int, quant_min: int, quant_max: int, dtype: int, out_dtype: int = -1
) -> Any:
    return op.DequantizeLinear(input, _float(scale), _int8(zero_point))


def _dequantize_weight(
    input: Any,
    scales: Any,
    zero_points: Any,
    axis: int,
    quant_min: int,
    quant_max: int,
    dtype: int,
    out_dtype: int = -1,
) -> Any:
    return op.DequantizeLinear(input, scales, op.Cast(zero_points, to=TensorProto.INT8), axis=int(axis))


def _gelu(self: Any, approximate: str = "none") -> Any:
    return op.Gelu(self, approximate=approximate)


def _translations() -> dict[Callable, Callable]:
    decomposed = torch.ops.quantized_decomposed
    return {
        decomposed.quantize_per_tensor.default: _quantize,
        decomposed.dequantize_per_tensor.default: _dequantize,
        decomposed.dequantize_per_channel.default: _dequantize_weight,
        torch.ops.aten.gelu.default: _gelu,
    }


def _to_unsigned(model: ModelProto) -> None:
    """Shift the zero point of every activation of ``model`` by 128, from int8 to uint8, in place."""
    graph, values = model.graph, constants_of(model)
    shifted: dict[str, str] = {}

    def unsigned(name: str) -> str:
        if name not in shifted:
            shifted[name] = f"{name}_u8"
            value = values[name].astype(np.int16) + 128
            graph.initializer.append(numpy_helper.from_array(value.astype(np.uint8), shifted[name]))
        return shifted[name]

    for node in graph.node:
        weight = node.op_type == "DequantizeLinear" and node.input[0] in values
        if node.op_type in _CONVERSIONS and not weight:
            node.input[2] = unsigned(node.input[2])


def strip(model: ModelProto) -> None:
    """Drop what nothing reads, and the exporter's notes (source lines, file paths)."""
    graph = model.graph
    used, kept_nodes = {output.name for output in graph.output}, []
    for node in reversed(graph.node):
        if used.intersection(node.output):
            used.update(node.input)
            kept_nodes.append(node)
    kept_tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:], graph.value_info[:], model.metadata_props[:], graph.metadata_props[:]
    graph.node.extend(reversed(kept_nodes))
    graph.initializer.extend(kept_tensors)
    for item in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        del item.metadata_props[:]
        item.doc_string = ""


def build_onnx(network: EdgeSegFormer, size: tuple[int, int]) -> ModelProto:
    """The calibrated ``network`` as an ONNX model of NCHW maps with QDQ pairs; input "image", output "output".

    Activations are uint8 and weights int8.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    program = trace_maps(network, size)
    with torch.no_grad():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            optimize=False,
            input_names=["image"],
            output_names=["output"],
            custom_translation_table=_translations(),
            verbose=False,
        )
    # Fold the shape arithmetic, but not the weights' dequantize back to float.
    optimize_ir(exported.model, should_fold=lambda node: False if node.op_type in _CONVERSIONS else None)
    model = exported.model_proto
    _to_unsigned(model)
    strip(model)
    model.producer_name, model.producer_version = "segformer_edge", ""
    return model


def count_operators(path: Path) -> Ops:
    """Operators of the graph that onnxruntime makes of ``path`` on this machine, by what they compute in."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        graph = onnx.load(options.optimized_model_filepath).graph
    names = Counter(node.op_type for node in graph.node if node.op_type not in _CONVERSIONS)
    int8 = sum(count for name, count in names.items() if name.startswith(_INTEGER_OPS))
    return Ops(total=names.total(), int8=int8, float=names.total() - int8, delegated=None)


def adapt(network: EdgeSegFormer) -> None:
    """Change the parameters of calibrated ``network`` to those that onnxruntime's kernels ask for, in place."""
    avoid_saturation(network)
    integer_products(network)


class ONNXExporter:
    """Float32 image ``(1, 3, H, W)`` in, float32 logits or uint8 labels out."""

    def export(self, network: EdgeSegFormer, size: tuple[int, int], stem: Path) -> Exported:
        adapt(network)
        model = build_onnx(network, size)
        sign_second_factors(model)
        keep_in_float(model, outputs=False)
        to_channels_last(model)
        strip(model)
        onnx.checker.check_model(model, full_check=True)
        path = stem.with_suffix(".onnx")
        write_bytes(path, model.SerializeToString(deterministic=True))
        image, output = float_specs(network, size, ("image", "output"))
        return Exported(
            files=(path.name,),
            input=image,
            output=output,
            ops=count_operators(path),
            tools={"torch": torch.__version__, "onnx": version("onnx"), "onnxscript": onnxscript.__version__},
        )
