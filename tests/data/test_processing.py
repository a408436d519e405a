"""Pre- and post-processing against torch's interpolation, on shapes and values hypothesis chooses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from segformer_edge.data.processing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Preprocessing,
    dequantize,
    labels_from_logits,
    resize_image,
    resize_labels,
)
from segformer_edge.errors import ArtifactError, DataError, UsageError

SIDES = st.integers(1, 40)
TARGETS = st.integers(1, 150)


def full_upsample(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The tensor we never make, in float64."""
    upsampled = F.interpolate(torch.from_numpy(logits)[None].double(), size=size, mode="bilinear", align_corners=False)
    return upsampled[0].numpy()


@settings(max_examples=150, deadline=None)
@given(
    classes=st.integers(1, 24), h=SIDES, w=SIDES, height=TARGETS, width=TARGETS,
    spread=st.sampled_from([0.01, 1.0, 30.0]), smooth=st.booleans(), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_labels_equal_upsample_then_argmax(classes, h, w, height, width, spread, smooth, seed):
    """Up, down and mixed; only pixels whose two best classes tie within rounding may differ."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(classes, h, w)).astype(np.float32) * spread
    if smooth:
        logits += rng.normal(size=(classes, 1, 1)).astype(np.float32) * spread * 4
    full = full_upsample(logits, (height, width))
    labels = labels_from_logits(logits, (height, width))
    assert labels.shape == (height, width) and labels.dtype == np.uint8
    chosen = np.take_along_axis(full, labels[None].astype(int), axis=0)[0]
    np.testing.assert_allclose(chosen, full.max(axis=0), atol=2e-6 * np.abs(logits).max())


@pytest.mark.parametrize(("shape", "size"), [((11, 96, 128), (360, 480)), ((19, 64, 64), (256, 256))])
def test_labels_agree_with_float32_torch(shape, size):
    logits = np.random.default_rng(1).normal(size=shape).astype(np.float32) * 5
    expected = F.interpolate(torch.from_numpy(logits)[None], size=size, mode="bilinear")[0].argmax(0).numpy()
    assert np.mean(labels_from_logits(logits, size) == expected) >= 0.9999


def test_the_first_class_wins_ties():
    logits = np.zeros((5, 4, 4), np.float32)
    logits[[1, 3]] = 2.0
    assert (labels_from_logits(logits, (16, 16)) == 1).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused(value):
    logits = np.zeros((3, 4, 4), np.float32)
    logits[1, 2, 2] = value
    with pytest.raises(ArtifactError, match="NaN or infinity"):
        labels_from_logits(logits, (8, 8))


@pytest.mark.parametrize("shape", [(4, 4), (0, 4, 4), (256, 2, 2), (1, 3, 4, 4)])
def test_logits_of_another_shape_are_refused(shape):
    with pytest.raises(ArtifactError, match="shape"):
        labels_from_logits(np.zeros(shape, np.float32), (8, 8))


@settings(max_examples=60, deadline=None)
@given(h=SIDES, w=SIDES, height=TARGETS, width=TARGETS)
def test_image_resize_is_torchs_bilinear(h, w, height, width):
    image = np.random.default_rng(h * 41 + w).integers(0, 256, (h, w, 3), dtype=np.uint8)
    expected = full_upsample(image.transpose(2, 0, 1).astype(np.float32), (height, width)).transpose(1, 2, 0)
    # cv2 rounds to uint8, with weights of 11 bits.
    np.testing.assert_allclose(resize_image(image, (height, width)), expected, atol=1.0)


def test_preprocessing_normalises_and_lays_out():
    image = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    preprocessing = Preprocessing((32, 64))
    batch = preprocessing(image)
    assert batch.shape == (1, 3, 32, 64) and batch.dtype == np.float32 and batch.flags.c_contiguous
    expected = (resize_image(image, (32, 64)) / 255.0 - IMAGENET_MEAN) / IMAGENET_STD
    np.testing.assert_allclose(batch[0].transpose(1, 2, 0), expected, atol=1e-6)
    np.testing.assert_array_equal(preprocessing(image, "nhwc")[0], batch[0].transpose(1, 2, 0))


@pytest.mark.parametrize(("dtype", "zero_point"), [("int8", -14), ("uint8", 114)])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_quantized_input_is_the_float_one_rounded(dtype, zero_point, layout):
    image = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    preprocessing, scale = Preprocessing((32, 32)), 0.0187
    batch = preprocessing.quantized(image, dtype, scale, zero_point, layout)
    assert batch.dtype == dtype
    real = preprocessing(image, layout)
    np.testing.assert_allclose(dequantize(batch, scale, zero_point), real, atol=scale * 0.5001)
    coarse = preprocessing.quantized(image, dtype, scale / 4, zero_point, layout)
    assert coarse.min() == np.iinfo(dtype).min and coarse.max() == np.iinfo(dtype).max  # saturates, never wraps


@pytest.mark.parametrize("shape", [(33, 70, 3), (24, 40, 3)], ids=["resized", "as it is"])
@pytest.mark.parametrize(("dtype", "scale", "zero_point"), [("float32", None, None), ("int8", 0.0187, -14)])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_frames_in_one_buffer_are_what_a_table_of_all_values_gives(shape, dtype, scale, zero_point, layout):
    preprocessing = Preprocessing((24, 40))
    fill = preprocessing.network_input(dtype, scale, zero_point, layout)
    table = ((np.arange(256)[:, None] / 255 - IMAGENET_MEAN) / IMAGENET_STD).astype(np.float32)
    if scale is not None:
        table = np.clip(np.rint(table / np.float32(scale)) + zero_point, -128, 127).astype(np.int8)
    batches = []
    for seed in range(3):
        image = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        wanted = np.take_along_axis(table, resize_image(image, (24, 40)).reshape(-1, 3), axis=0).reshape(24, 40, 3)
        for batch in (
            fill(image),
            fill(image[:, :, ::-1], "bgr"),
            fill(np.ascontiguousarray(image[:, :, ::-1]), "bgr"),
        ):
            assert batch.dtype == dtype and batch.flags.c_contiguous
            found = batch[0] if layout == "nhwc" else batch[0].transpose(1, 2, 0)
            np.testing.assert_array_equal(found, wanted)
            batches.append(batch)
    assert all(np.shares_memory(batch, batches[0]) for batch in batches)
    assert not np.shares_memory(preprocessing(image), preprocessing(image))


@settings(max_examples=100, deadline=None)
@given(h=SIDES, w=SIDES, height=TARGETS, width=TARGETS, classes=st.integers(1, 255), seed=st.integers(0, 2**32 - 1))
def test_enlarged_labels_are_torchs_interpolation_of_their_one_hot_map(h, w, height, width, classes, seed):
    """Up, down and mixed; few classes make regions and ties, many a vote of four in nearly every cell."""
    labels = np.random.default_rng(seed).integers(0, classes, (h, w), dtype=np.uint8)
    present = np.unique(labels)
    one_hot = (labels[None] == present[:, None, None]).astype(np.float64)
    votes = full_upsample(one_hot, (height, width))
    # Votes are multiples of 1 / (2 * 150)**2, so what differs does so by more than rounding: the first of equal ones.
    wanted = present[(votes >= votes.max(axis=0) - 1e-6).argmax(axis=0)]
    np.testing.assert_array_equal(resize_labels(labels, (height, width)), wanted)


def test_a_straight_border_stays_straight():
    """A diagonal of squares becomes a diagonal; by nearest neighbour it would be stairs of four pixels."""
    labels = np.tri(8, dtype=np.uint8)
    rows, columns = np.nonzero(np.diff(resize_labels(labels, (32, 32)).astype(int), axis=1))
    assert np.abs(np.diff(columns[np.argsort(rows)])).max() <= 2


def test_labels_are_resized_into_the_callers_array():
    labels, out = np.arange(6, dtype=np.uint8).reshape(2, 3), np.empty((2, 3), np.uint8)
    assert resize_labels(labels, (2, 3), out) is out
    np.testing.assert_array_equal(out, labels)
    with pytest.raises(DataError, match=r"uint8 array \(4, 3\) as 'out'; got uint8 \(2, 3\)"):
        resize_labels(labels, (4, 3), out)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 0, 3), np.uint8), [[[0, 0, 0]]]]
)
def test_what_is_no_image_is_refused(image):
    with pytest.raises(DataError):
        Preprocessing((32, 32))(image)


@pytest.mark.parametrize("labels", [np.zeros((4, 4, 1), np.uint8), np.zeros((4, 4), int), np.zeros((0, 4), np.uint8)])
def test_what_is_no_label_map_is_refused(labels):
    with pytest.raises(DataError):
        resize_labels(labels, (8, 8))


def test_wrong_settings_are_refused():
    with pytest.raises(UsageError, match="size"):
        Preprocessing((0, 32))
    with pytest.raises(UsageError, match="deviations"):
        Preprocessing((32, 32), std=(1.0, 0.0, 1.0))
    image = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(UsageError, match="layout"):
        Preprocessing((32, 32))(image, "hwc")
    with pytest.raises(UsageError, match="int16"):
        Preprocessing((32, 32)).quantized(image, "int16", 1.0, 0)
    with pytest.raises(UsageError, match="rgb or bgr"):
        Preprocessing((32, 32)).network_input("float32")(image, "gbr")
