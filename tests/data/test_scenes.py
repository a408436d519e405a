"""Demo scenes: the same in every process, with every class, from seeds that do not mix."""

import hashlib
import itertools
import subprocess
import sys
import time

import numpy as np
import pytest

from segformer_edge.data import scenes
from segformer_edge.data.demo import DEMO_SPLITS, demo_calibration_images, demo_dataset
from segformer_edge.data.scenes import CLASS_NAMES, PALETTE, draw_scene
from segformer_edge.errors import UsageError

DIGEST = """
import hashlib
from segformer_edge.data.scenes import draw_scene
digest = hashlib.sha256()
for seed in (0, 1, 10_000, 1_000_000):
    for array in draw_scene(seed, (96, 160)):
        digest.update(array.tobytes())
print(digest.hexdigest())
"""


def test_same_scene_in_another_process():
    there = subprocess.run([sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True).stdout.strip()
    digest = hashlib.sha256()
    for seed in (0, 1, 10_000, 1_000_000):
        for array in draw_scene(seed, (96, 160)):
            digest.update(array.tobytes())
    assert digest.hexdigest() == there


def test_labels_are_pinned():
    """The bundled checkpoint was trained on these scenes: a change of theirs asks for a new one."""
    digest = hashlib.sha256(b"".join(draw_scene(seed)[1].tobytes() for seed in range(4))).hexdigest()
    assert digest == "b9ec25af592b3ca6e65af33317e3efa5b6ad33628a2a6bf8435016becf6eb763"


@pytest.mark.parametrize("size", [(256, 256), (128, 192), (320, 224), (32, 32)])
def test_shapes_and_values(size):
    for seed in range(6):
        image, labels = draw_scene(seed, size)
        assert image.shape == (*size, 3) and labels.shape == size
        assert image.dtype == labels.dtype == np.uint8
        assert labels.max() < len(CLASS_NAMES)
        assert image.std() > 10


def test_every_class_is_common_and_has_area():
    maps = np.stack([draw_scene(seed, (128, 128))[1] for seed in range(120)])
    for index, name in enumerate(CLASS_NAMES):
        inside = maps == index
        assert inside.any((1, 2)).mean() >= 0.5, name
        assert inside.mean() >= 0.02, name


def test_colour_alone_does_not_tell_the_classes():
    """The best guess from a pixel's colour (16 levels a channel), fitted on these very scenes, stays weak."""
    drawn = [draw_scene(seed, (128, 128)) for seed in range(60)]
    colours = np.concatenate([(i.reshape(-1, 3) // 16).astype(int) @ [256, 16, 1] for i, _ in drawn])
    labels = np.concatenate([m.ravel() for _, m in drawn])
    counts = np.zeros((4096, len(CLASS_NAMES)), int)
    np.add.at(counts, (colours, labels), 1)
    assert counts.max(1).sum() / counts.sum() < 0.7


def test_seed_ranges_are_disjoint():
    ranges = [getattr(scenes, name) for name in dir(scenes) if name.endswith("_SEEDS")]
    assert len(ranges) == 4
    for a, b in itertools.combinations(ranges, 2):
        assert not set(a) & set(b)
    for a, b in itertools.combinations(DEMO_SPLITS.values(), 2):
        assert not set(a) & set(b)


def test_demo_dataset_and_calibration():
    data = demo_dataset()
    assert (len(data), data.name, data.num_classes) == (200, "demo", 8)
    assert data.class_names == CLASS_NAMES and data.palette == list(PALETTE)
    first, again = data[3], data[3]
    np.testing.assert_array_equal(first.image, again.image)
    first.image[:] = 0  # the caller's to change
    np.testing.assert_array_equal(data[3].image, again.image)
    with pytest.raises(IndexError):
        data[200]
    calibration = demo_calibration_images(2, (64, 96))
    assert [image.shape for image in calibration] == [(64, 96, 3)] * 2
    for count in (0, 10_001):
        with pytest.raises(UsageError):
            demo_calibration_images(count)


def test_drawing_is_fast():
    draw_scene(0)
    started = time.process_time()
    for seed in range(20):
        draw_scene(seed)
    assert (time.process_time() - started) / 20 < 0.1
