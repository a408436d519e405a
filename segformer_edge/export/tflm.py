"""TFLite Micro ``.tflite``: int8 image in, labels or int8 logits out, integer operators alone that its interpreter has.

GELU reads an exact table (QUANTIZE to indices, GATHER). The file carries a memory plan where ours takes less than what
the interpreter's own planner finds.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch

from segformer_edge.errors import UsageError
from segformer_edge.export.exporter import Exported
from segformer_edge.export.tflite import count_operators, specs_of
from segformer_edge.export.tflite_emit import KERNELS_MICRO, build_graph
from segformer_edge.export.tflite_graph import EmittedGraph
from segformer_edge.export.tflite_memory import arrangement
from segformer_edge.export.tflite_write import tflite_bytes
from segformer_edge.export.tracing import record_channels_last
from segformer_edge.jsonfile import write_bytes
from segformer_edge.memory.micro import Allocations, allocations
from segformer_edge.report.schema import Memory
from segformer_edge.rewrite.graph import EdgeSegFormer

#: What the recorded bytes are, in reports.
KIND = "recorded by TFLite Micro's allocator"


def emitted_micro(network: EdgeSegFormer, size: tuple[int, int]) -> EmittedGraph:
    """The graph of ``network``, which is put into ``Mode.EXPORT`` and takes the image channels last from now on.

    Raises UsageError for a recipe that leaves operators in float.
    """
    graph = build_graph(record_channels_last(network, size), KERNELS_MICRO, image_channels_last=True)
    in_float = sorted({op.code for op in graph.operators if op.output.dtype == "float32"})
    if in_float:
        raise UsageError(
            f"With this recipe {', '.join(in_float)} would run in float, which microcontrollers are not made for.",
            hint="--recipe full leaves nothing in float.",
        )
    return graph


class TFLMExporter:
    """Int8 image ``(1, H, W, 3)`` in; labels ``(1, H/4, W/4)`` or int8 logits ``(1, H/4, W/4, classes)`` out."""

    def export(self, network: EdgeSegFormer, size: tuple[int, int], stem: Path) -> Exported:
        graph = emitted_micro(network, size)
        path = stem.with_name(f"{stem.name}_tflm.tflite")
        found = write_smallest(graph, path)
        taken, given = specs_of(graph, network)
        return Exported(
            files=(path.name,),
            input=taken,
            output=given,
            ops=count_operators(graph),
            tools={"torch": torch.__version__, "tflite-micro": version("tflite-micro")},
            memory=Memory(found.activations, found.total, None, KIND, found.device),
        )


def write_smallest(graph: EmittedGraph, path: Path) -> Allocations:
    """Write ``graph``, with a memory plan where that takes less than without; what TFLite Micro then records.

    Raises ArtifactError where TFLite Micro refuses the file.
    """
    write_bytes(path, tflite_bytes(graph))
    found = allocations(path)
    planned, offsets = arrangement(graph)
    if planned >= found.activations:
        return found
    write_bytes(path, tflite_bytes(replace(graph, offsets=offsets)))
    return allocations(path)
