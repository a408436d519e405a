"""Label maps as pictures: class colours, and the colours laid over the image."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from segformer_edge.data.processing import check_image
from segformer_edge.errors import DataError

_NO_CLASS = (0, 0, 0)


def colourise(
    labels: npt.NDArray[np.uint8], palette: Sequence[Sequence[int]] | npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    """Label map uint8 (H, W) -> uint8 RGB (H, W, 3); labels beyond the palette, like 255 for "ignore", are black."""
    table = np.full((256, 3), _NO_CLASS, dtype=np.uint8)
    table[: len(palette)] = palette
    return table[labels]


def overlay(
    image: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.uint8],
    palette: Sequence[Sequence[int]] | npt.NDArray[np.uint8],
    opacity: float = 0.5,
) -> npt.NDArray[np.uint8]:
    """uint8 RGB image with its label map's colours over it; ``opacity`` 0 is the image, 1 the colours.

    Each part is rounded to integers by itself and the sum saturates, so every machine gives the same picture: sums in
    float differ by whether a CPU fuses the multiplication with the addition.

    Raises DataError if image and labels differ in size.
    """
    check_image(image)
    if labels.shape != image.shape[:2]:
        raise DataError(f"The label map is {labels.shape}, its image {image.shape[:2]}.")
    opacity = min(max(float(opacity), 0.0), 1.0)
    levels = np.arange(256)
    below, above = (np.rint(levels * share).astype(np.uint8) for share in (1.0 - opacity, opacity))
    blended = cv2.add(cv2.LUT(image, below), colourise(labels, above[np.asarray(palette, dtype=np.uint8)]))
    return np.asarray(blended, dtype=np.uint8)


def png(picture: npt.NDArray[np.uint8]) -> bytes:
    """uint8 RGB picture as a PNG file's bytes."""
    return _encoded(".png", picture, [])


def jpeg(picture: npt.NDArray[np.uint8], quality: int = 90) -> bytes:
    """uint8 RGB picture as a JPEG file's bytes, its colours in full resolution: borders of classes stay sharp."""
    full = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return _encoded(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality, *full])


def _encoded(suffix: str, picture: npt.NDArray[np.uint8], parameters: Sequence[int]) -> bytes:
    check_image(picture)
    done, encoded = cv2.imencode(suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), parameters)
    if not done:
        raise DataError(f"Cannot encode a picture of shape {picture.shape} as {suffix[1:].upper()}.")
    return encoded.tobytes()
