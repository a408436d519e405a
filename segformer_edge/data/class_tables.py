"""Class names, colours and stored label values of the public data sets, kept as JSON in ``classes/``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from segformer_edge.data.metrics import IGNORE
from segformer_edge.errors import UsageError

#: Marks a stored value that no label map of the data set may hold.
INVALID = -1


@dataclass(frozen=True)
class ClassTable:
    """Classes of a data set and how its label files store them."""

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    #: Stored value of each class.
    stored: tuple[int, ...]
    #: Stored values that mean 'ignore'.
    ignored: tuple[int, ...] = (IGNORE,)

    def lookup(self) -> np.ndarray:
        """int16 (256,): stored value -> class index, 255 for 'ignore', ``INVALID`` for anything else."""
        table = np.full(256, INVALID, np.int16)
        table[list(self.ignored)] = IGNORE
        table[list(self.stored)] = np.arange(len(self.stored))
        return table


@cache
def class_table(name: str) -> ClassTable:
    """The table in ``classes/<name>.json``: ade20k, camvid, cityscapes, cityscapes_ids. Raises UsageError."""
    path = files("segformer_edge.data") / "classes" / f"{name}.json"
    if not path.is_file():
        raise UsageError(f"There is no class table '{name}'.")
    values = json.loads(path.read_text(encoding="utf-8"))
    classes = values["classes"]
    return ClassTable(
        names=tuple(entry["name"] for entry in classes),
        palette=tuple(tuple(entry["colour"]) for entry in classes),
        stored=tuple(values["labels"]),
        ignored=tuple(values["ignored"]),
    )


def numbered_table(names: Sequence[str]) -> ClassTable:
    """Classes stored as 0, 1, 2, ... with 255 for 'ignore' and colours by the PASCAL VOC rule."""
    return ClassTable(tuple(names), voc_palette(len(names)), tuple(range(len(names))))


def voc_palette(count: int) -> tuple[tuple[int, int, int], ...]:
    """``count`` distinct RGB colours: the bits of the class number, from 1, dealt out to the three channels."""
    colours = []
    for number in range(1, count + 1):
        colour = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                colour[channel] |= ((number >> (3 * bit + channel)) & 1) << (7 - bit)
        colours.append((colour[0], colour[1], colour[2]))
    return tuple(colours)
