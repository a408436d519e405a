"""Frames through an exported file: into the caller's array, in OpenCV's colour order, timed, with nothing left over."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from segformer_edge.errors import DataError, UsageError
from segformer_edge.runtime import FrameTimes, Segmenter
from segformer_edge.runtime.formats import RUNTIMES

FORMATS = tuple(RUNTIMES)


@pytest.mark.parametrize("form", FORMATS)
def test_a_bgr_frame_gives_the_same_labels_in_the_callers_array(form, artifacts, image):
    segmenter, out = Segmenter.load(artifacts[form]), np.full(image.shape[:2], 99, np.uint8)
    labels = segmenter(image)
    assert segmenter(image[:, :, ::-1], "bgr", out) is out
    np.testing.assert_array_equal(out, labels)
    assert not np.array_equal(segmenter(image, "bgr"), labels)  # the colours do matter to this network
    assert not np.shares_memory(segmenter(image), labels)


def test_frames_may_change_their_size(artifacts, image):
    segmenter = Segmenter.load(artifacts["onnx"])
    whole, part = segmenter(image), segmenter(image[:20, :30])
    assert part.shape == (20, 30)
    np.testing.assert_array_equal(segmenter(image), whole)


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_a_file_of_labels_fills_the_callers_array(labels_run, target):
    segmenter, image = Segmenter.load(labels_run.file(target)), labels_run.images[0]
    out = np.full(image.shape[:2], 99, np.uint8)
    assert segmenter(image, out=out) is out
    np.testing.assert_array_equal(out, segmenter(image))


def test_what_does_not_fit_is_refused(artifacts, image):
    segmenter = Segmenter.load(artifacts["onnx"])
    with pytest.raises(DataError, match=r"uint8 array \(45, 77\) as 'out'; got uint8 \(77, 45\)"):
        segmenter(image, out=np.empty((77, 45), np.uint8))
    with pytest.raises(UsageError, match="rgb or bgr"):
        segmenter(image, "rgba")


def test_a_frames_parts_are_timed(artifacts, image):
    segmenter = Segmenter.load(artifacts["tflite"])
    labels, times = segmenter.timed(image)
    np.testing.assert_array_equal(labels, segmenter(image))
    assert min(times.preprocess_ms, times.inference_ms, times.postprocess_ms) > 0
    assert times.total_ms == times.preprocess_ms + times.inference_ms + times.postprocess_ms
    median = FrameTimes.median([FrameTimes(1, 10, 3), FrameTimes(2, 30, 1), FrameTimes(9, 16, 2)])
    assert median == FrameTimes(2, 16, 2) and median.postprocess_share == 0.1


def test_frame_after_frame_needs_no_more_memory(artifacts, image):
    segmenter = Segmenter.load(artifacts["onnx"])
    frame = np.tile(image, (10, 10, 1))
    out = np.empty(frame.shape[:2], np.uint8)
    segmenter(frame, out=out)
    tracemalloc.start()
    for _ in range(20):
        segmenter(frame, out=out)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 20_000
    assert peak < 3 * out.nbytes
