"""ExecuTorch ``.pte`` for the XNNPACK delegate: the whole network in one delegate call."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import EdgeCompileConfig, EdgeProgramManager, lowered_backend_module, to_edge_transform_and_lower
from executorch.exir._serialize._program import deserialize_pte_binary
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule, Node
from torch.fx.passes.infra.partitioner import Partition
from torch.fx.passes.infra.pass_base import PassBase, PassResult
from torch.fx.passes.tools_common import stable_topological_sort

from quantization.params import RANGES, TORCH_DTYPES, ActivationParams
from quantization.sites import Mode, named_weights, set_mode
from segformer_edge.export.exporter import Exported, float_specs
from segformer_edge.export.tracing import trace, trace_maps
from segformer_edge.jsonfile import write_bytes
from segformer_edge.report.schema import Memory, Ops
from segformer_edge.rewrite.graph import EdgeSegFormer
from segformer_edge.runtime.metadata import InputSpec, OutputSpec

_BOOKKEEPING = ("quantize", "dequantize", "getitem", "executorch_call_delegate")


def _owners(graph: Graph) -> dict[Node, Node | None]:
    """The one argmax that needs a node; None where several do, or none."""
    readers: dict[Node, list[Node]] = {node: [] for node in graph.nodes}
    for argmax in graph.nodes:
        if "argmax" not in str(argmax.target):
            continue
        waiting, seen = list(argmax.all_input_nodes), set[Node]()
        while waiting:
            node = waiting.pop()
            if node not in seen:
                seen.add(node)
                readers[node].append(argmax)
                waiting.extend(node.all_input_nodes)
    return {node: of[0] if len(of) == 1 else None for node, of in readers.items()}


class OneDequantizePerReader(PassBase):
    """Gives every reader of a dequantized tensor a dequantize of its own.

    XNNPACK matches dequantize -> operator -> quantize, and takes a dequantize that it matched as part of the operator:
    another reader, in float, would get integers. It also lets integers pass between partitions. ``late``: also the
    first reader's comes right before it. Bands wait for each other, and floats take four times as much meanwhile; in an
    untiled network XNNPACK's planner packs the early ones better (9.5 MB against 12.9 for B0 at 256x256).
    """

    def __init__(self, late: bool) -> None:
        super().__init__()
        self.late = late

    def call(self, graph_module: GraphModule) -> PassResult:
        graph = graph_module.graph
        for node in list(graph.nodes):
            if "dequantize" in node.name:
                first, *others = node.users
                for user in others:
                    with graph.inserting_before(user):
                        user.replace_input_with(node, graph.node_copy(node))
                if self.late:
                    first.prepend(node)
        graph_module.recompile()
        return PassResult(graph_module, True)


class BandPartitioner(XnnpackPartitioner):
    """One delegate call for the network; with labels, one more for each band of the head.

    XNNPACK has no argmax. What only one band's argmax needs is a partition of its own, so that the logits of one band
    exist at a time. The stock partitioner grows partitions match by match and, with float operators between int8
    convolutions, ends with dozens of them although nothing is left over; partitions that nothing leaves and enters
    again have no cycle. Where XNNPACK refuses an operator in between, the stock partitioner decides.
    """

    def generate_partitions(self, ep: ExportedProgram) -> list[Partition]:
        matched = {node for group in self.get_matched_nodes_from_configs(ep) for node in group}
        left = [node for node in ep.graph.nodes if node.op == "call_function" and node not in matched]
        if any(user in matched for node in left for user in node.users):
            return super().generate_partitions(ep)
        owners = _owners(ep.graph)
        partitions: dict[Node | None, set[Node]] = {}
        for node in ep.graph.nodes:
            if node in matched:
                partitions.setdefault(owners[node], set()).add(node)
        return [Partition(id=index, nodes=nodes) for index, nodes in enumerate(partitions.values())]


class IntegerInterface(nn.Module):
    """The network with an int8 image ``(1, H, W, 3)`` in, and int8 logits ``(1, C, H/4, W/4)`` or labels out."""

    def __init__(self, network: EdgeSegFormer) -> None:
        super().__init__()
        self.network = network.take_channels_last()
        logits = network.output_form == "logits"
        site = network.decode_head.classifier.output
        self.given = site.params if logits and site.active else None

    def forward(self, image: Tensor) -> Tensor:
        ops = torch.ops.quantized_decomposed
        y = self.network(ops.dequantize_per_tensor(image, *_arguments(self.network.image.params)))
        return y if self.given is None else ops.quantize_per_tensor(y, *_arguments(self.given))


def _arguments(params: ActivationParams | None) -> tuple:
    assert params is not None  # an active site of a network in Mode.EXPORT has them
    return (params.scale, params.zero_point, *RANGES[params.dtype], TORCH_DTYPES[params.dtype])


def _argmax_of_integers(graph: Graph) -> None:
    """The largest logit is the largest integer: no float copy of the logits for the argmax."""
    for node in graph.nodes:
        if node.target is torch.ops.aten.argmax.default:
            source = node.args[0]
            if source.target is torch.ops.quantized_decomposed.dequantize_per_tensor.default:
                node.replace_input_with(source, source.args[0])
    graph.eliminate_dead_code()


def _without_round_trips(graph: Graph) -> None:
    """Drop dequantize -> quantize with the same parameters, which XNNPACK would compute: the image as float, whole."""
    ops = torch.ops.quantized_decomposed
    for node in list(graph.nodes):
        if node.target is ops.quantize_per_tensor.default:
            source = node.args[0]
            if source.target is ops.dequantize_per_tensor.default and source.args[1:] == node.args[1:]:
                node.replace_all_uses_with(source.args[0])
    graph.eliminate_dead_code()


def _eager(program: ExportedProgram) -> None:
    """Move what stayed outside the delegates to right behind what it reads.

    Partitioning leaves the delegate calls first: the logits of every band would wait for their argmax.
    """
    order: dict[Node, None] = {}

    def place(node: Node) -> None:
        if node in order or any(source not in order for source in node.all_input_nodes):
            return
        order[node] = None
        for user in node.users:
            if node.op == "call_function" and user.op == "call_function" and "executorch_call" not in user.name:
                place(user)

    for node in program.graph.nodes:
        place(node)
    for before, node in pairwise(list(order)):
        before.append(node)
    program.graph_module.recompile()


def _without_notes(program: ExportedProgram) -> ExportedProgram:
    """Drop where each node came from: the passes copy these notes for every node they touch."""
    for node in program.graph.nodes:
        for key in ("nn_module_stack", "source_fn_stack", "stack_trace", "from_node", "torch_fn"):
            node.meta.pop(key, None)
    return program


def _traced(network: EdgeSegFormer, size: tuple[int, int]) -> ExportedProgram:
    if not network.image.active:
        return trace_maps(network, size)
    set_mode(network, Mode.EXPORT)
    return trace(IntegerInterface(network).eval(), torch.zeros(1, *size, 3, dtype=torch.int8))


def _lower(network: EdgeSegFormer, size: tuple[int, int]) -> tuple[EdgeProgramManager, ExportedProgram]:
    program = _without_notes(_traced(network, size))
    _argmax_of_integers(program.graph)
    _without_round_trips(program.graph)
    program.graph_module.recompile()
    # Cutting a partition out sorts the rest of the graph breadth first, which would bring all tiles to life together.
    with patch.object(lowered_backend_module, "legalize_graph", stable_topological_sort):
        lowered = to_edge_transform_and_lower(
            program,
            transform_passes=[OneDequantizePerReader(late=network.tiling is not None)],
            partitioner=[BandPartitioner()],
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
    _eager(lowered.exported_program())
    return lowered, program


def _operators(program: ExportedProgram) -> Counter[str]:
    names = (
        str(getattr(node.target, "__name__", node.target)) for node in program.graph.nodes if node.op == "call_function"
    )
    return Counter(name for name in names if not name.startswith(_BOOKKEEPING))


def _specs(network: EdgeSegFormer, size: tuple[int, int]) -> tuple[InputSpec, OutputSpec]:
    image, output = float_specs(network, size)
    taken, given = network.image.params, network.decode_head.classifier.output.params
    if network.channels_last and taken is not None:
        image = InputSpec(None, (1, *size, 3), "nhwc", taken.dtype, taken.scale, taken.zero_point)
        if given is not None and network.output_form == "logits":
            output = replace(output, dtype=given.dtype, scale=given.scale, zero_point=given.zero_point)
    return image, output


class ExecuTorchExporter:
    """Int8 image ``(1, H, W, 3)`` in, int8 logits ``(1, C, H/4, W/4)`` or uint8 labels out; where the recipe leaves the
    image or the logits in float, float32 image ``(1, 3, H, W)`` in and float32 logits out.
    """

    def export(self, network: EdgeSegFormer, size: tuple[int, int], stem: Path) -> Exported:
        with torch.no_grad():
            lowered, program = _lower(network, size)
            left = _operators(lowered.exported_program())
            buffer = lowered.to_executorch().buffer
        path = stem.with_suffix(".pte")
        write_bytes(path, buffer)
        total = _operators(program).total()
        int8 = sum(conv.active for _, conv in named_weights(network))
        plan = deserialize_pte_binary(buffer).program.execution_plan[0]
        image, output = _specs(network, size)
        return Exported(
            files=(path.name,),
            input=image,
            output=output,
            ops=Ops(total, int8, total - int8, total - left.total(), tuple(sorted(left))),
            tools={"torch": torch.__version__, "executorch": version("executorch")},
            # XNNPACK's own workspace is not in this plan.
            memory=Memory(sum(plan.non_const_buffer_sizes), None, None, "planned", None),
        )
