"""Every layout built in a temporary folder, opened by its spec, and broken."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from segformer_edge.commands import COMMANDS
from segformer_edge.data.class_tables import class_table, voc_palette
from segformer_edge.data.datasets import open_dataset
from segformer_edge.data.layouts import LAYOUTS
from segformer_edge.data.specs import USAGES, dataset_specs
from segformer_edge.errors import DataError, UsageError
from segformer_edge.evaluation import check_classes

SIZE = (24, 32)


def put(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array)


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)


def labels(values, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice(list(values), SIZE).astype(np.uint8)


@pytest.fixture
def camvid(tmp_path):
    for name in ("b", "a"):
        put(tmp_path / "val" / f"{name}.jpg", image())
        put(tmp_path / "valannot" / f"{name}.png", labels(range(12)))
    return tmp_path


@pytest.fixture
def folder(tmp_path):
    for name in ("b", "a"):
        put(tmp_path / "images" / f"{name}.jpg", image())
        put(tmp_path / "masks" / f"{name}.png", labels([0, 1, 2, 255]))
    return tmp_path


def test_camvid(camvid):
    data = open_dataset(f"camvid:{camvid}:val")
    assert (len(data), data.num_classes, data.name) == (2, 11, "camvid:val")
    assert data.class_names[0] == "sky" and data.class_names[10] == "bicyclist"
    assert [sample.name for sample in data] == ["a", "b"]
    stored = labels(range(12))
    np.testing.assert_array_equal(data[0].labels, np.where(stored == 11, 255, stored))
    assert data[0].image.dtype == data[0].labels.dtype == np.uint8
    assert len(open_dataset(f"camvid:{camvid}")) == 2


def test_ade20k(tmp_path):
    stored = labels([0, 1, 2, 150])
    put(tmp_path / "images" / "validation" / "x.jpg", image())
    put(tmp_path / "annotations" / "validation" / "x.png", stored)
    put(tmp_path / "images" / "training" / "y.jpg", image())
    put(tmp_path / "annotations" / "training" / "y.png", stored)
    data = open_dataset(f"ade20k:{tmp_path}")
    assert (data.num_classes, data.class_names[0], data.class_names[149]) == (150, "wall", "flag")
    np.testing.assert_array_equal(data[0].labels, stored - 1)  # 0 wraps to 255
    assert open_dataset(f"ade20k:{tmp_path}:training")[0].name == "y"


@pytest.mark.parametrize("kind", ["labelTrainIds", "labelIds"])
def test_cityscapes(tmp_path, kind):
    stored = labels([0, 18, 255]) if kind == "labelTrainIds" else labels([0, 4, 7, 11, 33, 255])
    for city in ("ulm", "aachen"):
        put(tmp_path / "leftImg8bit" / "val" / city / f"{city}_0_leftImg8bit.png", image())
        put(tmp_path / "gtFine" / "val" / city / f"{city}_0_gtFine_{kind}.png", stored)
    data = open_dataset(f"cityscapes:{tmp_path}")
    assert (len(data), data.num_classes, data[0].name) == (2, 19, "aachen_0_leftImg8bit")
    if kind == "labelIds":
        expected = np.full(256, 255)
        expected[[7, 11, 33]] = [0, 2, 18]
        stored = expected[stored]
    np.testing.assert_array_equal(data[0].labels, stored)


def test_folder_counts_classes_or_reads_their_names(folder):
    data = open_dataset(f"folder:{folder}")
    assert data.class_names == ("class 0", "class 1", "class 2")
    (folder / "classes.txt").write_text("sky\nroad\n\ncar\ntree\n", encoding="utf-8")
    assert open_dataset(f"folder:{folder}").class_names == ("sky", "road", "car", "tree")
    assert len(set(open_dataset(f"folder:{folder}").palette)) == 4


def test_demo():
    assert len(open_dataset("demo")) == 200
    with pytest.raises(UsageError, match="no split 'test'"):
        open_dataset("demo:test")


def test_folder_with_a_colon_in_its_name(tmp_path):
    root = tmp_path / "a:b"
    put(root / "val" / "x.png", image())
    put(root / "valannot" / "x.png", labels(range(11)))
    assert len(open_dataset(f"camvid:{root}")) == 1
    assert len(open_dataset(f"camvid:{root}:val")) == 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("camvd:/x:val", "Did you mean 'camvid'"),
        ("Demo", "Did you mean 'demo'"),
        ("zzz", "Known are"),
        ("", "Known are"),
        ("camvid", "lacks its folder"),
        ("folder:", "lacks its folder"),
    ],
)
def test_bad_specs(spec, message):
    with pytest.raises(UsageError, match=message):
        open_dataset(spec)


def test_folder_given_without_its_kind(folder):
    with pytest.raises(UsageError, match=f"folder:{folder}"):
        open_dataset(str(folder))


def test_missing_folders(camvid):
    with pytest.raises(DataError, match=r"nowhere does not exist"):
        open_dataset(f"camvid:{camvid / 'nowhere'}:val")
    with pytest.raises(DataError, match=r"vall(?s:.*)Did you mean .*val"):
        open_dataset(f"camvid:{camvid}:vall")
    with pytest.raises(DataError, match="images"):
        open_dataset(f"folder:{camvid}")
    with pytest.raises(DataError, match="leftImg8bit"):
        open_dataset(f"cityscapes:{camvid}")
    with pytest.raises(DataError, match=r"is a file"):
        open_dataset(f"folder:{camvid / 'val' / 'a.jpg'}")


def test_missing_mask_names_image_and_expected_file(folder):
    (folder / "masks" / "b.png").unlink()
    with pytest.raises(DataError, match=r"b\.jpg has no label map(?s:.*)masks/b\.png"):
        open_dataset(f"folder:{folder}")


def test_size_mismatch_names_both_files(camvid):
    put(camvid / "valannot" / "a.png", np.zeros((10, 12), np.uint8))
    with pytest.raises(DataError, match=r"a\.png is 10x12, its image .*a\.jpg is 24x32"):
        open_dataset(f"camvid:{camvid}")[0]


def test_label_outside_the_classes(camvid, folder):
    bad = np.zeros(SIZE, np.uint8)
    bad[3, 5] = 77
    put(camvid / "valannot" / "a.png", bad)
    with pytest.raises(DataError, match=r"a\.png holds the label 77 at row 3, column 5"):
        open_dataset(f"camvid:{camvid}")[0]
    (folder / "classes.txt").write_text("sky\nroad\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"extend classes\.txt"):
        open_dataset(f"folder:{folder}")[0]


@pytest.mark.parametrize("text", ["", "sky\nsky\n", "\n".join(map(str, range(300)))])
def test_bad_class_list(folder, text):
    (folder / "classes.txt").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"classes\.txt"):
        open_dataset(f"folder:{folder}")


def test_masks_of_nothing_but_ignore(folder):
    for name in ("a", "b"):
        put(folder / "masks" / f"{name}.png", np.full(SIZE, 255, np.uint8))
    with pytest.raises(DataError, match="hold no class"):
        open_dataset(f"folder:{folder}")


@pytest.mark.parametrize(
    ("name", "count"), [("ade20k", 150), ("cityscapes", 19), ("cityscapes_ids", 19), ("camvid", 11)]
)
def test_class_tables_are_whole(name, count):
    table = class_table(name)
    assert len(table.names) == len(set(table.names)) == len(table.palette) == len(table.stored) == count
    assert len(set(table.palette)) == count
    assert not set(table.stored) & set(table.ignored)


def test_voc_palette():
    assert voc_palette(2) == ((128, 0, 0), (0, 128, 0))
    assert len(set(voc_palette(255))) == 255


def test_specs_for_help():
    assert "folder:DIR" in dataset_specs() and "demo" in dataset_specs()


def test_a_missing_folder_is_told_with_the_whole_layout(folder, camvid):
    shutil.rmtree(folder / "masks")
    with pytest.raises(DataError, match=r"no folder .*masks(?s:.*)DIR/images/\*.jpg with DIR/masks/\*.png"):
        open_dataset(f"folder:{folder}")
    shutil.rmtree(folder / "images")
    with pytest.raises(DataError, match=r"no folder .*images(?s:.*)DIR/masks"):
        open_dataset(f"folder:{folder}")
    shutil.rmtree(camvid / "valannot")
    with pytest.raises(DataError, match=r"no folder .*valannot(?s:.*)DIR/val/\*.png with DIR/valannot"):
        open_dataset(f"camvid:{camvid}:val")


@pytest.mark.parametrize("command", ["quantize", "evaluate", "sensitivity"])
def test_help_names_every_layout(command):
    text = " ".join(COMMANDS[command].parser().format_help().split())
    assert set(LAYOUTS) == set(USAGES)
    assert all(usage in text for usage in dataset_specs())


def test_the_page_of_layouts_has_them_all():
    page = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")
    assert all(usage in page for usage in dataset_specs())
    assert all(
        folder in page for folder in ("valannot", "annotations", "leftImg8bit", "gtFine", "masks", "classes.txt")
    )


def test_masks_of_fewer_classes_than_the_weights_are_told_of_classes_txt(folder):
    with pytest.raises(UsageError, match=r"classes\.txt"):
        check_classes("w", ("a", "b", "c", "d", "e"), open_dataset(f"folder:{folder}"))
