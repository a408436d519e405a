"""The strips' difference pictures: what is shown where two models disagree, and where they do not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from segformer_edge.report.difference import CHANGED, heat_map, legend, probability_distance, scale_position
from segformer_edge.report.examples import SIDE, example_strips

PALETTE = ((200, 0, 0), (0, 200, 0))


def decoded(content: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]


def logits_of(probabilities: np.ndarray) -> np.ndarray:
    """Two classes, the first with the given probability: (2, h, w)."""
    p = np.clip(probabilities, 1e-9, 1 - 1e-9)
    return np.log(np.stack([p, 1 - p])).astype(np.float32)


def test_the_distance_is_the_probability_that_moves():
    reference = np.array([[0.9, 0.5, 0.0]])
    other = np.array([[0.9, 0.25, 1.0]])
    found = probability_distance(logits_of(reference), logits_of(other) + 7)  # a constant changes no probability
    assert found == pytest.approx(np.array([[0.0, 0.25, 1.0]]), abs=1e-6)
    assert probability_distance(np.full((3, 1, 1), 1e4, np.float32), np.full((3, 1, 1), -1e4, np.float32)) == 0


def test_the_heat_map_grows_brighter_with_the_distance_and_marks_other_classes():
    changed = np.zeros((4, 12), bool)
    changed[0, 0] = True
    picture = heat_map(np.array([[0.0, 0.01, 0.5]], np.float32).repeat(4, axis=0), changed)
    assert picture.shape == (4, 12, 3) and tuple(picture[0, 0]) == CHANGED
    brightness = picture[2].astype(int).sum(axis=1)
    assert brightness[0] < 20 and brightness[0] < brightness[5] < brightness[11]
    # The legend shows the same colours where it says it does.
    place = round(float(scale_position(0.5)) * 255)
    assert tuple(legend()[0, place]) == tuple(picture[2, 11])


class Halves:
    """Class 0 left of a column, class 1 right of it."""

    def __init__(self, border: int) -> None:
        self.border = border

    def __call__(self, image):
        labels = np.zeros(image.shape[:2], np.uint8)
        labels[:, self.border :] = 1
        return labels

    def logits(self, image):
        return logits_of((self(image) == 0) * 0.8 + 0.1)


class Labels(Halves):
    def logits(self, image):
        raise AssertionError("a file that gives labels was asked for logits")


def test_a_strip_has_the_input_float32_and_two_pictures_a_file():
    image = np.full((40, 100, 3), 120, np.uint8)
    (strip,) = example_strips([image], Halves(50), {"same": Halves(50), "other": Halves(60)}, PALETTE)
    assert [picture.caption for picture in strip.shared] == ["input", "float32"]
    same, other = (dict(strip.targets)[name] for name in ("same", "other"))
    assert "another class on 0.00 %" in same[1].caption and "0.0000 apart" in same[1].caption
    assert "another class on 10.00 %" in other[1].caption and "0.80 at most" in other[1].caption
    assert decoded(same[1].content).max() < 20
    assert (decoded(other[1].content)[:, 52:58] == CHANGED).all()
    assert all(picture.alt and decoded(picture.content).shape == image.shape for picture in (*strip.shared, *other))


def test_files_that_give_labels_show_which_pixels_changed():
    image = np.full((40, 100, 3), 120, np.uint8)
    (strip,) = example_strips([image], Halves(50), {"other": Labels(60)}, PALETTE, labels_only=True)
    picture = decoded(strip.targets[0][1][1].content)
    assert (picture[:, 52:58] == CHANGED).all() and len(np.unique(picture[:, :48])) == 1
    assert "apart" not in strip.targets[0][1][1].caption


def test_large_images_are_made_small():
    (strip,) = example_strips([np.zeros((900, 1600, 3), np.uint8)], Halves(9), {}, PALETTE)
    assert decoded(strip.shared[0].content).shape == (SIDE * 9 // 16, SIDE, 3)
