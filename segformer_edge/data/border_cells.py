"""Where a label map needs interpolated logits: cells of four samples whose best classes differ, and who can win there.

See segformer_edge/data/upsampling.py. numpy alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: Bytes of logits looked at together, and pairs of a cell and a class that are kept for drawing together.
_GATHERED, _PAIRS = 1 << 19, 1 << 13


@dataclass(frozen=True)
class PixelAxis:
    """How the samples of one axis lie among its pixels. Cells without a pixel are left out; K cells remain.

    Half-pixel centres: pixel i lies at (i + 0.5) * samples / pixels - 0.5. That is a fraction, and kept as one.
    """

    #: Each pixel's cell, (pixels,).
    cell: npt.NDArray[np.intp]
    #: The sample on either side of each cell, (K,). Beyond the outermost sample both are that one: the edge repeats.
    low: npt.NDArray[np.intp]
    high: npt.NDArray[np.intp]
    #: The pixels of each cell, (most pixels of any cell, K); cells with fewer name their last one again.
    pixels: npt.NDArray[np.intp]
    #: How far each of ``pixels`` is from the low sample to the high one, in steps of 1 / ``denominator``.
    weight: npt.NDArray[np.int64]
    denominator: int

    @classmethod
    def of(cls, samples: int, pixels: int) -> PixelAxis:
        """The axis with ``samples`` logits and ``pixels`` labels."""
        position = (2 * np.arange(pixels, dtype=np.int64) + 1) * samples - pixels
        divisor = int(np.gcd.reduce(position, initial=2 * pixels))
        denominator = 2 * pixels // divisor
        sample, weight = np.divmod(position // divisor, denominator)
        found, first, cell, count = np.unique(sample, return_index=True, return_inverse=True, return_counts=True)
        member = first + np.minimum(np.arange(count.max())[:, None], count - 1)
        # Positions need 64 bits everywhere; what indexes an array has the machine's own width, 32 bits on a small Pi.
        low, high = (np.clip(side, 0, samples - 1).astype(np.intp) for side in (found, found + 1))
        return cls(cell.reshape(-1), low, high, member, weight[member], denominator)


@dataclass(frozen=True)
class Border:
    """The cells of a label map: K rows of them and L columns, over samples whose rows are ``stride`` long."""

    rows: PixelAxis
    columns: PixelAxis
    stride: int

    @property
    def area(self) -> int:
        """Pixels of the largest cell."""
        return len(self.rows.pixels) * len(self.columns.pixels)

    def corners(self, y: npt.NDArray[np.intp], x: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Flat numbers of the four samples of cells (n,): top left, top right, bottom left, bottom right, (4, n)."""
        top, bottom = self.rows.low[y] * self.stride, self.rows.high[y] * self.stride
        left, right = self.columns.low[x], self.columns.high[x]
        return np.stack([top + left, top + right, bottom + left, bottom + right])

    def mixed(self, best: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Rows and columns of the cells whose corners are not all of one class; ``best`` is each sample's, (h, w)."""
        rows, columns = self.rows, self.columns
        across = best[:, columns.low] != best[:, columns.high]
        down = (best[rows.low] != best[rows.high])[:, columns.low]
        y, x = np.nonzero(across[rows.low] | across[rows.high] | down)
        return y, x


@dataclass(frozen=True)
class Candidates:
    """Some cells and the classes that can win in each; cells with the most candidates come first."""

    #: Each cell's row and column, number of candidates, and place of its first one among the pairs, (cells,).
    y: npt.NDArray[np.intp]
    x: npt.NDArray[np.intp]
    count: npt.NDArray[np.intp]
    first: npt.NDArray[np.intp]
    #: The pairs of a cell and a class, a cell's own in ascending order: their class (pairs,) and corners (4, pairs).
    class_: npt.NDArray[np.uint8]
    corners: np.ndarray


def first_largest(logits: np.ndarray) -> npt.NDArray[np.uint8]:
    """Each sample's best class, the first of equal ones: (C, h, w) -> (h, w). numpy's argmax is slow on this axis."""
    highest, best = logits[0].copy(), np.zeros(logits.shape[1:], np.uint8)
    wins = np.empty(best.shape, np.uint8)
    for class_ in range(1, len(logits)):
        np.greater(logits[class_], highest, out=wins.view(np.bool_))
        np.maximum(logits[class_], highest, out=highest)
        wins *= np.uint8(class_)
        np.maximum(best, wins, out=best)
    return best


def find_candidates(
    logits: np.ndarray, layout: str, best: npt.NDArray[np.uint8], border: Border
) -> Iterator[Candidates]:
    """The mixed cells, in groups of bounded memory. Logits (C, h, w), or (h, w, C) for "nhwc"; ``best`` (h, w)."""
    y, x = border.mixed(best)
    waiting: list[tuple[np.ndarray, ...]] = []
    begin = stop = 0
    for pairs in _all_winners(logits, layout, best, border, y, x):
        waiting.append(pairs)
        stop += len(pairs[0])
        if stop == len(y) or sum(len(class_) for _, class_, _ in waiting) >= _PAIRS:
            count, class_, corners = (np.concatenate(parts, axis=-1) for parts in zip(*waiting, strict=True))
            order = np.argsort(-count, kind="stable")
            first = (np.cumsum(count) - count)[order]
            yield Candidates(y[begin:stop][order], x[begin:stop][order], count[order], first, class_, corners)
            waiting.clear()
            begin = stop


def _all_winners(
    logits: np.ndarray, layout: str, best: npt.NDArray[np.uint8], border: Border, y: np.ndarray, x: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """``_winners`` of the cells ``y``, ``x``, some at a time and in order."""
    classes = logits.shape[0 if layout == "nchw" else -1]
    step = max(1, _GATHERED // (4 * classes * logits.itemsize))
    for start in range(0, len(y), step):
        samples = border.corners(y[start : start + step], x[start : start + step])
        if layout == "nchw":
            values = logits.reshape(classes, -1).take(samples, axis=1)
        else:
            values = logits.reshape(-1, classes).take(samples, axis=0).transpose(2, 0, 1)
        # A class can win somewhere only if its largest corner reaches the largest, over all classes, of the smallest.
        can_win = values.max(axis=1) >= values.min(axis=1).max(axis=0)
        # In noise nearly every class can: then fewer cells at a time.
        parts = 1 + np.count_nonzero(can_win) // _PAIRS
        size = -(-samples.shape[1] // parts)
        for cells in (slice(first, first + size) for first in range(0, samples.shape[1], size)):
            yield _winners(values[..., cells], can_win[:, cells], best.reshape(-1).take(samples[:, cells]))


def _winners(
    corners: np.ndarray, can_win: npt.NDArray[np.bool_], best: npt.NDArray[np.uint8]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pairs of a cell and a class that ``can_win`` (C, n), but for classes that another exceeds at every corner.

    For n cells with logits (C, 4, n) at their ``corners`` and their best classes (4, n). Gives each cell's number of
    pairs (n,), each pair's class (p,) and its corners (4, p).
    """
    used = np.flatnonzero(can_win.any(axis=1))
    cell, class_ = np.nonzero(can_win[used].T)
    class_ = used[class_]
    planes = corners.transpose(1, 0, 2)
    values = np.stack([plane[class_, cell] for plane in planes])
    kept = np.ones(len(cell), np.bool_)
    cells = np.arange(corners.shape[2])
    # The rivals that exceed others most often: the best classes of two opposite corners.
    for rival in (best[0], best[3]):
        exceeded = np.ones(len(cell), np.bool_)
        for plane, own in zip(planes, values, strict=True):
            exceeded &= plane[rival, cells].take(cell) > own
        kept &= ~exceeded
    return np.bincount(cell[kept], minlength=len(cells)), class_[kept].astype(np.uint8), values[:, kept]
