"""The structure of OpenVINO IR: a plain XML without entities, whose layers, ports, edges and weights are all there."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from math import prod
from pathlib import Path
from typing import Any
from xml.parsers import expat

from segformer_edge.errors import ArtifactError

#: Element type -> bits.
_BITS = {
    "boolean": 8, "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "i4": 4, "u4": 4, "u1": 1, "i8": 8, "u8": 8, "i16": 16,
    "u16": 16, "i32": 32, "u32": 32, "i64": 64, "u64": 64,
}  # fmt: skip
_MOST_BYTES = 256 << 20
_MOST_ELEMENTS = 1 << 31
_MOST_DIMS = 16


def check_structure(xml: bytes, weights: Path) -> None:
    """Raise ArtifactError naming the part that is damaged. ``weights`` is the .bin."""
    if len(xml) > _MOST_BYTES:
        raise ArtifactError(f"it has {len(xml)} bytes, too many for a network's description")
    try:
        stored = weights.stat().st_size
    except OSError as error:
        raise ArtifactError(f"its weights '{weights.name}' cannot be read: {error.strerror or error}") from error
    root = _parse(xml)
    if root.tag != "net":
        raise ArtifactError(f"its outermost element is <{root.tag[:40]}>, not <net>")
    for body in (root, *root.iter("body")):
        _check_graph(body, stored)


def _parse(content: bytes) -> Any:
    """The outermost element. A document type could name other files or unfold without end; a model has none."""
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(content, True)
        return builder.close()
    except (expat.ExpatError, ValueError, AssertionError) as error:
        raise ArtifactError(f"it is not valid XML: {error}") from error


def _refuse_doctype(*_: object) -> None:
    raise ArtifactError("it has a document type, which no OpenVINO model has")


def _check_graph(graph: Any, stored: int) -> None:
    ports: dict[str, dict[str, set[str]]] = {}
    for layer in graph.findall("./layers/layer"):
        key = layer.get("id")
        if key is None or key in ports:
            raise ArtifactError(f"damaged: two layers have the id {key}, or none")
        ports[key] = {
            side: {port.get("id", "") for port in layer.findall(f"./{side}/port")} for side in ("input", "output")
        }
        for port in layer.iter("port"):
            _shape([dim.text or "" for dim in port.findall("dim")], f"a port of layer {key}")
        if layer.get("type") == "Const":
            _check_constant(layer.find("data"), key, stored)
    taken: set[tuple[str, str]] = set()
    for edge in graph.findall("./edges/edge"):
        start, end = (edge.get("from-layer"), edge.get("from-port")), (edge.get("to-layer"), edge.get("to-port"))
        if start[1] not in ports.get(start[0], {}).get("output", ()):
            raise ArtifactError(f"damaged: an edge starts at port {start[1]} of layer {start[0]}, which is not there")
        if end[1] not in ports.get(end[0], {}).get("input", ()) or end in taken:
            raise ArtifactError(f"damaged: an edge ends at port {end[1]} of layer {end[0]}, taken or not there")
        taken.add(end)
    for key, sides in ports.items():
        missing = next((port for port in sorted(sides["input"]) if (key, port) not in taken), None)
        if missing is not None:
            raise ArtifactError(f"damaged: nothing leads to port {missing} of layer {key}")


def _check_constant(data: Any, key: str, stored: int) -> None:
    what = f"constant {key}"
    if data is None:
        raise ArtifactError(f"damaged: {what} has no data")
    offset, size = _number(data.get("offset"), what), _number(data.get("size"), what)
    shape = _shape([part for part in data.get("shape", "").split(",") if part.strip()], what)
    if min(offset, size) < 0 or offset + size > stored:
        raise ArtifactError(f"damaged: {what} ends at byte {offset + size} of {stored}")
    kind = data.get("element_type", "")
    if kind == "string":
        return
    if kind not in _BITS:
        raise ArtifactError(f"damaged: {what} has the type '{kind[:20]}'")
    if (prod(shape) * _BITS[kind] + 7) // 8 != size:
        raise ArtifactError(f"damaged: {what} has {size} bytes for {shape} of {kind}")


def _shape(texts: list[str], what: str) -> list[int]:
    sides = [_number(text, what) for text in texts]
    if len(sides) > _MOST_DIMS or min(sides, default=0) < -1 or prod(sides) >= _MOST_ELEMENTS:
        raise ArtifactError(f"damaged: {what} has the shape {sides[:_MOST_DIMS]}")
    return sides


def _number(text: str | None, what: str) -> int:
    try:
        return int(text or "")
    except ValueError as error:
        raise ArtifactError(f"damaged: {what} has {text!r:.40} for a number") from error
