"""What XNNPACK is known to do with memory: the graph in its delegate blobs, in-place operators, indirection buffers.

Schema: runtime_schema.fbs of ExecuTorch's XNNPACK backend. XNNPACK itself: src/subgraph/memory-planner and
src/indirection.c, as of 2026.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from segformer_edge.errors import ArtifactError
from segformer_edge.memory.flatbuffer import Buffer, Table, root_table, unpack
from segformer_edge.memory.graph import BITS, MemoryGraph, Operator, with_in_place
from segformer_edge.memory.liveness import Arrangement, Block, arrange

#: Bytes of a pointer on the CPUs that matter here; 32-bit ones need half.
POINTER = 8
NO_VALUE = 0xFFFFFFFF

#: Operators whose result XNNPACK may put in the memory of an input, in its own names and in TFLite's. Views are no
#: exception: where the input has a second reader, they copy.
IN_PLACE = (
    "StaticReshape", "Copy", "RESHAPE", "SQUEEZE", "EXPAND_DIMS",
    "Add", "Subtract", "Multiply", "Div", "Maximum", "Minimum", "Abs", "Ceiling", "Clamp", "ELU", "Exp", "Floor",
    "Gelu", "Hardswish", "LeakyReLU", "Log", "Negate", "ReciprocalSquareRoot", "Sigmoid", "Square", "SquareRoot",
    "Tanh", "Softmax",
    "ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "ABS", "CEIL", "ELU", "EXP", "FLOOR", "GELU", "HARD_SWISH",
    "LEAKY_RELU", "LOG", "NEG", "RSQRT", "LOGISTIC", "SQUARE", "SQRT", "TANH", "SOFTMAX", "RELU", "RELU6",
)  # fmt: skip

CONVERTING = ("Convert", "QUANTIZE", "DEQUANTIZE")
#: Functions of one number.
FUNCTIONS = (
    "Abs", "Ceiling", "ELU", "Exp", "Floor", "Gelu", "Hardswish", "LeakyReLU", "Log", "Negate", "ReciprocalSquareRoot",
    "Sigmoid", "Square", "SquareRoot", "Tanh",
    "ABS", "CEIL", "ELU", "EXP", "FLOOR", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOG", "NEG", "RSQRT", "LOGISTIC",
    "SQUARE", "SQRT", "TANH",
)  # fmt: skip
_TABLES = (("int8", "int8"), ("uint8", "uint8"))
_PADS = ("StaticConstantPad", "PAD")
_CONVOLUTIONS = ("Conv2d", "DepthwiseConv2d", "CONV_2D", "DEPTHWISE_CONV_2D")
#: Output pixels that a dense convolution's kernel for AVX-512 takes at a time; others take 4 to 8.
_TILE_ROWS = 7

_DTYPES = {
    1: "float32", 2: "float16", 3: "int8", 4: "uint8", 5: "int32", 6: "int8", 7: "int32", 8: "int4", 9: "int8",
    10: "int4", 11: "int8", 12: "int32", 13: "float32", 14: "bfloat16",
}  # fmt: skip


@dataclass(frozen=True)
class _Form:
    """Field numbers of a node's inputs and outputs."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


_ONE, _TWO, _CONV = _Form((0,), (1,)), _Form((0, 1), (2,)), _Form((15, 16, 17), (18,))
_POOL, _SIZED = _Form((10,), (11,)), _Form((2,), (3,))

#: The union of nodes, in the schema's order; the first has number 1.
NODES: tuple[tuple[str, _Form], ...] = (
    ("Add", _TWO), ("FullyConnected", _Form((0, 1, 2), (3,))), ("Softmax", _ONE), ("Sigmoid", _ONE),
    ("StaticTranspose", _SIZED), ("Clamp", _ONE), ("Conv2d", _CONV), ("Div", _TWO),
    ("StaticResizeBilinear2D", _SIZED), ("StaticConstantPad", _Form((3,), (4,))), ("AvgPooling2d", _POOL),
    ("Minimum", _TWO), ("DepthwiseConv2d", _CONV), ("MaxPooling2d", _POOL), ("Multiply", _TWO), ("Subtract", _TWO),
    ("Floor", _ONE), ("Convert", _ONE), ("GlobalAvgPooling2d", _ONE), ("StaticReshape", _SIZED),
    ("ArgMaxPooling2d", _Form((6,), (7, 8))), ("SquareRoot", _ONE), ("Ceiling", _ONE), ("Hardswish", _ONE),
    ("LeakyReLU", _Form((1,), (2,))), ("Maximum", _TWO), ("Negate", _ONE), ("Square", _ONE),
    ("ELU", _Form((1,), (2,))), ("Abs", _ONE), ("PReLU", _TWO), ("Concatenate2", _Form((1, 2), (5,))),
    ("Concatenate3", _Form((1, 2, 3), (5,))), ("Concatenate4", _Form((1, 2, 3, 4), (5,))),
    ("StaticSlice", _Form((3,), (4,))), ("ScaledDotProductAttention", _Form((0, 1, 2, 3, 4), (5,))),
    ("BatchMatrixMultiply", _TWO), ("Concatenate5", _Form((1, 2, 3, 4, 7), (5,))), ("ConvTranspose2d", _CONV),
    ("ReciprocalSquareRoot", _ONE), ("Log", _ONE), ("Gelu", _ONE), ("Tanh", _ONE), ("Exp", _ONE), ("Sin", _ONE),
    ("Copy", _ONE), ("Cos", _ONE),
)  # fmt: skip
_KERNEL_HEIGHT, _KERNEL_WIDTH, _STRIDE_WIDTH = 4, 5, 7
#: XNN_FLAG_TRANSPOSE_B in a node's flags.
_TRANSPOSED = 1


@dataclass(frozen=True)
class Value:
    """A tensor of XNNPACK's graph. ``constant_bytes`` is None for an activation, ``external`` its argument's place."""

    id: int
    shape: tuple[int, ...]
    dtype: str
    constant_bytes: int | None
    external: int


@dataclass(frozen=True)
class Node:
    """A step: its type without the prefix XNN, ids of values, and bytes as in segformer_edge.memory.graph.Operator."""

    type: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kept: int
    scratch: int


@dataclass(frozen=True)
class XnnGraph:
    """A delegate blob, read. ``inputs`` and ``outputs`` are ids of values, in the order of the call's arguments."""

    nodes: tuple[Node, ...]
    values: Mapping[int, Value]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_blob(data: Buffer) -> XnnGraph:
    """The graph in the blob of one XNNPACK delegate. Raises ArtifactError for anything else."""
    if bytes(data[4:8]) == b"XH00":
        start, size = unpack(data, "I", 10), unpack(data, "I", 14)
        data = memoryview(data)[start : start + size]
    if bytes(data[4:6]) != b"XN":
        raise ArtifactError(f"damaged: an XNNPACK graph begins with {bytes(data[:8])!r}")
    graph = root_table(data)
    constants = [table.scalar(1, "Q") for table in graph.tables(8)]
    constants = constants or [len(table.octets(0)) for table in graph.tables(6)]
    values = [_value(table, constants) for table in graph.tables(2)]
    by_id = {value.id: value for value in values}

    def place(i: int) -> int:
        """The call's arguments come in the order of external ids."""
        return by_id[i].external if i in by_id else NO_VALUE

    return XnnGraph(
        tuple(_node(table, by_id) for table in graph.tables(1)),
        by_id,
        tuple(sorted(graph.numbers(4, "I"), key=place)),
        tuple(sorted(graph.numbers(5, "I"), key=place)),
    )


def optimized(graph: MemoryGraph) -> MemoryGraph:
    """``graph`` as XNNPACK's planner meets it: zeros around a map and GELU have become part of other operators, and
    what can be computed in place is.
    """
    return with_in_place(fuse_tables(fuse_pads(graph)), (), IN_PLACE, single_reader=True)


def workspace(blocks: Sequence[Block], fills_front: bool, ranks: Sequence[float] | None = None) -> Arrangement:
    """Where XNNPACK's planner puts ``blocks``: the largest first, of equal ones that of the lowest ``rank``, scratch
    last. A tensor's rank is its number in the file.
    """
    ranks = [block.tensor for block in blocks] if ranks is None else ranks
    keys = [(-block.bytes, block.tensor < 0, rank) for block, rank in zip(blocks, ranks, strict=True)]
    return arrange(blocks, sorted(range(len(blocks)), key=keys.__getitem__), 1, fills_front)


def _readers(graph: MemoryGraph) -> dict[int, list[Operator]]:
    readers: dict[int, list[Operator]] = {}
    for op in graph.operators:
        for t in op.inputs:
            readers.setdefault(t, []).append(op)
    return readers


def fuse_pads(graph: MemoryGraph) -> MemoryGraph:
    """``graph`` without the padded maps that one convolution alone reads: it pads what they are made of."""
    readers, tensors = _readers(graph), list(graph.tensors)
    for op in graph.operators:
        fused = [each.type for each in readers.get(op.outputs[0], ()) if each.delegate is not None]
        inside = op.delegate is not None and all(tensors[t].area == "workspace" for t in (op.inputs[0], *op.outputs))
        if op.type in _PADS and inside and len(fused) == 1 and fused[0] in _CONVOLUTIONS:
            tensors[op.outputs[0]] = replace(tensors[op.outputs[0]], alias_of=op.inputs[0])
    return replace(graph, tensors=tuple(tensors))


def fuse_tables(graph: MemoryGraph) -> MemoryGraph:
    """``graph`` without the floats of dequantize -> function -> quantize, which become a table from int8 to int8.

    Seen in LiteRT 2.3 and ExecuTorch 1.4: the tensors between keep their names and take no bytes.
    """
    readers, tensors = _readers(graph), list(graph.tensors)
    for op in graph.operators:
        if op.type not in CONVERTING or op.delegate is None:
            continue
        chain = [op.outputs[0]]
        while len(readers.get(chain[-1], ())) == 1 and readers[chain[-1]][0].type in FUNCTIONS:
            chain.append(readers[chain[-1]][0].outputs[0])
        ends = readers.get(chain[-1], ())
        narrow = tensors[op.inputs[0]].dtype, *(tensors[end.outputs[0]].dtype for end in ends)
        inside = all(tensors[t].area == "workspace" for t in chain)
        if len(chain) > 1 and len(ends) == 1 and ends[0].type in CONVERTING and narrow in _TABLES and inside:
            for t in chain:
                tensors[t] = replace(tensors[t], bytes=0)
    return replace(graph, tensors=tuple(tensors))


def convolution_indirection(pixels: int, taps: int) -> int:
    """Bytes that a dense convolution with more than one tap keeps: a pointer per output pixel and tap."""
    return POINTER * -(-pixels // _TILE_ROWS) * _TILE_ROWS * taps if taps > 1 else 0


def depthwise_indirection(height: int, width: int, kernel: tuple[int, int], stride_width: int) -> int:
    """Bytes that a depthwise convolution keeps: neighbouring outputs share the columns of pointers they both read."""
    step = min(stride_width, kernel[1])
    return POINTER * height * (kernel[0] * kernel[1] + (width - 1) * step * kernel[0])


def resize_indirection(pixels: int, dtype: str) -> int:
    """Bytes that bilinear resizing keeps: four pointers and two weights per output pixel."""
    return pixels * (4 * POINTER + 2 * (4 if dtype == "float32" else 2))


def packing_scratch(shape: tuple[int, ...], element: int, transposed: bool = False) -> int:
    """Bytes that a product of two activations takes while it runs: the second factor (..., K, N) in kernel order.

    Columns come in groups of 16 behind a bias each, the widest kernels' width; narrower ones take a little less.
    """
    if len(shape) < 2:
        return 0
    rows, columns = (shape[-1], shape[-2]) if transposed else (shape[-2], shape[-1])
    return prod(shape[:-2]) * -(-columns // 16) * 16 * (rows * element + 4)


def _value(table: Table, constants: Sequence[int]) -> Value:
    value = table.table(1)
    if value is not None and table.scalar(0, "B") == 2:
        value = value.table(0)
    if value is None:
        raise ArtifactError("damaged: a value of XNNPACK's graph is empty")
    constant = value.scalar(3, "I")
    if constant > len(constants) or (constant and constant == len(constants)):
        raise ArtifactError(f"damaged: constant {constant} of {len(constants)} is named")
    # dq_datatype, where set, is what a runtime-quantized value is stored as.
    kind = value.scalar(7, "h") or value.scalar(0, "h")
    size = constants[constant] if constant else None
    dtype = _DTYPES.get(kind, f"datatype {kind}")
    return Value(value.scalar(6, "I"), value.numbers(2, "I"), dtype, size, value.scalar(4, "I"))


def _node(table: Table, values: Mapping[int, Value]) -> Node:
    number, node = table.scalar(0, "B"), table.table(1)
    if node is None:
        raise ArtifactError("damaged: a node of XNNPACK's graph is empty")
    if not 1 <= number <= len(NODES):
        return Node(f"type {number}", (), (), 0, 0)
    name, form = NODES[number - 1]
    inputs = tuple(i for field in form.inputs if (i := node.scalar(field, "I")) != NO_VALUE)
    outputs = tuple(node.scalar(field, "I") for field in form.outputs)
    for i in (*inputs, *outputs):
        if i not in values:
            raise ArtifactError(f"damaged: {name} names value {i}, which is not there")
    scratch = 0
    if name == "BatchMatrixMultiply" and values[inputs[1]].constant_bytes is None:
        factor = values[inputs[1]]
        scratch = packing_scratch(
            factor.shape, BITS.get(factor.dtype, 32) // 8, bool(node.scalar(3, "I") & _TRANSPOSED)
        )
    return Node(name, inputs, outputs, _kept(name, node, values[outputs[0]]), scratch)


def _kept(name: str, node: Table, output: Value) -> int:
    if len(output.shape) != 4:
        return 0
    batch, height, width, _ = output.shape  # NHWC
    pixels = batch * height * width
    kernel = node.scalar(_KERNEL_HEIGHT, "I"), node.scalar(_KERNEL_WIDTH, "I")
    if name == "Conv2d":
        return convolution_indirection(pixels, kernel[0] * kernel[1])
    if name == "DepthwiseConv2d":
        return depthwise_indirection(batch * height, width, kernel, node.scalar(_STRIDE_WIDTH, "I"))
    return resize_indirection(pixels, output.dtype) if name == "StaticResizeBilinear2D" else 0
