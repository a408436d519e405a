"""The one pre- and post-processing of training's evaluation, calibration, every runtime and the apps. numpy and cv2.

Both resizes use half-pixel centres and no antialiasing, like ``torch.nn.functional.interpolate(mode="bilinear",
align_corners=False)``, so the float model and the exported files see the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from segformer_edge.errors import ArtifactError, DataError, UsageError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

#: Relative slack of the pruning bound: interpolation rounds, so a "convex combination" may overshoot by a few ulps.
_ROUNDING = 4e-6


@dataclass(frozen=True)
class Preprocessing:
    """Image to network input: bilinear resize to ``size`` (height, width), then ``(image / 255 - mean) / std``."""

    size: tuple[int, int]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if len(self.size) != 2 or min(self.size) < 1:
            raise UsageError(f"A network input size is (height, width), both positive; got {self.size}.")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise UsageError(f"Normalisation needs 3 means and 3 positive deviations; got {self.mean}, {self.std}.")

    def __call__(self, image: npt.NDArray[np.uint8], layout: str = "nchw") -> npt.NDArray[np.float32]:
        """uint8 RGB image (h, w, 3) -> float32 batch of one, (1, 3, H, W) or for ``nhwc`` (1, H, W, 3)."""
        return self._look_up(image, self._table().astype(np.float32), layout)

    def quantized(
        self, image: npt.NDArray[np.uint8], dtype: str, scale: float, zero_point: int, layout: str = "nchw"
    ) -> npt.NDArray[np.int8] | npt.NDArray[np.uint8]:
        """As calling it, but in the integers of a quantized input: round(x / scale) + zero_point, saturated.

        ``dtype`` is "int8" or "uint8".
        """
        if dtype not in ("int8", "uint8"):
            raise UsageError(f"A quantized input is int8 or uint8, not {dtype}.")
        limits = np.iinfo(dtype)
        real = self._table().astype(np.float32)
        table = np.clip(np.rint(real / np.float32(scale)) + zero_point, limits.min, limits.max).astype(dtype)
        return self._look_up(image, table, layout)

    def _table(self) -> npt.NDArray[np.float64]:
        """What each of the 256 values of each channel becomes, (256, 3): a uint8 image can hold nothing else."""
        return (np.arange(256)[:, None] / 255.0 - np.array(self.mean)) / np.array(self.std)

    def _look_up(self, image: npt.NDArray[np.uint8], table: np.ndarray, layout: str) -> np.ndarray:
        if layout not in ("nchw", "nhwc"):
            raise UsageError(f"Unknown layout '{layout}'; it is nchw or nhwc.")
        pixels = cv2.LUT(resize_image(image, self.size), table[None])
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))[None] if layout == "nchw" else pixels[None]


def check_image(image: np.ndarray) -> None:
    """Raise DataError unless ``image`` is a non-empty uint8 array (h, w, 3)."""
    if not isinstance(image, np.ndarray):
        raise DataError(f"An image is a numpy array (height, width, 3) of uint8, not {type(image).__name__}.")
    if image.ndim != 3 or image.shape[2] != 3:
        raise DataError(f"An image has the shape (height, width, 3), red first; got {image.shape}.")
    if image.dtype != np.uint8:
        raise DataError(f"An image holds uint8 values 0-255; got {image.dtype}.")
    if image.size == 0:
        raise DataError(f"The image is empty: its shape is {image.shape}.")


def resize_image(image: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """uint8 RGB image to ``size`` (height, width), bilinear with half-pixel centres. Raises DataError."""
    check_image(image)
    if image.shape[:2] == tuple(size):
        return image
    resized = cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.uint8)


def resize_labels(labels: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """uint8 label map (h, w) to ``size`` (height, width) by nearest neighbour with half-pixel centres."""
    if labels.ndim != 2 or labels.dtype != np.uint8 or labels.size == 0:
        raise DataError(f"A label map is a non-empty uint8 array (height, width); got {labels.dtype} {labels.shape}.")
    if labels.shape == tuple(size):
        return labels
    # In integers: floor((i + 0.5) * h / H). cv2's nearest modes sample the corner, or round differently at ties.
    rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new) for old, new in zip(labels.shape, size, strict=True))
    return np.ascontiguousarray(labels[rows][:, columns])


def labels_from_logits(logits: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Logits (C, h, w) -> label map uint8 ``size`` = (H, W): bilinear upsample, then argmax; the first class wins ties.

    The full (C, H, W) tensor never exists: only classes that can win somewhere are upsampled, one plane at a time.
    Raises ArtifactError where the logits are not finite or not of that shape.
    """
    if logits.ndim != 3 or logits.size == 0 or logits.shape[0] > 255:
        raise ArtifactError(f"Logits have the shape (classes, height, width), 1 to 255 classes; got {logits.shape}.")
    logits = np.ascontiguousarray(logits, dtype=np.float32)
    candidates = winning_classes(logits)
    height, width = size
    labels = np.full((height, width), candidates[0], dtype=np.uint8)
    if len(candidates) == 1:
        return labels
    best = _upsample(logits[candidates[0]], size)
    plane = np.empty_like(best)
    for c in candidates[1:]:
        _upsample(logits[c], size, out=plane)
        wins = plane > best
        labels[wins] = c
        np.maximum(best, plane, out=best)
    return labels


def winning_classes(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """Ascending indices of the classes that can be the argmax of the bilinearly resized logits (C, h, w) anywhere.

    In a cell between neighbouring samples every interpolated value is a convex combination of the cell's corners. So
    class c can win there only if its largest corner reaches the largest, over all classes, of the smallest corner.
    A superset of the true winners; exact bounds need no interpolation. Raises ArtifactError for NaN or infinity.
    """
    total = float(np.sum(logits, dtype=np.float64))
    if not np.isfinite(total):
        raise ArtifactError("The network's output contains NaN or infinity.")
    floor = _corners(logits[0], np.minimum)
    for plane in logits[1:]:
        np.maximum(floor, _corners(plane, np.minimum), out=floor)
    floor -= _ROUNDING * float(max(logits.max(), -logits.min()))
    return np.flatnonzero([bool((_corners(plane, np.maximum) >= floor).any()) for plane in logits])


def dequantize(values: np.ndarray, scale: float | None, zero_point: int | None) -> npt.NDArray[np.float32]:
    """(values - zero_point) * scale as float32; float values with no scale pass through."""
    if scale is None:
        return np.asarray(values, dtype=np.float32)
    return (values.astype(np.float32) - np.float32(zero_point or 0)) * np.float32(scale)


def _corners(plane: npt.NDArray[np.float32], reduce: np.ufunc) -> npt.NDArray[np.float32]:
    """Smallest or largest corner of every cell of a plane (h, w) -> (h-1, w-1); a side of one sample stays one.

    Pixels beyond the outermost samples repeat the edge, which is a combination of the outermost cell's corners too.
    """
    rows = reduce(plane[:-1], plane[1:]) if plane.shape[0] > 1 else plane.copy()
    cells: npt.NDArray[np.float32] = reduce(rows[:, :-1], rows[:, 1:]) if rows.shape[1] > 1 else rows
    return cells


def _upsample(
    plane: npt.NDArray[np.float32], size: tuple[int, int], out: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.float32]:
    result = cv2.resize(plane, (size[1], size[0]), dst=out, interpolation=cv2.INTER_LINEAR)
    if out is not None and result is not out and not np.shares_memory(result, out):
        out[...] = result
    return np.asarray(result, dtype=np.float32)
