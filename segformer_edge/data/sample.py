"""What every data set gives: an image with its label map."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sample:
    """One labelled image: ``image`` uint8 RGB (H, W, 3), ``labels`` uint8 (H, W) with 255 for 'ignore'."""

    image: np.ndarray
    labels: np.ndarray
    name: str


class SegmentationDataset(ABC):
    """A sequence of samples with one table of classes."""

    def __init__(self, name: str, class_names: Sequence[str], palette: Sequence[Sequence[int]]) -> None:
        self.name = name
        self.class_names: tuple[str, ...] = tuple(class_names)
        #: One RGB triple (0..255) per class.
        self.palette: list[tuple[int, int, int]] = [(int(r), int(g), int(b)) for r, g, b in palette]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Sample ``index``. Raises DataError, naming the file, when the image or its labels cannot be used."""

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))
