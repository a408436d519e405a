"""The structure of a ``.pte``: program.fbs of ExecuTorch, its segments, and XNNPACK's graphs in them.

ExecuTorch's own verification ("internal consistency") covers the program's flatbuffer alone.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from math import prod
from typing import Any

from segformer_edge.errors import ArtifactError
from segformer_edge.memory.flatbuffer import Buffer, Table, root_table
from segformer_edge.runtime.structure.flatbuffers import Schema, Union, verify
from segformer_edge.runtime.structure.xnnpack import check_blob

SCHEMA: Schema = {
    "Program": ("I", "[Plan]", "[Storage]", "[Storage]", "[Segment]", "Subsegments", "[Subsegments]", "[NamedData]"),
    "Plan": ("text", "Container", "[Value]", "[i]", "[i]", "[Chain]", "[Operator]", "[Delegate]", "[q]", "[Device]"),
    "Container": ("text", "text"),
    "Value": ("B", Union({5: "Tensor", 6: "Text", 7: "Longs", 8: "Doubles", 9: "Bools", 10: "Ints", 11: "Ints"})),
    "Tensor": ("b", "i", "[i]", "[B]", "B", "I", "Allocation", "b", "b", "ExtraInfo"),
    "Allocation": ("I", "I", "I"),
    "ExtraInfo": ("Q", "text", "b", "b", "b"),
    "Text": ("text",), "Longs": ("[q]",), "Doubles": ("[d]",), "Bools": ("[B]",), "Ints": ("[i]",),
    "Chain": ("[i]", "[i]", "[Instruction]", "[FrameList]"),
    "Instruction": ("B", Union({1: "Call", 2: "Call", 3: "Two", 4: "Two", 5: "One"})),
    "Call": ("i", "[i]"), "Two": ("i", "i"), "One": ("i",),
    "FrameList": ("[Frame]",),
    "Frame": ("text", "i", "text", "text"),
    "Operator": ("text", "text"),
    "Delegate": ("text", "Reference", "[CompileSpec]"),
    "Reference": ("b", "I"),
    "CompileSpec": ("text", "[B]"),
    "Device": ("i", "b", "b"),
    "Storage": ("[B]",),
    "Segment": ("Q", "Q"),
    "Subsegments": ("I", "[Q]"),
    "NamedData": ("text", "I"),
}  # fmt: skip
_KERNEL, _DELEGATE, _MOVE, _JUMP, _FREE = 1, 2, 3, 4, 5
_TENSOR, _LISTS = 5, (7, 10, 11)
#: ScalarType -> bytes an element.
_BYTES = {0: 1, 1: 1, 2: 2, 3: 4, 4: 8, 5: 2, 6: 4, 7: 8, 11: 1, 12: 1, 13: 1, 14: 4, 15: 2, 27: 2, 28: 4, 29: 8}
_MOST_BYTES = 1 << 32


def check_structure(data: Buffer) -> None:
    """Raise ArtifactError naming the part that is damaged."""
    base = 0
    flat: Buffer = data
    if bytes(data[8:12]) == b"eh00":
        length, size, base = struct.unpack_from("<IQQ", data, 12)
        (segment_bytes,) = struct.unpack_from("<Q", data, 32) if length >= 32 else (0,)
        needed = max(size, base + segment_bytes)
        if needed > len(data):
            raise ArtifactError(f"it is cut short: {len(data)} of {needed} bytes are there")
        flat = memoryview(data)[:size]
    verify(flat, SCHEMA, "Program")
    program = root_table(flat)
    segments = [(base + s.scalar(0, "Q"), s.scalar(1, "Q")) for s in program.tables(4)]
    for i, (start, size) in enumerate(segments):
        if start + size > len(data):
            raise ArtifactError(f"damaged: segment {i} ends at byte {start + size} of {len(data)}")
    if not program.tables(1):
        raise ArtifactError("it holds no method")
    constants = _constant_sizes(program, segments)
    named = {entry.text(0): _at(segments, entry.scalar(1, "I"), "a named segment") for entry in program.tables(7)}
    for plan in program.tables(1):
        _check_plan(plan, constants)
        for delegate in plan.tables(7):
            blob = _blob(data, program, segments, delegate)
            if delegate.text(0) == "XnnpackBackend":
                check_blob(blob, {key: size for key, (_, size) in named.items()})


def _constant_sizes(program: Table, segments: Sequence[tuple[int, int]]) -> list[int]:
    """Bytes that each constant may take at most: up to the next one, or to the end of its segment."""
    inline = [len(storage.octets(0)) for storage in program.tables(2)]
    constants = program.table(5)
    if constants is None or not constants.numbers(1, "Q"):
        return inline
    _, size = _at(segments, constants.scalar(0, "I"), "the segment of constants")
    starts = constants.numbers(1, "Q")
    if any(start > size for start in starts):
        raise ArtifactError("damaged: a constant begins behind its segment")
    return [size - start for start in starts]


def _check_plan(plan: Table, constants: Sequence[int]) -> None:
    values = plan.tables(2)
    arenas = plan.numbers(8, "q")
    if any(not 0 <= size < _MOST_BYTES for size in arenas):
        raise ArtifactError(f"damaged: it plans memory of {list(arenas)} bytes")
    for i, value in enumerate(values):
        content, kind = value.table(1), value.scalar(0, "B")
        if content is None:
            if kind:
                raise ArtifactError(f"damaged: value {i} is empty")
        elif kind == _TENSOR:
            _check_value(content, i, arenas, constants)
        elif kind in _LISTS:
            _check_indices(content.numbers(0, "q" if kind == 7 else "i"), len(values), f"the list in value {i}", -1)
    for field, what in ((3, "inputs"), (4, "outputs")):
        _check_indices(plan.numbers(field, "i"), len(values), f"the method's {what}")
    for chain in plan.tables(5):
        steps = chain.tables(2)
        for number, step in enumerate(steps):
            _check_step(step, number, len(steps), plan, len(values))


def _check_value(tensor: Table, number: int, arenas: Sequence[int], constants: Sequence[int]) -> None:
    what = f"the tensor in value {number}"
    sizes, order = tensor.numbers(2, "i"), tensor.numbers(3, "B")
    width = _BYTES.get(tensor.scalar(0, "b"))
    if width is None:
        raise ArtifactError(f"damaged: {what} has type {tensor.scalar(0, 'b')}")
    if any(side < 0 for side in sizes) or sorted(order) != list(range(len(sizes))):
        raise ArtifactError(f"damaged: {what} has sizes {list(sizes)} in the order {list(order)}")
    needed = prod(sizes) * width
    place, constant = tensor.table(6), tensor.scalar(5, "I")
    if place is not None:
        memory, low, high = (place.scalar(field, "I") for field in range(3))
        if not 0 < memory < len(arenas) or (high << 32) + low + needed > arenas[memory]:
            raise ArtifactError(f"damaged: {what} lies outside of the memory that is planned")
    elif constant and tensor.table(9) is None and (constant >= len(constants) or needed > constants[constant]):
        raise ArtifactError(f"damaged: {what} is a constant that is not all there")


def _check_step(step: Table, number: int, steps: int, plan: Table, values: int) -> None:
    what, kind, call = f"instruction {number}", step.scalar(0, "B"), step.table(1)
    if call is None:
        raise ArtifactError(f"damaged: {what} is empty")
    if kind in (_KERNEL, _DELEGATE):
        field, named = (6, "operator") if kind == _KERNEL else (7, "delegate")
        _at(plan.tables(field), call.scalar(0, "i"), f"{named} of {what}")
        _check_indices(call.numbers(1, "i"), values, what)
    elif kind in (_MOVE, _FREE):
        _check_indices([call.scalar(field, "i") for field in range(2 if kind == _MOVE else 1)], values, what)
    elif kind == _JUMP:
        _check_indices([call.scalar(0, "i")], values, what)
        if not 0 <= call.scalar(1, "i") < steps:
            raise ArtifactError(f"damaged: {what} jumps to {call.scalar(1, 'i')} of {steps}")
    else:
        raise ArtifactError(f"damaged: {what} is of kind {kind}")


def _blob(data: Buffer, program: Table, segments: Sequence[tuple[int, int]], delegate: Table) -> memoryview:
    reference = delegate.table(1)
    if reference is None:
        raise ArtifactError("damaged: a delegate without data")
    index = reference.scalar(1, "I")
    if reference.scalar(0, "b") == 0:
        inline: Table = _at(program.tables(3), index, "a delegate's data")
        return inline.octets(0)
    start, size = _at(segments, index, "a delegate's segment")
    return memoryview(data)[start : start + size]


def _check_indices(numbers: Sequence[int], count: int, what: str, lowest: int = 0) -> None:
    for number in numbers:
        if not lowest <= number < count:
            raise ArtifactError(f"damaged: {what} names value {number} of {count}")


def _at(entries: Sequence[Any], index: int, what: str) -> Any:
    if not 0 <= index < len(entries):
        raise ArtifactError(f"damaged: {what} is number {index} of {len(entries)}")
    return entries[index]
