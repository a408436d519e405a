"""Augmentation keeps image and labels together, and depends on nothing but (seed, number)."""

import numpy as np
import pytest
import torch

from segformer_edge.data.demo import demo_dataset
from segformer_edge.training.augment import BORDER, TrainingSamples, distort_colours, random_resized_crop
from segformer_edge.training.recipe import load_recipe

LABEL_COLOURS = np.random.default_rng(9).integers(0, 256, (8, 3), np.uint8)


def painted_scene():
    """An image whose colour is its label's, so that a crop can be checked pixel by pixel."""
    labels = np.kron(np.arange(64, dtype=np.uint8).reshape(8, 8) % 8, np.ones((12, 12), np.uint8))
    return LABEL_COLOURS[labels], labels


@pytest.mark.parametrize("factors", [(0.5, 0.5), (1.0, 1.0), (2.0, 2.0), (0.4, 2.5)])
def test_crop_moves_image_and_labels_alike(factors):
    image, labels = painted_scene()
    for seed in range(10):
        cut, cut_labels = random_resized_crop(np.random.default_rng(seed), image, labels, (64, 64), factors)
        assert cut.shape == (64, 64, 3) and cut_labels.shape == (64, 64)
        inside = cut_labels != 255
        same = (cut[inside].astype(int) - LABEL_COLOURS[cut_labels[inside]]).__abs__().max(axis=1) < 3
        assert same.mean() > 0.6  # the rest are interpolated edges


def test_identity_is_exact():
    image, labels = painted_scene()
    cut, cut_labels = random_resized_crop(np.random.default_rng(0), image, labels, (96, 96), (1.0, 1.0))
    np.testing.assert_array_equal(cut, image)
    np.testing.assert_array_equal(cut_labels, labels)


def test_outside_is_border_and_ignored():
    image, labels = painted_scene()
    cut, cut_labels = random_resized_crop(np.random.default_rng(0), image, labels, (96, 96), (0.5, 0.5))
    assert (cut_labels[:, 49:] == 255).all() and (cut_labels[49:] == 255).all()
    assert (cut_labels[:47, :47] != 255).all()
    assert (cut[:, 48:] == BORDER).all()


def test_colours_change_and_stay_in_range():
    image, _ = painted_scene()
    changed = [distort_colours(np.random.default_rng(seed), image) for seed in range(12)]
    assert all(c.shape == image.shape and c.dtype == np.uint8 for c in changed)
    assert sum(not np.array_equal(c, image) for c in changed) > 6


def test_samples_do_not_depend_on_where_a_run_starts():
    recipe = load_recipe("demo", steps=10, batch=2)
    scenes = demo_dataset("train", (64, 64))
    whole = TrainingSamples(scenes, recipe, seed=5)
    rest = TrainingSamples(scenes, recipe, seed=5, first_step=3)
    assert (len(whole), len(rest)) == (20, 14)
    for a, b in zip(whole[6], rest[0], strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(whole[6][0], TrainingSamples(scenes, recipe, seed=6)[6][0])
    image, labels = whole[0]
    assert image.dtype == torch.uint8 and labels.dtype == torch.int64
    assert image.shape == (3, 96, 96) and whole[19][0].shape == (3, 192, 192)
