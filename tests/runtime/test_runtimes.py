"""Each runtime gives the network's own numbers, and a clear error for a file that is not what it should be."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import flatbuffers
import numpy as np
import onnx
import openvino
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper
from openvino import opset13 as opset

from segformer_edge.data.processing import Preprocessing, labels_from_logits
from segformer_edge.errors import ArtifactError, DataError, MissingBackendError, UsageError
from segformer_edge.runtime import ArtifactMetadata, Segmenter
from segformer_edge.runtime.base import load_runtime
from segformer_edge.runtime.formats import RUNTIMES
from segformer_edge.runtime.metadata import InputSpec, OutputSpec
from segformer_edge.runtime.openvino import compile_options
from segformer_edge.runtime.tflite import TFLiteRuntime

FORMATS = tuple(RUNTIMES)
Describe = Callable[..., ArtifactMetadata]


class Capable:
    """A Core whose CPU can do what it is made with."""

    def __init__(self, *capabilities: str) -> None:
        self._capabilities = list(capabilities)

    def get_property(self, device: str, name: str) -> list[str]:
        assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
        return self._capabilities


def copy_of(artifact: Path, folder: Path) -> Path:
    for file in artifact.parent.glob(f"{artifact.stem}.*"):
        shutil.copy(file, folder)
    return folder / artifact.name


@pytest.mark.parametrize("form", FORMATS)
def test_logits_and_labels_are_the_networks(form, artifacts, net, image):
    segmenter = Segmenter.load(artifacts[form])
    with torch.no_grad():
        expected = net(torch.from_numpy(Preprocessing((32, 64))(image)))[0].numpy()
    logits = segmenter.logits(image)
    assert logits.dtype == np.float32
    # OpenVINO computes in bfloat16 by default where the CPU can; we keep a runtime's default settings.
    tolerance = 1e-2 if form == "openvino" else 1e-5
    np.testing.assert_allclose(logits, expected, rtol=0, atol=tolerance * np.ptp(expected))
    labels = segmenter(image)
    assert labels.dtype == np.uint8 and labels.shape == image.shape[:2]
    assert np.mean(labels == labels_from_logits(logits, image.shape[:2])) == 1.0
    assert segmenter.class_names == ("sky", "road", "tree", "car")
    assert segmenter.palette.shape == (4, 3)
    assert all(segmenter.runtime.versions.values())


@pytest.mark.parametrize(
    ("shape", "transpose", "options"),
    [
        ((1, 40, 192), False, {}),
        ((1, 40, 100), False, {"INFERENCE_PRECISION_HINT": "f32"}),
        ((1, 100, 64), True, {"INFERENCE_PRECISION_HINT": "f32"}),
        ((1, 64, 100), True, {}),
        ((-1, -1, -1), False, {}),
    ],
)
def test_openvino_takes_no_bfloat16_where_amx_would_read_beyond_the_tensor(shape, transpose, options):
    """oneDNN issue 5717. No CPU of ours has AMX: the options are looked at, not what they prevent."""
    a, b = (opset.parameter(shape if name == "a" else [-1, -1, -1], name=name) for name in "ab")
    model = openvino.Model([opset.matmul(a, b, transpose, False)], [a, b])
    found = compile_options(Capable("FP32", "BF16"), model, threads=2)
    assert found == {"INFERENCE_NUM_THREADS": 2} | options
    assert compile_options(Capable("FP32", "INT8"), model, threads=2) == {"INFERENCE_NUM_THREADS": 2}


@pytest.mark.parametrize("form", FORMATS)
def test_outputs_do_not_change_under_the_callers_hands(form, artifacts, image):
    segmenter = Segmenter.load(artifacts[form], threads=2)
    first = segmenter.infer(segmenter.prepare(image))
    before = first.copy()
    segmenter.infer(segmenter.prepare(255 - image))
    np.testing.assert_array_equal(first, before)


def test_threads_may_share_a_segmenter(artifacts, image):
    segmenter = Segmenter.load(artifacts["onnx"])
    images = [np.roll(image, i, axis=0) for i in range(8)]
    expected = [segmenter(each) for each in images]
    found: dict[int, np.ndarray] = {}
    workers = [threading.Thread(target=lambda i=i: found.update({i: segmenter(images[i])})) for i in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for i in range(8):
        np.testing.assert_array_equal(found[i], expected[i])


def test_latency_counts_only_the_runs_asked_for(artifacts):
    taken = Segmenter.load(artifacts["onnx"]).latency_ms(runs=3, warm_up=1)
    assert len(taken) == 3 and min(taken) > 0


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("form", FORMATS)
def test_a_truncated_file_is_refused_even_without_its_hash(form, keep, artifacts, tmp_path):
    path = copy_of(artifacts[form], tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(ArtifactError, match=path.name):
        Segmenter.load(path)
    metadata = ArtifactMetadata.load(path, verify=False)
    with pytest.raises(ArtifactError, match=path.name):
        load_runtime(path, metadata)


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_of_another_kind_is_refused(form, artifacts, tmp_path):
    path = copy_of(artifacts[form], tmp_path)
    path.write_text("this is no model at all, only a few words\n" * 20)
    with pytest.raises(ArtifactError, match=path.name):
        load_runtime(path, ArtifactMetadata.load(path, verify=False))


def test_an_operator_that_the_installed_runtime_is_too_old_for_is_named(artifacts, tmp_path):
    """As files with int16 are for tflite-runtime 2.14, which ends with "Registration failed."."""
    path = copy_of(artifacts["tflite"], tmp_path)
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    for code in model.operatorCodes:
        code.version = 99
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())
    with pytest.raises(ArtifactError, match=r"Didn't find op for builtin opcode '[A-Z_0-9]+' version '99'"):
        TFLiteRuntime(path, ArtifactMetadata.load(path, verify=False), reference=True)


def test_truncated_openvino_weights_are_refused(artifacts, tmp_path):
    path = copy_of(artifacts["openvino"], tmp_path)
    weights = path.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ArtifactError, match="changed after export"):
        Segmenter.load(path)
    with pytest.raises(ArtifactError, match=r"constant \d+ ends at byte \d+ of 100"):
        load_runtime(path, ArtifactMetadata.load(path, verify=False))


@pytest.mark.parametrize("form", FORMATS)
def test_metadata_that_contradicts_the_file_is_found_at_load(form, artifacts, describe: Describe, tmp_path):
    path = copy_of(artifacts[form], tmp_path)
    metadata = describe(path, form, output=OutputSpec(None, "logits", (1, 4, 16, 16), "nchw", "float32"))
    metadata.save(path)
    with pytest.raises(ArtifactError, match=r"its output is float32 \[1, 4, 8, 16\], but its metadata says"):
        Segmenter.load(path)


@pytest.mark.parametrize("form", FORMATS)
def test_a_missing_runtime_names_the_extra(form, artifacts, monkeypatch):
    for package in ("executorch", "ai_edge_litert", "tflite_runtime", "openvino", "onnxruntime", "tflite_micro"):
        for name in [package, *(name for name in sys.modules if name.startswith(package + "."))]:
            monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingBackendError, match=rf"segformer-edge\[runtime-{form}\]"):
        Segmenter.load(artifacts[form])


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.zeros((8, 8), np.uint8), "shape"),
        (np.zeros((8, 8, 4), np.uint8), "shape"),
        (np.zeros((8, 8, 3), np.float32), "uint8"),
        (np.zeros((0, 8, 3), np.uint8), "empty"),
        ("image.jpg", "numpy array"),
    ],
)
def test_what_is_no_image_is_refused(bad, words, artifacts):
    with pytest.raises(DataError, match=words):
        Segmenter.load(artifacts["onnx"])(bad)


def test_a_batch_that_does_not_fit_is_refused(artifacts):
    segmenter = Segmenter.load(artifacts["onnx"])
    with pytest.raises(ArtifactError, match=r"takes float32 \[1, 3, 32, 64\]"):
        segmenter.infer(np.zeros((1, 3, 64, 64), np.float32))
    with pytest.raises(ArtifactError, match="float64"):
        segmenter.infer(np.zeros((1, 3, 32, 64)))


def test_threads_must_be_positive(artifacts):
    with pytest.raises(UsageError, match="threads"):
        Segmenter.load(artifacts["onnx"], threads=0)


def write_onnx(path: Path, nodes: list, inputs: tuple, outputs: tuple, constants: list) -> None:
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(*inputs)], [helper.make_tensor_value_info(*outputs)], constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def test_quantized_nhwc_input_and_output_are_translated(tmp_path, describe: Describe, image):
    """A network that passes the colours through: int8 NHWC in, uint8 NHWC out, as TFLite files may have it."""
    path = tmp_path / "model.onnx"
    scale, zero = 0.02, -5
    write_onnx(
        path,
        [
            helper.make_node("DequantizeLinear", ["x", "s", "zi"], ["real"]),
            helper.make_node("QuantizeLinear", ["real", "s", "zo"], ["y"]),
        ],
        ("x", TensorProto.INT8, [1, 32, 64, 3]),
        ("y", TensorProto.UINT8, [1, 32, 64, 3]),
        [
            helper.make_tensor("s", TensorProto.FLOAT, [], [scale]),
            helper.make_tensor("zi", TensorProto.INT8, [], [zero]),
            helper.make_tensor("zo", TensorProto.UINT8, [], [128]),
        ],
    )
    metadata = describe(
        path,
        "onnx",
        input=InputSpec("x", (1, 32, 64, 3), "nhwc", "int8", scale, zero),
        output=OutputSpec("y", "logits", (1, 32, 64, 3), "nhwc", "uint8", scale, 128),
        class_names=("red", "green", "blue"),
        palette=((255, 0, 0), (0, 255, 0), (0, 0, 255)),
    )
    metadata.save(path)
    segmenter = Segmenter.load(path)
    wanted = Preprocessing((32, 64))(image)[0]
    assert segmenter.prepare(image).dtype == np.int8
    # Saturation aside (the input ends at -2.46, the output at 2.54), half a step of rounding.
    np.testing.assert_allclose(segmenter.logits(image), np.clip(wanted, -2.46, 2.54), atol=scale * 0.51 + 1e-6)
    assert segmenter(image).shape == image.shape[:2]


@pytest.mark.parametrize("shape", [(1, 8, 16), (1, 1, 8, 16)])
def test_a_label_output_is_enlarged_by_the_votes_of_its_samples(shape, artifacts, tmp_path, describe: Describe, image):
    path = tmp_path / "model.onnx"
    model = onnx.load(str(artifacts["onnx"]))
    logits_name = model.graph.output[0].name
    version = model.opset_import[0].version
    assert version >= 13
    model.graph.node.extend(
        [
            helper.make_node("ArgMax", [logits_name], ["classes"], axis=1, keepdims=int(len(shape) == 4)),
            helper.make_node("Cast", ["classes"], ["labels"], to=TensorProto.UINT8),
        ]
    )
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("labels", TensorProto.UINT8, shape))
    onnx.save(model, str(path))
    metadata = describe(path, "onnx", output=OutputSpec("labels", "labels", shape, "nchw", "uint8"))
    metadata.save(path)
    segmenter = Segmenter.load(path)
    expected = Segmenter.load(artifacts["onnx"]).logits(image).argmax(0)
    labels = segmenter(image)
    assert labels.shape == (45, 77) and labels.dtype == np.uint8
    one_hot = np.eye(expected.max() + 1, dtype=np.float32)[expected].transpose(2, 0, 1)
    np.testing.assert_array_equal(labels, labels_from_logits(one_hot, labels.shape))
    with pytest.raises(ArtifactError, match="gives labels, not logits"):
        segmenter.logits(image)
    replace(metadata, class_names=("sky",), palette=((0, 0, 0),)).save(path)
    if expected.max() > 0:
        with pytest.raises(ArtifactError, match="for 1 classes"):
            Segmenter.load(path)(image)


def test_torch_stays_out_of_the_runtime(artifacts):
    """On a device there is no torch: three of the four formats load, run and draw without it."""
    code = f"""
import sys
for name in ("torch", "transformers", "nncf", "litert_torch", "executorch"):
    sys.modules[name] = None
import numpy as np
import segformer_edge.cli, segformer_edge.report.table, segformer_edge.report.html, segformer_edge.evaluate
from segformer_edge.runtime import Segmenter
from segformer_edge.runtime.pictures import overlay
image = np.zeros((40, 40, 3), np.uint8)
for path in {[str(artifacts[form]) for form in ("tflite", "openvino", "onnx")]}:
    segmenter = Segmenter.load(path)
    overlay(image, segmenter(image), segmenter.palette)
print("done")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "done", done.stderr


def test_signals_survive_openvino_files_that_come_and_go(artifacts):
    """The older of two goes first; what then handles a signal still has a stack to do it on."""
    code = f"""
import faulthandler, gc, signal, time
faulthandler.enable()
from segformer_edge.runtime import Segmenter
older, newer = (Segmenter.load({str(artifacts["openvino"])!r}) for _ in range(2))
del older
gc.collect()
del newer
gc.collect()
signal.signal(signal.SIGALRM, lambda *_: print("handled", flush=True))
signal.setitimer(signal.ITIMER_REAL, 0.1)
time.sleep(0.5)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "handled", (done.returncode, done.stderr)


def test_two_threads_may_silence_at_once(capfd):
    """The last one out brings stderr back, whichever came first."""
    import os

    from segformer_edge.runtime.quiet import native_stderr_silenced

    first, second = native_stderr_silenced(), native_stderr_silenced()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    os.write(2, b"hidden")
    second.__exit__(None, None, None)
    os.write(2, b"shown")
    assert capfd.readouterr().err == "shown"
