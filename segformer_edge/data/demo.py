"""The demo scenes as data sets and as calibration images, drawn in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segformer_edge.data.sample import Sample, SegmentationDataset
from segformer_edge.data.scenes import (
    CALIBRATION_SEEDS,
    CLASS_NAMES,
    DEFAULT_SIZE,
    DEVELOPMENT_SEEDS,
    PALETTE,
    TRAINING_SEEDS,
    VALIDATION_SEEDS,
    draw_scene,
)  # fmt: skip
from segformer_edge.errors import UsageError

#: Split -> its scenes. ``val`` is what figures are quoted on.
DEMO_SPLITS: dict[str, range] = {
    "val": VALIDATION_SEEDS[:200],
    "dev": DEVELOPMENT_SEEDS[:64],
    "calibration": CALIBRATION_SEEDS[:256],
    "train": TRAINING_SEEDS[:4000],
}


class DemoScenes(SegmentationDataset):
    """Scenes of the given seeds; each is drawn once and kept (256 KiB at 256x256)."""

    def __init__(self, seeds: Sequence[int], size: tuple[int, int] = DEFAULT_SIZE, name: str = "demo") -> None:
        super().__init__(name=name, class_names=CLASS_NAMES, palette=PALETTE)
        self.seeds, self.size = seeds, size
        self._drawn: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, index: int) -> Sample:
        seed = self.seeds[index]
        if seed not in self._drawn:
            self._drawn[seed] = draw_scene(seed, self.size)
        image, labels = self._drawn[seed]
        return Sample(image.copy(), labels.copy(), f"scene-{seed}")


def demo_dataset(split: str = "val", size: tuple[int, int] = DEFAULT_SIZE) -> DemoScenes:
    """Scenes of ``split`` (val, dev, calibration, train) at ``size`` = (H, W). Raises UsageError for another split."""
    if split not in DEMO_SPLITS:
        raise UsageError(f"The demo scenes have no split '{split}'.", hint=f"Choose one of: {', '.join(DEMO_SPLITS)}.")
    return DemoScenes(DEMO_SPLITS[split], size, name="demo" if split == "val" else f"demo:{split}")


def demo_calibration_images(count: int, size: tuple[int, int] = DEFAULT_SIZE) -> list[np.ndarray]:
    """``count`` scenes, uint8 RGB (H, W, 3), from seeds that neither training nor validation use.

    Raises UsageError when more are asked for than the calibration seeds hold.
    """
    if not 0 < count <= len(CALIBRATION_SEEDS):
        raise UsageError(f"There are 1 to {len(CALIBRATION_SEEDS)} calibration scenes; {count} were asked for.")
    return [draw_scene(seed, size)[0] for seed in CALIBRATION_SEEDS[:count]]
