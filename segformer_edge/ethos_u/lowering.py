"""From a calibrated network to the graph for an NPU, and what the compiler makes of it in each memory mode."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass, field

from segformer_edge.errors import ArtifactError
from segformer_edge.ethos_u.configurations import MemoryMode, NpuConfig
from segformer_edge.ethos_u.graph import legal, with_placeholders
from segformer_edge.ethos_u.tables import PLACEHOLDER, Tables
from segformer_edge.ethos_u.vela import Compiled, compile_graph
from segformer_edge.export.tflite_emit import KERNELS_BUILT_IN, Kernels, build_graph
from segformer_edge.export.tflite_graph import EmittedGraph
from segformer_edge.export.tflite_write import tflite_bytes
from segformer_edge.export.tracing import record_channels_last
from segformer_edge.rewrite.graph import EdgeSegFormer

#: Space-to-depth is a reshape and a transpose there, which the compiler takes.
KERNELS: Kernels = {**KERNELS_BUILT_IN, "SPACE_TO_DEPTH": ()}


def npu_graph(network: EdgeSegFormer, size: tuple[int, int], config: NpuConfig) -> EmittedGraph:
    """The graph of ``network`` in operators of ``config``; the network itself stays as it is.

    Raises ArtifactError for an operator in float, or one that has no counterpart.
    """
    program = record_channels_last(copy.deepcopy(network), size)
    return legal(build_graph(program, KERNELS, image_channels_last=True), config)


@dataclass
class Compiler:
    """Compiles graphs for one NPU; what was compiled once is remembered by the hash of its bytes."""

    config: NpuConfig
    _made: dict[tuple[str, str, bool], Compiled] = field(default_factory=dict)

    def compile(self, graph: EmittedGraph, mode: MemoryMode, *, raw: bool = False) -> tuple[Compiled, Tables]:
        """What the compiler makes of ``graph``, and the tables that its constants still lack.

        Raises ArtifactError where the compiler refuses, MissingBackendError without it.
        """
        placed, tables = with_placeholders(graph)
        content = tflite_bytes(placed)
        key = (hashlib.sha256(content).hexdigest(), mode.name, raw)
        if key not in self._made:
            self._made[key] = compile_graph(content, self.config, mode, raw=raw)
        made = self._made[key]
        if any(left.operator == PLACEHOLDER for left in made.left):
            raise ArtifactError(f"The compiler leaves GELU to the CPU on {self.config.name}, as another function.")
        return made, tables
