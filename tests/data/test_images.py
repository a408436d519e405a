"""Reading images and label maps, good and bad."""

import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from segformer_edge.data.images import list_images, read_image, read_labels
from segformer_edge.errors import DataError


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)


def test_lists_only_images_in_order(tmp_path, picture):
    for name in ("b.PNG", "a.jpg", "c.webp", ".hidden.png"):
        cv2.imwrite(str(tmp_path / name), picture)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "folder.png").mkdir()
    assert [p.name for p in list_images(tmp_path)] == ["a.jpg", "b.PNG", "c.webp"]


def test_missing_folder_suggests_the_nearest(tmp_path):
    (tmp_path / "validation").mkdir()
    with pytest.raises(DataError, match=r"validaton(?s:.*)Did you mean .*validation"):
        list_images(tmp_path / "validaton")


@pytest.mark.parametrize("make", ["empty", "file"])
def test_folder_without_images(tmp_path, make):
    target = tmp_path / "x"
    target.mkdir() if make == "empty" else target.write_text("")
    with pytest.raises(DataError, match=str(target)):
        list_images(target)


def test_png_comes_back_as_rgb(tmp_path, picture):
    cv2.imwrite(str(tmp_path / "a.png"), picture[:, :, ::-1])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), picture)


def test_grey_and_alpha_become_rgb(tmp_path, picture):
    cv2.imwrite(str(tmp_path / "grey.png"), picture[:, :, 0])
    cv2.imwrite(str(tmp_path / "alpha.png"), np.dstack([picture, picture[:, :, :1]]))
    assert read_image(tmp_path / "grey.png").shape == (40, 56, 3)
    assert read_image(tmp_path / "alpha.png").shape == (40, 56, 3)


@pytest.mark.parametrize("ending", [".jpg", ".png"])
@pytest.mark.parametrize("fault", ["text", "empty", "half", "header", "noise"])
def test_bad_files_name_the_path(tmp_path, picture, capfd, ending, fault):
    path = tmp_path / f"bad{ending}"
    whole = cv2.imencode(ending, picture)[1].tobytes()
    noise = np.random.default_rng(1).bytes(500)
    path.write_bytes(
        {"text": b"hello, not an image", "empty": b"", "half": whole[: len(whole) // 2], "header": whole[:9]}.get(
            fault, noise
        )
    )
    for read in (read_image, read_labels):
        with pytest.raises(DataError, match=f"bad{ending}"):
            read(path)
    assert capfd.readouterr().err == ""


def test_missing_file_and_folder_as_file(tmp_path):
    for path in (tmp_path / "no.png", tmp_path):
        with pytest.raises(DataError, match=str(path)):
            read_image(path)


def test_labels_keep_their_values(tmp_path):
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    cv2.imwrite(str(tmp_path / "grey.png"), labels)
    cv2.imwrite(str(tmp_path / "rgb.png"), np.dstack([labels] * 3))
    cv2.imwrite(str(tmp_path / "deep.png"), labels.astype(np.uint16))
    for name in ("grey", "rgb", "deep"):
        np.testing.assert_array_equal(read_labels(tmp_path / f"{name}.png"), labels)


def test_indexed_png_gives_indices_not_colours(tmp_path):
    labels = np.random.default_rng(0).integers(0, 21, (17, 23), np.uint8)
    indexed = Image.fromarray(labels, "P")
    indexed.putpalette(np.random.default_rng(1).integers(0, 256, 768).tolist())
    indexed.save(tmp_path / "indexed.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "indexed.png"), labels)


def test_indexed_png_with_something_behind_its_end(tmp_path):
    labels = np.random.default_rng(0).integers(0, 21, (17, 23), np.uint8)
    path = tmp_path / "indexed.png"
    indexed = Image.fromarray(labels, "P")
    indexed.putpalette(list(range(256)) * 3)
    indexed.save(path)
    path.write_bytes(path.read_bytes() + b"notes of a camera")
    np.testing.assert_array_equal(read_labels(path), labels)
    damaged = bytearray(path.read_bytes())
    damaged[16:24] = (100_000).to_bytes(4, "big") * 2  # width and height
    damaged[29:33] = zlib.crc32(damaged[12:29]).to_bytes(4, "big")
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"indexed\.png"):
        read_labels(path)


def test_coloured_or_too_large_labels_are_refused(tmp_path, picture):
    cv2.imwrite(str(tmp_path / "colour.png"), picture)
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((4, 4), 300, np.uint16))
    with pytest.raises(DataError, match=r"colour.png has 3 channels"):
        read_labels(tmp_path / "colour.png")
    with pytest.raises(DataError, match="up to 300"):
        read_labels(tmp_path / "deep.png")


def test_phone_jpeg_with_a_thumbnail_before_and_a_film_after(tmp_path, picture):
    """Both hold end markers or none where a simple search would look."""
    whole = cv2.imencode(".jpg", picture)[1].tobytes()
    thumbnail = cv2.imencode(".jpg", picture[::4, ::4])[1].tobytes()
    exif = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    path = tmp_path / "phone.jpg"
    path.write_bytes(whole[:2] + exif + whole[2:] + bytes(200_000))
    assert read_image(path).shape == picture.shape
    path.write_bytes(whole[:2] + exif + whole[2 : len(whole) // 2])
    with pytest.raises(DataError, match="no end marker"):
        read_image(path)
