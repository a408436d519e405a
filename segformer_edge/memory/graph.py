"""A network as memory sees it: operators in execution order, and the tensors they read and write. No torch."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, field, replace

KINDS = ("input", "output", "constant", "intermediate")

#: Type name -> bits of one element. Runtimes pack what is smaller than a byte.
BITS = {
    "bool": 8, "int2": 2, "int4": 4, "uint4": 4, "int8": 8, "uint8": 8, "int16": 16, "uint16": 16, "float16": 16,
    "bfloat16": 16, "int32": 32, "uint32": 32, "float32": 32, "int64": 64, "uint64": 64, "float64": 64,
    "complex64": 64, "complex128": 128,
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """One value. ``bytes`` is what it holds where it is stored, 0 where the file does not say.

    ``area`` names the memory it lies in: "arena" and so on for what the runtime plans, "workspace" for what a delegate
    keeps to itself, "caller" for what the program around owns. ``alias_of`` is the index of the tensor whose memory it
    shares (a view, or an operator that writes over its input).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    kind: str = "intermediate"
    area: str = "arena"
    alias_of: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind {self.kind!r} is not one of {', '.join(KINDS)}")
        if self.bytes < 0:
            raise ValueError(f"tensor {self.name!r} has {self.bytes} bytes")


@dataclass(frozen=True)
class Operator:
    """One step. ``inputs`` and ``outputs`` are indices of tensors.

    ``scratch`` is memory that the kernel takes while it runs, ``kept`` what it takes at set-up and holds until the file
    is unloaded (indirection buffers), both in bytes and 0 where unknown. ``delegate`` names what runs it in the
    runtime's place. A time per operator would be another field here.
    """

    name: str
    type: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    dtype: str = ""
    delegate: str | None = None
    scratch: int = 0
    kept: int = 0


@dataclass(frozen=True)
class MemoryGraph:
    """Operators in execution order. ``holds_inputs``: the runtime never reuses the memory of the network's inputs."""

    operators: tuple[Operator, ...]
    tensors: tuple[Tensor, ...]
    holds_inputs: bool = False

    def __post_init__(self) -> None:
        count = len(self.tensors)
        for operator in self.operators:
            for index in (*operator.inputs, *operator.outputs):
                if not 0 <= index < count:
                    raise ValueError(f"operator {operator.name!r} names tensor {index} of {count}")
        for i, tensor in enumerate(self.tensors):
            if tensor.alias_of is not None and not 0 <= tensor.alias_of < count:
                raise ValueError(f"tensor {i} is an alias of tensor {tensor.alias_of} of {count}")

    @property
    def constant_bytes(self) -> int:
        """Weights and other constants."""
        return sum(tensor.bytes for tensor in self.tensors if tensor.kind == "constant")

    @property
    def kept_bytes(self) -> int:
        """What operators hold from set-up on."""
        return sum(operator.kept for operator in self.operators)


@dataclass
class GraphBuilder:
    """Collects tensors and operators in order."""

    tensors: list[Tensor] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)

    def tensor(
        self,
        name: str,
        shape: Iterable[int],
        dtype: str,
        kind: str = "intermediate",
        *,
        area: str = "arena",
        alias_of: int | None = None,
        bytes: int | None = None,
    ) -> int:
        """Add a tensor, its bytes by shape and type unless given; returns its index."""
        shape = tuple(int(side) for side in shape)
        count = tensor_bytes(shape, dtype) if bytes is None else bytes
        self.tensors.append(Tensor(name, shape, dtype, count, kind, area, alias_of))
        return len(self.tensors) - 1

    def operator(
        self,
        type: str,
        inputs: Iterable[int],
        outputs: Iterable[int],
        *,
        name: str = "",
        dtype: str | None = None,
        delegate: str | None = None,
        scratch: int = 0,
        kept: int = 0,
    ) -> int:
        """Add a step; returns its index. Without ``dtype`` it is that of the first output."""
        inputs, outputs = tuple(inputs), tuple(outputs)
        if dtype is None:
            dtype = self.tensors[outputs[0]].dtype if outputs else ""
        name = name or f"{type}#{len(self.operators)}"
        self.operators.append(Operator(name, type, inputs, outputs, dtype, delegate, scratch, kept))
        return len(self.operators) - 1

    def build(self, *, holds_inputs: bool = False) -> MemoryGraph:
        """The graph so far. Raises ValueError for an index that names no tensor."""
        return MemoryGraph(tuple(self.operators), tuple(self.tensors), holds_inputs)


def tensor_bytes(shape: Iterable[int], dtype: str) -> int:
    """Bytes of a dense tensor; 0 for a type or a shape that says nothing (negative sides)."""
    count = 1
    for side in shape:
        count *= max(0, int(side))
    return (count * BITS.get(dtype, 0) + 7) // 8


def with_in_place(
    graph: MemoryGraph,
    views: Iterable[str],
    overwriting: Iterable[str],
    *,
    only: Container[str] | None = None,
    single_reader: bool = False,
) -> MemoryGraph:
    """``graph`` with the aliases a runtime makes: operators of the types ``views`` show their first input's memory,
    ``overwriting`` ones write over an input that is not read again.

    Either is done only inside one area, between tensors of equal bytes, and never for constants, inputs and outputs
    of the network. ``only`` names the operators that were seen to do it. ``single_reader``: overwriting asks for
    exactly one reader of the input and one of the result, as XNNPACK does.
    """
    views, overwriting = frozenset(views), frozenset(overwriting)
    tensors = list(graph.tensors)
    root = [i if tensor.alias_of is None else tensor.alias_of for i, tensor in enumerate(tensors)]
    last_read = [-1] * len(tensors)
    readers = [0] * len(tensors)
    for i, operator in enumerate(graph.operators):
        for t in operator.inputs:
            last_read[root[t]] = i
            readers[t] += 1
    for i, operator in enumerate(graph.operators):
        view = operator.type in views
        if not (view or operator.type in overwriting) or len(operator.outputs) != 1:
            continue
        if only is not None and operator.name not in only:
            continue
        out = operator.outputs[0]
        for t in operator.inputs[:1] if view else operator.inputs:
            owner = root[t]
            one, other = tensors[owner], tensors[out]
            fits = {one.kind, other.kind} == {"intermediate"} and one.area == other.area and one.bytes == other.bytes
            free = last_read[owner] == i and (not single_reader or readers[t] == readers[out] == 1)
            if fits and root[out] == out and owner != out and (view or free):
                tensors[out] = replace(other, alias_of=owner)
                root[out] = owner
                last_read[owner] = max(last_read[owner], last_read[out])
                break
    return replace(graph, tensors=tuple(tensors))
