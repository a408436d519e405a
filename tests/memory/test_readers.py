"""What the readers say about files, against the runtimes and exporters that made them."""

from __future__ import annotations

import io
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segformer_edge.errors import ArtifactError
from segformer_edge.memory import xnnpack
from segformer_edge.memory.liveness import greedy_by_size
from segformer_edge.memory.profiling import profile_file, read_file
from segformer_edge.memory.readers import native
from segformer_edge.memory.readers import onnx as onnx_reader
from segformer_edge.memory.readers import openvino as openvino_reader
from segformer_edge.memory.readers import tflite as tflite_reader
from segformer_edge.memory.readers.executorch import read_executorch
from segformer_edge.memory.readers.onnx import read_onnx
from segformer_edge.memory.readers.openvino import read_openvino
from segformer_edge.memory.readers.tflite import read_tflite
from segformer_edge.runtime.metadata import ArtifactMetadata
from segformer_edge.runtime.openvino import shared_core


@pytest.fixture
def no_runtimes(monkeypatch):
    """A machine with none of the runtimes installed."""

    def missing(form, path, **options):
        raise native.RuntimeMissingError("The runtime", f"runtime-{form}")

    for reader in (tflite_reader, onnx_reader, openvino_reader):
        monkeypatch.setattr(reader, "ask", missing)


# -- .tflite


@pytest.mark.parametrize("run", ["tiny_run", "full_run"])
def test_the_arena_of_tflite_is_rebuilt_from_its_liveness(run, request):
    """Lifetimes, shared memory and scratch are right only if the planner's result is LiteRT's to the byte."""
    reading = read_tflite(request.getfixturevalue(run).file("tflite"), delegate=False)
    (plan,) = reading.plans
    assert greedy_by_size(reading.live.blocks) == plan.bytes
    assert reading.area_peak("arena") <= plan.bytes


def test_tensors_of_tflite_are_those_of_the_interpreter(tiny_run):
    from ai_edge_litert.interpreter import Interpreter

    path = tiny_run.file("tflite")
    interpreter = Interpreter(str(path))
    graph = read_tflite(path, delegate=False).graph
    details = interpreter.get_tensor_details()
    assert len(graph.tensors) >= len(details) > 100
    for entry in details:
        tensor = graph.tensors[entry["index"]]
        size = int(np.prod(entry["shape"])) * np.dtype(entry["dtype"]).itemsize
        assert (tensor.bytes, tensor.dtype) == (size, np.dtype(entry["dtype"]).name), entry["name"]
    assert [tensor.kind for tensor in graph.tensors].count("input") == 1
    listed = [(op["op_name"], op["inputs"].tolist()) for op in interpreter._get_ops_details()]
    assert [(op.type, list(op.inputs)) for op in graph.operators] == [
        (name, [t for t in inputs if t >= 0]) for name, inputs in listed
    ]


def test_what_xnnpack_takes_over_leaves_the_arena(tiny_run):
    reading = read_tflite(tiny_run.file("tflite"))
    delegated = [op for op in reading.graph.operators if op.delegate]
    assert len(delegated) > len(reading.graph.operators) / 2
    inside = {t for op in delegated for t in op.outputs if reading.graph.tensors[t].area == "workspace"}
    outside = {t for op in reading.graph.operators if not op.delegate for t in (*op.inputs, *op.outputs)}
    assert inside
    assert not inside & outside
    fused = {t for op in delegated if op.type == "GELU" for t in op.outputs if reading.graph.tensors[t].bytes == 0}
    assert len(fused) in (0, 4)  # between conversions XNNPACK makes a table of it, in all blocks or in none
    assert reading.workspace_estimate() > 0


def test_tflite_without_an_interpreter_still_gives_its_graph(tiny_run, no_runtimes):
    reading = read_tflite(tiny_run.file("tflite"))
    assert reading.plans == ()
    assert "not installed" in reading.notes[0]
    assert "CONV_2D" in {op.type for op in reading.graph.operators}
    assert reading.live.peak_bytes > 0


# -- .pte


def test_the_plan_of_a_pte_is_the_exporters(tiny_run):
    from executorch.exir._serialize._program import deserialize_pte_binary

    path = tiny_run.file("executorch")
    method = deserialize_pte_binary(path.read_bytes()).program.execution_plan[0]
    reading = read_executorch(path)
    assert reading.plans[0].bytes == sum(method.non_const_buffer_sizes)
    calls = {op.delegate for op in reading.graph.operators if op.delegate}
    assert len(calls) == len(method.delegates)


def test_the_graph_inside_a_delegate_is_the_network(tiny_run):
    """Convolutions, their weights and the resizing of the head, against the checkpoint's own modules."""
    graph = read_executorch(tiny_run.file("executorch")).graph
    types = Counter(op.type for op in graph.operators)
    modules = tiny_run.quantized.module.modules()
    weights = [m.weight.numel() for m in modules if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert types["DepthwiseConv2d"] >= 4
    assert types["StaticResizeBilinear2D"] >= 3
    assert types["Conv2d"] + types["FullyConnected"] + types["DepthwiseConv2d"] >= len(weights)
    # One byte a weight, but for the first convolution's four; biases, scales and the norms' means on top.
    assert sum(weights) <= graph.constant_bytes <= 1.35 * sum(weights) + 64 * 1024
    about = ArtifactMetadata.load(tiny_run.file("executorch")).output
    output = next(t for t in graph.tensors if t.kind == "output")
    assert (output.shape, output.dtype, output.area) == (about.shape, about.dtype, "plan")


def test_indirection_of_a_convolution_is_a_pointer_a_tap_and_pixel():
    # A 7x7 patch embedding with stride 4 at 512x512 was measured; here the last tile of 7 pixels is filled up.
    assert xnnpack.convolution_indirection(128 * 128, 49) == pytest.approx(6_422_528, rel=3e-4)
    assert xnnpack.convolution_indirection(128 * 128, 49) == (128 * 128 + 3) * 49 * 8
    assert xnnpack.convolution_indirection(128 * 128, 1) == 0


# -- .onnx


def test_shapes_of_onnx_are_those_of_shape_inference(tiny_run):
    path = tiny_run.file("onnx")
    reading = read_onnx(path)
    inferred = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    known = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in inferred.value_info}
    shared = [t for t in reading.graph.tensors if t.name in known and t.kind != "constant"]
    assert len(shared) > 50
    for tensor in shared:
        assert list(tensor.shape) == known[tensor.name], tensor.name
    assert reading.graph.constant_bytes == pytest.approx(path.stat().st_size, rel=0.35)


def test_onnxruntimes_arena_holds_at_least_what_is_live(tiny_run):
    reading = read_onnx(tiny_run.file("onnx"))
    (plan,) = [plan for plan in reading.plans if plan.in_use]
    assert plan.bytes - plan.weights >= reading.area_peak("arena") > 0


def test_onnx_without_onnxruntime_is_read_as_the_file_has_it(tiny_run, no_runtimes):
    path = tiny_run.file("onnx")
    reading = read_onnx(path)
    model = onnx.load(path).graph
    assert [op.type for op in reading.graph.operators] == [n.op_type for n in model.node if n.op_type != "Constant"]
    sizes = {i.name: onnx.numpy_helper.to_array(i).nbytes for i in model.initializer}
    assert {t.name: t.bytes for t in reading.graph.tensors if t.name in sizes} == sizes
    assert any("not installed" in note for note in reading.notes)


# -- OpenVINO


def test_openvino_reports_the_compiled_graph(tiny_run):
    path = tiny_run.file("openvino")
    reading = read_openvino(path)
    types = Counter(op.type for op in reading.graph.operators)
    assert types["Interpolate"] == 3
    about = ArtifactMetadata.load(path).output
    (output,) = [t for t in reading.graph.tensors if t.kind == "output"]
    assert (output.shape, output.dtype) == (about.shape, about.dtype)
    assert reading.plans[0].bytes is None
    # Compiled weights may be repacked, not vanish.
    assert reading.graph.constant_bytes >= 0.5 * path.with_suffix(".bin").stat().st_size


def test_openvino_ir_without_openvino_is_read_as_xml(tiny_run, no_runtimes):
    path = tiny_run.file("openvino")
    reading = read_openvino(path)
    wanted = Counter(op.get_type_name() for op in shared_core().read_model(str(path)).get_ordered_ops())
    found = Counter(op.type for op in reading.graph.operators)
    assert found["Convolution"] == wanted["Convolution"]
    assert found["Interpolate"] == wanted["Interpolate"] == 3
    about = ArtifactMetadata.load(path).input
    (image,) = [t for t in reading.graph.tensors if t.kind == "input"]
    assert (image.shape, image.dtype) == (about.shape, about.dtype)


# -- damaged files


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("target", ["executorch", "tflite", "onnx", "openvino"])
def test_damaged_bytes_end_in_an_error_line_or_a_graph(target, data, tiny_run, no_runtimes, tmp_path):
    """Cut anywhere, or with a few bytes changed: never a traceback."""
    content = bytearray(tiny_run.file(target).read_bytes())
    if data.draw(st.booleans(), "cut"):
        del content[data.draw(st.integers(0, len(content) - 1), "length") :]
    for _ in range(data.draw(st.integers(0, 8), "changes")):
        if content:
            # Structure lies at either end of the formats; weights in between.
            place = data.draw(st.integers(0, min(len(content), 60000) - 1), "place")
            content[place if data.draw(st.booleans()) else -1 - place] = data.draw(st.integers(0, 255), "byte")
    path = tmp_path / f"damaged{tiny_run.file(target).suffix}"
    path.write_bytes(content)
    try:
        reading = read_file(path)
    except ArtifactError as error:
        assert str(path) in str(error)
    else:
        scratch = max((operator.scratch for operator in reading.graph.operators), default=0)
        assert reading.live.peak_bytes <= sum(tensor.bytes for tensor in reading.graph.tensors) + scratch


def test_lengths_that_reach_past_the_end_are_refused(tmp_path):
    content = io.BytesIO()
    content.write(struct.pack("<I4s", 0x7FFFFFF0, b"TFL3"))
    content.write(bytes(64))
    path = tmp_path / "model.tflite"
    path.write_bytes(content.getvalue())
    with pytest.raises(ArtifactError, match="damaged"):
        profile_file(path, measuring=False)


def test_a_runtime_that_crashes_takes_only_its_own_process_along(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(bytes([28, 0, 0, 0]) + b"TFL3" + bytes(200))
    with pytest.raises(ArtifactError, match=str(path)):
        native.ask("tflite", path, threads=1, folder=tmp_path)


def test_native_answers_are_json_even_where_the_file_is_refused(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"nothing like a protobuf, far from it")
    with pytest.raises(ArtifactError, match="cannot be loaded by its runtime"):
        native.ask("onnx", path, threads=1, folder=Path(tmp_path))
