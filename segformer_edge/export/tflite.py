"""LiteRT ``.tflite``: int8 in and out, NHWC, weights and activations from the encodings."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch
from ai_edge_litert.interpreter import Interpreter
from torch.export import ExportedProgram

from segformer_edge.export.exporter import Exported
from segformer_edge.export.recording import Recording
from segformer_edge.export.tflite_emit import KERNELS, KERNELS_BUILT_IN, build_graph
from segformer_edge.export.tflite_graph import EmittedGraph, Tensor
from segformer_edge.export.tflite_lifetimes import with_short_lifetimes
from segformer_edge.export.tflite_memory import COMPILED
from segformer_edge.export.tflite_write import tflite_bytes
from segformer_edge.export.tracing import record_channels_last
from segformer_edge.export.workspace_order import with_packed_workspace
from segformer_edge.jsonfile import write_bytes
from segformer_edge.report.schema import Ops
from segformer_edge.rewrite.graph import EdgeSegFormer
from segformer_edge.runtime.metadata import InputSpec, OutputSpec

_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
_MULTIPLY_ACCUMULATE = ("CONV_2D", "DEPTHWISE_CONV_2D", "BATCH_MATMUL")


def count_operators(graph: EmittedGraph) -> Ops:
    """Operators by integer and float; quantize and dequantize are not counted."""
    kinds = [op.output.dtype for op in graph.operators if op.code not in _CONVERSIONS]
    return Ops(total=len(kinds), int8=len(kinds) - kinds.count("float32"), float=kinds.count("float32"), delegated=None)


def emitted(program: ExportedProgram | Recording) -> EmittedGraph:
    """The graph of ``program``: with LiteRT's table for GELU where no float operator multiplies and accumulates, as in
    recipes for built-in kernels (``full``, ``portable``), else with GELU in float, so that XNNPACK takes all of it.
    """
    with_table = build_graph(program, KERNELS_BUILT_IN, image_channels_last=True)
    if not any(op.code in _MULTIPLY_ACCUMULATE and op.output.dtype == "float32" for op in with_table.operators):
        return with_table
    return build_graph(program, KERNELS, image_channels_last=True)


def ordered(program: ExportedProgram | Recording) -> EmittedGraph:
    """The graph of a tiled ``program``, whose order a runtime must keep; for XNNPACK with a small workspace."""
    graph = emitted(program)
    delegated = any(op.code in _MULTIPLY_ACCUMULATE and op.output.dtype == "float32" for op in graph.operators)
    return replace(for_workspace(graph) if delegated else graph, ordered=True)


def for_workspace(graph: EmittedGraph) -> EmittedGraph:
    """A tiled ``graph`` for XNNPACK with short lifetimes, and numbers for its tensors that leave few gaps."""
    return with_packed_workspace(with_short_lifetimes(graph), COMPILED)


def specs_of(graph: EmittedGraph, network: EdgeSegFormer) -> tuple[InputSpec, OutputSpec]:
    """What the metadata say of the one image that ``graph`` takes, and of the logits or labels that it gives."""
    (taken,), (given,) = graph.inputs, graph.outputs
    height, width, channels = taken.shape[1:]
    labels = network.output_form == "labels"  # numbers of classes, whatever the tensor says
    parameters = (None, None) if labels else _quantization(given)
    return (
        InputSpec(taken.name, (1, height, width, channels), "nhwc", taken.dtype, *_quantization(taken)),
        OutputSpec(given.name, network.output_form, given.shape, "nhwc", given.dtype, *parameters),
    )


def _quantization(tensor: Tensor) -> tuple[float | None, int | None]:
    q = tensor.kind.quantization
    return (None, None) if q is None else (q.scale[0], q.zero_point[0])


class TFLiteExporter:
    """Int8 image ``(1, H, W, 3)`` in, int8 logits ``(1, H/4, W/4, classes)`` or uint8 labels out."""

    def export(self, network: EdgeSegFormer, size: tuple[int, int], stem: Path) -> Exported:
        program = record_channels_last(network, size)
        graph = emitted(program) if network.tiling is None else ordered(program)
        path = stem.with_suffix(".tflite")
        write_bytes(path, tflite_bytes(graph))
        Interpreter(str(path)).allocate_tensors()  # what does not load raises here, not on the device
        taken, given = specs_of(graph, network)
        return Exported(
            files=(path.name,),
            input=taken,
            output=given,
            ops=count_operators(graph),
            tools={"torch": torch.__version__, "ai-edge-litert": version("ai-edge-litert")},
        )
