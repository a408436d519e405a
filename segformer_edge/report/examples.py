"""Image strips for the report: input, float32, and for every file its answer and how that differs from float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from segformer_edge.data.processing import resize_image
from segformer_edge.report.difference import changed_pixels, heat_map, probability_distance
from segformer_edge.runtime.pictures import jpeg, overlay, png

Image = npt.NDArray[np.uint8]
#: Longest side of a picture in the page, in pixels.
SIDE = 320


class Model(Protocol):
    """What ``Segmenter`` and ``TorchSegmenter`` share: uint8 RGB (H, W, 3) -> labels (H, W), or logits (C, h, w)."""

    def __call__(self, image: Image) -> Image: ...

    def logits(self, image: Image) -> npt.NDArray[np.float32]: ...


@dataclass(frozen=True)
class Picture:
    """One picture: ``caption`` is seen, ``alt`` says the same to those who do not see the picture (PNG or JPEG)."""

    caption: str
    alt: str
    content: bytes


@dataclass(frozen=True)
class Example:
    """One image: ``shared`` are the input and float32, ``targets`` each file's answer and its difference."""

    name: str
    shared: tuple[Picture, ...]
    targets: tuple[tuple[str, tuple[Picture, ...]], ...] = ()


def example_strips(
    images: Sequence[Image],
    original: Model,
    files: Mapping[str, Model],
    palette: Sequence[tuple[int, int, int]],
    labels_only: bool = False,
) -> list[Example]:
    """One strip per image. ``labels_only``: the files give no logits, so that only another class can be shown."""
    strips = []
    for index, image in enumerate(images):
        name = f"image {index + 1}"
        scale = min(1.0, SIDE / max(image.shape[:2]))
        small = resize_image(image, (round(image.shape[0] * scale), round(image.shape[1] * scale)))
        exact = original(small)
        logits = None if labels_only else original.logits(small)
        shared = (
            Picture("input", f"{name}, input", jpeg(small)),
            Picture("float32", f"{name}, classes by the float32 model", jpeg(overlay(small, exact, palette))),
        )
        targets = []
        for target, file in files.items():
            labels = file(small)
            seen = Picture(
                f"INT8, {target}", f"{name}, classes by the {target} file", jpeg(overlay(small, labels, palette))
            )
            distance = None if logits is None else probability_distance(logits, file.logits(small))
            targets.append((target, (seen, _difference(name, target, small, labels != exact, distance))))
        strips.append(Example(name, shared, tuple(targets)))
    return strips


def _difference(
    name: str, target: str, image: Image, changed: npt.NDArray[np.bool_], distance: npt.NDArray[np.float32] | None
) -> Picture:
    words = f"another class on {100 * float(changed.mean()):.2f} % of the pixels"
    if distance is None:
        picture = changed_pixels(image, changed)
    else:
        picture = heat_map(distance, changed)
        words += f"; probabilities {float(distance.mean()):.4f} apart on average, {float(distance.max()):.2f} at most"
    return Picture(f"difference: {words}", f"{name}, where {target} differs from float32: {words}", png(picture))
