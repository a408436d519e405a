"""Arm Ethos-U: a ``.pte`` for ExecuTorch's Ethos-U backend and a compiled ``.tflite``, both by Arm's compiler Vela.

Both files come from our own integer graph. ExecuTorch's own way there (its quantizer, its TOSA passes, then the same
compiler) took minutes for B0 at 128x128 and more memory; docs/ethos-u.md has the figures. The host file computes the
same graph with LiteRT's kernels: no NPU is needed to check the answers.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import torch

from segformer_edge.ethos_u.configurations import configuration
from segformer_edge.ethos_u.lowering import Compiler, npu_graph
from segformer_edge.ethos_u.planner import plan
from segformer_edge.ethos_u.program import program, stream
from segformer_edge.ethos_u.vela import Compiled, in_every_mode, vela_version
from segformer_edge.export.exporter import Exported, Plan
from segformer_edge.export.tflite import count_operators, specs_of
from segformer_edge.export.tflite_graph import EmittedGraph
from segformer_edge.export.tflite_write import tflite_bytes
from segformer_edge.jsonfile import write_bytes
from segformer_edge.report.npu import PLANNED, NpuReport
from segformer_edge.report.schema import Memory, Ops
from segformer_edge.rewrite.graph import EdgeSegFormer


class EthosUExporter:
    """Int8 image ``(1, H, W, 3)`` in; int8 logits ``(1, H/4, W/4, classes)`` or int32 labels ``(1, H/4, W/4)`` out.

    Writes ``model.<npu>.pte``, ``model.<npu>.tflite`` and ``model.<npu>.host.tflite``. Where an operator is left to
    the CPU there is no ``.pte``: its one call holds the whole network. Raises UsageError for an unknown NPU,
    MissingBackendError without the compiler.
    """

    def __init__(self, name: str) -> None:
        self.config = configuration(name)
        self.compiler = Compiler(self.config)

    def plan(self, network: EdgeSegFormer, size: tuple[int, int], budget: int) -> Plan:
        """The tiling with which the compiler needs at most ``budget`` bytes of SRAM."""
        return plan(self.compiler, network, size, budget)

    def export(self, network: EdgeSegFormer, size: tuple[int, int], stem: Path) -> Exported:
        """Write the files of the NPU's default memory mode, and ask the compiler about the others."""
        vela = vela_version()
        graph = npu_graph(network, size, self.config)
        found, refused = in_every_mode(self.config, lambda mode: self.compiler.compile(graph, mode)[0])
        chosen = self.config.mode()
        compiled, tables = self.compiler.compile(graph, chosen)
        assert isinstance(compiled.content, bytes)
        base = f"{stem.name}.{self.config.name}"
        host, tflite, pte = (stem.with_name(base + suffix) for suffix in (".host.tflite", ".tflite", ".pte"))
        write_bytes(host, tflite_bytes(graph))
        write_bytes(tflite, tables.fill(compiled.content))
        files = [tflite.name, host.name]
        (taken,), (given,), specs = graph.inputs, graph.outputs, specs_of(graph, network)
        if not compiled.left:
            raw, _ = self.compiler.compile(graph, chosen, raw=True)
            assert not isinstance(raw.content, bytes)
            calls = stream(raw.content, tables.fill(raw.content["weight_data"].tobytes()))
            write_bytes(pte, program(calls, (taken.shape, taken.dtype), (given.shape, given.dtype), self.config.name))
            files.insert(0, pte.name)
        return Exported(
            files=tuple(files),
            input=specs[0],
            output=specs[1],
            ops=_ops(graph, compiled),
            tools={"torch": torch.__version__, "executorch": version("executorch"), "ethos-u-vela": vela},
            memory=Memory(compiled.sram_bytes, None, None, f"{PLANNED}, {compiled.mode}", self.config.name),
            npu=NpuReport(
                config=self.config.name,
                compiler=f"vela {vela}",
                mode=chosen.name,
                operators=len(graph.operators),
                on_npu=len(graph.operators) - len(compiled.left),
                left=compiled.left,
                modes=tuple(each.figures() for each in found),
                host_file=host.name,
                refused=refused,
            ),
        )


def _ops(graph: EmittedGraph, compiled: Compiled) -> Ops:
    counted = count_operators(graph)
    names = tuple(sorted(f"{left.operator} {left.name}".strip() for left in compiled.left))
    total = len(graph.operators)
    return Ops(total, total - (counted.float or 0), counted.float, total - len(names), names)
