"""A table that turns a data set's classes into the classes to train: merged, renamed, reordered or ignored."""

from __future__ import annotations

import csv
import io
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from segformer_edge.data.metrics import IGNORE
from segformer_edge.data.sample import Sample, SegmentationDataset
from segformer_edge.errors import UsageError
from segformer_edge.suggestions import nearest

#: What a table writes for classes that are not trained.
IGNORED = "ignore"
COLUMNS = ("source", "target", "init")


@dataclass(frozen=True)
class ClassMap:
    """``targets`` says what becomes of every class of the data set, ``init`` which classifier rows are taken over."""

    #: Name or number of a class of the data set -> name of a trained class, or ``IGNORED``.
    targets: Mapping[str, str]
    #: Name of a trained class -> names or numbers of the start checkpoint's classes; of several, the mean is taken.
    init: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.class_names:
            raise UsageError("The class map trains no class: every class is ignored.")
        if all(map(str.isdecimal, self.class_names)) and len(self.class_names) != int(self.class_names[-1]) + 1:
            raise UsageError(f"The class map trains the classes {', '.join(self.class_names)}; numbers start at 0.")
        for name in self.init:
            if name not in self.class_names:
                raise UsageError(f"The class map starts '{name}' from other weights, but no class becomes '{name}'.")

    @property
    def class_names(self) -> tuple[str, ...]:
        """The trained classes in the order in which the table first names them; numbers in their own order."""
        names = dict.fromkeys(name for name in self.targets.values() if name != IGNORED)
        return tuple(sorted(names, key=int) if all(map(str.isdecimal, names)) else names)

    def apply(self, dataset: SegmentationDataset) -> SegmentationDataset:
        """``dataset`` with the trained classes. Raises UsageError where the table and its classes do not fit."""
        return MappedDataset(dataset, self)

    def lookup(self, dataset: SegmentationDataset) -> np.ndarray:
        """uint8 (256,): label of ``dataset`` -> trained class, 255 for 'ignore'. Raises UsageError."""
        table = np.full(256, IGNORE, np.uint8)
        seen: dict[int, str] = {}
        for source, target in self.targets.items():
            index = class_index(source, dataset.class_names, f"the data set '{dataset.name}'")
            if index in seen:
                raise UsageError(f"The class map names the class '{dataset.class_names[index]}' twice.")
            seen[index] = target
            if target != IGNORED:
                table[index] = self.class_names.index(target)
        missing = [name for index, name in enumerate(dataset.class_names) if index not in seen]
        if missing:
            raise UsageError(
                f"The class map says nothing of {len(missing)} classes of '{dataset.name}': {', '.join(missing[:4])}"
                f"{', ...' if len(missing) > 4 else ''}.",
                hint=f"Map each to a class or to '{IGNORED}'.",
            )
        return table

    def classifier_rows(self, names: Sequence[str]) -> dict[int, list[int]]:
        """Trained class -> those of the start checkpoint's classes, ``names``, whose classifier rows it starts from."""
        return {
            self.class_names.index(target): [class_index(name, names, "the start checkpoint") for name in sources]
            for target, sources in self.init.items()
        }


class MappedDataset(SegmentationDataset):
    """Another data set's samples with mapped labels; a trained class has the colour of the first class in it."""

    def __init__(self, source: SegmentationDataset, table: ClassMap) -> None:
        self.source, self._lookup = source, table.lookup(source)
        first = [int(np.flatnonzero(self._lookup[: source.num_classes] == i)[0]) for i in range(len(table.class_names))]
        super().__init__(source.name, table.class_names, [source.palette[i] for i in first])

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        sample = self.source[index]
        return Sample(sample.image, self._lookup[sample.labels], sample.name)


def class_index(name: str, names: Sequence[str], where: str) -> int:
    """Index of the class called ``name``, or with that number, in ``names``. Raises UsageError."""
    if name in names:
        return list(names).index(name)
    if name.isdecimal() and int(name) < len(names):
        return int(name)
    guess = nearest(name, names)
    raise UsageError(
        f"The class map names the class '{name}', which {where} does not have.",
        hint=(f"Did you mean '{guess}'? " if guess else "") + f"It has {len(names)} classes, 0 to {len(names) - 1}.",
    )


def load_class_map(path: Path) -> ClassMap:
    """Read a table: CSV with the header ``source,target`` and optionally ``init``; or TOML or JSON.

    TOML and JSON hold a table ``classes`` (source = target) and optionally ``init`` (target = class or list of classes
    of the start checkpoint). Raises UsageError naming the file and the entry.
    """
    readers: dict[str, Callable[[str], ClassMap]] = {
        ".csv": _from_csv,
        ".toml": lambda text: _from_tables(tomllib.loads(text)),
        ".json": lambda text: _from_tables(json.loads(text)),
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"The class map '{path}' is neither .csv nor .toml nor .json.")
    try:
        return reader(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"Cannot read the class map '{path}': {error.strerror or error}.") from None
    except (ValueError, RecursionError, csv.Error) as error:
        raise UsageError(f"Cannot read the class map '{path}': {error}.") from None
    except UsageError as error:
        raise UsageError(f"In '{path}': {error.args[0]}", hint=error.hint) from None


def _from_csv(text: str) -> ClassMap:
    rows = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    header = tuple(rows.fieldnames or ())
    if not {"source", "target"} <= set(header) <= set(COLUMNS):
        raise UsageError(
            f"The header is '{','.join(header)}'.", hint="It should be: source,target or source,target,init"
        )
    targets: dict[str, str] = {}
    init: dict[str, list[str]] = {}
    for row in rows:
        source, target, start = ((row.get(column) or "").strip() for column in COLUMNS)
        if not source or not target or None in row:
            raise UsageError(f"Line {rows.line_num} is not a source and a target.")
        if source in targets:
            raise UsageError(f"Line {rows.line_num} names the source '{source}' again.")
        targets[source] = target
        if start and target != IGNORED:
            init.setdefault(target, []).append(start)
    return ClassMap(targets, {name: tuple(dict.fromkeys(classes)) for name, classes in init.items()})


def _from_tables(content: Any) -> ClassMap:
    if (
        not isinstance(content, dict)
        or not isinstance(content.get("classes"), dict)
        or set(content) - {"classes", "init"}
    ):
        raise UsageError("It holds one table 'classes' (source = target) and may hold one table 'init'.")
    init = content.get("init", {})
    if not isinstance(init, dict):
        raise UsageError("'init' is a table: target = class or list of classes of the start checkpoint.")
    lists = {name: value if isinstance(value, list) else [value] for name, value in init.items()}
    for value in (*content["classes"].values(), *(entry for entries in lists.values() for entry in entries)):
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise UsageError(f"{value!r} is not the name or the number of a class.")
    return ClassMap(
        {str(source): str(target) for source, target in content["classes"].items()},
        {str(name): tuple(map(str, entries)) for name, entries in lists.items()},
    )
