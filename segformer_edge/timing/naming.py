"""Which operator of the file an XNNPACK operator is: its profiler gives neither names nor tensors.

XNNPACK keeps the file's order, drops what it fuses or computes once, and splits off activation functions. So both lists
are aligned like two texts: as many pairs as possible, in order, each of kinds that fit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from segformer_edge.memory import xnnpack
from segformer_edge.memory.graph import MemoryGraph, Operator
from segformer_edge.timing.operators import FLOAT, INT8, Event, OperatorTime, precision_of

#: First words of XNNPACK's operator names -> types in .tflite and in the graphs of .pte. Types that read the same need
#: no entry: "Reciprocal Square Root" is ReciprocalSquareRoot, "Add" is ADD.
_TYPES: dict[str, tuple[str, ...]] = {
    "Fully Connected": ("CONV_2D", "BATCH_MATMUL", "Conv2d", "BatchMatrixMultiply"),
    "Dynamic Fully Connected": ("FULLY_CONNECTED", "BATCH_MATMUL", "FullyConnected"),
    "Convolution": ("CONV_2D", "DEPTHWISE_CONV_2D", "Conv2d", "DepthwiseConv2d"),
    "Deconvolution": ("TRANSPOSE_CONV", "ConvTranspose2d"),
    "Batch Matrix Multiply": ("BATCH_MATMUL",),
    "Convert": ("QUANTIZE", "DEQUANTIZE", "CAST"),
    "Square": ("MUL", "Multiply"),
    "Multiply": ("MUL",),
    "Subtract": ("SUB",),
    "Divide": ("DIV", "Div"),
    "Reciprocal Square Root": ("RSQRT",),
    "Square Root": ("SQRT",),
    "Clamp": ("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1"),
    "Sigmoid": ("LOGISTIC",),
    "Negate": ("NEG",),
    "Static Reshape": ("RESHAPE", "SQUEEZE", "EXPAND_DIMS"),
    "Copy": ("RESHAPE", "CONCATENATION", "StaticReshape", "Concatenate2", "Concatenate3", "Concatenate4"),
    "Transpose": ("StaticTranspose",),
    "Slice": ("STRIDED_SLICE", "SPLIT", "StaticSlice"),
    "Constant Pad": ("PAD", "PADV2", "StaticConstantPad"),
    "Resize Bilinear": ("StaticResizeBilinear2D",),
    "Mean": ("GlobalAvgPooling2d", "AVERAGE_POOL_2D"),
    "Argmax Pooling": ("ARG_MAX", "ArgMaxPooling2d"),
}
#: A function over a table of 256 entries, in LiteRT 2.3 and ExecuTorch 1.4.
_TABLE_LOOKUP = ("Invalid Unary Op", "Unary Elementwise")
#: What one operator's fused activation becomes.
_ACTIVATION = "Clamp"
#: Names that a reader makes up for tensors without one.
_NUMBERED = re.compile(r"(^| )(tensor|value) \d+$")
_MISS, _FITS, _FITS_WELL = 0, 2, 3


def name_operators(graph: MemoryGraph, events: Sequence[Event]) -> list[OperatorTime]:
    """Each event with type, name and precision of the operator in ``graph`` that it is.

    Events of kernels outside delegates are found by their place in the file. What fits nowhere keeps XNNPACK's words.
    """
    in_table = _inside_tables(graph)
    steps = [op for op in graph.operators if op not in in_table]
    pairs = _align(events, steps, in_table)
    by_name = {op.name: op for op in graph.operators}
    found: list[OperatorTime] = []
    before: OperatorTime | None = None
    for number, event in enumerate(events):
        op: Operator | None = steps[pairs[number]] if number in pairs else None
        if op is None and event.place is not None:
            op = by_name.get(f"{event.type} {event.place}")
        precision = precision_of(event.dtypes) or _spelled_out(event.kernel)
        kind, name, shape = event.type or _words(event.kernel), event.name, event.shape
        if op is not None:
            kind, name = op.type, _name(graph, op)
            table = event.kernel.startswith(_TABLE_LOOKUP)
            precision = INT8 if table else precision_of(_activations(graph, op)) or precision
            shape = graph.tensors[op.outputs[0]].shape if op.outputs else ()
        elif _words(event.kernel) == _ACTIVATION and before is not None:
            name, precision, shape = f"{before.name}, its activation", before.precision, before.shape
        kernel = f"Lookup table ({event.kernel})" if event.kernel.startswith(_TABLE_LOOKUP) else event.kernel
        before = OperatorTime(kind, name, kernel, event.delegate, precision, shape, event.ms, min_ms=event.min_ms)
        found.append(before)
    return found


def _name(graph: MemoryGraph, op: Operator) -> str:
    """What the operator writes, where the file names its tensors: that says which layer it is."""
    written = graph.tensors[op.outputs[0]].name if op.outputs else ""
    return op.name if not written or _NUMBERED.search(written) else written


def _activations(graph: MemoryGraph, op: Operator) -> Iterable[str]:
    return (graph.tensors[t].dtype for t in (*op.inputs, *op.outputs) if graph.tensors[t].kind != "constant")


def _inside_tables(graph: MemoryGraph) -> set[Operator]:
    """The conversions around a function that XNNPACK makes a table of: the floats between take no bytes."""
    empty = {t for t, tensor in enumerate(graph.tensors) if tensor.kind == "intermediate" and not tensor.bytes}
    return {
        op
        for op in graph.operators
        if op.type in xnnpack.CONVERTING and op.delegate is not None and empty & {*op.inputs, *op.outputs}
    }


def _words(kernel: str) -> str:
    """ "Fully Connected (NC, QS8, QC8W) GEMM" -> "Fully Connected"."""
    return kernel.partition(" (")[0]


def _spelled_out(kernel: str) -> str | None:
    """The precision in XNNPACK's name, where it is there."""
    inside = kernel.partition("(")[2].partition(")")[0].replace(",", " ").split()
    if any(word.startswith(("QS8", "QU8", "QC8")) for word in inside):
        return INT8
    return FLOAT if any(word in ("F32", "F16") for word in inside) else None


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text)).lower()


def _score(event: Event, op: Operator, table: bool) -> int:
    """How well an operator of the file explains an event."""
    words = _words(event.kernel)
    if words.startswith(_TABLE_LOOKUP):
        fits = op.type in xnnpack.FUNCTIONS
        return _MISS if not fits else _FITS_WELL if table else _FITS
    if op.type not in _TYPES.get(words, ()) and _letters(words) != _letters(op.type):
        return _MISS
    depthwise = "depthwise" in op.type.lower()
    if words == "Convolution" and depthwise != ("DWConv" in event.kernel):
        return _FITS if depthwise else _MISS
    said = _spelled_out(event.kernel)
    written = precision_of([op.dtype] if op.dtype else ())
    return _FITS if said and written and said != written else _FITS_WELL


def _ordinals(labels: Iterable[str | None]) -> list[int | None]:
    """Delegate calls counted from 0 in the order of execution."""
    seen: dict[str, int] = {}
    return [None if label is None else seen.setdefault(label, len(seen)) for label in labels]


def _align(events: Sequence[Event], steps: Sequence[Operator], in_table: set[Operator]) -> dict[int, int]:
    """Event -> step, for events inside delegates: the best-scored common subsequence."""
    calls, parts = _ordinals(e.delegate for e in events), _ordinals(op.delegate for op in steps)
    same_calls = {*calls, None} == {*parts, None}
    tables = {t for op in in_table for t in op.outputs}
    chosen = [i for i, call in enumerate(calls) if call is not None]
    best = [[0] * (len(steps) + 1) for _ in range(len(chosen) + 1)]
    scores: dict[tuple[int, int], int] = {}

    def score(row: int, column: int) -> int:
        event, op = chosen[row], steps[column]
        key = calls[event] if same_calls else 0, event, column
        if op.delegate is None or (same_calls and key[0] != parts[column]):
            return _MISS
        if (row, column) not in scores:
            scores[row, column] = _score(events[event], op, bool(tables & {*op.inputs}))
        return scores[row, column]

    for row in range(len(chosen) - 1, -1, -1):
        below, here = best[row + 1], best[row]
        for column in range(len(steps) - 1, -1, -1):
            take = score(row, column)
            here[column] = max(below[column], here[column + 1], below[column + 1] + take if take else 0)
    pairs, row, column = {}, 0, 0
    while row < len(chosen) and column < len(steps):
        take = score(row, column)
        if take and best[row][column] == best[row + 1][column + 1] + take:
            pairs[chosen[row]] = column
            row, column = row + 1, column + 1
        elif best[row][column] == best[row][column + 1]:
            column += 1
        else:
            row += 1
    return pairs
