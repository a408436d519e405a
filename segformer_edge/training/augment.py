"""The paper's augmentation in NumPy and OpenCV: random resize, crop, flip, photometric distortion."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from segformer_edge.data.metrics import IGNORE
from segformer_edge.data.sample import SegmentationDataset
from segformer_edge.errors import UsageError
from segformer_edge.training.recipe import Recipe

#: Colour of the border when a resized image is smaller than the crop: ImageNet's mean, so 0 once normalised.
BORDER = (124, 116, 104)


def random_resized_crop(
    rng: np.random.Generator,
    image: np.ndarray,
    labels: np.ndarray,
    crop: tuple[int, int],
    resize: tuple[float, float],
    reference: tuple[int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Scale by a random factor, then cut ``crop`` (height, width); outside the image is ``BORDER`` and 'ignore'.

    At factor 1 the image has its own size, or ``reference`` (height, width), where its aspect ratio may change.
    """
    factor = rng.uniform(*resize)
    sides = labels.shape if reference is None else reference
    height, width = (max(1, round(side * factor)) for side in sides)
    # Cut before scaling: only the pixels that stay are interpolated.
    top = int(rng.integers(0, max(0, height - crop[0]) + 1))
    left = int(rng.integers(0, max(0, width - crop[1]) + 1))
    # Output pixel (x, y) samples input ((x + left + 0.5) / factor - 0.5): half-pixel centres.
    down, right = (own / (side * factor) for own, side in zip(labels.shape, sides, strict=True))
    affine = np.array([[right, 0, (left + 0.5) * right - 0.5], [0, down, (top + 0.5) * down - 0.5]])
    flags, cut = cv2.WARP_INVERSE_MAP, crop[::-1]
    image = cv2.warpAffine(image, affine, cut, flags=flags | cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    labels = cv2.warpAffine(
        labels,
        affine,
        cut,
        flags=flags | cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=IGNORE,
    )
    image[:, max(0, width - left) :] = BORDER
    image[max(0, height - top) :] = BORDER
    return image, labels


def distort_colours(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Photometric distortion: brightness, contrast, saturation and hue, each with probability one half."""
    gain = rng.uniform(0.5, 1.5) if rng.random() < 0.5 else 1.0
    bias = rng.uniform(-32, 32) if rng.random() < 0.5 else 0.0
    table = np.clip(np.arange(256) * gain + bias, 0, 255).astype(np.uint8)
    image = cv2.LUT(image, table)
    saturation = rng.uniform(0.5, 1.5) if rng.random() < 0.5 else 1.0
    hue = int(rng.integers(-9, 10)) if rng.random() < 0.5 else 0
    if saturation != 1.0 or hue:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        steps = np.arange(256)
        tables = np.stack([(steps + hue) % 180, np.clip(steps * saturation, 0, 255), steps], 1).astype(np.uint8)
        image = cv2.cvtColor(cv2.LUT(hsv, tables[None]), cv2.COLOR_HSV2RGB)
    return image


class TrainingSamples(Dataset):
    """The run's samples in the order they are used: number i depends only on (seed, i), so a run can resume."""

    def __init__(
        self,
        source: SegmentationDataset,
        recipe: Recipe,
        seed: int,
        first_step: int = 0,
        size: tuple[int, int] | None = None,
    ) -> None:
        self.source, self.recipe, self.seed, self.size = source, recipe, seed, size
        if size is None and any(phase.crop is None for phase in recipe.phases):
            raise UsageError(f"Recipe '{recipe.name}' names no crop; only --qat crops to the network's input size.")
        self.first = first_step * recipe.batch

    def __len__(self) -> int:
        return self.recipe.steps * self.recipe.batch - self.first

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Image uint8 (3, height, width) and labels int64 (height, width) of the crop."""
        number = self.first + index
        recipe = self.recipe
        rng = np.random.default_rng([self.seed, number])
        sample = self.source[int(rng.integers(len(self.source)))]
        phase = recipe.phase_at(number // recipe.batch)
        crop = phase.crop or self.size
        assert crop is not None
        image, labels = random_resized_crop(
            rng,
            sample.image,
            sample.labels,
            (crop, crop) if isinstance(crop, int) else crop,
            phase.resize or recipe.resize,
            self.size if phase.crop is None else None,
        )
        if rng.random() < recipe.flip:
            image, labels = image[:, ::-1], labels[:, ::-1]
        if recipe.photometric:
            image = distort_colours(rng, np.ascontiguousarray(image))
        channels_first = np.ascontiguousarray(image.transpose(2, 0, 1))
        return torch.from_numpy(channels_first), torch.from_numpy(labels.astype(np.int64))
