"""The painter's canvas of the demo scenes: every stroke sets the pixels and their class together."""

from __future__ import annotations

import cv2
import numpy as np

from segformer_edge.data.scene_textures import Texture


class Canvas:
    """Float32 RGB image (H, W, 3) in 0..255 with its uint8 label map (H, W); lengths are given at 256 px."""

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]) -> None:
        self.rng = rng
        self.height, self.width = size
        #: Pixels per design pixel: objects are designed for a scene whose short side is 256.
        self.unit = min(size) / 256.0
        self.image = np.zeros((*size, 3), np.float32)
        self.labels = np.zeros(size, np.uint8)

    def polygon(self, points: np.ndarray, texture: Texture, label: int | None) -> None:
        """Fill ``points`` (N, 2) as x, y in pixels; ``label`` None paints over without changing the class."""
        points = np.round(np.asarray(points, np.float64)).astype(np.int32)
        left, top = np.maximum(points.min(axis=0), 0)
        right, bottom = np.minimum(points.max(axis=0) + 1, (self.width, self.height))
        if right <= left or bottom <= top:
            return
        mask = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillPoly(mask, [points - np.array([left, top], np.int32)], 1)
        cv2.copyTo(texture(self.rng, bottom - top, right - left), mask, self.image[top:bottom, left:right])
        if label is not None:
            self.labels[top:bottom, left:right][mask.astype(bool)] = label

    def rectangle(self, x: float, y: float, width: float, height: float, texture: Texture, label: int | None) -> None:
        """Fill the axis-aligned box whose top left corner is (x, y)."""
        corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
        self.polygon(np.array(corners), texture, label)

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, texture: Texture, label: int | None, wobble: float = 0.0
    ) -> None:
        """Fill an ellipse around (x, y); ``wobble`` in 0..1 makes its outline irregular."""
        angle = np.linspace(0, 2 * np.pi, 25)[:-1]
        radius = np.ones_like(angle)
        if wobble:
            radius += wobble * self.rng.uniform(-1, 1, angle.shape)
        self.polygon(np.stack([x + rx * radius * np.cos(angle), y + ry * radius * np.sin(angle)], 1), texture, label)

    def shade_ellipse(self, x: float, y: float, rx: float, ry: float, factor: float) -> None:
        """Multiply the pixels of an ellipse by ``factor``: a cast shadow; classes stay."""
        left, top = max(0, round(x - rx)), max(0, round(y - ry))
        right, bottom = min(self.width, round(x + rx) + 1), min(self.height, round(y + ry) + 1)
        if right <= left or bottom <= top:
            return
        dx = (np.arange(left, right, dtype=np.float32)[None, :] - x) / max(rx, 1)
        dy = (np.arange(top, bottom, dtype=np.float32)[:, None] - y) / max(ry, 1)
        weight = np.clip(1.3 * (1 - dx * dx - dy * dy), 0, 1)[:, :, None]
        self.image[top:bottom, left:right] *= 1 - (1 - factor) * weight
