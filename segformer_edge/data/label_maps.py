"""Label maps of a frame's size, written into a buffer that the caller may keep. numpy alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segformer_edge.errors import DataError


def label_buffer(size: tuple[int, int], out: npt.NDArray[np.uint8] | None) -> npt.NDArray[np.uint8]:
    """``out`` if a label map of ``size`` (H, W) can be written into it, a new array for None. Raises DataError."""
    if out is None:
        return np.empty(size, np.uint8)
    if not isinstance(out, np.ndarray) or out.shape != size or out.dtype != np.uint8 or not out.flags.c_contiguous:
        found = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise DataError(f"Labels of this frame need a contiguous uint8 array {size} as 'out'; got {found}.")
    return out


def pick_pixels(
    labels: npt.NDArray[np.uint8], rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp], out: np.ndarray
) -> npt.NDArray[np.uint8]:
    """Write ``labels[row, column]`` for each of ``rows`` (H,) and ``columns`` (W,) into ``out`` (H, W); return it."""
    # Columns first: the second step then copies whole rows. Any mode but "raise" writes into `out` directly.
    return labels.take(columns, axis=1).take(rows, axis=0, out=out, mode="clip")
