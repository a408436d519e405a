"""An ONNX graph while it is written anew, operator by operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper


def constants_of(model: ModelProto) -> dict[str, np.ndarray]:
    """What ``model`` holds as initializers and as Constant operators, by name."""
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            attribute = node.attribute[0]
            is_tensor = attribute.type == onnx.AttributeProto.TENSOR
            value = numpy_helper.to_array(attribute.t) if is_tensor else helper.get_attribute_value(attribute)
            found[node.output[0]] = np.asarray(value)
    return found


@dataclass
class GraphWriter:
    """The operators that take the place of ``model``'s; constants go into the model at once."""

    model: ModelProto
    #: By name, new ones included.
    constants: dict[str, np.ndarray] = field(init=False)
    nodes: list[NodeProto] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.constants = constants_of(self.model)

    def constant(self, name: str, value: np.ndarray) -> str:
        """A new constant, or the one of this name."""
        if name not in self.constants:
            self.constants[name] = value
            self.model.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Append an operator; returns ``output``."""
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def copy(self, node: NodeProto, inputs: Sequence[str], output: str) -> str:
        """Append ``node`` with other names; returns ``output``."""
        new = NodeProto()
        new.CopyFrom(node)
        new.input[:] = inputs
        new.output[0], new.name = output, output
        self.nodes.append(new)
        return output

    def write(self) -> None:
        """Put the operators into the model, in place of those it had."""
        del self.model.graph.node[:]
        self.model.graph.node.extend(self.nodes)
