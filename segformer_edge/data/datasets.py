"""Opens a data set by its spec, as given to ``--eval`` and ``--data``: ``camvid:DIR:val``, ``folder:DIR``, ``demo``."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segformer_edge.data.class_tables import INVALID, ClassTable
from segformer_edge.data.demo import demo_dataset
from segformer_edge.data.images import read_image, read_labels
from segformer_edge.data.layouts import LAYOUTS, Pair, check_root
from segformer_edge.data.sample import Sample, SegmentationDataset
from segformer_edge.data.specs import dataset_specs
from segformer_edge.errors import DataError, UsageError

__all__ = ["FileDataset", "Sample", "SegmentationDataset", "open_dataset"]


class FileDataset(SegmentationDataset):
    """Image and label files in pairs; read when asked for."""

    def __init__(self, name: str, pairs: Sequence[Pair], table: ClassTable) -> None:
        super().__init__(name, table.names, table.palette)
        self.pairs = list(pairs)
        self._lookup = table.lookup()

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        image_path, label_path = self.pairs[index]
        image, stored = read_image(image_path), read_labels(label_path)
        if image.shape[:2] != stored.shape:
            raise DataError(
                f"{label_path} is {stored.shape[0]}x{stored.shape[1]}, its image {image_path} is "
                f"{image.shape[0]}x{image.shape[1]} (height x width).",
                hint="A label map has its image's size; resize it with nearest neighbour.",
            )
        labels = self._lookup[stored]
        if labels.min(initial=0) == INVALID:
            row, column = np.argwhere(labels == INVALID)[0]
            raise DataError(
                f"{label_path} holds the label {stored[row, column]} at row {row}, column {column}; "
                f"{self.name} has {self.num_classes} classes.",
                hint="Use 255 for pixels to ignore." + (" Or extend classes.txt." if "folder" in self.name else ""),
            )
        return Sample(image, labels.astype(np.uint8), image_path.stem)


def open_dataset(spec: str) -> SegmentationDataset:
    """The data set that ``spec`` names: KIND:DIR or KIND:DIR:SPLIT, or ``demo``.

    Raises UsageError for an unknown kind or a spec of the wrong form, DataError (naming the path) for missing folders
    or label maps. Files are read, and their faults found, when a sample is asked for.
    """
    kind, _, rest = spec.partition(":")
    if kind == "demo":
        return demo_dataset(rest or "val")
    layout = LAYOUTS.get(kind)
    if layout is None:
        near = difflib.get_close_matches(kind.lower(), [*LAYOUTS, "demo"], n=1)
        hint = f"Did you mean '{near[0]}'? " if near else ""
        if Path(spec).is_dir():
            hint = f"For a folder with images/ and masks/ in it: folder:{spec} "
        raise UsageError(f"Unknown data set '{spec}'.", hint=f"{hint}Known are: {', '.join(dataset_specs())}.")
    if not rest:
        raise UsageError(f"The data set '{spec}' lacks its folder.", hint=f"Write it as {layout.usage}")
    root, split = _root_and_split(rest, layout.default_split)
    pairs, table = layout.find(check_root(root), split)
    name = f"{kind}:{split}" if layout.default_split else f"{kind}:{Path(root).name}"
    return FileDataset(name, pairs, table)


def _root_and_split(rest: str, default: str | None) -> tuple[str, str]:
    """``DIR:SPLIT`` in two; a folder whose own name has a colon is taken whole."""
    if default is None or Path(rest).is_dir() or ":" not in rest:
        return rest, default or ""
    root, _, split = rest.rpartition(":")
    if not split or split.startswith(("/", "\\")):  # C:\data
        return rest.removesuffix(":"), default
    return root, split
