"""Channels last: the ONNX graph of a network in NCHW, rewritten for onnxruntime's CPU kernels.

onnxruntime runs int8 convolutions on NHWC maps and puts a transpose on either side of each. Here everything between the
convolutions works on NHWC as well, so that these transposes meet their inverses and vanish when the file is loaded.
RMS norms become operators that onnxruntime runs as one. Only standard operators are written.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto, NodeProto, helper

from segformer_edge.export.onnx_graph import GraphWriter

FIRST, LAST = "nchw", "nhwc"
#: Permutations of a map: to channels last, and back.
_TO = {LAST: [0, 2, 3, 1], FIRST: [0, 3, 1, 2]}
_OTHER = {FIRST: LAST, LAST: FIRST}
_ELEMENTWISE = frozenset(
    {"Add", "Sub", "Mul", "Div", "Sqrt", "Reciprocal", "Relu", "Erf", "Gelu", "Tanh", "Sigmoid", "Clip"}
    | {"QuantizeLinear", "DequantizeLinear"}
)


@dataclass(frozen=True)
class _RmsNorm:
    """``input * rsqrt(mean(input ** 2) + epsilon)`` over channels, found as several operators."""

    input: str
    channels: int
    epsilon: float
    #: What the operators before the last one make, which nothing else reads.
    inner: frozenset[str]


@dataclass
class _Graph(GraphWriter):
    """What the rewriting reads of the graph, and what it writes."""

    readers: dict[str, list[NodeProto]]
    #: Name of each map in each layout in which it exists by now.
    maps: dict[str, dict[str, str]] = field(default_factory=dict)
    #: Dequantized maps, which are made in the layout in which they are read: a convolution and its DequantizeLinear
    #: must stay neighbours.
    dequantized: dict[str, NodeProto] = field(default_factory=dict)
    #: What took the place of a tensor that is no map.
    renamed: dict[str, str] = field(default_factory=dict)

    def params(self, node: NodeProto) -> tuple[bytes, bytes]:
        """Scale and zero point of a QuantizeLinear or DequantizeLinear, to compare."""
        scale, zero_point = (self.constants[name] for name in node.input[1:3])
        return scale.tobytes(), zero_point.tobytes()

    def copy(self, node: NodeProto, inputs: Sequence[str], output: str) -> str:
        """As ``GraphWriter.copy``, from what took the place of the inputs."""
        return super().copy(node, [self.renamed.get(name, name) for name in inputs], output)

    def is_last(self, name: str) -> bool:
        """Whether the map ``name`` exists in NHWC, or would without a transpose."""
        if name in self.dequantized:
            return self.is_last(self.dequantized[name].input[0])
        return LAST in self.maps[name]

    def get(self, name: str, layout: str) -> str:
        """The map ``name`` in ``layout``; anything else as it is."""
        if name in self.dequantized and layout not in self.maps[name]:
            node = self.dequantized[name]
            inputs = [self.get(node.input[0], layout), *node.input[1:]]
            self.maps[name][layout] = self.copy(node, inputs, f"{name}_{layout}")
        if name not in self.maps:
            return name
        known = self.maps[name]
        if layout not in known:
            known[layout] = self.add("Transpose", [known[_OTHER[layout]]], f"{name}_{layout}", perm=_TO[layout])
        return known[layout]

    def operand(self, name: str) -> str:
        """The map or constant ``name`` as an operand of an elementwise operator on NHWC."""
        value = self.constants.get(name)
        if value is not None and value.ndim == 4:
            return self.constant(f"{name}_{LAST}", np.ascontiguousarray(value.transpose(_TO[LAST])))
        return self.get(name, LAST)


def _rms_norms(graph: _Graph, order: Sequence[NodeProto]) -> dict[str, _RmsNorm]:
    """The RMS norms in ``order``, by the name of their result."""

    def only_reader(name: str, kind: str) -> NodeProto | None:
        readers = graph.readers[name]
        return readers[0] if len(readers) == 1 and readers[0].op_type == kind else None

    found = {}
    for square in order:
        if square.op_type != "Mul" or square.input[0] != square.input[1]:
            continue
        chain, node = [square.output[0]], square
        for kind in ("Conv", "Sqrt", "Reciprocal", "Mul"):
            reader = only_reader(node.output[0], kind)
            if reader is None:
                break
            node = reader
            chain.append(node.output[0])
        else:
            conv = graph.readers[square.output[0]][0]
            weight = graph.constants.get(conv.input[1])
            if weight is None or weight.shape[0] != 1 or not np.allclose(weight, 1 / weight.shape[1]):
                continue
            if square.input[0] in node.input:
                epsilon = float(graph.constants[conv.input[2]][0])
                found[chain[-1]] = _RmsNorm(square.input[0], weight.shape[1], epsilon, frozenset(chain[:-1]))
    return found


def _write_norm(graph: _Graph, norm: _RmsNorm, output: str) -> None:
    """The operators that onnxruntime's SimplifiedLayerNormFusion looks for; it wants a scale.

    The fusion wants one input, too, but a DequantizeLinear is copied for each of its readers. There a
    LayerNormalization serves: its input is centred, but for the mean of its rounding errors.
    """
    x, made = graph.get(norm.input, LAST), f"{output}_norm"
    ones = graph.constant(f"norm_ones_{norm.channels}", np.ones(norm.channels, np.float32))
    if norm.input in graph.dequantized:
        attributes = {"axis": -1, "epsilon": norm.epsilon}
        graph.maps[output] = {LAST: graph.add("LayerNormalization", [x, ones], f"{output}_{LAST}", **attributes)}
        return
    two = graph.constant("norm_exponent", np.array(2.0, np.float32))
    square = graph.add("Pow", [x, two], f"{made}_square")
    axes = graph.constant("norm_axes", np.array([-1], np.int64))
    mean = graph.add("ReduceMean", [square, axes], f"{made}_mean", keepdims=1)
    epsilon = graph.constant(f"norm_epsilon_{norm.epsilon}", np.array(norm.epsilon, np.float32))
    root = graph.add("Sqrt", [graph.add("Add", [mean, epsilon], f"{made}_variance")], f"{made}_root")
    quotient = graph.add("Div", [x, root], f"{made}_quotient")
    graph.maps[output] = {LAST: graph.add("Mul", [quotient, ones], f"{output}_{LAST}")}


def _write_pointwise(graph: _Graph, node: NodeProto, weight: np.ndarray) -> None:
    """A float 1x1 convolution as a product with its matrix."""
    matrix = graph.constant(f"{node.input[1]}_matrix", np.ascontiguousarray(weight[:, :, 0, 0].T))
    output, product = node.output[0], f"{node.output[0]}_{LAST}"
    biased = len(node.input) > 2
    made = graph.add("MatMul", [graph.get(node.input[0], LAST), matrix], f"{product}_product" if biased else product)
    graph.maps[output] = {LAST: graph.add("Add", [made, node.input[2]], product) if biased else made}


def _write_joined(graph: _Graph, node: NodeProto) -> None:
    """A concatenation of maps of one scale along their channels, as integers."""
    first = graph.dequantized[node.input[0]]
    joined = f"{node.output[0]}_integers"
    integers = [graph.get(graph.dequantized[name].input[0], LAST) for name in node.input]
    graph.maps[joined] = {LAST: graph.add("Concat", integers, joined, axis=3)}
    read = helper.make_node("DequantizeLinear", [joined, *first.input[1:]], [node.output[0]])
    graph.dequantized[node.output[0]], graph.maps[node.output[0]] = read, {}


def _is_joined(graph: _Graph, node: NodeProto) -> bool:
    found = [graph.dequantized.get(name) for name in node.input]
    return node.attribute[0].i == 1 and None not in found and len({graph.params(each) for each in found if each}) == 1


def _is_pointwise(node: NodeProto, weight: np.ndarray) -> bool:
    strides = next((attribute.ints for attribute in node.attribute if attribute.name == "strides"), [1])
    return weight.shape[2:] == (1, 1) and set(strides) == {1}


def _is_inverse(graph: _Graph, node: NodeProto) -> bool:
    """Whether a QuantizeLinear gives back the integers that its input was made from."""
    source = graph.dequantized.get(node.input[0])
    return source is not None and graph.params(source) == graph.params(node)


def _rewrite(graph: _Graph, node: NodeProto) -> None:
    """Write ``node`` for the layout in which its inputs are, or in which its kernel is fast."""
    kind, output = node.op_type, node.output[0]
    on_maps = [name for name in node.input if name in graph.maps]
    if kind == "Conv":
        weight = graph.constants.get(node.input[1])
        if weight is not None and _is_pointwise(node, weight) and graph.is_last(node.input[0]):
            _write_pointwise(graph, node, weight)
        else:
            graph.maps[output] = {FIRST: graph.copy(node, [graph.get(n, FIRST) for n in node.input], output)}
    elif not on_maps:
        graph.copy(node, node.input, output)
        if kind == "Transpose" and list(node.attribute[0].ints) == _TO[FIRST]:
            rows = node.input[0]
            graph.maps[output] = {FIRST: output, LAST: graph.renamed.get(rows, rows)}
    elif kind == "DequantizeLinear":
        graph.dequantized[output], graph.maps[output] = node, {}
    elif kind == "QuantizeLinear" and _is_inverse(graph, node):
        graph.maps[output] = graph.maps[graph.dequantized[node.input[0]].input[0]]
    elif kind == "Concat" and _is_joined(graph, node):
        _write_joined(graph, node)
    elif kind == "QuantizeLinear" and not graph.is_last(node.input[0]):
        graph.maps[output] = {FIRST: graph.copy(node, [graph.get(n, FIRST) for n in node.input], output)}
    elif kind in _ELEMENTWISE:
        made = graph.copy(node, [graph.operand(name) for name in node.input], f"{output}_{LAST}")
        graph.maps[output] = {LAST: made}
    elif kind == "Resize":
        scales = graph.constants[node.input[3]][[0, 2, 3, 1]]
        inputs = [graph.get(node.input[0], LAST), "", "", graph.constant(f"{node.input[3]}_{LAST}", scales)]
        graph.maps[output] = {LAST: graph.copy(node, inputs, f"{output}_{LAST}")}
    elif kind == "Transpose" and list(node.attribute[0].ints) == _TO[LAST]:
        graph.renamed[output] = graph.get(node.input[0], LAST)
    else:
        graph.copy(node, [graph.get(name, FIRST) for name in node.input], output)
        if kind in ("Concat", "Slice", "Split"):
            graph.maps |= {name: {FIRST: name} for name in node.output}


def to_channels_last(model: ModelProto) -> None:
    """Rewrite ``model``, whose inputs and outputs keep their layout, in place.

    Maps are what the graph's inputs, convolutions and resizes hold, and what elementwise operators make of those.
    """
    graph = model.graph
    order = [node for node in graph.node if node.op_type != "Constant"]
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in order:
        for name in set(node.input):
            readers[name].append(node)
    work = _Graph(model, readers)
    work.nodes = [node for node in graph.node if node.op_type == "Constant"]
    work.maps = {item.name: {FIRST: item.name} for item in graph.input}
    norms = _rms_norms(work, order)
    inner = frozenset().union(*(norm.inner for norm in norms.values()))
    for node in order:
        if node.output[0] in norms:
            _write_norm(work, norms[node.output[0]], node.output[0])
        elif node.output[0] not in inner:
            _rewrite(work, node)
    for item in graph.output:
        made = work.get(item.name, FIRST)
        if made != item.name:
            work.add("Identity", [made], item.name)
    work.write()
