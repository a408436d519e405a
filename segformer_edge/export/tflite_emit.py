"""From an exported torch program to a LiteRT graph, operator by operator in the program's order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node

from segformer_edge.errors import ArtifactError
from segformer_edge.export.recording import Recording
from segformer_edge.export.tflite_emitter import Emitter, Value, shape_of
from segformer_edge.export.tflite_graph import FLOAT, WIDTHS, EmittedGraph, Tensor, constant, without_unused
from segformer_edge.export.tflite_ops import HANDLERS, finished_labels
from segformer_edge.export.tflite_views import CHANNELS_LAST, View, plain

#: Operator -> widths for which a runtime has integer kernels.
Kernels = dict[str, tuple[str, ...]]

#: Widths for which LiteRT has integer kernels. Without int8 GELU and softmax and the argmax XNNPACK takes the whole
#: graph: it has none of the three.
KERNELS: Kernels = {
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "MUL", "RSQRT", "BATCH_MATMUL"), WIDTHS),
    **dict.fromkeys(("RESIZE_BILINEAR", "RELU"), WIDTHS),
    "SOFTMAX": ("int16",),
    "CAST": ("uint8",),
    "SPACE_TO_DEPTH": ("int8", "float32"),
}
#: The same with all three, GELU as a lookup table, for runtimes that compute without a delegate.
KERNELS_BUILT_IN = {**KERNELS, "SOFTMAX": WIDTHS, "GELU": ("int8",), "ARG_MAX": ("int8",)}
#: TFLite Micro has no GELU, but what reads a table, and it casts to signed integers alone.
KERNELS_MICRO = {
    **KERNELS, "SOFTMAX": WIDTHS, "ARG_MAX": ("int8",), "GATHER": ("int8",), "CAST": ("int8", "int16")
}  # fmt: skip


def _constants(program: ExportedProgram | Recording) -> Mapping[str, torch.Tensor]:
    """Parameters, buffers and lifted constants by the name of their placeholder."""
    if isinstance(program, Recording):
        return program.constants
    known = {**program.state_dict, **program.constants}
    return {
        spec.arg.name: known[spec.target]
        for spec in program.graph_signature.input_specs
        if spec.kind is not InputKind.USER_INPUT and spec.target is not None
    }


def _needed(program: ExportedProgram | Recording) -> set[Node]:
    """The nodes that the outputs depend on."""
    (last,) = (node for node in program.graph.nodes if node.op == "output")
    found, open_ends = {last}, [last]
    while open_ends:
        for node in open_ends.pop().all_input_nodes:
            if node not in found:
                found.add(node)
                open_ends.append(node)
    return found


def _module(node: Node) -> str:
    """Path of the module that called ``node``."""
    stack = node.meta.get("nn_module_stack")
    return str(next(reversed(stack.values()))[0]) if stack else ""


def _input(emitter: Emitter, node: Node, order: tuple[int, ...]) -> Tensor:
    """What the file takes for ``node``: integers where the program quantizes it first."""
    view = View(shape_of(node), order)
    tensor = Tensor(view.stored, emitter.wanted(node) or FLOAT, name=str(node.target))
    emitter.values[node] = Value(tensor, view)
    return tensor


def _output(emitter: Emitter, node: Node, channels_last: bool) -> Tensor:
    value = emitter.values[node]
    tensor = emitter.tensor(value, _order(len(value.view.shape), channels_last))
    if node.meta["val"].dtype == torch.uint8 and tensor.dtype == "float32":
        tensor = finished_labels(emitter, tensor)
    tensor.name = "output"
    return tensor


def _order(rank: int, channels_last: bool) -> tuple[int, ...]:
    return CHANNELS_LAST if rank == len(CHANNELS_LAST) and not channels_last else plain(rank)


def build_graph(
    program: ExportedProgram | Recording,
    kernels: Kernels = KERNELS,
    *,
    image_channels_last: bool = False,
    output_channels_last: bool = False,
) -> EmittedGraph:
    """The LiteRT graph of ``program``, whose sites and weights are in ``Mode.EXPORT``.

    Inputs and outputs of rank 4 are feature maps ``(B, C, H, W)`` of the program and ``(B, H, W, C)`` of the graph,
    unless the program has them channels last itself; others keep their shape. They are integer where the program
    quantizes the input first or dequantizes the output last. Raises ArtifactError naming an operator that .tflite has
    no counterpart of here, and the module it stands in.
    """
    emitter, constants, needed = Emitter(kernels), _constants(program), _needed(program)
    inputs, outputs = [], []
    for node in program.graph.nodes:
        emitter.where = _module(node)
        if node in emitter.values:
            continue  # a ReLU that went into the operator before it
        if node.op == "placeholder" and node.name in constants:
            if node in needed:
                tensor = constant(constants[node.name].detach().cpu().numpy())
                emitter.values[node] = Value(tensor, View(tensor.shape, plain(len(tensor.shape))))
        elif node.op == "placeholder":
            inputs.append(_input(emitter, node, _order(node.meta["val"].ndim, image_channels_last)))
        elif node.op == "output":
            for result in node.args[0]:
                outputs.append(_output(emitter, result, output_channels_last))
        elif node in needed:
            _handle(emitter, node)
    return without_unused(EmittedGraph(inputs, outputs, emitter.operators))


def _handle(emitter: Emitter, node: Node) -> None:
    handler: Any = HANDLERS.get(node.target)
    if handler is None:
        raise ArtifactError(
            f"No .tflite operator for '{node.target}' in module '{emitter.where or 'the whole'}' (node '{node.name}').",
            hint="The operators that have one are listed in segformer_edge/export/tflite_ops.py.",
        )
    handler(emitter, node)
