"""LiteRT ``.tflite`` through litert-torch: int8 in and out, NHWC, weights and activations from the encodings."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import litert_torch
import torch
from ai_edge_litert.interpreter import Interpreter
from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
from litert_torch.quantize.quant_config import QuantConfig

from quantization.sites import Mode, named_sites, set_mode
from segformer_edge.export.exporter import Exported, example_image, output_shape
from segformer_edge.export.integer_graph import integer_graph
from segformer_edge.jsonfile import write_bytes
from segformer_edge.report.schema import Ops
from segformer_edge.rewrite.graph import EdgeSegFormer
from segformer_edge.runtime.metadata import InputSpec, OutputSpec

_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
_DELEGATE = "DELEGATE"


def _quantization(details: dict[str, Any]) -> tuple[float | None, int | None]:
    scale, zero_point = details["quantization"]
    return (float(scale), int(zero_point)) if scale else (None, None)


def _dtype(details: dict[str, Any]) -> str:
    return details["dtype"].__name__


def count_operators(path: Path) -> Ops:
    """Operators of a ``.tflite`` file by integer (int8 or int16) and float; quantize and dequantize are not counted."""
    interpreter = Interpreter(str(path))
    tensors = {details["index"]: details for details in interpreter.get_tensor_details()}
    operators = [op for op in interpreter._get_ops_details() if op["op_name"] not in (*_CONVERSIONS, _DELEGATE)]
    int8 = sum(_dtype(tensors[op["outputs"][0]]) != "float32" for op in operators)
    return Ops(total=len(operators), int8=int8, float=len(operators) - int8, delegated=None)


def _quant_config(network: EdgeSegFormer) -> QuantConfig | None:
    """For int8 alone, the converter's own pass from quantize/dequantize pairs to integer operators; it does not hold
    for int16.

    The quantizer is not run: its presence tells the converter that the graph is quantized statically.
    """
    if has_int16(network):
        return None
    static = PT2EQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True, is_dynamic=False))
    return QuantConfig(pt2e_quantizer=static)


def has_int16(network: EdgeSegFormer) -> bool:
    """Whether any site is 16 bits wide."""
    return any(site.dtype == "int16" for _, site in named_sites(network))


class TFLiteExporter:
    """Int8 image ``(1, H, W, 3)`` in, int8 logits ``(1, H/4, W/4, classes)`` or uint8 labels out."""

    def export(self, network: EdgeSegFormer, size: tuple[int, int], stem: Path) -> Exported:
        set_mode(network, Mode.EXPORT_FLOAT_WEIGHTS)
        logits = network.output_form == "logits"
        module = litert_torch.to_channel_last_io(network, args=[0], outputs=[0] if logits else None).eval()
        example = example_image(size).permute(0, 2, 3, 1).contiguous()
        with torch.no_grad():
            model = litert_torch.convert(module, (example,), quant_config=_quant_config(network))
        path = stem.with_suffix(".tflite")
        model.export(str(path))
        if has_int16(network):
            write_bytes(path, integer_graph(path.read_bytes()))
        interpreter = Interpreter(str(path))
        taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        return Exported(
            files=(path.name,),
            input=InputSpec(taken["name"], (1, *size, 3), "nhwc", _dtype(taken), *_quantization(taken)),
            output=OutputSpec(
                given["name"],
                network.output_form,
                output_shape(network, size, "nhwc"),
                "nhwc",
                _dtype(given),
                *(_quantization(given) if logits else (None, None)),
            ),
            ops=count_operators(path),
            tools={"torch": torch.__version__, "litert-torch": version("litert-torch")},
        )
