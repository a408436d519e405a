"""Reads ``.tflite``: the graph from the file, the arena and the delegate's share from the interpreter.

Schema: schema.fbs of TensorFlow Lite. Without an interpreter the file still gives the graph and its liveness.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segformer_edge.errors import ArtifactError
from segformer_edge.memory import xnnpack
from segformer_edge.memory.flatbuffer import Table, root_table
from segformer_edge.memory.graph import GraphBuilder, MemoryGraph, Operator, Tensor
from segformer_edge.memory.protobuf import Varints
from segformer_edge.memory.readers.native import RuntimeMissingError, ask
from segformer_edge.memory.reading import Plan, Reading

_DTYPES = {
    0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 8: "complex64", 9: "int8",
    10: "float64", 11: "complex128", 12: "uint64", 15: "uint32", 16: "uint16", 17: "int4", 18: "bfloat16", 19: "int2",
}  # fmt: skip
#: The commonest operators, for machines without an interpreter, which knows all their names.
_NAMES = {
    0: "ADD", 1: "AVERAGE_POOL_2D", 2: "CONCATENATION", 3: "CONV_2D", 4: "DEPTHWISE_CONV_2D", 6: "DEQUANTIZE",
    9: "FULLY_CONNECTED", 14: "LOGISTIC", 17: "MAX_POOL_2D", 18: "MUL", 19: "RELU", 21: "RELU6", 22: "RESHAPE",
    23: "RESIZE_BILINEAR", 25: "SOFTMAX", 26: "SPACE_TO_DEPTH", 28: "TANH", 34: "PAD", 36: "GATHER", 39: "TRANSPOSE",
    40: "MEAN", 41: "SUB", 42: "DIV", 43: "SQUEEZE", 45: "STRIDED_SLICE", 47: "EXP", 49: "SPLIT", 53: "CAST",
    56: "ARG_MAX", 65: "SLICE", 67: "TRANSPOSE_CONV", 74: "SUM", 75: "SQRT", 76: "RSQRT", 78: "POW", 83: "PACK",
    92: "SQUARE", 97: "RESIZE_NEAREST_NEIGHBOR", 99: "SQUARED_DIFFERENCE", 114: "QUANTIZE", 117: "HARD_SWISH",
    126: "BATCH_MATMUL", 150: "GELU",
}  # fmt: skip
#: Gaps inside an arena are alignment; more lies only between two arenas.
_ARENA_GAP = 4096


@dataclass(frozen=True)
class _Arena:
    """What the interpreter holds in one setup: tensor -> (address, bytes) outside the file, and the extent."""

    places: Mapping[int, tuple[int, int]]
    bytes: int


def read_tflite(path: Path, *, threads: int = 1, delegate: bool = True, on: str = "host") -> Reading:
    """The main subgraph as the interpreter runs it, with its default delegate or without.

    Raises ArtifactError for a damaged file or one that the interpreter refuses.
    """
    model = root_table(path.read_bytes())
    builder, notes = graph_of(model)
    after = _control_dependencies(model, len(builder.operators))
    with tempfile.TemporaryDirectory() as folder:
        try:
            answer = ask("tflite", path, threads=threads, folder=Path(folder), on=on)
        except RuntimeMissingError as error:
            notes.append(f"The arena is not known: {error.args[0]}")
            return Reading(builder.build(holds_inputs=True), (), "the file", {}, tuple(notes))
    for i, (name, _, _) in enumerate(answer["default"]["operators"][: len(builder.operators)]):
        builder.operators[i] = replace(builder.operators[i], type=name, name=f"{name} {i}")
    graph = builder.build(holds_inputs=True)
    setups: list[str] = [name for name in ("plain", "default") if name in answer]
    arenas: dict[str, _Arena] = {name: _arena(graph, answer[name]["tensors"]) for name in setups}
    chosen = "default" if delegate or "plain" not in arenas else "plain"
    if not delegate and chosen == "default":
        notes.append("This interpreter cannot leave its default delegate out.")
    delegated = _delegated(graph, answer[chosen]["operators"])
    shown = _placed(graph, arenas[chosen], delegated)
    shown, left = _with_scratch(shown, answer[chosen]["tensors"])
    if delegated:
        shown = xnnpack.optimized(_in_parts(shown, after))
    if left:
        notes.append(f"{left} tensors of kernels' scratch belong to operators that are not known.")
    order = "the file, cut into the parts a delegate takes" if delegated else "the file"
    return Reading(shown, _plans(arenas, chosen, bool(delegated)), order, answer["versions"], tuple(notes))


def graph_of(model: Table) -> tuple[GraphBuilder, list[str]]:
    """Tensors and operators of the main subgraph as the file has them, and notes for the user.

    Raises ArtifactError for a file without one, or damaged.
    """
    subgraphs = model.tables(2)
    if not subgraphs:
        raise ArtifactError("it holds no graph")
    subgraph, builder = subgraphs[0], GraphBuilder()
    notes: list[str] = []
    if len(subgraphs) > 1:
        notes.append(
            f"{len(subgraphs) - 1} more subgraphs are run by operators of the first; their tensors are not shown."
        )
    open_shapes = False
    buffers = [len(buffer.octets(0)) or buffer.scalar(2, "Q") for buffer in model.tables(4)]
    codes = [max(code.scalar(0, "b"), code.scalar(3, "i")) for code in model.tables(1)]
    inputs, outputs = set(subgraph.numbers(1, "i")), set(subgraph.numbers(2, "i"))
    for i, tensor in enumerate(subgraph.tables(0)):
        buffer = tensor.scalar(2, "I")
        if buffer >= len(buffers) and buffer:
            raise ArtifactError(f"damaged: tensor {i} names buffer {buffer} of {len(buffers)}")
        stored = buffers[buffer] if buffer else 0
        kind = "constant" if stored else "input" if i in inputs else "output" if i in outputs else "intermediate"
        dtype = _DTYPES.get(tensor.scalar(1, "b"), f"type {tensor.scalar(1, 'b')}")
        shape = tensor.numbers(0, "i")
        area = "file" if stored else "arena"
        builder.tensor(tensor.text(3) or f"tensor {i}", shape, dtype, kind, area=area, bytes=stored or None)
        open_shapes |= -1 in tensor.numbers(7, "i")
    for i, op in enumerate(subgraph.tables(3)):
        code = op.scalar(0, "I")
        if code >= len(codes):
            raise ArtifactError(f"damaged: operator {i} names code {code} of {len(codes)}")
        kind = _NAMES.get(codes[code], f"operator {codes[code]}")
        taken, given = ([t for t in op.numbers(field, "i") if t >= 0] for field in (1, 2))
        if max([*taken, *given], default=0) >= len(builder.tensors):
            raise ArtifactError(f"damaged: operator {i} names tensor {max(*taken, *given)} of {len(builder.tensors)}")
        builder.operator(kind, taken, given, name=f"{kind} {i}")
    if open_shapes:
        notes.append("Some tensors have no fixed shape; their bytes are those of the file's own shapes.")
    return builder, notes


def _arena(graph: MemoryGraph, tensors: Mapping[str, Sequence[Any]]) -> _Arena:
    """Where tensors lie that are not the file's; the extents of the pieces of memory they lie in."""
    places = {
        int(t): (place[0], place[1])
        for t, place in tensors.items()
        if int(t) >= len(graph.tensors) or graph.tensors[int(t)].kind != "constant"
    }
    total, start, end = 0, 0, 0
    for address, size in sorted(places.values()):
        if address > end + _ARENA_GAP:
            total, start = total + end - start, address
        end = max(end, address + size)
    return _Arena(places, total + end - start)


def _delegated(graph: MemoryGraph, operators: Sequence[Sequence[Any]]) -> dict[int, str]:
    """Operator -> the delegate call that replaced it: all that its outputs need, as far back as its inputs."""
    producer = {t: i for i, op in enumerate(graph.operators) for t in op.outputs}
    found: dict[int, str] = {}
    calls = operators[len(graph.operators) :]
    for number, (_, inputs, outputs) in enumerate(calls):
        known, waiting = set(inputs), list(outputs)
        while waiting:
            t = waiting.pop()
            if t in known or t not in producer:
                continue
            known.add(t)
            found[producer[t]] = f"XNNPACK {number}"
            waiting += graph.operators[producer[t]].inputs
    return found


def _placed(graph: MemoryGraph, arena: _Arena, delegated: Mapping[int, str]) -> MemoryGraph:
    """Tensors without an address move to the delegate's workspace; of tensors at one address, the later are aliases."""
    tensors = list(graph.tensors)
    for t, tensor in enumerate(tensors):
        if tensor.area == "arena" and t not in arena.places and delegated:
            tensors[t] = replace(tensor, area="workspace")
    operators = []
    for i, op in enumerate(graph.operators):
        if i in delegated:
            op = replace(op, delegate=delegated[i], kept=_kept(op.type, graph, op.inputs, op.outputs))
            if op.type == "BATCH_MATMUL" and graph.tensors[op.inputs[1]].kind != "constant":
                factor = graph.tensors[op.inputs[1]]
                element = factor.bytes // max(1, _count(factor.shape))
                op = replace(op, scratch=xnnpack.packing_scratch(factor.shape, element))
        else:
            for out in op.outputs:
                place = arena.places.get(out)
                shared = [t for t in op.inputs if place and t != out and arena.places.get(t) == place]
                if shared and place and place[1]:
                    tensors[out] = replace(tensors[out], alias_of=shared[0])
        operators.append(op)
    return replace(graph, tensors=tuple(tensors), operators=tuple(operators))


def _in_parts(graph: MemoryGraph, after: Mapping[int, Sequence[int]]) -> MemoryGraph:
    """Operators in the order in which the interpreter runs them once a delegate has taken its share.

    It cuts the graph into parts of one kind, delegated or not, each as large as the results so far and ``after`` (an
    operator -> those that the file puts before it) allow, and runs one after the other
    (PartitionGraphIntoIndependentNodeSubsets in tensorflow/lite/graph_info.cc).
    """
    made = {t for op in graph.operators for t in op.outputs}
    ready = [t not in made for t in range(len(graph.tensors))]
    done = [False] * len(graph.operators)
    waiting = list(range(len(graph.operators)))
    order: list[Operator] = []
    while waiting:
        kind: bool | None = None
        before = len(order)
        progress = True
        while progress:
            progress, left = False, []
            for i in waiting:
                op = graph.operators[i]
                free = all(ready[t] for t in op.inputs) and all(done[j] for j in after.get(i, ()))
                if not free or kind not in (None, op.delegate is not None):
                    left.append(i)
                    continue
                kind, progress, done[i] = op.delegate is not None, True, True
                order.append(op)
                for t in op.outputs:
                    ready[t] = True
            waiting = left
        if len(order) == before:
            raise ArtifactError("damaged: operators wait for each other in a circle")
    return replace(graph, operators=tuple(order))


def _control_dependencies(model: Table, operators: int) -> dict[int, list[int]]:
    """Operator of the main graph -> operators that must have run before it, from the file's metadata.

    Varints: version, number of graphs, then per graph the number of edges and their zigzag-encoded ends
    (tensorflow/compiler/mlir/lite/experimental/remat/metadata_util.cc).
    """
    buffers = model.tables(4)
    for entry in model.tables(6):
        if entry.text(0) != "model_control_dependencies" or entry.scalar(1, "I") >= len(buffers):
            continue
        content = Varints(buffers[entry.scalar(1, "I")].octets(0))
        if content.next() != 1 or not content.next():
            return {}
        found: dict[int, list[int]] = {}
        for _ in range(content.next()):
            first, second = (end // 2 for end in (content.next(), content.next()))
            if max(first, second) < operators:
                found.setdefault(second, []).append(first)
        return found
    return {}


def _kept(kind: str, graph: MemoryGraph, inputs: Sequence[int], outputs: Sequence[int]) -> int:
    """Indirection buffers of XNNPACK, which the interpreter does not see."""
    out = graph.tensors[outputs[0]]
    if kind not in ("CONV_2D", "DEPTHWISE_CONV_2D", "RESIZE_BILINEAR") or len(out.shape) != 4:
        return 0
    batch, height, width, _ = out.shape
    if kind == "RESIZE_BILINEAR":
        return xnnpack.resize_indirection(batch * height * width, out.dtype)
    image, weight = (graph.tensors[t].shape for t in inputs[:2])
    if len(image) != 4 or len(weight) != 4:
        return 0
    kernel = weight[1], weight[2]
    if kind == "CONV_2D":
        return xnnpack.convolution_indirection(batch * height * width, kernel[0] * kernel[1])
    return xnnpack.depthwise_indirection(batch * height, width, kernel, max(1, round(image[2] / width)))


def _with_scratch(graph: MemoryGraph, tensors: Mapping[str, Sequence[Any]]) -> tuple[MemoryGraph, int]:
    """Scratch tensors, which the interpreter numbers behind the file's own, given to the operators they fit.

    A convolution unfolds its input to (pixels, taps x channels), a matrix product turns a factor. Operators make their
    scratch in the order of execution. Returns how many fit nowhere.
    """
    operators, left, start = list(graph.operators), 0, {"CONV_2D": 0, "BATCH_MATMUL": 0}
    for t in sorted(int(t) for t in tensors if int(t) >= len(graph.tensors)):
        _, size, _, shape = tensors[str(t)]
        owner = None
        for kind, first in start.items():
            fits = (i for i in range(first, len(operators)) if _makes(graph, i, kind, tuple(shape)))
            owner = next(fits, None)
            if owner is not None:
                start[kind] = owner
                operators[owner] = replace(operators[owner], scratch=operators[owner].scratch + size)
                break
        left += owner is None and size > 0
    return replace(graph, operators=tuple(operators)), left


def _makes(graph: MemoryGraph, i: int, kind: str, shape: tuple[int, ...]) -> bool:
    op = graph.operators[i]
    if op.type != kind or op.delegate is not None:
        return False
    if kind == "CONV_2D":
        weight, out = graph.tensors[op.inputs[1]].shape, graph.tensors[op.outputs[0]].shape
        return shape == (*out[:-1], _count(weight[1:]))
    factors: list[Tensor] = [graph.tensors[t] for t in op.inputs[:2]]
    return any(shape == (*f.shape[:-2], f.shape[-1], f.shape[-2]) for f in factors if len(f.shape) > 1)


def _plans(arenas: Mapping[str, _Arena], chosen: str, delegated: bool) -> tuple[Plan, ...]:
    source = "the interpreter's tensor addresses"
    plans = [Plan("TFLite arena" + (" beside XNNPACK" if delegated else ""), arenas[chosen].bytes, source)]
    if delegated and "plain" in arenas:
        plans.append(Plan("TFLite arena without a delegate", arenas["plain"].bytes, source, in_use=False))
    return tuple(plans)


def _count(shape: Sequence[int]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count
