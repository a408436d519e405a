"""The rewrites for NPUs: resizing by convolution, GELU by table, labels without a cast; tiles give the same bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segformer_edge.errors import ArtifactError
from segformer_edge.ethos_u.configurations import CONFIGURATIONS, configuration
from segformer_edge.ethos_u.graph import legal, with_placeholders
from segformer_edge.ethos_u.lowering import npu_graph
from segformer_edge.ethos_u.tables import PLACEHOLDER, Tables, gelu_table, tables_of
from segformer_edge.export.tflite_graph import EmittedGraph, Operator, Tensor, constant, per_tensor
from segformer_edge.rewrite.tiling import Tiling

from .conftest import SIZE, run_graph

ALL_INTEGERS = np.arange(-128, 128, dtype=np.int8).reshape(1, 1, 256, 1)


def gelu_graph(source: tuple[float, int], output: tuple[float, int]) -> EmittedGraph:
    taken = Tensor((1, 1, 256, 1), per_tensor(*source, "int8"), name="input")
    given = Tensor(taken.shape, per_tensor(*output, "int8"), name="output")
    return EmittedGraph([taken], [given], [Operator("GELU", (taken,), given, {"approximate": False})])


@pytest.mark.parametrize("source", [(0.05, 12), (0.031, -128), (0.12, 80)])
@pytest.mark.parametrize("output", [(0.03, -122), (0.013, -115)])
def test_the_table_is_the_kernels(source, output):
    graph = gelu_graph(source, output)
    table = gelu_table(graph.inputs[0].kind, graph.outputs[0].kind)
    # A float32 logit may land on the other side of a half: at most one of 256 entries, by one.
    difference = np.abs(run_graph(graph, ALL_INTEGERS).ravel().astype(int) - table)
    assert difference.max() <= 1 and np.count_nonzero(difference) <= 1


def test_a_table_takes_the_place_of_another():
    graph = gelu_graph((0.05, 12), (0.03, -122))
    (placeholder, table), *_ = tables_of(graph).wanted.items()
    content = b"head" + placeholder + b"middle" + placeholder + b"tail"
    assert tables_of(graph).fill(content) == b"head" + table + b"middle" + table + b"tail"
    with pytest.raises(ArtifactError, match="does not hold the table"):
        tables_of(graph).fill(b"something else")


def test_a_table_that_could_be_chance_is_refused():
    with pytest.raises(ArtifactError, match="cannot be told"):
        tables_of(gelu_graph((0.05, 12), (5.0, 0)))


def test_placeholders_leave_the_graph_as_it_was():
    graph = gelu_graph((0.05, 12), (0.03, -122))
    placed, tables = with_placeholders(graph)
    assert [op.code for op in placed.operators] == [PLACEHOLDER] and [op.code for op in graph.operators] == ["GELU"]
    assert isinstance(tables, Tables) and len(tables.wanted) == 1


@pytest.mark.parametrize("factor", [4, 8])
@pytest.mark.parametrize("shape", [(3, 5), (1, 4)])
def test_resizing_by_convolution_is_bilinear(factor, shape):
    """Against float64 only the last rounding is left, which LiteRT does in two steps: the sum is halved first."""
    rng = np.random.default_rng(0)
    image = rng.integers(-128, 128, (1, *shape, 6)).astype(np.int8)
    size = tuple(side * factor for side in shape)
    taken = Tensor(image.shape, per_tensor(0.02, 5, "int8"), name="input")
    given = Tensor((1, *size, 6), taken.kind, name="output")
    options = {"alignCorners": False, "halfPixelCenters": True}
    resize = Operator("RESIZE_BILINEAR", (taken, constant(np.array(size, np.int32))), given, options)
    graph = legal(EmittedGraph([taken], [given], [resize]), configuration("ethos-u55-128"))
    assert [op.code for op in graph.operators] == ["RESIZE_NEAREST_NEIGHBOR", "MIRROR_PAD", "DEPTHWISE_CONV_2D"]
    exact = F.interpolate(torch.from_numpy(image).double().permute(0, 3, 1, 2), size=size, mode="bilinear")
    found = run_graph(graph, image).astype(float)
    assert np.abs(found - exact.permute(0, 2, 3, 1).numpy()).max() <= 0.5 + 1 / (2 * factor) ** 2


def test_what_an_npu_has_stays():
    taken = Tensor((1, 2, 2, 6), per_tensor(0.02, 5, "int8"), name="input")
    given = Tensor((1, 4, 4, 6), taken.kind, name="output")
    options = {"alignCorners": False, "halfPixelCenters": True}
    graph = EmittedGraph(
        [taken],
        [given],
        [Operator("RESIZE_BILINEAR", (taken, constant(np.array([4, 4], np.int32))), given, options)],
    )
    for config in CONFIGURATIONS.values():
        assert [op.code for op in legal(graph, config).operators] == ["RESIZE_BILINEAR"]


def test_float_is_refused():
    taken, given = Tensor((1, 4)), Tensor((1, 4))
    graph = EmittedGraph([taken], [given], [Operator("RELU", (taken,), given)])
    with pytest.raises(ArtifactError, match="computes in float"):
        legal(graph, configuration("ethos-u85-256"))


@pytest.mark.parametrize("name", ["ethos-u55-128", "ethos-u85-256"])
@pytest.mark.parametrize("output", ["logits", "labels"])
def test_tiles_give_the_same_bits(calibrated, name, output):
    tiling = Tiling(bands=(4, 2, 1, 1), queries=(2, 2, 1, 1), hidden=(2, 1, 1, 1), head=4, head_channels=2)
    config, image = configuration(name), np.random.default_rng(1).integers(-128, 128, (1, *SIZE, 3)).astype(np.int8)
    whole, tiled = (
        run_graph(npu_graph(network, SIZE, config), image)
        for network in (calibrated(output), calibrated(output).tile(tiling))
    )
    assert whole.dtype == (np.int8 if output == "logits" else np.int32)
    assert np.ptp(whole) and np.array_equal(whole, tiled)


def test_label_bands_are_joined_as_logits_where_int32_is_not(calibrated):
    graph = npu_graph(calibrated("labels").tile(Tiling(head=4)), SIZE, configuration("ethos-u65-512"))
    joined = [op.output.dtype for op in graph.operators if op.code == "CONCATENATION"]
    assert joined and "int32" not in joined
    assert [op.code for op in graph.operators].count("ARG_MAX") == 1 and graph.outputs[0].shape == (1, 16, 16)
