"""What the operators of a LiteRT graph are built with: values, their layouts and widths.

Every torch value is a :class:`Value`: a LiteRT tensor and how the value lies in it. A float value may be held by an
integer tensor: dequantizing is no operator until something computes in float, quantizing is none where the tensor has
these parameters already, and views (permute, reshape, slice, pad, cat) hand the integers on.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import torch
import torch.ao.quantization.fx._decomposed  # registers torch.ops.quantized_decomposed
from torch.fx import Node

from segformer_edge.errors import ArtifactError
from segformer_edge.export.tflite_graph import (
    FLOAT,
    Kind,
    Operator,
    Tensor,
    constant,
    per_tensor,
    quantized,
    transposed,
)
from segformer_edge.export.tflite_views import View, block_of, merged, plain

_ATEN = torch.ops.aten
QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default
DEQUANTIZE = torch.ops.quantized_decomposed.dequantize_per_tensor.default
#: Give the memory of their first argument another shape or order.
RESHAPES = (
    _ATEN.reshape.default,
    _ATEN.view.default,
    _ATEN._unsafe_view.default,
    _ATEN.flatten.using_ints,
    _ATEN.unflatten.int,
    _ATEN.squeeze.dim,
    _ATEN.squeeze.dims,
    _ATEN.unsqueeze.default,
)
PERMUTES = (_ATEN.permute.default, _ATEN.transpose.int)
SLICES = (_ATEN.slice.Tensor, _ATEN.narrow.default)
SPLITS = (_ATEN.split.Tensor, _ATEN.split_with_sizes.default, _ATEN.chunk.default)
PADS = (_ATEN.pad.default, _ATEN.constant_pad_nd.default)
COPIES = (_ATEN.clone.default, _ATEN.contiguous.default, _ATEN.detach.default, _ATEN.alias.default)
#: Give some elements of their arguments, or zeros: quantizing before or after them is the same.
VIEWS = frozenset(
    {*RESHAPES, *PERMUTES, *SLICES, *SPLITS, *PADS, *COPIES}
    | {operator.getitem, _ATEN.pixel_unshuffle.default, _ATEN.cat.default}
)
RELU = _ATEN.relu.default

#: How many operators long a copy waits for its next reader.
NEAR = 16

T = TypeVar("T")


@dataclass(frozen=True)
class Value:
    """What a torch node gives: the numbers of ``tensor``, which lie in memory as ``view`` says."""

    tensor: Tensor
    view: View


def kind_of(quantize: Node) -> Kind:
    """What a quantize or dequantize node makes, or takes."""
    _, scale, zero_point, _, _, dtype = quantize.args[:6]
    return per_tensor(float(scale), int(zero_point), str(dtype).removeprefix("torch."))


def shape_of(node: Node) -> tuple[int, ...]:
    """The shape of what ``node`` gives in torch."""
    return tuple(int(side) for side in node.meta["val"].shape)


class Emitter:
    """Appends operators to ``operators``; ``values`` holds what the torch nodes so far became.

    ``kernels`` names the widths for which an operator has integer kernels.
    """

    def __init__(self, kernels: Mapping[str, Sequence[str]]) -> None:
        self.kernels = kernels
        self.operators: list[Operator] = []
        self.values: dict[Node, Value] = {}
        #: Module that the operators appended now come from.
        self.where = ""
        self._made: dict[Hashable, Any] = {}
        #: Copies with the number of operators there were at their last use.
        self._copies: dict[Hashable, tuple[Tensor, int]] = {}
        self._wanted: dict[Node, Kind | None] = {}

    # -- operators

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """``make()``, or what it gave for the same ``key`` before: bands share what they have in common."""
        if key not in self._made:
            self._made[key] = make()
        found: T = self._made[key]
        return found

    def nearby(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """As ``once``, for a copy beside which its source stays alive: shared where it was used among the last ``NEAR``
        operators. To keep it for longer takes more memory than to make it again takes time.
        """
        made, used = self._copies.get(key, (None, 0))
        if made is None or len(self.operators) - used > NEAR:
            made = make()
        self._copies[key] = (made, len(self.operators))
        return made

    def emit(
        self, code: str, inputs: Sequence[Tensor], shape: Sequence[int], kind: Kind = FLOAT, **options: Any
    ) -> Tensor:
        """Append an operator; returns its output."""
        output = Tensor(tuple(shape), kind, name=_short(self.where))
        self.operators.append(Operator(code, tuple(inputs), output, options, self.where))
        return output

    def integers(self, values: Sequence[Any]) -> Tensor:
        """A constant such as a shape, int32."""
        array = np.asarray(values, np.int32)
        return self.once(("integers", array.shape, array.tobytes()), lambda: constant(array))

    def compute(
        self,
        node: Node,
        code: str,
        tensors: Sequence[Tensor],
        shape: Sequence[int],
        view: View,
        constants: Callable[[Tensor], Sequence[Tensor]] = lambda first: (),
        **options: Any,
    ) -> None:
        """The operator that computes ``node``, and a ReLU right behind it where its options hold one.

        It is an integer operator where every operand and the result are quantized to one width that it has kernels
        for, else a float one. ``constants`` gives further inputs, which may depend on what the first became.
        """
        last = node
        if "fusedActivationFunction" in options and [user.target for user in node.users] == [RELU]:
            (last,) = node.users
            options["fusedActivationFunction"] = 1
        kind = self.wanted(last)
        width = None if kind is None else kind.dtype
        integer = width in self.kernels.get(code, ()) and all(tensor.dtype == width for tensor in tensors)
        taken = list(tensors) if integer else [self.as_float(tensor) for tensor in tensors]
        computed = kind if integer and kind is not None else FLOAT
        output = self.emit(code, [*taken, *constants(taken[0])], shape, computed, **options)
        self.values[last] = Value(output if kind is None else self.as_kind(output, kind), view)

    # -- widths

    def wanted(self, node: Node) -> Kind | None:
        """The one kind of integers that ``node`` is quantized to by all its readers, perhaps behind views."""
        if node not in self._wanted:
            found = {
                kind_of(user) if user.target is QUANTIZE else self.wanted(user) if user.target in VIEWS else None
                for user in node.users
            }
            self._wanted[node] = found.pop() if len(found) == 1 else None
        return self._wanted[node]

    def as_kind(self, tensor: Tensor, kind: Kind) -> Tensor:
        """``tensor`` in integers of ``kind``."""
        if tensor.kind == kind:
            return tensor
        if tensor.constant:
            return self.once(("quantize", tensor, kind), lambda: quantized(tensor, kind))
        return self.nearby(("quantize", tensor, kind), lambda: self.emit("QUANTIZE", [tensor], tensor.shape, kind))

    def as_float(self, tensor: Tensor) -> Tensor:
        """``tensor`` for an operator that computes in float."""
        if tensor.kind.quantization is None:
            return tensor
        if tensor.constant:
            return self.once(("dequantize", tensor), lambda: constant(tensor.real()))
        return self.nearby(("dequantize", tensor), lambda: self.emit("DEQUANTIZE", [tensor], tensor.shape))

    # -- layouts

    def stored(self, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The same memory as a tensor of ``shape``."""
        if tensor.shape == shape:
            return tensor
        if tensor.values is not None:
            values = tensor.values
            if tensor.kind.quantization is not None and len(tensor.kind.quantization.scale) > 1:
                raise ArtifactError(f"A weight with scales per channel is reshaped in '{self.where}'.")
            return self.once(("reshape", tensor, shape), lambda: constant(values.reshape(shape), tensor.kind))
        return self.once(
            ("reshape", tensor, shape),
            lambda: self.emit("RESHAPE", [tensor, self.integers(shape)], shape, tensor.kind, newShape=list(shape)),
        )

    def transposed(self, tensor: Tensor, order: tuple[int, ...]) -> Tensor:
        """``tensor`` with its axis ``order[i]`` as axis ``i``."""
        if order == plain(len(order)):
            return tensor
        key = ("transpose", tensor, order)
        if tensor.constant:
            return self.once(key, lambda: transposed(tensor, order))
        shape = [tensor.shape[axis] for axis in order]
        return self.once(key, lambda: self.emit("TRANSPOSE", [tensor, self.integers(order)], shape, tensor.kind))

    def padded(self, tensor: Tensor, gaps: Sequence[tuple[int, int]]) -> Tensor:
        """``tensor`` with zeros before and after each axis."""
        if not any(chain(*gaps)):
            return tensor
        shape = [side + sum(gap) for side, gap in zip(tensor.shape, gaps, strict=True)]
        return self.nearby(
            ("pad", tensor, tuple(gaps)),
            lambda: self.emit("PAD", [tensor, self.integers(gaps)], shape, tensor.kind),
        )

    def arranged(self, value: Value, order: tuple[int, ...]) -> Value:
        """``value`` with its axes in ``order`` in memory, in a tensor of whatever shape."""
        view = View(value.view.shape, order)
        tensor = value.tensor
        if value.view.significant == view.significant:
            return Value(tensor, view)
        if tensor.shape == value.view.stored:
            return Value(self.transposed(tensor, tuple(value.view.order.index(axis) for axis in order)), view)
        sides, permutation = merged(value.view, order)
        block = block_of(tensor.shape, sides, permutation)
        if block and not tensor.constant and tensor.dtype in self.kernels["SPACE_TO_DEPTH"]:
            shape = (1, sides[0], sides[2], sides[1] * sides[3])
            return Value(self.emit("SPACE_TO_DEPTH", [tensor], shape, tensor.kind, blockSize=block), view)
        return Value(self.transposed(self.stored(tensor, sides), permutation), view)

    def tensor(self, value: Value, order: tuple[int, ...]) -> Tensor:
        """The tensor that holds ``value`` with its axes in ``order``."""
        arranged = self.arranged(value, order)
        return self.stored(arranged.tensor, arranged.view.stored)


Handler = Callable[[Emitter, Node], None]


def argument_of(node: Node, place: int, name: str, default: Any = None) -> Any:
    """Argument ``name`` of ``node``, which is number ``place``."""
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def _short(path: str) -> str:
    """``stages.0.blocks.1.ffn.fc1`` -> ``s0b1f.fc1``: names take memory on the device."""
    *rooms, last = path.split(".")
    return "".join(room if room.isdigit() else room[:1] for room in rooms) + ("." if rooms else "") + last
