"""Logits to a full-size label map: bilinear upsampling, then argmax, without upsampled logits. numpy alone.

Four neighbouring samples of the logits are the corners of a cell. In it every interpolated value is a convex
combination of the corners, so where all four have the same best class, that class is the best everywhere in the cell:
the cell is filled. Only cells on a border between classes are interpolated, and only the classes that can win there.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from segformer_edge.data.border_cells import Border, Candidates, PixelAxis, find_candidates, first_largest
from segformer_edge.data.label_maps import label_buffer, pick_pixels
from segformer_edge.errors import ArtifactError

#: Pixels interpolated at a time; with it go buffers of 10 bytes a pixel, 18 in float64.
_PIXELS = 1 << 15
#: Integers up to here are exact in float32.
_EXACT = 1 << 24
#: float32 logits this close, as a share of the largest one, are equal: dequantized integers that tie stay tied, so a
#: file gives the same labels whether its logits come out quantized or dequantized.
_ROUNDING = 2.0**-21


class LabelUpsampler:
    """Turns logits into label maps of another size; made once for a frame size, then called for each frame.

    A pixel's label is the class with the largest logit after bilinear interpolation with half-pixel centres, the first
    of them where several tie: ``interpolate(logits, size, mode="bilinear", align_corners=False).argmax(1)`` in torch.
    Quantized logits are taken as integers and the result is exact; float logits are interpolated in float32.

    The buffers are kept from call to call, under 1 MB whatever the number of classes. Not thread-safe.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: npt.DTypeLike, size: tuple[int, int], layout: str = "nchw"
    ) -> None:
        """For logits of ``shape`` (C, h, w), or (h, w, C) where ``layout`` is "nhwc", to labels of ``size`` (H, W).

        ``dtype`` is float32 or an integer of up to 16 bits. Raises ArtifactError for other shapes and dtypes.
        """
        self.shape, self.size, self.layout, self.dtype = tuple(shape), (size[0], size[1]), layout, np.dtype(dtype)
        classes = shape[0 if layout == "nchw" else -1] if len(shape) == 3 else 0
        if not 1 <= classes <= 255 or 0 in shape:
            raise ArtifactError(f"Logits have the shape (classes, height, width), 1 to 255 classes; got {self.shape}.")
        if self.dtype != np.float32 and (self.dtype.kind not in "iu" or self.dtype.itemsize > 2):
            raise ArtifactError(f"Logits are float32 or integers of up to 16 bits; got {self.dtype}.")
        height, width = shape[1:] if layout == "nchw" else shape[:2]
        self._border = Border(PixelAxis.of(height, size[0]), PixelAxis.of(width, size[1]), width)
        self._cells = max(1, _PIXELS // self._border.area)
        self._values = np.empty((2, self._cells * self._border.area), self._working_dtype())
        self._bytes = np.empty((2, self._cells * self._border.area), np.uint8)

    def __call__(self, logits: np.ndarray, out: npt.NDArray[np.uint8] | None = None) -> npt.NDArray[np.uint8]:
        """Logits, quantized ones as they are -> label map uint8 (H, W), written into ``out`` where it is given.

        Raises ArtifactError for logits of another shape or dtype, or with NaN or infinity.
        """
        if logits.shape != self.shape or logits.dtype != self.dtype:
            raise ArtifactError(f"The logits are {logits.dtype} {logits.shape}, not {self.dtype} {self.shape}.")
        if self.dtype.kind == "f" and not np.isfinite(logits.sum()) and not np.isfinite(logits).all():
            raise ArtifactError("The network's output contains NaN or infinity.")
        labels = label_buffer(self.size, out)
        best = first_largest(logits) if self.layout == "nchw" else logits.argmax(axis=-1).astype(np.uint8)
        border = self._border
        pick_pixels(best, border.rows.low[border.rows.cell], border.columns.low[border.columns.cell], labels)
        for group in find_candidates(logits, self.layout, best, border):
            for first in range(0, len(group.count), self._cells):
                self._draw(group, slice(first, first + self._cells), labels.reshape(-1))
        return labels

    def _working_dtype(self) -> np.dtype:
        if self.dtype.kind == "f":
            return np.dtype(np.float32)
        # A difference of two leads, each as large as the dtype's range, times the weights' denominators.
        limits = np.iinfo(self.dtype)
        leads = 2 * (limits.max - limits.min)
        bound = leads * self._border.rows.denominator * self._border.columns.denominator
        return np.dtype(np.float32 if bound < _EXACT else np.float64)

    def _draw(self, group: Candidates, cells: slice, labels: npt.NDArray[np.uint8]) -> None:
        """Write the pixels of a group's ``cells`` into the flat ``labels``.

        Arrays are (pixel rows of a cell, pixel columns of a cell, cells). A class is compared as its lead over the
        cell's first candidate, whose own lead is 0.
        """
        rows, columns = self._border.rows, self._border.columns
        y, x, count, first = group.y[cells], group.x[cells], group.count[cells], group.first[cells]
        dtype = self._values.dtype
        down, right = rows.weight[:, y].astype(dtype), columns.weight[:, x].astype(dtype)
        if self.dtype.kind == "f":
            down /= rows.denominator
            right /= columns.denominator
        shape = (len(down), len(right), len(y))
        leads, highest = (buffer[: math.prod(shape)].reshape(shape) for buffer in self._values)
        wins, drawn = (buffer[: math.prod(shape)].reshape(shape) for buffer in self._bytes)
        base = group.corners[:, first].astype(dtype)
        drawn[...] = group.class_[first]
        slack = _ROUNDING * float(np.abs(group.corners).max()) if self.dtype.kind == "f" else 0.0
        highest.fill(slack)  # what a lead must exceed
        for place in range(1, int(count[0])):
            # Cells with the most candidates come first.
            n = int(np.searchsorted(-count, -place, side="left"))
            pair = first[:n] + place
            lead, highs, win = leads[..., :n], highest[..., :n], wins[..., :n]
            self._interpolate(group.corners[:, pair] - base[:, :n], down[:, :n], right[:, :n], lead)
            np.greater(lead, highs, out=win.view(np.bool_))
            if slack:
                lead += dtype.type(slack)
            np.maximum(lead, highs, out=highs)
            # Candidates come in ascending order, so the latest to win is the largest number.
            win *= group.class_[pair]
            np.maximum(drawn[..., :n], win, out=drawn[..., :n])
        pixels = rows.pixels[:, y] * self.size[1]
        labels[pixels[:, None] + columns.pixels[:, x][None]] = drawn

    def _interpolate(self, corners: np.ndarray, down: np.ndarray, right: np.ndarray, out: np.ndarray) -> None:
        """Corners (4, cells) to pixels (rows, columns, cells), integers as multiples of both denominators."""
        whole = (self._border.rows.denominator, self._border.columns.denominator)
        height, width = (1, 1) if self.dtype.kind == "f" else whole
        top_left, top_right, bottom_left, bottom_right = corners
        left = top_left * height + down * (bottom_left - top_left)
        across = top_right * height + down * (bottom_right - top_right) - left
        np.multiply(across[:, None], right, out=out)
        out += (left * width)[:, None]
