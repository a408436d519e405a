"""Labels from logits: exact against torch's interpolation in float64, in little memory, in the caller's array."""

from __future__ import annotations

import tracemalloc

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from segformer_edge.data.processing import labels_from_logits
from segformer_edge.data.upsampling import LabelUpsampler
from segformer_edge.errors import ArtifactError, DataError

SIDES, TARGETS = st.integers(1, 24), st.integers(1, 130)
FRAME = (720, 1280)


def reference(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Integer logits (C, h, w): the first class of the largest value; values that differ do so by more than 1e-7."""
    full = F.interpolate(torch.from_numpy(logits.astype(np.float64))[None], size, mode="bilinear", align_corners=False)
    return (full >= full.amax(dim=1, keepdim=True) - 1e-7)[0].numpy().argmax(axis=0)


def laid_out(logits: np.ndarray, layout: str) -> np.ndarray:
    return logits if layout == "nchw" else np.ascontiguousarray(logits.transpose(1, 2, 0))


def scene(classes: int, shape: tuple[int, int], noise: float = 0.0) -> np.ndarray:
    """int8 logits (C, h, w) of regions as large as a picture's."""
    rng = np.random.default_rng(classes)
    height, width = shape
    planes = [
        cv2.resize(rng.normal(size=(5, 5)), (width, height), interpolation=cv2.INTER_CUBIC) for _ in range(classes)
    ]
    return np.clip((np.stack(planes) + noise * rng.normal(size=(classes, *shape))) * 30, -128, 127).astype(np.int8)


@settings(max_examples=200, deadline=None)
@given(
    classes=st.integers(1, 24), h=SIDES, w=SIDES, height=TARGETS, width=TARGETS, levels=st.sampled_from([2, 6, 256]),
    dtype=st.sampled_from(["int8", "uint8", "int16"]), layout=st.sampled_from(["nchw", "nhwc"]),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_labels_of_integers_are_exact(classes, h, w, height, width, levels, dtype, layout, seed):
    """Up, down and mixed, odd ratios, and with few levels a tie almost everywhere."""
    limits = np.iinfo(dtype)
    logits = np.random.default_rng(seed).integers(0, levels, (classes, h, w))
    logits = (logits * ((limits.max - limits.min) // (levels - 1)) + limits.min).astype(dtype)
    given_ = laid_out(logits, layout)
    labels = LabelUpsampler(given_.shape, dtype, (height, width), layout)(given_)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, reference(logits, (height, width)))


@settings(max_examples=60, deadline=None)
@given(
    classes=st.integers(2, 12), h=SIDES, w=SIDES, up=st.integers(1, 10), across=st.integers(1, 10),
    levels=st.sampled_from([2, 6, 40]), scale=st.floats(1e-3, 10), zero_point=st.integers(-128, 127),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_dequantized_logits_tie_as_the_integers_do(classes, h, w, up, across, levels, scale, zero_point, seed):
    """Also at ratios like 4.5. Weights are multiples of 1/20, so what does not tie differs by more than rounding."""
    logits = np.random.default_rng(seed).integers(-128, levels - 128, (classes, 2 * h, 2 * w)).astype(np.int8)
    real = (logits.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
    size = h * up, w * across
    np.testing.assert_array_equal(labels_from_logits(real, size), reference(logits, size))


@pytest.mark.parametrize(("classes", "shape", "size"), [(11, (96, 128), FRAME), (150, (32, 32), (180, 333))])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_frames_of_many_borders_are_exact(classes, shape, size, layout):
    """More border cells and candidates than are drawn at once; the upsampler is used again and again."""
    given_ = [laid_out(scene(classes, shape, noise), layout) for noise in (0.05, 0.5)]
    upsampler, out = LabelUpsampler(given_[0].shape, np.int8, size, layout), np.empty(size, np.uint8)
    for noise, logits in zip((0.05, 0.5), given_, strict=True):
        assert upsampler(logits, out) is out
        expected = reference(scene(classes, shape, noise), size)
        assert len(np.unique(expected)) > 8
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("noise", [0.05, 5.0])
@pytest.mark.parametrize(("dtype", "layout"), [("int8", "nhwc"), ("float32", "nchw")])
def test_full_size_logits_never_exist(dtype, layout, noise):
    """150 classes of a camera frame are 138 MB as int8; three label maps are the bound, whatever is in the picture."""
    logits = laid_out(scene(150, (128, 128), noise).astype(dtype), layout)
    upsampler, out = LabelUpsampler(logits.shape, dtype, FRAME, layout), np.empty(FRAME, np.uint8)
    upsampler(logits, out)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    upsampler(logits, out)
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - before < 3 * out.nbytes
    assert after - before < 20_000  # nothing is kept from one frame to the next


def test_logits_that_do_not_fit_are_refused():
    upsampler = LabelUpsampler((3, 4, 5), np.int8, (8, 8))
    for bad in (np.zeros((3, 5, 4), np.int8), np.zeros((3, 4, 5), np.float32)):
        with pytest.raises(ArtifactError, match=r"not int8 \(3, 4, 5\)"):
            upsampler(bad)
    with pytest.raises(ArtifactError, match="int32"):
        LabelUpsampler((3, 4, 5), np.int32, (8, 8))


@pytest.mark.parametrize(
    "out", [np.zeros((8, 9), np.uint8), np.zeros((8, 8)), np.zeros((8, 16), np.uint8)[:, ::2], [[0]]]
)
def test_an_array_that_labels_do_not_fit_in_is_refused(out):
    with pytest.raises(DataError, match="'out'"):
        LabelUpsampler((3, 4, 5), np.int8, (8, 8))(np.zeros((3, 4, 5), np.int8), out)
