"""What is inside the files: integers where they belong, the parameters of the encodings, nothing of this machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter
from executorch.exir._serialize._program import deserialize_pte_binary
from onnx import numpy_helper

from quantization.params import ActivationParams, params_covering
from segformer_edge.runtime.metadata import ArtifactMetadata
from segformer_edge.runtime.openvino import shared_core


def bits(scales: Iterable) -> set[bytes]:
    """Scales, or lists of them, as float32 bit patterns."""
    return {np.asarray(scale, dtype=np.float32).tobytes() for scale in scales}


def scales_of(run) -> tuple[set[bytes], set[bytes]]:
    """Of activations, and of weights, as the encodings file says."""
    return tuple(
        bits(entry["scale"] for entry in run.encodings[table].values()) for table in ("activations", "weights")
    )


@pytest.mark.parametrize("name", ["tiny_run", "b1_run", "labels_run"])
def test_executorch_is_one_delegate_call(request, name):
    run = request.getfixturevalue(name)
    plan = deserialize_pte_binary(run.file("executorch").read_bytes()).program.execution_plan[0]
    calls = Counter(type(i.instr_args).__name__ for chain in plan.chains for i in chain.instructions)
    assert len(plan.delegates) == 1 and calls["DelegateCall"] == 1
    fallback = run.report_of("executorch").ops.fallback
    assert len(plan.operators) == calls["KernelCall"] == len(fallback)
    # Logits need nothing beside the delegate; labels the argmax and its cast to uint8.
    assert [name.split(".")[-2] for name in fallback] == (
        ["argmax", "_to_dim_order_copy"] if name == "labels_run" else []
    )


def tensors_of(interpreter: Interpreter) -> dict[int, dict]:
    return {details["index"]: details for details in interpreter.get_tensor_details()}


@pytest.mark.parametrize("name", ["tiny_run", "b1_run"])
def test_tflite_is_int8_from_end_to_end(request, name):
    run = request.getfixturevalue(name)
    interpreter = Interpreter(str(run.file("tflite")))
    sites = run.encodings["activations"]
    for details, site in (
        (interpreter.get_input_details()[0], sites["image"]),
        (interpreter.get_output_details()[0], sites["decode_head.classifier.output"]),
    ):
        assert details["dtype"] == np.int8
        assert details["quantization"] == (np.float32(site["scale"]), site["zero_point"])
    tensors = tensors_of(interpreter)
    convolutions = [op for op in interpreter._get_ops_details() if "CONV_2D" in op["op_name"]]
    int8 = [op for op in convolutions if tensors[op["outputs"][0]]["dtype"] == np.int8]
    assert len(int8) == len(run.encodings["weights"])
    for op in int8:
        assert [tensors[i]["dtype"] for i in op["inputs"][:2]] == [np.int8, np.int8]


@pytest.mark.parametrize("name", ["tiny_run", "b1_run", "labels_run"])
def test_tflite_is_one_xnnpack_partition(request, name):
    interpreter = Interpreter(str(request.getfixturevalue(name).file("tflite")))
    interpreter.allocate_tensors()
    names = [op["op_name"] for op in interpreter._get_ops_details()]
    assert names.count("DELEGATE") == 1


@pytest.mark.parametrize("name", ["tiny_run", "b1_run"])
def test_tflite_has_the_scales_of_the_encodings(request, name):
    run = request.getfixturevalue(name)
    found = [
        details["quantization_parameters"]["scales"]
        for details in tensors_of(Interpreter(str(run.file("tflite")))).values()
        if details["dtype"] == np.int8 and len(details["quantization_parameters"]["scales"])
    ]
    activations, weights = scales_of(run)
    assert bits(scales[0] for scales in found if len(scales) == 1) == activations
    assert bits(scales for scales in found if len(scales) > 1) == weights


def load_onnx(run) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """The model and its constants by name."""
    model = onnx.load(run.file("onnx"))
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            values[node.output[0]] = np.asarray(onnx.helper.get_attribute_value(node.attribute[0]))
    return model, values


@pytest.mark.parametrize("name", ["tiny_run", "b1_run", "labels_run"])
def test_onnx_is_valid_and_tells_nothing_of_the_machine(request, name):
    run = request.getfixturevalue(name)
    model, _ = load_onnx(run)
    onnx.checker.check_model(model, full_check=True)
    assert not model.metadata_props and not model.doc_string
    graph = model.graph
    assert not any(item.metadata_props or item.doc_string for item in (*graph.node, *graph.initializer, *graph.input))
    content = run.file("onnx").read_bytes()
    assert not any(word in content for word in (b"site-packages", b"segformer_edge/", b"/tmp", b"/home"))


@pytest.mark.parametrize("name", ["tiny_run", "b1_run"])
def test_onnx_multiplies_uint8_by_int8_that_cannot_saturate(request, name):
    run = request.getfixturevalue(name)
    model, values = load_onnx(run)
    made_by = {output: node for node in model.graph.node for output in node.output}
    quantized = 0
    for conv in (node for node in model.graph.node if node.op_type == "Conv" and node.input[1] not in values):
        quantized += 1
        image, weight = (made_by[conv.input[i]] for i in (0, 1))
        assert image.op_type == weight.op_type == "DequantizeLinear"
        assert values[image.input[2]].dtype == np.uint8
        integers = values[weight.input[0]]
        assert integers.dtype == np.int8 and not np.any(values[weight.input[2]])
        assert made_by[image.input[0]].op_type in ("QuantizeLinear", "Transpose")
        flat = np.abs(integers.transpose(0, 2, 3, 1).reshape(len(integers), -1).astype(int))
        if integers.shape[1] > 1:
            assert (flat[:, 0::2] + flat[:, 1::2]).max() <= 128
    assert quantized == len(run.encodings["weights"])


def test_onnxruntime_fuses_norms_and_keeps_maps_channels_last(tiny_run, tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimized.onnx"), 3
    onnxruntime.InferenceSession(tiny_run.file("onnx"), options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
    assert kinds["QLinearConv"] == len(tiny_run.encodings["weights"])
    # The norms are one operator each, those behind an integer sequence reduction too.
    assert kinds["SimplifiedLayerNormalization"] > kinds["LayerNormalization"] > 0
    assert kinds["Gelu"] and not kinds.keys() & {"Pow", "ReduceMean", "Erf"}
    # An attention needs up to four; convolutions hardly any.
    assert kinds["Transpose"] < kinds["QLinearConv"]


@pytest.mark.parametrize("name", ["tiny_run", "b1_run"])
def test_onnx_has_the_scales_of_the_encodings(request, name):
    run = request.getfixturevalue(name)
    model, values = load_onnx(run)
    nodes = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    sites = {name: entry for name, entry in run.encodings["activations"].items() if name != "image"}  # a float there
    small = [sites.pop(f"decode_head.projections.{index}.output") for index in (1, 2, 3)]
    common = params_covering([ActivationParams("int8", entry["scale"], entry["zero_point"]) for entry in small])
    keys = [entry for name, entry in sites.items() if name.endswith("attention.key.output")]
    integers = [entry for name, entry in sites.items() if name.endswith("attention.value.output")]
    unsigned = {(np.float32(entry["scale"]), entry["zero_point"] + 128) for entry in sites.values()}
    unsigned |= {(np.float32(common.scale), common.zero_point + 128), (np.float32(1 / 256), 0)}  # shares are 1/256
    signed = {(np.float32(2 * entry["scale"]), entry["zero_point"] // 2) for entry in keys}  # 7 bits
    signed |= {(np.float32(entry["scale"]), entry["zero_point"]) for entry in integers}
    signed |= {(np.float32(common.scale), common.zero_point)}
    for dtype, wanted in ((np.uint8, unsigned), (np.int8, signed)):
        pairs = [(values[node.input[1]], values[node.input[2]]) for node in nodes if values[node.input[1]].ndim == 0]
        found = {(np.float32(scale), int(point)) for scale, point in pairs if point.dtype == dtype}
        assert found == wanted


@pytest.mark.parametrize("name", ["tiny_run", "b1_run"])
def test_onnx_widens_weight_scales_at_most_twofold(request, name):
    run = request.getfixturevalue(name)
    _, values = load_onnx(run)
    given = {path: np.float32(entry["scale"]) for path, entry in run.encodings["weights"].items()}
    found = [values[f"{path}.scales"] for path in given]
    ratios = np.concatenate([scales / given[path] for scales, path in zip(found, given, strict=True)])
    assert ratios.min() >= 1 - 1e-6 and ratios.mean() > 1.05 and ratios.max() < 2.01


@pytest.mark.parametrize("name", ["tiny_run", "b1_run"])
def test_openvino_keeps_float32_constants_and_computes_in_int8(request, name):
    run = request.getfixturevalue(name)
    core = shared_core()
    model = core.read_model(run.file("openvino"))
    kinds = {node.get_element_type().get_type_name() for node in model.get_ops() if node.get_type_name() == "Constant"}
    assert "f16" not in kinds and {"f32", "i8"} <= kinds
    compiled = core.compile_model(model, "CPU")
    info = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    precisions = Counter(i["runtimePrecision"].value for i in info if i["layerType"].value == "Convolution")
    assert precisions["u8"] + precisions["i8"] == len(run.encodings["weights"])


@pytest.mark.parametrize("target", ["openvino", "onnx"])
def test_float_inputs_need_no_parameters(tiny_run, target):
    image = ArtifactMetadata.load(tiny_run.file(target)).input
    assert (image.dtype, image.shape, image.scale) == ("float32", (1, 3, 64, 96), None)


def test_executorch_gives_int8_logits_with_the_classifier_s_parameters(tiny_run):
    output = ArtifactMetadata.load(tiny_run.file("executorch")).output
    site = tiny_run.encodings["activations"]["decode_head.classifier.output"]
    assert (output.dtype, output.shape) == ("int8", (1, 5, 16, 24))
    assert (output.scale, output.zero_point) == (site["scale"], site["zero_point"])


@pytest.mark.parametrize("target", ["tflite", "executorch"])
def test_an_int8_image_goes_in_channels_last(tiny_run, target):
    metadata = ArtifactMetadata.load(tiny_run.file(target))
    site = tiny_run.encodings["activations"]["image"]
    assert (metadata.input.dtype, metadata.input.shape) == ("int8", (1, 64, 96, 3))
    assert (np.float32(metadata.input.scale), metadata.input.zero_point) == (
        np.float32(site["scale"]),
        site["zero_point"],
    )
    if target == "tflite":
        assert metadata.output.shape == (1, 16, 24, 5) and metadata.output.dtype == "int8"
