"""Reads OpenVINO IR: the graph as the CPU plugin compiles it, or the plain .xml where OpenVINO is not installed."""

from __future__ import annotations

import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

from segformer_edge.errors import ArtifactError
from segformer_edge.memory.graph import GraphBuilder, MemoryGraph, with_in_place
from segformer_edge.memory.readers.native import RuntimeMissingError, ask
from segformer_edge.memory.reading import Plan, Reading

#: Its type names -> numpy's.
DTYPES = {
    "f32": "float32", "f16": "float16", "bf16": "bfloat16", "f64": "float64", "boolean": "bool", "i4": "int4",
    "u4": "uint4", "i8": "int8", "u8": "uint8", "i16": "int16", "u16": "uint16", "i32": "int32", "u32": "uint32",
    "i64": "int64", "u64": "uint64",
}  # fmt: skip
#: What the file calls them.
_PRECISIONS = {"FP32": "f32", "FP16": "f16", "BF16": "bf16", "FP64": "f64", "BOOL": "boolean"} | {
    name.upper(): name for name in ("i4", "u4", "i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64")
}
#: Node types of what the file stores, compiled and as in the file.
CONSTANTS = ("Const", "Constant")
#: The CPU plugin shows, or writes over, the input of these.
_VIEWS = ("Reshape", "Squeeze", "Unsqueeze")
_OVERWRITING = ("Eltwise", "Subgraph")


def read_openvino(path: Path, *, threads: int = 1, on: str = "host") -> Reading:
    """Nodes in the order of execution, with the types they were compiled to.

    Raises ArtifactError for a damaged file or one that OpenVINO refuses.
    """
    plan = Plan("OpenVINO's memory", None, "OpenVINO does not say what it plans")
    with tempfile.TemporaryDirectory() as folder:
        try:
            answer = ask("openvino", path, threads=threads, folder=Path(folder), on=on)
        except RuntimeMissingError as error:
            note = f"The graph is that of the file, not the one a runtime makes of it: {error.args[0]}"
            return Reading(_graph(_parse(path)), (plan,), "the file", {}, (note,))
    nodes = sorted(answer["nodes"], key=lambda node: int(node["order"]))
    position = {id(node): i for i, node in enumerate(nodes)}
    moved = [position[id(node)] for node in answer["nodes"]]
    for node in nodes:
        node["inputs"] = [(moved[source], port) for source, port in node["inputs"]]
    return Reading(_graph(nodes), (plan,), "OpenVINO's compiled model", answer["versions"])


def _graph(nodes: list[dict[str, Any]]) -> MemoryGraph:
    """Nodes as ``native.ask_openvino`` lists them, sources before their readers."""
    builder = GraphBuilder()
    results: dict[tuple[int, int], int] = {}
    read_by_output = {source for node in nodes if node["type"] in ("Output", "Result") for source in node["inputs"]}
    for i, node in enumerate(nodes):
        kind, given = node["type"], []
        if kind in ("Output", "Result"):
            continue
        constant, image = kind in CONSTANTS, kind in ("Input", "Parameter")
        for port, (dtype, shape) in enumerate(node["outputs"]):
            output = (i, port) in read_by_output
            role = "constant" if constant else "input" if image else "output" if output else "intermediate"
            area = "file" if constant else "caller" if image else "workspace"
            name = node["name"] if len(node["outputs"]) == 1 else f"{node['name']}:{port}"
            sides = [max(1, side) for side in shape]
            results[i, port] = builder.tensor(name, sides, DTYPES.get(dtype, dtype), role, area=area)
            given.append(results[i, port])
        if constant or image:
            continue
        taken = [results[source] for source in map(tuple, node["inputs"]) if source in results]
        if taken and all(builder.tensors[t].kind == "constant" for t in taken):
            # Computed once, when the model is compiled.
            for t in given:
                builder.tensors[t] = replace(builder.tensors[t], kind="constant", area="file", bytes=0)
            continue
        dtype = DTYPES.get(node.get("precision", ""))
        builder.operator(kind, taken, given, name=node["name"], dtype=dtype)
    return with_in_place(builder.build(), _VIEWS, _OVERWRITING)


def _parse(path: Path) -> list[dict[str, Any]]:
    """The layers of the file, in its order, in the form of ``native.ask_openvino``."""
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError) as error:
        raise ArtifactError(f"'{path}' is not valid XML: {error}.") from error
    layers = root.findall("./layers/layer")
    number = {layer.get("id"): i for i, layer in enumerate(layers)}
    ports = [{port.get("id"): k for k, port in enumerate(layer.findall("./output/port"))} for layer in layers]
    sources: dict[str | None, list[tuple[int, int]]] = {}
    for edge in root.findall("./edges/edge"):
        source = number.get(edge.get("from-layer"))
        if source is None or edge.get("from-port") not in ports[source]:
            raise ArtifactError(f"'{path}' is damaged: an edge starts at a layer that is not there.")
        sources.setdefault(edge.get("to-layer"), []).append((source, ports[source][edge.get("from-port")]))
    return [
        {
            "name": layer.get("name", ""),
            "type": layer.get("type", ""),
            "inputs": sources.get(layer.get("id"), []),
            "outputs": [
                (_PRECISIONS.get(port.get("precision", ""), ""), [int(dim.text or 1) for dim in port.findall("dim")])
                for port in layer.findall("./output/port")
            ],
        }
        for layer in layers
    ]
