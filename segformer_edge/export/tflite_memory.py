"""What a LiteRT graph will take before there is a file, by the liveness that ``profile`` shows of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from segformer_edge.export.executorch_memory import lowered
from segformer_edge.export.tflite_graph import EmittedGraph
from segformer_edge.export.tflite_graph import Operator as Emitted
from segformer_edge.export.tflite_graph import Tensor as EmittedTensor
from segformer_edge.memory import xnnpack
from segformer_edge.memory.graph import GraphBuilder, MemoryGraph, with_in_place
from segformer_edge.memory.liveness import Block, Liveness, greedy_by_size, live_bytes, liveness
from segformer_edge.memory.packing import pack

#: What XNNPACK's delegate takes none of. It refuses int16 everywhere.
_NOT_DELEGATED = ("ARG_MAX", "CAST")
_MOST_CONCATENATED = 4
#: Of LiteRT's built-in kernels.
_IN_PLACE = ("ADD", "SUB", "MUL", "RELU", "SOFTMAX", "RESHAPE", "GELU", "RSQRT")


@dataclass(frozen=True)
class Setup:
    """How LiteRT is asked to run a file, with what it then keeps for every operator, and besides. Measured bytes."""

    delegate: bool
    #: By CompiledModel: input and output are the caller's, indirection buffers share the workspace.
    compiled: bool
    node_bytes: int
    delegated_node_bytes: int
    fixed_bytes: int
    #: The same while a delegate is made of the graph, where that may be the most there ever is.
    loading_node_bytes: int = 0
    loading_fixed_bytes: int = 0
    alignment: int = 64
    #: Operators whose result takes the place of an input that is not read again.
    in_place: tuple[str, ...] = _IN_PLACE
    #: Whether the memory of the network's input is never reused.
    holds_inputs: bool = True
    #: Whether convolutions write out what each of their windows holds.
    unfolds: bool = True
    #: Whether the file says where each tensor goes; else the runtime finds places, greedily by size.
    places: bool = False
    #: Whether XNNPACK uses what is free before the first tensor in its workspace: ExecuTorch 1.4 brings an older one,
    #: which does not.
    fills_front: bool = True
    #: Whether ExecuTorch lowers the graph, which becomes another on the way (executorch_memory).
    lowered: bool = False

    def arena(self, found: Liveness) -> int:
        """Bytes of the arena that holds ``found``."""
        return pack(found, self.alignment).bytes if self.places else greedy_by_size(found.blocks, self.alignment)


BUILT_IN = Setup(False, False, 1070, 0, 250_000)
INTERPRETER = Setup(True, False, 1070, 1420, 250_000)
EXECUTORCH = replace(INTERPRETER, fills_front=False, lowered=True)
COMPILED = Setup(True, True, 1000, 1362, 131_000, loading_node_bytes=2640, loading_fixed_bytes=290_000)
#: TFLite Micro; what it keeps for operators follows from more than their number, and is measured.
MICRO = Setup(False, False, 0, 0, 0, alignment=16, in_place=(), holds_inputs=False, unfolds=False, places=True)


@dataclass(frozen=True)
class Forecast:
    """Bytes that an inference takes by the liveness model. ``blocked_by`` names where the largest part comes from."""

    #: The arena; where LiteRT's holds the input, that is never reused.
    arena: int
    #: XNNPACK's workspace, the old and the new one while it grows from one delegate call to the next, and what its
    #: operators keep.
    workspace: int
    growing: int
    kept: int
    #: Structures of the runtime.
    runtime: int
    #: All that stands while the file is loaded, before there is an arena or a workspace.
    loading: int
    operators: int
    blocked_by: str
    #: What of the workspace is in use at once: no order of tensors makes it smaller.
    alive: int = 0

    @property
    def growth(self) -> int:
        """All of it: what an inference adds to the process, without weights."""
        running = max(self.arena + self.workspace, self.growing) + self.kept + self.runtime
        return max(running, self.loading)

    @property
    def bound(self) -> int:
        """The least that ``growth`` becomes by the order of tensors."""
        return max(self.growth - self.workspace + self.alive, self.loading)


def forecast(graph: EmittedGraph, setup: Setup) -> Forecast:
    """What LiteRT, TFLite Micro or ExecuTorch will take for ``graph``."""
    if setup.lowered:
        graph = lowered(graph)
    memory, parts, _ = _memory_graph(graph, setup)
    arena = liveness(_by_part(memory, parts), lambda tensor: tensor.area == "arena")
    blocks = _workspace_blocks(memory)
    delegated = sum(op.delegate is not None for op in memory.operators)
    count = len(memory.operators)
    workspace, growing = _workspaces(blocks, parts, setup.fills_front)
    return Forecast(
        arena=setup.arena(arena),
        workspace=workspace,
        growing=growing,
        kept=memory.kept_bytes,
        runtime=setup.fixed_bytes + setup.node_bytes * (count - delegated) + setup.delegated_node_bytes * delegated,
        loading=setup.loading_fixed_bytes + setup.loading_node_bytes * count,
        operators=count,
        blocked_by=_blocking(graph, memory, parts, arena, blocks),
        alive=max(live_bytes(blocks, count), default=0),
    )


def arrangement(graph: EmittedGraph) -> tuple[int, dict[EmittedTensor, int]]:
    """Bytes of an arena for TFLite Micro, and the place in it of each tensor that is not constant."""
    memory, _, index = _memory_graph(graph, MICRO)
    found = liveness(memory)
    best = pack(found, MICRO.alignment)
    places = {block.tensor: offset for block, offset in zip(found.blocks, best.offsets, strict=True)}
    return best.bytes, {tensor: places[i] for tensor, i in index.items() if i in places}


def workspace_blocks(graph: EmittedGraph, setup: Setup) -> tuple[list[Block], list[EmittedTensor | None]]:
    """What XNNPACK places in its workspace for ``graph``, and whose it is: None for scratch."""
    memory, _, index = _memory_graph(graph, setup)
    owner = {number: tensor for tensor, number in index.items()}
    blocks = _workspace_blocks(memory)
    return blocks, [owner.get(block.tensor) for block in blocks]


def _workspace_blocks(memory: MemoryGraph) -> list[Block]:
    inside = liveness(memory, lambda tensor: tensor.area == "workspace", scratch=False)
    blocks = [block for block in inside.blocks if block.bytes]
    return blocks + [Block(op.scratch, i, i) for i, op in enumerate(memory.operators) if op.scratch and op.delegate]


def _workspaces(blocks: Sequence[Block], parts: Sequence[int], fills_front: bool) -> tuple[int, int]:
    """The workspace that all delegate calls share, and the most of two while one call needs more than those before."""
    by_part: dict[int, list[Block]] = {}
    for block in blocks:
        by_part.setdefault(parts[block.first], []).append(block)
    size = growing = 0
    for part in sorted(by_part):
        needed = xnnpack.workspace(by_part[part], fills_front).bytes
        if needed > size:
            size, growing = needed, max(growing, size + needed)
    return size, growing


def _blocking(
    graph: EmittedGraph, memory: MemoryGraph, parts: Sequence[int], arena: Liveness, inside: Sequence[Block]
) -> str:
    """The operator at which most is alive, in the arena and inside a delegate together, and its module."""
    within = live_bytes(inside, len(parts))
    total = [arena.live_bytes[part] + own for part, own in zip(parts, within, strict=True)]
    worst = max(range(len(total)), key=total.__getitem__)
    op = graph.operators[worst]
    return f"{op.code} in {op.where or 'the decode head'}"


def _delegated(op: Emitted) -> bool:
    tensors = [tensor for tensor in (*op.inputs, op.output) if tensor is not None]
    if op.code in _NOT_DELEGATED or any(tensor.dtype == "int16" for tensor in tensors):
        return False
    if op.code == "CONCATENATION":
        return len(op.inputs) <= _MOST_CONCATENATED and op.output.dtype in ("int8", "uint8", "float32")
    return not (op.code == "GELU" and op.output.dtype == "int8")


def _memory_graph(graph: EmittedGraph, setup: Setup) -> tuple[MemoryGraph, list[int], dict[EmittedTensor, int]]:
    """The graph as memory sees it, for each operator the part of the execution plan it belongs to, and each tensor's
    number.
    """
    parts: list[int] = []
    taken = [setup.delegate and _delegated(op) for op in graph.operators]
    for i in range(len(taken)):
        together = bool(i) and taken[i] and taken[i - 1]
        parts.append(parts[-1] + (not together) if i else 0)
    where: dict[EmittedTensor, set[int]] = {tensor: {-1} for tensor in (*graph.inputs, *graph.outputs)}
    for op, part in zip(graph.operators, parts, strict=True):
        for tensor in (*op.inputs, op.output):
            if tensor is not None:
                where.setdefault(tensor, set()).add(part)
    inside = {part for part, is_taken in zip(parts, taken, strict=True) if is_taken}
    builder, index = GraphBuilder(), dict[EmittedTensor, int]()
    for tensor in graph.tensors():
        kind = "input" if tensor in graph.inputs else "output" if tensor in graph.outputs else "intermediate"
        hidden = len(where[tensor]) == 1 and next(iter(where[tensor])) in inside
        given = setup.compiled and kind != "intermediate"
        index[tensor] = builder.tensor(
            tensor.name, tensor.shape, tensor.dtype, "constant" if tensor.constant else kind,
            area="workspace" if hidden else "caller" if given else "arena", bytes=tensor.nbytes,
        )  # fmt: skip
    for op, is_taken in zip(graph.operators, taken, strict=True):
        indirection = _indirection(op) if is_taken else 0
        builder.operator(
            op.code,
            [index[tensor] for tensor in op.inputs if tensor is not None],
            [index[op.output]],
            name=op.where,
            delegate="XNNPACK" if is_taken else None,
            kept=0 if setup.compiled else indirection,
            scratch=_scratch(op, setup, is_taken) + (indirection if setup.compiled else 0),
        )
    memory = builder.build(holds_inputs=setup.holds_inputs)
    # Inside a delegate XNNPACK decides, outside LiteRT.
    if setup.delegate:
        return xnnpack.optimized(memory), parts, index
    return with_in_place(memory, (), setup.in_place), parts, index


def _by_part(memory: MemoryGraph, parts: Sequence[int]) -> MemoryGraph:
    """``memory`` with each part of the execution plan as one operator."""
    inputs: list[dict[int, None]] = [{} for _ in range(parts[-1] + 1)]
    outputs: list[dict[int, None]] = [{} for _ in inputs]
    scratch = [0] * len(inputs)
    for op, part in zip(memory.operators, parts, strict=True):
        inputs[part] |= dict.fromkeys(op.inputs)
        outputs[part] |= dict.fromkeys(op.outputs)
        if op.delegate is None:
            scratch[part] = op.scratch
    builder = GraphBuilder(tensors=list(memory.tensors))
    for taken, given, bytes_ in zip(inputs, outputs, scratch, strict=True):
        builder.operator("part", taken, given, dtype="", scratch=bytes_)
    return builder.build(holds_inputs=memory.holds_inputs)


def _indirection(op: Emitted) -> int:
    """Indirection buffers of XNNPACK."""
    shape = op.output.shape
    if op.code == "RESIZE_BILINEAR":
        return xnnpack.resize_indirection(prod(shape[:3]), op.output.dtype)
    if op.code not in ("CONV_2D", "DEPTHWISE_CONV_2D") or op.inputs[1] is None:
        return 0
    kernel = op.inputs[1].shape[1:3]
    if op.code == "CONV_2D":
        return xnnpack.convolution_indirection(prod(shape[:3]), kernel[0] * kernel[1])
    return xnnpack.depthwise_indirection(shape[0] * shape[1], shape[2], (kernel[0], kernel[1]), 1)


def _scratch(op: Emitted, setup: Setup, delegated: bool) -> int:
    """What the kernel takes while it runs: a turned second factor, or the unfolded input of a convolution."""
    if op.code == "BATCH_MATMUL" and op.inputs[1] is not None and not op.inputs[1].constant:
        factor = op.inputs[1]
        element = factor.nbytes // prod(factor.shape)
        turned = bool(op.options.get("adjY"))
        return xnnpack.packing_scratch(factor.shape, element, turned) if delegated else factor.nbytes
    if op.code == "CONV_2D" and setup.unfolds and not delegated and op.inputs[1] is not None:
        weight = op.inputs[1].shape
        if weight[1:3] != (1, 1):
            return prod(op.output.shape[:3]) * prod(weight[1:]) * (1 if op.output.dtype == "int8" else 4)
    return 0
