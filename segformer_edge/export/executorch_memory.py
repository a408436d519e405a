"""The graph of a ``.pte`` as memory sees it, from that of a ``.tflite``: what ExecuTorch adds and leaves out.

Seen in the files of ExecuTorch 1.4: every float operator has a dequantize of its own right before it, since it reads
integers; the attention's operands are float before they are cut into heads and blocks; an image goes through
space-to-depth and padding in float; convolutions pad by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

from segformer_edge.export.tflite_graph import FLOAT, EmittedGraph, Operator, Tensor

_VIEWS = ("SLICE", "RESHAPE", "TRANSPOSE")


def lowered(graph: EmittedGraph) -> EmittedGraph:
    """``graph`` as XNNPACK gets it from ExecuTorch."""
    return EmittedGraph(graph.inputs, graph.outputs, _Lowering(graph.operators).operators)


class _Lowering:
    """Passes over the operators once and writes what becomes of them to ``operators``."""

    def __init__(self, given: Sequence[Operator]) -> None:
        self.operators: list[Operator] = []
        self._wide = _float_views(given)
        #: What stands for a tensor, and what a float one is dequantized from.
        self._stand_in: dict[Tensor, Tensor] = {}
        self._integers: dict[Tensor, Tensor] = {}
        blocks = {op.output for op in given if op.code == "SPACE_TO_DEPTH"}
        for op in given:
            if op.code == "SPACE_TO_DEPTH":
                self._chain(op, ("DEQUANTIZE", "TRANSPOSE", "TRANSPOSE"), ("QUANTIZE",))
            elif op.code == "PAD" and op.inputs[0] in blocks:
                self._chain(op, ("DEQUANTIZE", "PAD"), ("QUANTIZE", "TRANSPOSE"))
            elif op.code == "PAD":
                self._stand_in[op.output] = self._now(op.inputs[0])
            elif op.output in self._wide:
                self._view(op)
            elif op.code == "DEQUANTIZE" and op.inputs[0] in self._wide:
                self._stand_in[op.output] = self._now(op.inputs[0])
            elif op.code == "DEQUANTIZE":
                self._integers[op.output] = self._now(op.inputs[0])
            else:
                self._plain(op)

    def _now(self, tensor: Tensor | None) -> Tensor:
        assert tensor is not None
        return self._stand_in.get(tensor, tensor)

    def _emit(self, code: str, source: Tensor, output: Tensor, where: str) -> Tensor:
        self.operators.append(Operator(code, (source,), output, where=where))
        return output

    def _chain(self, op: Operator, floats: Sequence[str], integers: Sequence[str]) -> None:
        """``op`` as operators that give floats, then operators that give integers."""
        tensor = self._now(op.inputs[0])
        for code in floats:
            shape = tensor.shape if code == "DEQUANTIZE" else op.output.shape
            tensor = self._emit(code, tensor, Tensor(shape), op.where)
        for place, code in enumerate(integers, 1):
            last = place == len(integers)
            made = op.output if last else Tensor(op.output.shape, op.output.kind)
            tensor = self._emit(code, tensor, made, op.where)

    def _view(self, op: Operator) -> None:
        source = self._now(op.inputs[0])
        if source.kind != FLOAT:
            floats = source
            for code in ("DEQUANTIZE", "TRANSPOSE", "TRANSPOSE"):  # to channels first and back
                floats = self._emit(code, floats, Tensor(source.shape), op.where)
            self._stand_in[source] = source = floats
        self._stand_in[op.output] = self._emit(op.code, source, Tensor(op.output.shape), op.where)

    def _plain(self, op: Operator) -> None:
        made: dict[Tensor, Tensor] = {}
        for tensor in op.inputs:
            if tensor in self._integers and tensor not in made:
                made[tensor] = self._emit("DEQUANTIZE", self._integers[tensor], Tensor(tensor.shape), op.where)
        inputs = tuple(None if t is None else made.get(t, self._now(t)) for t in op.inputs)
        self.operators.append(Operator(op.code, inputs, op.output, op.options, op.where))


def _float_views(given: Sequence[Operator]) -> set[Tensor]:
    """Results of the attention's views which, through further views, only float operators read."""
    readers: dict[Tensor, list[Operator]] = {}
    for op in given:
        for tensor in op.inputs:
            if tensor is not None:
                readers.setdefault(tensor, []).append(op)
    wide = set[Tensor]()
    for op in reversed(given):
        if op.code in _VIEWS and "attention" in op.where and op.output.dtype == "int8":
            of = readers.get(op.output, ())
            if of and all(reader.code == "DEQUANTIZE" or reader.output in wide for reader in of):
                wide.add(op.output)
    return wide
