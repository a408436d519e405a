"""Class colours over an image."""

from __future__ import annotations

import numpy as np

from segformer_edge.runtime.pictures import overlay


def test_an_overlay_is_the_same_on_every_machine():
    """Parts in integers: within one level of the mixture, and its ends exact."""
    rng = np.random.default_rng(7)
    image, labels = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8), rng.integers(0, 4, (40, 60), dtype=np.uint8)
    palette = rng.integers(0, 256, (4, 3), dtype=np.uint8)
    np.testing.assert_array_equal(overlay(image, labels, palette, 0.0), image)
    np.testing.assert_array_equal(overlay(image, labels, palette, 1.0), palette[labels])
    for opacity in (0.25, 0.5, 0.77):
        mixed = np.minimum(np.rint(image * (1 - opacity)) + np.rint(palette[labels] * opacity), 255)
        np.testing.assert_array_equal(overlay(image, labels, palette, opacity), mixed)
        assert np.abs(mixed - (image * (1 - opacity) + palette[labels] * opacity)).max() <= 1
