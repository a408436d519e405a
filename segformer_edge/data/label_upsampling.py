"""A network's label map to the size of its frame: of the four samples around a pixel, the class with most weight.

Each sample votes for its class with its weight in bilinear interpolation, so a border between two classes runs straight
through a cell where nearest neighbour would draw a corner. Where all four agree, as nearly everywhere, nothing is
counted. numpy alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segformer_edge.data.border_cells import Border, PixelAxis
from segformer_edge.data.label_maps import label_buffer, pick_pixels
from segformer_edge.errors import DataError

#: Pixels counted at a time, of up to 8 bytes in each of some ten arrays.
_PIXELS = 1 << 14


class LabelMapUpsampler:
    """Turns label maps into ones of another size; made once for a frame's size, then called for each frame.

    A pixel's label is that of ``LabelUpsampler`` on the map as one-hot logits: bilinear interpolation with half-pixel
    centres, then the largest class, the first of them where several tie. In integers, so exact.
    """

    def __init__(self, shape: tuple[int, ...], size: tuple[int, int]) -> None:
        """For maps of ``shape`` (h, w) to maps of ``size`` (H, W)."""
        self.shape, self.size = (shape[0], shape[1]), (size[0], size[1])
        rows, columns = PixelAxis.of(shape[0], size[0]), PixelAxis.of(shape[1], size[1])
        self._border = Border(rows, columns, shape[1])
        self._cells = max(1, _PIXELS // self._border.area)
        self._dtype = np.dtype(np.int32 if rows.denominator * columns.denominator < 1 << 31 else np.int64)

    def __call__(
        self, labels: npt.NDArray[np.uint8], out: npt.NDArray[np.uint8] | None = None
    ) -> npt.NDArray[np.uint8]:
        """Label map uint8 (h, w) -> uint8 (H, W), written into ``out`` where it is given.

        Raises DataError for a map of another shape or dtype, or an ``out`` that does not fit.
        """
        if labels.shape != self.shape or labels.dtype != np.uint8:
            raise DataError(f"The label map is {labels.dtype} {labels.shape}, not uint8 {self.shape}.")
        drawn, border = label_buffer(self.size, out), self._border
        if self.size == self.shape:
            np.copyto(drawn, labels)
            return drawn
        pick_pixels(labels, border.rows.low[border.rows.cell], border.columns.low[border.columns.cell], drawn)
        y, x = border.mixed(labels)
        flat = labels.reshape(-1)
        for first in range(0, len(y), self._cells):
            cells = slice(first, first + self._cells)
            self._draw(flat, y[cells], x[cells], drawn.reshape(-1))
        return drawn

    def _draw(
        self, labels: npt.NDArray[np.uint8], y: npt.NDArray[np.intp], x: npt.NDArray[np.intp], out: np.ndarray
    ) -> None:
        """Write the pixels of cells ``y``, ``x`` (n,); arrays are (pixel rows of a cell, pixel columns, n)."""
        rows, columns = self._border.rows, self._border.columns
        corners = labels.take(self._border.corners(y, x))
        down: np.ndarray = rows.weight[:, y].astype(self._dtype)
        right: np.ndarray = columns.weight[:, x].astype(self._dtype)
        up, left = rows.denominator - down, columns.denominator - right
        weights = [high[:, None] * wide[None] for high in (up, down) for wide in (left, right)]
        most = np.zeros_like(weights[0])
        winner = np.zeros(most.shape, np.uint8)
        for class_ in corners:
            votes = np.zeros_like(most)
            for weight, corner in zip(weights, corners, strict=True):
                votes += weight * (corner == class_)
            wins = (votes > most) | ((votes == most) & (class_ < winner))
            np.copyto(most, votes, where=wins)
            np.copyto(winner, class_, where=wins)
        pixels = rows.pixels[:, y] * self.size[1]
        out[pixels[:, None] + columns.pixels[:, x][None]] = winner
