"""ExecuTorch ``.pte`` for the XNNPACK delegate: the whole network in one delegate call."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import version
from pathlib import Path

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import EdgeCompileConfig, EdgeProgramManager, to_edge_transform_and_lower
from executorch.exir._serialize._program import deserialize_pte_binary
from torch.export import ExportedProgram
from torch.fx.passes.infra.partitioner import Partition
from torchao.quantization.pt2e.quantizer.duplicate_dq_pass import DuplicateDQPass

from quantization.sites import Mode, named_weights, set_mode
from segformer_edge.export.exporter import Exported, example_image, float_specs
from segformer_edge.jsonfile import write_bytes
from segformer_edge.report.schema import Memory, Ops
from segformer_edge.rewrite.graph import EdgeSegFormer

_BOOKKEEPING = ("quantize", "dequantize", "getitem", "executorch_call_delegate")


class WholeGraphPartitioner(XnnpackPartitioner):
    """Takes the graph as one partition where XNNPACK supports every node of it, but for a tail such as the argmax.

    The stock partitioner grows partitions match by match and, with float residual adds between int8 convolutions, ends
    with dozens of them although nothing is left over. One partition that nothing leaves and enters again has no cycle.
    """

    def generate_partitions(self, ep: ExportedProgram) -> list[Partition]:
        matched = {node for group in self.get_matched_nodes_from_configs(ep) for node in group}
        calls = {node for node in ep.graph.nodes if node.op == "call_function"}
        left = calls - matched
        if all(user in left or user.op == "output" for node in left for user in node.users):
            return [Partition(id=0, nodes=matched)]
        return super().generate_partitions(ep)


def _lower(network: EdgeSegFormer, size: tuple[int, int]) -> tuple[EdgeProgramManager, ExportedProgram]:
    example = (example_image(size),)
    set_mode(network, Mode.EXPORT)
    module = torch.export.export(network, example).module(check_guards=False)
    # XNNPACK matches dequantize -> operator -> quantize, so every reader needs a dequantize of its own.
    duplicated = DuplicateDQPass()(module)
    program = torch.export.export(duplicated.graph_module if duplicated else module, example)
    lowered = to_edge_transform_and_lower(
        program,
        partitioner=[WholeGraphPartitioner()],
        compile_config=EdgeCompileConfig(_check_ir_validity=False),
    )
    return lowered, program


def _operators(program: ExportedProgram) -> Counter[str]:
    names = (
        str(getattr(node.target, "__name__", node.target)) for node in program.graph.nodes if node.op == "call_function"
    )
    return Counter(name for name in names if not name.startswith(_BOOKKEEPING))


class ExecuTorchExporter:
    """Float32 image ``(1, 3, H, W)`` in, float32 logits out; convolutions run in int8 inside the delegate."""

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
        image, output = float_specs(network, size)
        return Exported(
            files=(path.name,),
            input=image,
            output=output,
            ops=Ops(total, int8, total - int8, total - left.total(), tuple(sorted(left))),
            tools={"torch": torch.__version__, "executorch": version("executorch")},
            # XNNPACK's own workspace is not in this plan.
            memory=Memory(sum(plan.non_const_buffer_sizes), None, None, "planned", None),
        )
