"""Frames as a phone's camera gives them, YUV_420_888 with strides, and what they are in RGB."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Plane:
    """One plane's bytes; it may end with its last sample, before its last row is full."""

    data: np.ndarray
    row_stride: int
    pixel_stride: int

    def samples(self, height: int, width: int) -> np.ndarray:
        """The samples (height, width), read as Android's documentation describes the strides."""
        offsets = np.arange(height)[:, None] * self.row_stride + np.arange(width)[None] * self.pixel_stride
        return self.data[offsets]


@dataclass(frozen=True)
class CameraFrame:
    """A frame and its planes. The chrominance has half the size, rounded up."""

    width: int
    height: int
    y: Plane
    u: Plane
    v: Plane

    def rgb(self) -> np.ndarray:
        """As uint8 RGB, by OpenCV: full-range BT.601, chrominance repeated."""
        chroma = ((self.height + 1) // 2, (self.width + 1) // 2)
        u, v = (
            plane.samples(*chroma).repeat(2, axis=0).repeat(2, axis=1)[: self.height, : self.width]
            for plane in (self.u, self.v)
        )
        ycrcb = np.stack([self.y.samples(self.height, self.width), v, u], axis=-1)
        return cv2.cvtColor(ycrcb, cv2.COLOR_YCrCb2RGB)

    def upright(self, turns: int, mirrored: bool) -> np.ndarray:
        """The picture turned clockwise by ``turns`` quarters, then left and right swapped if ``mirrored``."""
        image = np.rot90(self.rgb(), -turns)
        return np.ascontiguousarray(image[:, ::-1] if mirrored else image)


def camera_frame(image: np.ndarray, pixel_stride: int, rng: np.random.Generator) -> CameraFrame:
    """``image`` (H, W, 3) as a frame with padded rows.

    With ``pixel_stride`` 1 the planes are apart; with 2 U and V share one buffer, as in NV12, and each plane's view of
    it ends with its own last sample.
    """
    height, width = image.shape[:2]
    ycrcb = cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb)
    chroma = ycrcb[::2, ::2]
    y = _plane(ycrcb[..., 0], 1, rng)
    if pixel_stride == 1:
        return CameraFrame(width, height, y, _plane(chroma[..., 2], 1, rng), _plane(chroma[..., 1], 1, rng))
    both = np.stack([chroma[..., 2], chroma[..., 1]], axis=-1).reshape(chroma.shape[0], -1)
    shared = _plane(both, 1, rng)
    u = Plane(shared.data[:-1], shared.row_stride, 2)
    v = Plane(shared.data[1:], shared.row_stride, 2)
    return CameraFrame(width, height, y, u, v)


def _plane(samples: np.ndarray, pixel_stride: int, rng: np.random.Generator) -> Plane:
    height, width = samples.shape
    row_stride = width + int(rng.integers(0, 20))
    data = rng.integers(0, 256, (height, row_stride), dtype=np.uint8)
    data[:, :width] = samples
    return Plane(data.reshape(-1)[: (height - 1) * row_stride + width], row_stride, pixel_stride)
