"""Reads ``.pte``: the planned program, and the graphs inside its XNNPACK delegates. Needs no ExecuTorch.

Schema: program.fbs of ExecuTorch. The exporter has planned the program's tensors into buffers; what a delegate needs
besides its arguments is outside that plan.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

from segformer_edge.errors import ArtifactError
from segformer_edge.memory import xnnpack
from segformer_edge.memory.flatbuffer import Table, root_table
from segformer_edge.memory.graph import GraphBuilder
from segformer_edge.memory.reading import Plan, Reading

_TENSOR, _TENSOR_LISTS = 5, (10, 11)
_KERNEL, _DELEGATE, _MOVE, _JUMP, _FREE = 1, 2, 3, 4, 5
_DTYPES = {
    0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 7: "float64", 11: "bool",
    12: "int8", 13: "uint8", 14: "int32", 15: "bfloat16", 27: "uint16", 28: "uint32", 29: "uint64",
}  # fmt: skip
_VIEW = "executorch_prim::et_view"


def read_executorch(path: Path) -> Reading:
    """The first method of a program. Raises ArtifactError for a damaged file."""
    data = path.read_bytes()
    program = root_table(data)
    plans = program.tables(1)
    if not plans:
        raise ArtifactError("it holds no method")
    reader = _Program(data, program, plans[0])
    reader.read()
    sizes = [int(size) for size in plans[0].numbers(8, "q")][1:]  # buffer 0 is reserved
    parts = {f"buffer {i + 1}": size for i, size in enumerate(sizes)}
    plan = Plan("ExecuTorch's planned buffers", sum(sizes), "the file", parts=parts if len(parts) > 1 else {})
    if len(plans) > 1:
        names = ", ".join(method.text(0) for method in plans[1:])
        reader.notes.append(f"Only method '{plans[0].text(0)}' is shown, not {names}.")
    graph = xnnpack.optimized(reader.builder.build())
    return Reading(graph, (plan,), "the file", {}, tuple(reader.notes), fills_front=False)


class _Program:
    """One method on its way to a graph."""

    def __init__(self, data: bytes, program: Table, method: Table) -> None:
        self.data, self.program, self.method = data, program, method
        self.builder = GraphBuilder()
        self.notes: list[str] = []
        #: Value of the program -> tensor of the graph, and those that something has written.
        self.tensor_of: dict[int, int] = {}
        self.lists: dict[int, tuple[int, ...]] = {}
        self.written: set[int] = set()

    def read(self) -> None:
        """Fill ``builder`` with the method's tensors and steps."""
        inputs, outputs = set(self.method.numbers(3, "i")), set(self.method.numbers(4, "i"))
        for i, value in enumerate(self.method.tables(2)):
            kind, content = value.scalar(0, "B"), value.table(1)
            if content is None:
                continue
            if kind in _TENSOR_LISTS:
                self.lists[i] = content.numbers(0, "i")
            elif kind == _TENSOR:
                self._tensor(i, content, i in inputs, i in outputs)
        self.written |= inputs & self.tensor_of.keys()
        chains = self.method.tables(5)
        for chain in chains:
            for instruction in chain.tables(2):
                self._step(instruction)

    def _tensor(self, i: int, tensor: Table, is_input: bool, is_output: bool) -> None:
        allocation = tensor.table(6)
        constant = allocation is None and tensor.scalar(5, "I") > 0
        kind = "input" if is_input else "output" if is_output else "constant" if constant else "intermediate"
        dtype = _DTYPES.get(tensor.scalar(0, "b"), f"type {tensor.scalar(0, 'b')}")
        planned = allocation is not None or constant
        area = "file" if constant else "plan" if planned else "caller"
        self.tensor_of[i] = self.builder.tensor(f"value {i}", tensor.numbers(2, "i"), dtype, kind, area=area)
        if constant:
            self.written.add(i)
        if tensor.scalar(8, "b") == 2:
            self.notes.append(f"Value {i} has no fixed shape; its bytes are those of its first shape.")

    def _step(self, instruction: Table) -> None:
        kind, call = instruction.scalar(0, "B"), instruction.table(1)
        if call is None or kind == _FREE:
            return
        if kind == _KERNEL:
            operator = self._at(self.method.tables(6), call.scalar(0, "i"), "operator")
            name = operator.text(0)
            ids = self._tensors(call.numbers(1, "i"))
            results = [i for i in dict.fromkeys(ids) if i not in self.written] or ids[-1:]
            self._emit(name, [i for i in ids if i not in results], results)
            if name == _VIEW and len(ids) >= 2:
                out, source = self.tensor_of[ids[-1]], self.tensor_of[ids[0]]
                self.builder.tensors[out] = replace(self.builder.tensors[out], alias_of=source)
        elif kind == _DELEGATE:
            self._delegate(call)
        elif kind == _MOVE:
            moved = self._tensors((call.scalar(0, "i"), call.scalar(1, "i")))
            self._emit("move", moved[:1], moved[1:])
        elif kind == _JUMP and not any("branch" in note for note in self.notes):
            self.notes.append("The program branches; its steps are shown in the order of the file.")

    def _delegate(self, call: Table) -> None:
        index = call.scalar(0, "i")
        delegate = self._at(self.method.tables(7), index, "delegate")
        backend, label = delegate.text(0), f"{delegate.text(0)} {index}"
        ids = self._tensors(call.numbers(1, "i"))
        if backend != "XnnpackBackend":
            results = [i for i in dict.fromkeys(ids) if i not in self.written]
            self._emit(backend, [i for i in ids if i not in results], results, label)
            self.notes.append(f"What {backend} does with memory is not in the file.")
            return
        self._inline(xnnpack.read_blob(self._blob(delegate)), ids, label)

    def _inline(self, graph: xnnpack.XnnGraph, ids: list[int], label: str) -> None:
        """The delegate's own steps in the place of the call."""
        known: dict[int, int] = {}
        if len(ids) >= len(graph.inputs) + len(graph.outputs):
            known |= {v: self.tensor_of[i] for v, i in zip(graph.inputs, ids, strict=False)}
            known |= {v: self.tensor_of[i] for v, i in zip(graph.outputs[::-1], ids[::-1], strict=False)}
        else:
            self.notes.append(f"{label} is called with {len(ids)} tensors, which do not fit its graph.")
        for value in graph.values.values():
            if value.id in known:
                continue
            kind, area = ("intermediate", "workspace") if value.constant_bytes is None else ("constant", "file")
            size = value.constant_bytes if value.constant_bytes is not None else None
            name = f"{label} value {value.id}"
            known[value.id] = self.builder.tensor(name, value.shape, value.dtype, kind, area=area, bytes=size)
        for number, node in enumerate(graph.nodes):
            inputs, outputs = [known[i] for i in node.inputs], [known[i] for i in node.outputs]
            name = f"{node.type} {number}"
            self.builder.operator(
                node.type, inputs, outputs, name=name, delegate=label, kept=node.kept, scratch=node.scratch
            )
        self.written |= set(ids)

    def _blob(self, delegate: Table) -> memoryview:
        reference = delegate.table(1)
        if reference is None:
            raise ArtifactError("damaged: a delegate without data")
        index = reference.scalar(1, "I")
        if reference.scalar(0, "b") == 0:
            return self._at(self.program.tables(3), index, "delegate data").octets(0)
        segment = self._at(self.program.tables(4), index, "segment")
        (base,) = struct.unpack_from("<Q", self.data, 24) if self.data[8:12] == b"eh00" else (0,)
        start, size = base + segment.scalar(0, "Q"), segment.scalar(1, "Q")
        if start + size > len(self.data):
            raise ArtifactError(f"damaged: segment {index} ends at byte {start + size} of {len(self.data)}")
        return memoryview(self.data)[start : start + size]

    def _tensors(self, arguments: tuple[int, ...]) -> list[int]:
        """The values among ``arguments`` that are tensors, lists of tensors unfolded."""
        unfolded = (j for i in arguments for j in self.lists.get(i, (i,)))
        return [i for i in unfolded if i in self.tensor_of]

    def _emit(self, type: str, inputs: list[int], outputs: list[int], delegate: str | None = None) -> None:
        tensor_of = self.tensor_of
        self.builder.operator(type, [tensor_of[i] for i in inputs], [tensor_of[i] for i in outputs], delegate=delegate)
        self.written |= set(outputs)

    @staticmethod
    def _at(tables: object, index: int, what: str) -> Table:
        assert isinstance(tables, list)
        if not 0 <= index < len(tables):
            raise ArtifactError(f"damaged: {what} {index} of {len(tables)} is named")
        found: Table = tables[index]
        return found
