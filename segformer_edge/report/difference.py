"""Where a file's answer differs from float32, as a picture: how far the class probabilities are apart, and which
pixels get another class.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

#: Colour of a pixel that gets another class; no colour of the scale is near it.
CHANGED = (0, 229, 255)
#: Distances that the legend marks.
TICKS = (0.0, 0.001, 0.01, 0.1, 0.5, 1.0)


def probability_distance(
    reference: npt.NDArray[np.float32], logits: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Total variation distance of the softmax of two arrays of logits (C, h, w): (h, w), 0 where they are equal, 1 at
    most. It is the probability that would have to move to another class.
    """
    return np.asarray(0.5 * np.abs(_softmax(reference) - _softmax(logits)).sum(axis=0), np.float32)


def scale_position(distance: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Where a distance lies on the colour scale, 0 to 1: the cube root, since most distances are small."""
    return np.cbrt(np.clip(distance, 0.0, 1.0))


def heat_map(distance: npt.NDArray[np.float32], changed: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """uint8 RGB of the size of ``changed`` (H, W): ``distance`` (h, w), upsampled, in colours, ``CHANGED`` on top."""
    height, width = changed.shape
    large = cv2.resize(np.asarray(distance, np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    picture = _colours(scale_position(large))
    picture[changed] = CHANGED
    return picture


def changed_pixels(image: npt.NDArray[np.uint8], changed: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """For files that give labels alone: the image, dark and grey, with ``CHANGED`` where the class is another."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) // 3
    picture = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8)
    picture[changed] = CHANGED
    return picture


def legend(width: int = 256, height: int = 12) -> npt.NDArray[np.uint8]:
    """The colour scale from 0 to 1, left to right: uint8 RGB (height, width, 3)."""
    return _colours(np.tile(np.linspace(0.0, 1.0, width), (height, 1)))


def _colours(position: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    levels = np.asarray(np.round(position * 255), np.uint8)
    return np.asarray(cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB), np.uint8)


def _softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=0, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=0, keepdims=True))
