"""Quantized where it pays: pairs of QuantizeLinear and DequantizeLinear that only round, taken out of an ONNX graph."""

from __future__ import annotations

from collections import defaultdict

from onnx import ModelProto, NodeProto

_LAYOUT = ("Transpose", "Reshape")


def keep_in_float(model: ModelProto, outputs: bool) -> int:
    """Drop the pairs between the image and float operators, with ``outputs`` also those behind convolutions.

    In place; returns how many pairs went. What a quantized operator reads stays as it is, and what two kinds read, too.
    A product of activations counts as quantized where its result is.
    """
    graph = model.graph
    makers = {output: node for node in graph.node for output in node.output}
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)

    def in_float(node: NodeProto) -> bool:
        if node.op_type in _LAYOUT:
            return all(in_float(reader) for reader in readers[node.output[0]])
        if node.op_type == "MatMul":
            return all(reader.op_type != "QuantizeLinear" for reader in readers[node.output[0]])
        weight = makers.get(node.input[1]) if node.op_type == "Conv" else None
        return weight is None or weight.op_type != "DequantizeLinear"

    dropped = []
    for node in graph.node:
        quantize = makers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        found = readers[node.output[0]]
        if quantize is None or not found:  # a weight, or the network's output
            continue
        source = makers.get(quantize.input[0])
        wanted = source is None or (outputs and source.op_type == "Conv")
        if wanted and all(in_float(reader) for reader in found):
            for reader in found:
                reader.input[:] = [quantize.input[0] if name == node.output[0] else name for name in reader.input]
            dropped.append(node.output[0])
    kept = [node for node in graph.node if node.output[0] not in dropped]
    del graph.node[:]
    graph.node.extend(kept)
    return len(dropped)
