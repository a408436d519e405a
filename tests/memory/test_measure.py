"""Measured memory of real files: what must follow from the network and its input size, and what goes wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest

from segformer_edge.emulation.errors import NotPreparedError
from segformer_edge.errors import ArtifactError, UsageError
from segformer_edge.memory import measure as measure_module
from segformer_edge.memory.measure import measure
from segformer_edge.memory.measurement import BY_HOOK, BY_RESIDENT, Measurement
from segformer_edge.memory.roles import stands_in
from segformer_edge.worker_process import MeasurementError

#: Target and variant of its runtime.
WAYS = [
    ("tflite", ""),
    ("tflite", "no-delegate"),
    ("tflite", "compiled"),
    ("onnx", ""),
    ("onnx", "no-arena"),
    ("openvino", ""),
    ("executorch", ""),
]


@pytest.fixture(scope="session")
def larger_run(run_quantize, tiny_weights):
    """The tiny checkpoint at four times the area."""
    return run_quantize(tiny_weights, (128, 192))


@pytest.fixture(scope="session")
def largest_run(run_quantize, tiny_weights):
    """At sixteen times the area: onnxruntime's arena grows by blocks of powers of two, 1 MiB and more."""
    return run_quantize(tiny_weights, (256, 384), targets="onnx")


@pytest.fixture(scope="session")
def measured(tiny_run, larger_run, largest_run) -> Callable[[str, str, bool], Measurement]:
    """``measured(target, variant, larger)``, each once."""

    def make(target: str, variant: str, larger: bool) -> Measurement:
        more = largest_run if (target, variant) == ("onnx", "") else larger_run
        return measure((more if larger else tiny_run).file(target), variant=variant)

    return cache(make)


@pytest.mark.parametrize(("target", "variant"), WAYS)
def test_weights_stay_and_activations_follow_the_input(target, variant, measured):
    small, large = (measured(target, variant, larger) for larger in (False, True))
    assert small.kind == large.kind == BY_HOOK
    before, after = small.run_split, large.run_split
    assert after.weights + after.packed_weights == pytest.approx(
        before.weights + before.packed_weights, rel=0.03, abs=9e3
    )
    # Scratch memory of matrix kernels does not grow with the image.
    assert 2 < after.activations / before.activations < (8 if (target, variant) == ("onnx", "") else 4.2)
    assert after.runtime < 1.5 * before.runtime
    assert large.run_growth > small.run_growth


@pytest.mark.parametrize(("target", "variant"), WAYS)
def test_the_parts_make_the_whole(target, variant, measured):
    found = measured(target, variant, False)
    peaks = {phase.name: phase.peak for phase in found.phases}
    assert list(peaks) == ["load", "allocate", "first run", "second run", "third run"]
    assert sum(asdict(found.run_split).values()) == max(peaks[name] for name in list(peaks)[2:])
    assert sum(asdict(found.load_split).values()) == max(peaks["load"], peaks["allocate"])
    assert found.peak_bytes == max(peaks.values())
    assert found.inference_growth == max(found.run_growth, found.load_growth)
    assert found.inference_growth <= found.peak_bytes and min(asdict(found.run_split).values()) >= 0
    assert sum(block.size for block in found.blocks) <= found.peak_bytes
    assert [block.size for block in found.blocks] == sorted((block.size for block in found.blocks), reverse=True)
    json.dumps(asdict(found))


@pytest.mark.parametrize(("target", "variant"), WAYS)
def test_weights_are_as_many_as_in_the_file(target, variant, measured):
    """The network's constants are somewhere: in the file's mapping, as copies, or packed."""
    found = measured(target, variant, False)
    constants = found.file_bytes if target != "openvino" else Path(found.file).with_suffix(".bin").stat().st_size
    if found.runtime == "LiteRT, no delegate":
        assert found.mapped_bytes >= found.file_bytes and found.weights_bytes < 0.1 * constants  # read where they lie
    else:
        # OpenVINO keeps what it packed as well.
        assert 0.7 * constants < found.weights_bytes < (3 if target == "openvino" else 1.5) * constants


def test_weights_in_the_arena_are_told_from_its_activations(measured):
    """They share a block there, and have blocks of their own without an arena."""
    arena, own = (measured("onnx", variant, False) for variant in ("", "no-arena"))
    assert arena.weights_bytes == pytest.approx(own.weights_bytes, rel=0.1)


def test_a_network_of_known_sizes(tmp_path):
    """One matrix product, 8 MiB of weights; its input is the caller's and its output 1 MiB, and it needs no more."""
    rows, inner, columns = 128, 1024, 2048
    weights = np.random.default_rng(0).standard_normal((inner, columns)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [rows, inner])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [rows, columns])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "product.onnx")
    found = measure(tmp_path / "product.onnx", variant="no-arena")
    assert found.inputs == (("x", "float32", (rows, inner)),)
    assert found.weights_bytes == pytest.approx(weights.nbytes, rel=0.05)
    assert 4 * rows * columns <= found.run_split.activations < 1.1 * 4 * rows * columns
    assert found.load_split.growth > weights.nbytes / 2  # the parsed file, freed again


def test_the_arena_holds_the_tensors(measured):
    """It grows like the area, up to the alignment of each tensor; other runtimes have none."""
    small, large = (measured("tflite", "no-delegate", larger) for larger in (False, True))
    assert small.runtime == "LiteRT, no delegate" and measured("tflite", "", False).runtime == "LiteRT, XNNPACK"
    assert 3.9 < large.arena_bytes / small.arena_bytes <= 4
    assert small.arena_bytes in [block.size for block in small.blocks if block.role == "activations"]
    assert measured("tflite", "", False).arena_bytes < small.arena_bytes  # the delegate holds most
    assert measured("onnx", "", False).arena_bytes is None


def test_it_repeats(tiny_run, measured):
    again, found = measure(tiny_run.file("tflite")), measured("tflite", "", False)
    assert again.run_split.activations == found.run_split.activations
    assert again.run_split.packed_weights == found.run_split.packed_weights
    assert again.peak_bytes == pytest.approx(found.peak_bytes, abs=4096)


def test_a_file_without_a_sidecar(tiny_run, tmp_path, measured):
    copy = tmp_path / "net.tflite"
    shutil.copy(tiny_run.file("tflite"), copy)
    found = measure(copy)
    assert found.run_split.activations == measured("tflite", "", False).run_split.activations
    (_, dtype, shape), *more = found.inputs
    assert dtype == "int8" and shape == (1, 64, 96, 3) and not more


def test_without_a_compiler_resident_memory_is_measured(tiny_run, tmp_path, monkeypatch, capfd, measured):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    found = measure(tiny_run.file("tflite"))
    assert "No C compiler" in capfd.readouterr().err
    assert found.kind == BY_RESIDENT
    assert found.inference_growth is found.run_split is found.weights_bytes is None and found.blocks == ()
    # Pages rather than bytes, and libraries' own pages with them; still the same process.
    assert 0.5 * measured("tflite", "", False).peak_bytes < found.peak_bytes < 100e6


@pytest.mark.parametrize("target", ["tflite", "executorch", "openvino", "onnx"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_a_truncated_file_is_an_error(target, share, tiny_run, tmp_path):
    """Whatever the runtime does with it, raise or crash; a file that still runs is no error."""
    source = tiny_run.file(target)
    for file in source.parent.glob(f"{source.stem}.*"):
        if file.suffix in (".bin", source.suffix):
            shutil.copy(file, tmp_path)
    cut = tmp_path / source.with_suffix(".bin" if target == "openvino" else source.suffix).name
    cut.write_bytes(cut.read_bytes()[: int(share * cut.stat().st_size)])
    with pytest.raises((ArtifactError, MeasurementError)) as caught:
        measure(tmp_path / source.name)
    assert source.name in str(caught.value) and "Traceback" not in str(caught.value)


def test_bad_requests(tiny_run, tmp_path, monkeypatch):
    file = tiny_run.file("tflite")
    with pytest.raises(ArtifactError, match="Cannot read"):
        measure(tmp_path / "none.tflite")
    with pytest.raises(UsageError, match=r"none of \.pte"):
        measure(tmp_path / "model.gguf")
    with pytest.raises(UsageError, match=r"no way to run \.tflite(.|\n)*no-delegate"):
        measure(file, variant="no-delegates")
    with pytest.raises(UsageError, match=r"no way to run \.pte(.|\n)*Leave it out"):
        measure(tiny_run.file("executorch"), variant="no-arena")
    with pytest.raises(UsageError, match="at least 1"):
        measure(file, threads=0)
    with pytest.raises(UsageError, match="Did you mean 'cortex-a72'"):
        measure(file, on="cortex-a721")
    monkeypatch.setenv("SEGFORMER_EDGE_ARM", str(tmp_path / "cache"))
    with pytest.raises(NotPreparedError, match="make arm-setup"):
        measure(file, on="cortex-a72")


def test_too_slow(tiny_run):
    with pytest.raises(MeasurementError, match=r"longer than 0\.01 s"):
        measure(tiny_run.file("tflite"), timeout=0.01)


def test_a_crash_names_the_signal(tiny_run, monkeypatch):
    monkeypatch.setattr(measure_module, "_WORKER", "tests.no_such_worker")
    with pytest.raises(MeasurementError, match=r"exit code 1: .*no_such_worker|No module"):
        measure(tiny_run.file("tflite"))


def test_copies_are_found_by_what_they_hold():
    random = np.random.default_rng(0)
    file = random.bytes(50_000)
    assert stands_in([file], memoryview(file[7000:12000]))
    assert not stands_in([file], memoryview(random.bytes(5000)))
    reordered = np.frombuffer(file[:8000], np.uint8).reshape(-1, 8).T.tobytes()
    assert not stands_in([file], memoryview(reordered))
    assert not stands_in([bytes(9000)], memoryview(bytes(5000)))  # zeros stand everywhere
