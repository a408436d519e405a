"""How each data set lies on the disk: where its images are and which label file belongs to each."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from segformer_edge.data.class_tables import ClassTable, class_table, numbered_table
from segformer_edge.data.images import list_images, read_labels
from segformer_edge.data.metrics import IGNORE
from segformer_edge.data.specs import USAGES
from segformer_edge.errors import DataError
from segformer_edge.paths import user_path

#: (image file, label file)
Pair = tuple[Path, Path]


@dataclass(frozen=True)
class Layout:
    """One kind of data set. ``find`` takes the folder and the split and gives the pairs and the classes."""

    name: str
    #: Split taken when none is named; None where the layout has no splits.
    default_split: str | None
    #: Where its files are, in a few words.
    files: str
    find: Callable[[Path, str], tuple[list[Pair], ClassTable]]

    @property
    def usage(self) -> str:
        """How a user writes it."""
        return USAGES[self.name]


def _label_folder(path: Path, layout: str) -> Path:
    if not path.is_dir():
        raise DataError(
            f"There is no folder {path} of label maps.",
            hint=f"A data set '{layout}' lies as {LAYOUTS[layout].files}: docs/datasets.md.",
        )
    return path


def _by_stem(images: list[Path], folder: Path) -> list[Pair]:
    """Pair every image with the PNG (else other image) of its stem in ``folder``."""
    masks: dict[str, Path] = {}
    for path in list_images(folder):
        if path.stem not in masks or path.suffix.lower() == ".png":
            masks[path.stem] = path
    pairs = []
    for image in images:
        if image.stem not in masks:
            raise DataError(
                f"{image} has no label map.",
                hint=f"Expected {folder / (image.stem + '.png')}; add it or move the image.",
            )
        pairs.append((image, masks[image.stem]))
    return pairs


def find_camvid(root: Path, split: str) -> tuple[list[Pair], ClassTable]:
    """``root/val`` with ``root/valannot``, as in the SegNet tutorial."""
    images = list_images(root / split)
    return _by_stem(images, _label_folder(root / f"{split}annot", "camvid")), class_table("camvid")


def find_ade20k(root: Path, split: str) -> tuple[list[Pair], ClassTable]:
    """``root/images/validation`` with ``root/annotations/validation`` (SceneParse150)."""
    images = list_images(root / "images" / split)
    return _by_stem(images, _label_folder(root / "annotations" / split, "ade20k")), class_table("ade20k")


def find_cityscapes(root: Path, split: str) -> tuple[list[Pair], ClassTable]:
    """``root/leftImg8bit/val/CITY`` with ``root/gtFine/val/CITY``; train ids where every file has them, else ids."""
    folder = root / "leftImg8bit" / split
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}.", hint="Cityscapes lies as DIR/leftImg8bit/SPLIT/CITY/*.png.")
    ending = "_leftImg8bit.png"
    images = sorted(folder.glob(f"*/*{ending}"))
    if not images:
        raise DataError(f"There is no */*{ending} in {folder}.", hint="Cityscapes has one folder per city there.")
    labels = _label_folder(root / "gtFine" / split, "cityscapes")

    def label_file(image: Path, kind: str) -> Path:
        return labels / image.parent.name / (image.name.removesuffix(ending) + f"_gtFine_{kind}.png")

    train_ids = [label_file(image, "labelTrainIds") for image in images]
    if all(path.is_file() for path in train_ids):
        return list(zip(images, train_ids, strict=True)), class_table("cityscapes")
    ids = [label_file(image, "labelIds") for image in images]
    for image, path, other in zip(images, ids, train_ids, strict=True):
        if not path.is_file():
            raise DataError(f"{image} has no label map.", hint=f"Expected {other} (or {path.name}).")
    return list(zip(images, ids, strict=True)), class_table("cityscapes_ids")


def find_folder(root: Path, split: str) -> tuple[list[Pair], ClassTable]:
    """``root/images`` with ``root/masks`` of the same stems; names from ``root/classes.txt``, one a line."""
    if not (root / "images").is_dir():
        raise DataError(
            f"There is no folder {root / 'images'}.",
            hint=f"A data set 'folder' lies as {LAYOUTS['folder'].files}: docs/datasets.md.",
        )
    images = list_images(root / "images")
    pairs = _by_stem(images, _label_folder(root / "masks", "folder"))
    names_file = root / "classes.txt"
    if names_file.is_file():
        return pairs, numbered_table(_class_names(names_file))
    # No list of names: the masks say how many classes there are.
    highest = -1
    for _, mask in pairs:
        labels = read_labels(mask)
        used = labels[labels != IGNORE]
        highest = max(highest, int(used.max()) if used.size else -1)
    if highest < 0:
        raise DataError(f"The masks in {root / 'masks'} hold no class, only 255.", hint=f"List them in {names_file}.")
    return pairs, numbered_table([f"class {index}" for index in range(highest + 1)])


def _class_names(path: Path) -> list[str]:
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"Cannot read {path}: {error}.", hint="It lists class names in UTF-8, one a line.") from None
    names = [name for name in names if name]
    if not 1 <= len(names) <= IGNORE:
        raise DataError(f"{path} names {len(names)} classes; 1 to {IGNORE} fit a label map.")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path} names '{twice}' twice.")
    return names


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout("camvid", "val", "DIR/val/*.png with DIR/valannot/*.png", find_camvid),
        Layout(
            "ade20k",
            "validation",
            "DIR/images/validation/*.jpg with DIR/annotations/validation/*.png",
            find_ade20k,
        ),
        Layout(
            "cityscapes",
            "val",
            "DIR/leftImg8bit/val/CITY/*_leftImg8bit.png with DIR/gtFine/val/CITY/*_gtFine_labelTrainIds.png",
            find_cityscapes,
        ),
        Layout(
            "folder",
            None,
            "DIR/images/*.jpg with DIR/masks/*.png of the same names (class numbers, 255 to ignore)",
            find_folder,
        ),
    )
}


def check_root(root: str | os.PathLike) -> Path:
    """``root`` as a path. Raises DataError when it is no folder."""
    path = user_path(root)
    if not path.is_dir():
        what = "is a file, not a folder" if path.exists() else "does not exist"
        raise DataError(f"The data set folder {path} {what}.", hint="Check the path after the first colon.")
    return path
