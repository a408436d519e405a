"""A LiteRT graph before it is a file: operators in the order in which they run, over tensors with shape, element type,
quantization and, for constants, values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from segformer_edge.errors import ArtifactError

#: Integers that quantized tensors may hold.
WIDTHS = ("int8", "int16")


@dataclass(frozen=True)
class Quantization:
    """``real = scale * (integer - zero_point)``: one pair, or one per channel along ``axis``."""

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int = 0

    def __post_init__(self) -> None:
        if not self.scale or len(self.scale) != len(self.zero_point):
            raise ValueError(f"{len(self.scale)} scales and {len(self.zero_point)} zero points.")

    def along(self, rank: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Scales and zero points, shaped to broadcast over a tensor of ``rank`` axes."""
        shape = [-1 if i == self.axis else 1 for i in range(rank)] if len(self.scale) > 1 else []
        return np.array(self.scale, np.float32).reshape(shape), np.array(self.zero_point, np.int64).reshape(shape)


@dataclass(frozen=True)
class Kind:
    """What the elements of a tensor are. Two quantized tensors of one kind may stand for each other."""

    dtype: str
    quantization: Quantization | None = None


FLOAT = Kind("float32")


@dataclass(eq=False)
class Tensor:
    """One tensor. ``shape`` is that of the file, so feature maps are ``(1, H, W, C)``."""

    shape: tuple[int, ...]
    kind: Kind = FLOAT
    values: npt.NDArray[Any] | None = None
    name: str = ""

    @property
    def dtype(self) -> str:
        """NumPy's name of the element type."""
        return self.kind.dtype

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def constant(self) -> bool:
        """Whether the values are known now."""
        return self.values is not None

    def real(self) -> npt.NDArray[Any]:
        """The numbers that a constant stands for."""
        assert self.values is not None
        if self.kind.quantization is None:
            return self.values
        scale, zero_point = self.kind.quantization.along(self.values.ndim)
        return ((self.values.astype(np.float32) - zero_point) * scale).astype(np.float32)


def constant(values: npt.NDArray[Any], kind: Kind | None = None) -> Tensor:
    """A tensor of known values; without ``kind`` they are not quantized."""
    values = np.ascontiguousarray(values).reshape(np.shape(values))  # a scalar stays one
    return Tensor(values.shape, kind or Kind(values.dtype.name), values)


def quantized(tensor: Tensor, kind: Kind) -> Tensor:
    """The constant ``tensor`` in the nearest integers of ``kind``."""
    assert kind.quantization is not None
    real = tensor.real()
    scale, zero_point = kind.quantization.along(real.ndim)
    limits: np.iinfo = np.iinfo(kind.dtype)
    integers = (np.rint(real / scale) + zero_point).clip(limits.min, limits.max)
    return constant(integers.astype(kind.dtype), kind)


def transposed(tensor: Tensor, order: tuple[int, ...]) -> Tensor:
    """The constant ``tensor`` with axis ``order[i]`` as axis ``i``; scales per channel go with their axis."""
    assert tensor.values is not None
    q = tensor.kind.quantization
    if q is not None and len(q.scale) > 1:
        q = Quantization(q.scale, q.zero_point, order.index(q.axis))
    return constant(tensor.values.transpose(order), Kind(tensor.dtype, q))


@dataclass(eq=False)
class Operator:
    """One operator. ``code`` is its name in LiteRT's schema, ``options`` the fields of its options there."""

    code: str
    inputs: tuple[Tensor | None, ...]
    output: Tensor
    options: dict[str, Any] = field(default_factory=dict)
    #: Module of the network that it comes from.
    where: str = ""


@dataclass(eq=False)
class EmittedGraph:
    """Operators in the order in which they run, all of which the outputs need."""

    inputs: list[Tensor]
    outputs: list[Tensor]
    operators: list[Operator]
    #: Whether a runtime must keep that order, which a delegate would otherwise take apart: what it takes comes first.
    ordered: bool = False
    #: Places in TFLite Micro's arena, in bytes, where they were planned in advance.
    offsets: dict[Tensor, int] | None = None
    #: Every tensor once, where the file is to number them in another order than that of first use.
    numbering: list[Tensor] | None = None

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor once, in the order in which the file numbers them."""
        if self.numbering is not None:
            yield from self.numbering
            return
        seen: set[Tensor] = set()
        groups = [self.inputs, *((*op.inputs, op.output) for op in self.operators), self.outputs]
        for tensor in (tensor for group in groups for tensor in group):
            if tensor is not None and tensor not in seen:
                seen.add(tensor)
                yield tensor


def without_unused(graph: EmittedGraph) -> EmittedGraph:
    """``graph`` without the operators whose results nothing reads."""
    needed, kept = set(graph.outputs), []
    for op in reversed(graph.operators):
        if op.output in needed:
            kept.append(op)
            needed.update(tensor for tensor in op.inputs if tensor is not None)
    return EmittedGraph(graph.inputs, graph.outputs, kept[::-1])


def per_tensor(scale: float, zero_point: int, dtype: str) -> Kind:
    """Integers of type ``dtype`` with one scale and zero point. Raises ArtifactError where LiteRT has no kernels."""
    if dtype not in WIDTHS:
        raise ArtifactError(f"Activations are quantized to {' or '.join(WIDTHS)} in .tflite files; got {dtype}.")
    if dtype == "int16" and zero_point:
        raise ArtifactError(f"The zero point of an int16 tensor is 0 in .tflite files; got {zero_point}.")
    return Kind(dtype, Quantization((float(np.float32(scale)),), (int(zero_point),)))
