"""Reads ``.onnx``: the graph as onnxruntime optimizes and runs it, and its arena's statistics.

The trace of onnxruntime's profiler gives the order, every result's shape, and after each operator what the arena has
handed out and holds. Weights lie in the arena as well. Field numbers are those of onnx.proto.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from segformer_edge.errors import ArtifactError
from segformer_edge.memory.graph import GraphBuilder, MemoryGraph, with_in_place
from segformer_edge.memory.protobuf import Message
from segformer_edge.memory.readers.native import RuntimeMissingError, ask
from segformer_edge.memory.reading import Plan, Reading

_DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16",
    11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16", 21: "uint4", 22: "int4",
}  # fmt: skip
_TRACE_DTYPES = {"float": "float32", "double": "float64"}
#: Kernels that onnxruntime lets show, or write over, their input.
_VIEWS = ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Dropout")
_OVERWRITING = (
    "Add", "Sub", "Mul", "Div", "Sqrt", "Reciprocal", "Erf", "Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Exp", "Log",
    "Clip", "LeakyRelu", "Pow", "Min", "Max", "Softmax",
)  # fmt: skip
_EVENT = "_kernel_time"


def read_onnx(path: Path, *, threads: int = 1, on: str = "host") -> Reading:
    """The optimized graph where onnxruntime is installed, else the file's own with the shapes it happens to hold.

    Raises ArtifactError for a damaged file or one that onnxruntime refuses.
    """
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            answer = ask("onnx", path, threads=threads, folder=folder, on=on)
        except RuntimeMissingError as error:
            notes.append(f"The graph is that of the file, not the one a runtime makes of it: {error.args[0]}")
            graph = with_in_place(_graph(path.read_bytes(), {}, notes), _VIEWS, _OVERWRITING)
            return Reading(graph, (), "the file", {}, tuple(notes))
        trace = json.loads((folder / "trace.json").read_text())
        content = (folder / "optimized.onnx").read_bytes()
    if answer["open_shapes"]:
        notes.append(f"Open sides are taken as 1: {', '.join(answer['open_shapes'])}.")
    steps = [e for e in trace if e.get("cat") == "Node" and e["name"].endswith(_EVENT)]
    # Two runs; the second no longer grows the arena.
    first, second = steps[: len(steps) // 2], steps[len(steps) // 2 :]
    results = {e["name"].removesuffix(_EVENT): e["args"].get("output_type_shape", []) for e in first}
    inputs = {name: (dtype, shape) for name, (dtype, shape) in answer["inputs"].items()}
    graph = with_in_place(_graph(content, {**results, "": inputs}, notes), _VIEWS, _OVERWRITING, only=_in_place(first))
    return Reading(
        graph,
        _plans(first, second),
        "onnxruntime's optimizer and profiler",
        answer["versions"],
        tuple(notes),
        fixed_shapes=not answer["open_shapes"],
    )


def _graph(content: bytes, known: Mapping[str, Any], notes: list[str]) -> MemoryGraph:
    """``known``: node -> [{type: shape}] of its results; under "" input -> (type, shape)."""
    graph = next(iter(Message(memoryview(content)).messages(7)), None)
    if graph is None or not graph.messages(1):
        raise ArtifactError("it is not an ONNX model: there is no graph in it")
    builder, index = GraphBuilder(), {"": -1}
    for constant in graph.messages(5):
        dtype = _DTYPES.get(next(iter(constant.numbers(2)), 0), "unknown")
        index[constant.text(8)] = builder.tensor(constant.text(8), constant.numbers(1), dtype, "constant", area="file")
    declared = {value.text(1): _declared(value) for field in (13, 11, 12) for value in graph.messages(field)}
    outputs = {value.text(1) for value in graph.messages(12)}
    for value in graph.messages(11):
        name = value.text(1)
        if name not in index:  # old files list constants as inputs
            dtype, shape = known.get("", {}).get(name) or declared[name]
            index[name] = builder.tensor(name, shape, dtype, "input", area="caller")
    unknown = 0
    for node in graph.messages(1):
        name, kind = node.text(3), node.text(4)
        shapes = known.get(name, [])
        given = []
        for i, result in enumerate(node.texts(2)):
            if not result:
                continue
            dtype, shape = _traced(shapes[i]) if i < len(shapes) else declared.get(result, ("unknown", ()))
            fixed = kind == "Constant"
            unknown += dtype == "unknown" and not fixed
            role = "constant" if fixed else "output" if result in outputs else "intermediate"
            index[result] = builder.tensor(result, shape, dtype, role, area="file" if fixed else "arena")
            given.append(index[result])
        taken = [index[i] for i in node.texts(1) if index.get(i, -1) >= 0]
        if kind != "Constant":
            builder.operator(kind, taken, given, name=name)
    if unknown:
        notes.append(f"{unknown} results have no shape in the file and count as 0 bytes.")
    return builder.build()


def _in_place(steps: Sequence[Mapping[str, Any]]) -> Container[str] | None:
    """Nodes that took no memory for their result; None where the profiler does not say."""
    if not any("mem_requested_in_use_delta" in e["args"] for e in steps):
        return None
    return {e["name"].removesuffix(_EVENT) for e in steps if int(e["args"].get("mem_requested_in_use_delta", "1")) == 0}


def _declared(value: Message) -> tuple[str, tuple[int, ...]]:
    """Type and shape of a ValueInfoProto; open sides are 1."""
    tensor = next((inner for kind in value.messages(2) for inner in kind.messages(1)), None)
    if tensor is None:
        return "unknown", ()
    dtype = _DTYPES.get(next(iter(tensor.numbers(1)), 0), "unknown")
    sides = [side for shape in tensor.messages(2) for side in shape.messages(1)]
    return dtype, tuple(next(iter(side.numbers(1)), 1) for side in sides)


def _traced(entry: Mapping[str, Sequence[int]]) -> tuple[str, tuple[int, ...]]:
    ((dtype, shape),) = entry.items()
    return _TRACE_DTYPES.get(dtype, dtype), tuple(shape)


def _plans(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]) -> tuple[Plan, ...]:
    """The arena in two runs. From the second on, memory for activations is one block of the pattern of the first."""
    source = "onnxruntime's profiler"
    if not first or not second or "mem_arena_held" not in second[-1]["args"]:
        return (Plan("onnxruntime's arena", None, "this version's profiler has no memory statistics"),)
    start, middle, end = first[0]["args"], first[-1]["args"], second[-1]["args"]
    before = int(start["mem_bytes_in_use"]) - int(start["mem_in_use_delta"])
    once, held, later = int(middle["mem_in_use_peak"]), int(middle["mem_arena_held"]), int(end["mem_arena_held"])
    parts = {"weights": before, "activations": once - before, "held but not in use": held - once}
    pattern = {"for the pattern of the first run": later - held} if later > held else {}
    return (
        Plan("onnxruntime's arena, first run", held, source, in_use=False, weights=before, parts=parts),
        Plan("onnxruntime's arena, later runs", later, source, weights=before, parts={**parts, **pattern}),
    )
