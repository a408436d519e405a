"""Image strips for the report: input, float32, and every file's answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from segformer_edge.data.processing import resize_image
from segformer_edge.report.html import Example
from segformer_edge.runtime.pictures import overlay, png

Image = npt.NDArray[np.uint8]
#: Longest side of a picture in the page, in pixels.
SIDE = 320


def example_strips(
    images: Sequence[Image],
    original: Callable[[Image], Image],
    files: Mapping[str, Callable[[Image], Image]],
    palette: Sequence[tuple[int, int, int]],
) -> list[Example]:
    """One strip per image: the input, the float32 model's and each file's label map drawn over it."""
    strips = []
    for index, image in enumerate(images):
        scale = min(1.0, SIDE / max(image.shape[:2]))
        small = resize_image(image, (round(image.shape[0] * scale), round(image.shape[1] * scale)))
        pictures = [("input", png(small)), ("float32", png(overlay(small, original(small), palette)))]
        pictures += [(name, png(overlay(small, file(small), palette))) for name, file in files.items()]
        strips.append(Example(f"image {index + 1}", tuple(pictures)))
    return strips
