"""``EmulatedSegmenter`` and its worker, with the host's CPU in the place of the emulated one."""

from __future__ import annotations

import io
import os
import shutil
import signal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from segformer_edge.emulation.errors import EmulationError
from segformer_edge.emulation.frames import pack, read_frame, unpack, write_frame
from segformer_edge.emulation.segmenter import EmulatedSegmenter
from segformer_edge.errors import DataError, UsageError
from segformer_edge.runtime.metadata import sha256_of
from segformer_edge.runtime.segmenter import Segmenter


@given(st.sampled_from([np.uint8, np.float32]).flatmap(lambda kind: arrays(kind, array_shapes(max_dims=3))))
def test_arrays_pass_the_pipe(array):
    stream = io.BytesIO()
    write_frame(stream, pack(array))
    write_frame(stream, b"")
    stream.seek(0)
    np.testing.assert_array_equal(unpack(read_frame(stream) or b""), array)
    assert read_frame(stream) == b"" and read_frame(stream) is None


@pytest.mark.parametrize("length", [3, 8, 20])
def test_a_cut_pipe_is_an_error(length):
    stream = io.BytesIO()
    write_frame(stream, pack(np.zeros((4, 4))))
    with pytest.raises(EOFError):
        read_frame(io.BytesIO(stream.getvalue()[:length]))


def test_no_pickle():
    with pytest.raises(ValueError):
        pack(np.array([{}]))
    hidden = io.BytesIO()
    np.save(hidden, np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError):
        unpack(hidden.getvalue())


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_answers_are_the_segmenters_own(target, tiny_run, host_as_cpu):
    here = Segmenter.load(tiny_run.file(target))
    with EmulatedSegmenter(tiny_run.file(target), "cortex-a72") as there:
        for image in tiny_run.images[:2]:
            np.testing.assert_array_equal(there(image), here(image))
        assert there.versions == here.runtime.versions and there.class_names == here.class_names
    with EmulatedSegmenter(tiny_run.file(target), "cortex-a72", output="logits") as there:
        np.testing.assert_array_equal(there(image), here.logits(image))


def test_bad_input(tiny_run, host_as_cpu):
    with pytest.raises(UsageError, match=r"openvino has no runtime on the emulated cortex-a72(.|\n)*tflite"):
        EmulatedSegmenter(tiny_run.file("openvino"), "cortex-a72")
    with pytest.raises(UsageError, match="Unknown CPU"):
        EmulatedSegmenter(tiny_run.file("onnx"), "8086")
    with pytest.raises(UsageError, match="labels or logits"):
        EmulatedSegmenter(tiny_run.file("onnx"), "cortex-a72", output="pixels")
    with EmulatedSegmenter(tiny_run.file("onnx"), "cortex-a72") as there:
        with pytest.raises(DataError):
            there(np.zeros((4, 4), np.uint8))
        assert there(tiny_run.images[0]).shape == tiny_run.images[0].shape[:2]  # and it still works


def test_a_file_its_runtime_refuses(tiny_run, tmp_path, host_as_cpu):
    """The worker's own words come back."""
    folder = tmp_path / "copy"
    shutil.copytree(tiny_run.out, folder)
    file = folder / tiny_run.file("onnx").name
    sidecar = folder / f"{file.name}.json"
    good = sha256_of(file)
    file.write_bytes(file.read_bytes()[:-100])
    sidecar.write_text(sidecar.read_text().replace(good, sha256_of(file)))
    with pytest.raises(EmulationError, match=r"exit code 2: .*model.onnx' is not loaded: damaged"):
        EmulatedSegmenter(file, "cortex-a72")


def test_a_killed_worker_is_an_error_and_no_hang(tiny_run, host_as_cpu):
    with EmulatedSegmenter(tiny_run.file("onnx"), "cortex-a72") as there:
        os.kill(there._process.pid, signal.SIGKILL)
        there._process.wait()
        with pytest.raises(EmulationError, match="SIGKILL"):
            there(tiny_run.images[0])
    with pytest.raises(EmulationError, match="was closed"):
        there(tiny_run.images[0])
