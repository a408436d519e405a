"""Segmentation scores from one confusion matrix over all images, as the literature reports them."""

from __future__ import annotations

import numpy as np

from segformer_edge.errors import DataError, UsageError

#: Label of pixels that count for nothing.
IGNORE = 255


class ConfusionMatrix:
    """Counts of (true class, predicted class) over every image given to ``update``."""

    def __init__(self, num_classes: int) -> None:
        if not 1 <= num_classes <= IGNORE:
            raise UsageError(f"A confusion matrix needs 1 to {IGNORE} classes; got {num_classes}.")
        self.num_classes = num_classes
        #: int64 (classes, classes): row is the true class, column the predicted one.
        self.counts = np.zeros((num_classes, num_classes), np.int64)

    def update(self, labels: np.ndarray, prediction: np.ndarray) -> None:
        """Add one image: two integer maps of one shape; pixels whose label is 255 are skipped.

        Raises DataError when the shapes differ or a class is outside the range.
        """
        if labels.shape != prediction.shape:
            raise DataError(f"Labels are {labels.shape}, the prediction is {prediction.shape}.")
        kept = labels != IGNORE
        true, predicted = labels[kept].astype(np.int64), prediction[kept].astype(np.int64)
        for what, values in (("Label", true), ("Predicted class", predicted)):
            if values.size and not 0 <= values.min() <= values.max() < self.num_classes:
                worst = values.max() if values.max() >= self.num_classes else values.min()
                raise DataError(
                    f"{what} {worst} is outside the {self.num_classes} classes, 0 to {self.num_classes - 1}."
                )
        pairs = np.bincount(true * self.num_classes + predicted, minlength=self.num_classes**2)
        self.counts += pairs.reshape(self.num_classes, self.num_classes)

    def class_iou(self) -> np.ndarray:
        """Intersection over union per class, float64 (classes,); nan where a class is in neither map."""
        union = self.counts.sum(0) + self.counts.sum(1) - np.diag(self.counts)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(union > 0, np.diag(self.counts) / union, np.nan)

    @property
    def miou(self) -> float:
        """Mean IoU (0..1) over the classes met in the labels or the predictions; nan before any pixel."""
        iou = self.class_iou()
        return float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan")

    @property
    def pixel_accuracy(self) -> float:
        """Share (0..1) of counted pixels that are right; nan before any pixel."""
        total = self.counts.sum()
        return float(np.trace(self.counts) / total) if total else float("nan")


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    """Share (0..1) of equal pixels of two label maps. Raises DataError when the shapes differ or are empty."""
    if a.shape != b.shape or a.size == 0:
        raise DataError(f"Cannot compare label maps of shapes {a.shape} and {b.shape}.")
    return float(np.mean(a == b))
