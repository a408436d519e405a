"""XNNPACK's operators found again in the file: what it fuses, renames, splits off and leaves out."""

from __future__ import annotations

from segformer_edge.memory.graph import GraphBuilder, MemoryGraph
from segformer_edge.timing.naming import name_operators
from segformer_edge.timing.operators import Event, OperatorTime, precision_of

CONVERT = "Convert (NC)"
LINEAR = "Fully Connected (NC, QS8, QC8W) GEMM"


class File:
    """A chain of operators that each read what the one before wrote."""

    def __init__(self, dtype: str = "int8") -> None:
        self.builder = GraphBuilder()
        self.last = self.builder.tensor("image", (1, 4), dtype, "input")
        self.weight = self.builder.tensor("weight", (4, 4), "float32", "constant")

    def then(self, kind: str, name: str, dtype: str, delegate: str | None = "XNNPACK 0", bytes: int = 4) -> File:
        out = self.builder.tensor(name, (1, 4), dtype, bytes=bytes)
        place = len(self.builder.operators)
        self.builder.operator(kind, [self.last, self.weight], [out], name=f"{kind} {place}", delegate=delegate)
        self.last = out
        return self

    def build(self) -> MemoryGraph:
        return self.builder.build()


def delegated(*kernels: str, call: int = 0) -> list[Event]:
    return [Event(1.0, kernel=kernel, delegate=f"XNNPACK {call}") for kernel in kernels]


def names(found: list[OperatorTime]) -> list[tuple[str, str, str | None]]:
    return [(op.type, op.name, op.precision) for op in found]


def test_a_function_of_int8_is_one_lookup_and_computes_in_int8():
    file = File().then("CONV_2D", "fc1", "int8").then("DEQUANTIZE", "a", "float32", bytes=0)
    file.then("GELU", "act", "float32", bytes=0).then("QUANTIZE", "b", "int8").then("CONV_2D", "fc2", "int8")
    found = name_operators(file.build(), delegated(LINEAR, "Invalid Unary Op", LINEAR))
    assert names(found) == [("CONV_2D", "fc1", "int8"), ("GELU", "act", "int8"), ("CONV_2D", "fc2", "int8")]
    assert found[1].kernel.startswith("Lookup table")


def test_what_is_fused_or_constant_is_skipped():
    file = File("float32").then("PAD", "padded", "float32").then("CONV_2D", "conv", "float32")
    file.then("MUL", "square", "float32").then("RSQRT", "root", "float32")
    kernels = ("Convolution (NHWC, F32) IGEMM", "Square (NC)", "Reciprocal Square Root (NC)")
    found = name_operators(file.build(), delegated(*kernels))
    assert names(found) == [("CONV_2D", "conv", "float"), ("MUL", "square", "float"), ("RSQRT", "root", "float")]


def test_an_activation_that_is_split_off_belongs_to_the_operator_before():
    file = File("float32").then("ADD", "sum", "float32").then("QUANTIZE", "out", "int8")
    found = name_operators(file.build(), delegated("Add (ND)", "Clamp (NC)", CONVERT))
    assert names(found) == [
        ("ADD", "sum", "float"), ("Clamp", "sum, its activation", "float"), ("QUANTIZE", "out", "mixed"),
    ]  # fmt: skip


def test_kernels_are_found_by_their_place_and_delegates_by_their_call():
    file = File("float32").then("ADD", "first", "float32").then("SUB", "kernel", "float32", None)
    file.then("ADD", "second", "float32", "XNNPACK 1")
    events = [
        *delegated("Add (ND)"),
        Event(2.0, "SUB", kernel="LiteRT kernel", place=1),
        *delegated("Add (ND)", call=1),
    ]
    found = name_operators(file.build(), events)
    assert [op.name for op in found] == ["first", "kernel", "second"]
    # Without the first call's event the second must not slide into its place.
    assert [op.name for op in name_operators(file.build(), events[1:])][-1] != "kernel"


def test_the_width_in_the_name_decides_between_two_of_a_kind():
    file = File("float32").then("CONV_2D", "float", "float32").then("CONV_2D", "integer", "int8")
    assert [op.name for op in name_operators(file.build(), delegated(LINEAR))] == ["integer"]
    assert [op.name for op in name_operators(file.build(), delegated("Fully Connected (NC, F32) GEMM"))] == ["float"]


def test_depthwise_is_no_plain_convolution():
    file = File().then("CONV_2D", "plain", "int8").then("DEPTHWISE_CONV_2D", "depthwise", "int8")
    found = name_operators(file.build(), delegated("Convolution (NHWC, QC8) DWConv"))
    assert [op.name for op in found] == ["depthwise"]
    assert [op.name for op in name_operators(file.build(), delegated("Convolution (NHWC, QC8) IGEMM"))] == ["plain"]


def test_what_fits_nowhere_keeps_its_own_words():
    found = name_operators(File().then("ADD", "sum", "int8").build(), delegated("Softmax (NC, F32)", "Copy (NC, X8)"))
    assert names(found) == [("Softmax", "", "float"), ("Copy", "", None)]


def test_precision():
    assert precision_of(["int8", "uint8"]) == "int8"
    assert precision_of(["bfloat16", "float32"]) == "float"
    assert precision_of(["int8", "float32"]) == "mixed"
    assert precision_of(["int64", "int32"]) == "integer"
    assert precision_of(["int8", "int32"]) == "int8"
    assert precision_of([]) is None
