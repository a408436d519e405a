"""Products of activations in the ONNX file: uint8 times int8, the second factor clipped to what old kernels can add."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from segformer_edge.export.onnx_graph import constants_of
from segformer_edge.export.onnx_products import sign_second_factors

KERNELS = ("MatMulIntegerToFloat", "QLinearMatMul")
GRAPH = """
<ir_version: 9, opset_import: ["" : 20]>
graph (float[1, 6, 8] image) => (float[1, 6, 6] output)
<float s = {0.05}, uint8 z = {131}, float ps = {0.00390625}, uint8 pz = {0}, int64[3] rows = {1, 6, 8}>
{
    q = QuantizeLinear(image, s, z)
    d = DequantizeLinear(q, s, z)
    turned = Transpose <perm = [0, 2, 1]> (d)
    keys = QuantizeLinear(turned, s, z)
    keys_d = DequantizeLinear(keys, s, z)
    scores = MatMul(d, keys_d)
    shares = Softmax(scores)
    shares_q = QuantizeLinear(shares, ps, pz)
    shares_d = DequantizeLinear(shares_q, ps, pz)
    shaped = Reshape(d, rows)
    values = QuantizeLinear(shaped, s, z)
    values_d = DequantizeLinear(values, s, z)
    context = MatMul(shares_d, values_d)
    context_t = Transpose <perm = [0, 2, 1]> (context)
    output = MatMul(image, context_t)
}
"""


def kernels(file: Path, folder: Path) -> list[tuple[str, list[str]]]:
    """What onnxruntime makes of the integer products: operator and the types of its two factors."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    model = onnx.load(options.optimized_model_filepath)
    constants = constants_of(model)
    zero_points = {"MatMulIntegerToFloat": (4, 5), "QLinearMatMul": (2, 5)}
    return [
        (node.op_type, [constants[node.input[place]].dtype.name for place in zero_points[node.op_type]])
        for node in model.graph.node
        if node.op_type in KERNELS
    ]


def test_onnxruntime_multiplies_uint8_by_int8(tiny_run, tmp_path):
    found = kernels(tiny_run.file("onnx"), tmp_path)
    blocks = sum("depthwise.output" in name for name in tiny_run.encodings["activations"])
    assert len(found) >= 2 * blocks + 1  # two of every attention, and the head's upsampling
    assert {tuple(types) for _, types in found} == {("uint8", "int8")}


def test_the_rewritten_graph_differs_where_it_clips_alone():
    plain, signed = parser.parse_model(GRAPH), parser.parse_model(GRAPH)
    sign_second_factors(signed)
    onnx.checker.check_model(signed, full_check=True)
    small = np.random.default_rng(0).uniform(-3.2, 3.0, size=(1, 6, 8)).astype(np.float32)
    one, other = (ReferenceEvaluator(model).run(None, {"image": small})[0] for model in (plain, signed))
    np.testing.assert_array_equal(one, other)
    # Keys are clipped to 64 steps, values, whose other factor adds up to 1, to 127.
    values = constants_of(signed)
    bounds = [round(float(values[name]) / 0.05) + 3 for name in values if name.endswith(("_low", "_high"))]
    assert bounds == [-64, 64, -127, 127]


def test_integers_and_their_dequantize_are_no_neighbours():
    """onnxruntime turns an int8 pair of neighbours to uint8, whose kernels are slower."""
    model = parser.parse_model(GRAPH)
    sign_second_factors(model)
    makers = {output: node for node in model.graph.node for output in node.output}
    seconds = [
        makers[makers[node.input[1]].input[0]].op_type
        for node in model.graph.node
        if node.op_type == "MatMul" and makers[node.input[1]].op_type == "DequantizeLinear"
    ]
    assert seconds == ["Transpose", "Reshape"]


@pytest.mark.parametrize(("limit", "pair"), [(64, (255, 255)), (127, (128, 128))])
def test_two_products_fit_16_bits(limit, pair):
    """``vpmaddubsw`` adds the products of two neighbours and saturates."""
    assert max(abs(sum(first * side * limit for first in pair)) for side in (-1, 1)) <= 32767


def test_a_constant_first_factor_is_stored_as_integers(tiny_run):
    model = onnx.load(tiny_run.file("onnx"))
    stored = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    tables = [each for name, each in stored.items() if name.endswith("_u8") and each.ndim == 2]
    assert tables and all(each.dtype == np.uint8 and each.shape == (64, 61) and each.max() == 225 for each in tables)
    assert all((each.sum(axis=1, dtype=int) == 3 * 256).all() for each in tables)
