"""The one pre- and post-processing of training's evaluation, calibration, every runtime and the apps. numpy and cv2.

Both resizes use half-pixel centres and no antialiasing, like ``torch.nn.functional.interpolate(mode="bilinear",
align_corners=False)``, so the float model and the exported files see the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from segformer_edge.data.label_upsampling import LabelMapUpsampler
from segformer_edge.data.upsampling import LabelUpsampler
from segformer_edge.errors import DataError, UsageError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

#: The order of the colours in an image: this SDK's, and that of OpenCV's readers and cameras.
ORDERS = ("rgb", "bgr")


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
        return self.network_input("float32", layout=layout)(image)

    def quantized(
        self, image: npt.NDArray[np.uint8], dtype: str, scale: float, zero_point: int, layout: str = "nchw"
    ) -> npt.NDArray[np.int8] | npt.NDArray[np.uint8]:
        """As calling it, but in the integers of a quantized input: round(x / scale) + zero_point, saturated.

        ``dtype`` is "int8" or "uint8".
        """
        if dtype not in ("int8", "uint8"):
            raise UsageError(f"A quantized input is int8 or uint8, not {dtype}.")
        return self.network_input(dtype, scale, zero_point, layout)(image)

    def network_input(
        self, dtype: str, scale: float | None = None, zero_point: int | None = None, layout: str = "nchw"
    ) -> NetworkInput:
        """The same for frame after frame in one buffer: "float32", or a quantized input's dtype, scale, zero point."""
        table = self._table().astype(np.float32)
        if dtype != "float32":
            limits = np.iinfo(dtype)
            steps = np.rint(table / np.float32(scale)) + (zero_point or 0)
            table = np.clip(steps, limits.min, limits.max).astype(dtype)
        return NetworkInput(self.size, table, layout)

    def _table(self) -> npt.NDArray[np.float64]:
        """What each of the 256 values of each channel becomes, (256, 3): a uint8 image can hold nothing else."""
        return (np.arange(256)[:, None] / 255.0 - np.array(self.mean)) / np.array(self.std)


class NetworkInput:
    """Fills one batch with frame after frame: a frame of the same size allocates nothing. Not thread-safe.

    A uint8 image holds 256 values, so normalisation and quantization together are one table a colour.
    """

    def __init__(self, size: tuple[int, int], table: np.ndarray, layout: str) -> None:
        """For a network's ``size`` (H, W); ``table`` (256, 3) has its input's dtype, red first.

        ``layout`` is "nchw" for batches (1, 3, H, W), "nhwc" for (1, H, W, 3). Raises UsageError for others.
        """
        if layout not in ("nchw", "nhwc"):
            raise UsageError(f"Unknown layout '{layout}'; it is nchw or nhwc.")
        self._tables = [np.ascontiguousarray(column)[None] for column in table.T]
        self._resized = np.empty((*size, 3), np.uint8)
        self._planes = np.empty((3, *size), np.uint8)
        self._looked_up = np.empty((3, *size), table.dtype)
        self._merged = np.empty((*size, 3), table.dtype) if layout == "nhwc" else None

    def __call__(self, image: npt.NDArray[np.uint8], order: str = "rgb") -> np.ndarray:
        """uint8 image (h, w, 3), its colours in ``order`` -> the batch, whose memory the next call writes again.

        Raises DataError for what is no such image, UsageError for an order that is neither "rgb" nor "bgr".
        """
        if order not in ORDERS:
            raise UsageError(f"Unknown order of colours '{order}'; it is rgb or bgr.")
        resized = resize_image(image, self._resized.shape[:2], out=self._resized)
        cv2.split(resized, list(self._planes))
        planes = self._planes if order == "rgb" else self._planes[::-1]
        for plane, table, looked_up in zip(planes, self._tables, self._looked_up, strict=True):
            cv2.LUT(plane, table, dst=looked_up)
        if self._merged is None:
            return self._looked_up[None]
        return cv2.merge(list(self._looked_up), dst=self._merged)[None]


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


def resize_image(
    image: npt.NDArray[np.uint8], size: tuple[int, int], out: npt.NDArray[np.uint8] | None = None
) -> npt.NDArray[np.uint8]:
    """uint8 RGB image to ``size`` (height, width), bilinear with half-pixel centres. Raises DataError.

    An image of that size is returned itself; else ``out``, if given, is written and returned.
    """
    check_image(image)
    if image.shape[:2] == tuple(size):
        return image
    resized = cv2.resize(image, (size[1], size[0]), dst=out, interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.uint8)


def resize_labels(
    labels: npt.NDArray[np.uint8], size: tuple[int, int], out: npt.NDArray[np.uint8] | None = None
) -> npt.NDArray[np.uint8]:
    """uint8 label map (h, w) to ``size`` (height, width): of the four samples around a pixel, the class of most weight.

    ``out``, if given, is written and returned; LabelMapUpsampler says how, and saves time where many frames have one
    size. Raises DataError for another kind of array.
    """
    if labels.ndim != 2 or labels.dtype != np.uint8 or labels.size == 0:
        raise DataError(f"A label map is a non-empty uint8 array (height, width); got {labels.dtype} {labels.shape}.")
    if labels.shape == tuple(size) and out is None:
        return labels
    return LabelMapUpsampler(labels.shape, size)(labels, out)


def labels_from_logits(logits: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Logits (C, h, w) -> label map uint8 ``size`` = (H, W): bilinear upsample, then argmax; the first class wins ties.

    The full (C, H, W) tensor never exists; LabelUpsampler says how, and saves time where many frames have one size.
    Raises ArtifactError where the logits are not finite or not of that shape.
    """
    logits = np.asarray(logits, dtype=np.float32)
    return LabelUpsampler(logits.shape, logits.dtype, size)(logits)


def dequantize(values: np.ndarray, scale: float | None, zero_point: int | None) -> npt.NDArray[np.float32]:
    """(values - zero_point) * scale as float32; float values with no scale pass through."""
    if scale is None:
        return np.asarray(values, dtype=np.float32)
    return (values.astype(np.float32) - np.float32(zero_point or 0)) * np.float32(scale)
