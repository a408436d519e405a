"""Which pairs of QuantizeLinear and DequantizeLinear only round, and go; the rest of the graph stays as it was."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import parser
from onnx.reference import ReferenceEvaluator

from segformer_edge.export.onnx_float import keep_in_float
from segformer_edge.runtime.metadata import ArtifactMetadata

GRAPH = """
<ir_version: 9, opset_import: ["" : 20]>
graph (float[1, 4, 6, 6] image) => (float[1, 4, 6, 6] output)
<float s = {0.05}, uint8 z = {128}, float[4] ws = {0.1, 0.2, 0.3, 0.1}, int8[4] wz = {0, 0, 0, 0},
 int64[3] rows = {1, 4, 36}, int64[4] map = {1, 4, 6, 6}>
{
    image_q = QuantizeLinear(image, s, z)
    image_d = DequantizeLinear(image_q, s, z)
    stem = Conv(image_d, w)
    stem_q = QuantizeLinear(stem, s, z)
    stem_d = DequantizeLinear(stem_q, s, z)
    weight_a = DequantizeLinear <axis = 0> (wi, ws, wz)
    a = Conv(stem_d, weight_a)
    a_q = QuantizeLinear(a, s, z)
    a_d = DequantizeLinear(a_q, s, z)
    keys = Reshape(a_d, rows)
    weight_b = DequantizeLinear <axis = 0> (wi, ws, wz)
    b = Conv(stem_d, weight_b)
    b_q = QuantizeLinear(b, s, z)
    b_d = DequantizeLinear(b_q, s, z)
    values = Reshape(b_d, rows)
    values_t = Transpose <perm = [0, 2, 1]> (values)
    scores = MatMul(keys, values_t)
    PLACE
    context = MatMul(scores_d, keys)
    weights = Softmax(context)
    back = Reshape(weights, map)
    both = Add(back, b_d)
    weight_c = DequantizeLinear <axis = 0> (wi, ws, wz)
    c = Conv(b_d, weight_c)
    output_q = QuantizeLinear(c, s, z)
    output_d = DequantizeLinear(output_q, s, z)
    output = Add(both, output_d)
}
"""


def graph(scores: str) -> onnx.ModelProto:
    model = parser.parse_model(GRAPH.replace("PLACE", scores))
    random = np.random.default_rng(5)
    model.graph.initializer.append(onnx.numpy_helper.from_array(random.normal(size=(4, 4, 1, 1)).astype("f4"), "w"))
    integers = random.integers(-9, 10, size=(4, 4, 1, 1)).astype(np.int8)
    model.graph.initializer.append(onnx.numpy_helper.from_array(integers, "wi"))
    onnx.checker.check_model(model)
    return model


FLOAT_SCORES = "scores_d = Identity(scores)"
INT8_SCORES = "scores_q = QuantizeLinear(scores, s, z)\n    scores_d = DequantizeLinear(scores_q, s, z)"


@pytest.mark.parametrize(
    ("scores", "outputs", "kept"),
    [
        (FLOAT_SCORES, False, {"stem", "a", "b", "c"}),
        (FLOAT_SCORES, True, {"stem", "b"}),  # quantized convolutions read them, among others
        (INT8_SCORES, True, {"stem", "a", "b", "scores"}),  # a product whose result is quantized reads integers
    ],
)
def test_what_only_float_operators_read_is_not_rounded(scores, outputs, kept):
    model = graph(scores)
    before = Counter(node.op_type for node in model.graph.node)["DequantizeLinear"]
    dropped = keep_in_float(model, outputs)
    onnx.checker.check_model(model, full_check=True)
    read = {name for node in model.graph.node for name in node.input}
    found = {
        node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear" and node.output[0] in read
    }  # fmt: skip
    assert found == kept
    assert before - Counter(node.op_type for node in model.graph.node)["DequantizeLinear"] == dropped > 0
    assert keep_in_float(model, outputs) == 0


def test_only_the_rounding_goes():
    image = np.random.default_rng(1).normal(size=(1, 4, 6, 6)).astype(np.float32)
    rounded, plain = graph(FLOAT_SCORES), graph(FLOAT_SCORES)
    keep_in_float(plain, outputs=False)
    # On the grid of the image's pair nothing is lost by it, so nothing changes where it goes.
    on_grid = np.round(np.clip(image, -6, 6) / np.float32(0.05)) * np.float32(0.05)
    one, other = (ReferenceEvaluator(model).run(None, {"image": on_grid})[0] for model in (rounded, plain))
    np.testing.assert_array_equal(one, other)
    between = np.float32(0.02) + on_grid
    one, other = (ReferenceEvaluator(model).run(None, {"image": between})[0] for model in (rounded, plain))
    assert not np.array_equal(one, other)


def test_the_files_image_is_float_in_mixed_and_quantized_where_the_first_convolution_is(tiny_run, full_run):
    for run, wanted in ((tiny_run, set()), (full_run, {"QuantizeLinear"})):
        model = onnx.load(run.file("onnx"))
        name = model.graph.input[0].name
        kinds = {node.op_type for node in model.graph.node if name in node.input}
        assert kinds & {"QuantizeLinear"} == wanted
        assert ArtifactMetadata.load(run.file("onnx")).input.dtype == "float32"
