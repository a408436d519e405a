"""The whole network in LiteRT: tiled and untiled give the same bits, and XNNPACK takes either as one partition."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from quantization.calibration import calibrate
from quantization.encodings import apply_encodings, encodings_of
from quantization.recipe import load_recipe
from quantization.sites import Mode, set_mode
from segformer_edge.export.tflite import emitted, ordered
from segformer_edge.export.tflite_graph import EmittedGraph
from segformer_edge.export.tflite_write import tflite_bytes
from segformer_edge.model.config import variant_config
from segformer_edge.model.segformer import SegFormer
from segformer_edge.rewrite.graph import EdgeSegFormer
from segformer_edge.rewrite.tiling import Tiling

SIZE = (64, 64)
FOR_XNNPACK = ("lean", "int8_attention")
RECIPES = (*FOR_XNNPACK, "portable", "full")
TILED = Tiling(
    (2, 2, 1, 1), queries=(2, 1, 1, 1), hidden=(1, 2, 1, 1), head=2, head_channels=2, recompute_norm=True,
    ffn=(1, 2, 2, 1), embedding=(2, 1, 1, 1),
)  # fmt: skip
RECOMPUTED = dataclasses.replace(TILED, recompute_first=True)
Build = Callable[..., EmittedGraph]


@pytest.fixture(scope="module")
def build() -> Build:
    """``build(recipe, tiling, output)``: the graph of one small network, always with the same weights and encodings."""
    torch.set_num_threads(1)
    config = dataclasses.replace(variant_config("b0", 6), depths=(1, 1, 1, 1), decoder_dim=64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = SegFormer(config).eval()
    images = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    encodings = {}
    for recipe in RECIPES:
        network = EdgeSegFormer(model)
        calibrate(network, [images], load_recipe(recipe))
        encodings[recipe] = encodings_of(network, recipe)

    @cache
    def make(recipe: str, tiling: Tiling, output: str = "logits") -> EmittedGraph:
        network = EdgeSegFormer(model, output)
        apply_encodings(network, encodings[recipe])
        set_mode(network, Mode.EXPORT)
        network.tile(tiling).take_channels_last()
        with torch.no_grad():
            program = torch.export.export(network, (torch.zeros(1, *SIZE, 3),))
            return emitted(program) if tiling == Tiling() else ordered(program)

    return make


def run(graph: EmittedGraph, kernels: str) -> tuple[np.ndarray, int]:
    """The output for one fixed image, and how many delegate calls it took."""
    interpreter = Interpreter(
        model_content=tflite_bytes(graph), experimental_op_resolver_type=OpResolverType[kernels], num_threads=1
    )
    interpreter.allocate_tensors()
    image = np.random.default_rng(3).integers(-128, 128, (1, *SIZE, 3)).astype(np.int8)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    calls = [op["op_name"] for op in interpreter._get_ops_details()].count("DELEGATE")
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"]), calls


@pytest.mark.parametrize(("recipe", "tiling"), [*((recipe, TILED) for recipe in RECIPES), ("full", RECOMPUTED)])
def test_tiles_have_the_bits_of_the_whole(build, recipe, tiling):
    whole, tiled = build(recipe, Tiling()), build(recipe, tiling)
    for kernels in ("AUTO", "BUILTIN_REF"):
        (expected, calls), (found, tiled_calls) = run(whole, kernels), run(tiled, kernels)
        assert np.array_equal(found, expected), kernels
        assert len(np.unique(expected)) > 20
        if recipe in FOR_XNNPACK and kernels == "AUTO":
            assert calls == tiled_calls == 1
    floats = {op.code for op in whole.operators if op.output.dtype == "float32"}
    assert bool(floats) == (recipe != "full")


def test_portable_leaves_only_exactly_rounded_operators_in_float(build):
    """Each rounds one exact result, or sums in the one order of the built-in kernel: no compiler can fuse what differs.

    GELU is the table of its 256 results.
    """
    operators = build("portable", TILED).operators
    floats = {op.code for op in operators if op.output.dtype == "float32"}
    assert floats == {"DEQUANTIZE", "MUL", "MEAN", "ADD", "RSQRT"}
    assert {op.output.dtype for op in operators if op.code == "GELU"} == {"int8"}


def test_operators_come_in_the_networks_order(build):
    """Every operator of a stage before those of the next, but for the head's projections of what waits for it."""
    places = [op.where for op in build("lean", TILED).operators if op.where.startswith("stages.")]
    assert places == sorted(places, key=lambda where: where.split(".")[1])


def test_only_heads_are_transposed(build):
    """B0 has 1, 2, 5 and 8 heads: queries, keys, values and contexts of three stages."""
    assert Counter(op.code for op in build("lean", Tiling()).operators)["TRANSPOSE"] == 12


def test_queries_of_a_band_are_transposed_once(build):
    """XNNPACK's file has the same transposes however many blocks of queries there are; other kernels' file has more."""
    counts = {
        recipe: [
            Counter(op.code for op in build(recipe, Tiling(queries=queries)).operators)["TRANSPOSE"]
            for queries in ((1, 2, 1, 1), (1, 4, 1, 1))
        ]
        for recipe in ("lean", "full")
    }
    assert counts["lean"][0] == counts["lean"][1] and counts["full"][0] < counts["full"][1]


def test_what_a_norm_squares_has_no_other_reader(build):
    """So XNNPACK squares and multiplies in place. The first embedding's map is float from the start."""
    operators = build("lean", TILED).operators
    squared = [op.inputs[0] for op in operators if op.code == "SQUARE"]
    norms = [op for op in operators if op.code == "RSQRT" and "stages.0.embedding" not in op.where]
    assert len(squared) == len(norms) > 20
    readers = Counter(tensor for op in operators for tensor in op.inputs)
    dequantized = [op.output for op in operators if op.code == "DEQUANTIZE" and op.output in squared]
    assert dequantized and all(readers[tensor] == 1 for tensor in dequantized)


@pytest.mark.parametrize("join_logits", [False, True])
def test_labels_of_bands_are_joined(build, join_logits):
    graph = build("full", dataclasses.replace(TILED, join_logits=join_logits), "labels")
    codes = Counter(op.code for op in graph.operators)
    assert codes["ARG_MAX"] == codes["CAST"] == (1 if join_logits else 2)
    labels, _ = run(graph, "BUILTIN_REF")
    logits, _ = run(build("full", Tiling()), "BUILTIN_REF")
    assert labels.dtype == np.uint8 and np.array_equal(labels, logits.argmax(axis=-1))
