"""The confusion matrix against torchmetrics and against counting by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchmetrics.classification import MulticlassConfusionMatrix

from segformer_edge.data.metrics import ConfusionMatrix, agreement
from segformer_edge.errors import DataError, UsageError


@st.composite
def label_pairs(draw):
    classes = draw(st.integers(1, 7))
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    values = st.sampled_from([*range(classes), 255])
    labels = draw(arrays(np.uint8, shape, elements=values))
    return classes, labels, draw(arrays(np.uint8, shape, elements=st.integers(0, classes - 1)))


@given(label_pairs())
@settings(max_examples=150, deadline=None)
def test_iou_is_intersection_over_union(case):
    classes, labels, prediction = case
    matrix = ConfusionMatrix(classes)
    matrix.update(labels, prediction)
    kept = labels != 255
    expected = []
    for c in range(classes):
        union = (kept & ((labels == c) | (prediction == c))).sum()
        expected.append((kept & (labels == c) & (prediction == c)).sum() / union if union else np.nan)
    np.testing.assert_allclose(matrix.class_iou(), expected)
    if kept.any():
        assert matrix.miou == pytest.approx(np.nanmean(expected))
        assert matrix.pixel_accuracy == pytest.approx((labels == prediction)[kept].mean())
    else:
        assert np.isnan(matrix.miou)
        assert np.isnan(matrix.pixel_accuracy)


def test_agrees_with_torchmetrics_over_several_images():
    theirs = MulticlassConfusionMatrix(6, ignore_index=255)
    ours = ConfusionMatrix(6)
    rng = np.random.default_rng(3)
    for _ in range(4):
        labels = rng.choice([0, 1, 2, 3, 4, 5, 255], (20, 30)).astype(np.uint8)
        prediction = rng.integers(0, 6, (20, 30)).astype(np.uint8)
        ours.update(labels, prediction)
        theirs.update(torch.from_numpy(prediction.astype(np.int64)), torch.from_numpy(labels.astype(np.int64)))
    np.testing.assert_array_equal(ours.counts, theirs.compute().numpy())


def test_absent_class_is_nan_and_not_averaged():
    matrix = ConfusionMatrix(3)
    matrix.update(np.array([[0, 1]]), np.array([[0, 1]]))
    assert np.isnan(matrix.class_iou()[2])
    assert matrix.miou == 1.0


@pytest.mark.parametrize(
    ("labels", "prediction", "message"),
    [
        (np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8), "prediction is"),
        (np.full((2, 2), 3, np.uint8), np.zeros((2, 2), np.uint8), "Label 3"),
        (np.zeros((2, 2), np.uint8), np.full((2, 2), 9, np.uint8), "Predicted class 9"),
        (np.full((2, 2), -1, np.int64), np.zeros((2, 2), np.int64), "Label -1"),
    ],
)
def test_bad_maps(labels, prediction, message):
    with pytest.raises(DataError, match=message):
        ConfusionMatrix(3).update(labels, prediction)


def test_class_count_must_fit_a_label_map():
    for count in (0, 256):
        with pytest.raises(UsageError):
            ConfusionMatrix(count)


def test_agreement():
    a = np.array([[0, 1], [2, 3]])
    assert agreement(a, a) == 1.0
    assert agreement(a, np.array([[0, 1], [2, 0]])) == 0.75
    with pytest.raises(DataError):
        agreement(a, a[:1])
