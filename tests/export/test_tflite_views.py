"""Views against numpy: what a view says of the memory is what is there."""

from __future__ import annotations

from itertools import pairwise
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segformer_edge.export.tflite_views import View, block_of, merged


def memory(array: np.ndarray, view: View) -> list[int]:
    """The elements in the order in which ``view`` stores them."""
    assert array.shape == view.shape
    return array.transpose(view.order).ravel().tolist()


@st.composite
def stored_arrays(draw) -> tuple[np.ndarray, View]:
    shape = tuple(draw(st.lists(st.sampled_from([1, 1, 2, 3, 4]), min_size=1, max_size=5)))
    order = tuple(draw(st.permutations(range(len(shape)))))
    return np.arange(prod(shape)).reshape(shape), View(shape, order)


def shapes_of(size: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes with ``size`` elements, some axes of size 1 among them."""

    @st.composite
    def make(draw) -> tuple[int, ...]:
        sides, left = [], size
        while left > 1:
            side = draw(st.sampled_from([d for d in range(2, left + 1) if left % d == 0]))
            sides.append(side)
            left //= side
        for _ in range(draw(st.integers(0 if sides else 1, 2))):
            sides.insert(draw(st.integers(0, len(sides))), 1)
        return tuple(sides)

    return make()


@given(stored_arrays(), st.data())
def test_permuting_moves_nothing(stored, data):
    array, view = stored
    dims = tuple(data.draw(st.permutations(range(array.ndim))))
    assert memory(array.transpose(dims), view.permuted(dims)) == memory(array, view)


@given(stored_arrays(), st.data())
def test_reshaping_moves_nothing_or_is_refused(stored, data):
    array, view = stored
    shape = data.draw(shapes_of(array.size))
    found = view.reshaped(shape)
    if found is not None:
        assert memory(array.reshape(shape), found) == memory(array, view)
        return
    arranged = View(view.shape, view.order_to_reshape(shape))
    found = arranged.reshaped(shape)
    assert found is not None
    assert memory(array.reshape(shape), found) == memory(array, arranged)


@given(stored_arrays(), st.data())
def test_the_smallest_transpose_brings_the_order(stored, data):
    array, view = stored
    order = tuple(data.draw(st.permutations(range(array.ndim))))
    sides, permutation = merged(view, order)
    moved = np.array(memory(array, view)).reshape(sides).transpose(permutation)
    assert moved.ravel().tolist() == memory(array, View(view.shape, order))
    assert len(sides) <= array.ndim
    # No two neighbours stay neighbours: they would have been one axis.
    assert all(b != a + 1 for a, b in pairwise(permutation))


@given(stored_arrays())
def test_a_plain_view_may_take_any_shape(stored):
    array, _ = stored
    view = View(array.shape, tuple(range(array.ndim)))
    assert view.reshaped((array.size,)) == View((array.size,), (0,))


def test_heads_of_one_need_no_transpose():
    """(1, C, H, W) in channels-last memory -> (heads, H*W, C/heads)."""
    for heads, free in ((1, True), (2, False)):
        view = View((1, 8, 3, 5), (0, 2, 3, 1)).permuted((0, 2, 3, 1)).reshaped((1, 15, heads, 8 // heads))
        view = view.permuted((0, 2, 1, 3)).reshaped((heads, 15, 8 // heads))
        assert (view.significant == tuple(axis for axis in (0, 1, 2) if view.shape[axis] > 1)) is free


def test_an_image_in_blocks_is_found():
    view = View((1, 8, 12, 3), (0, 1, 2, 3)).reshaped((1, 2, 4, 3, 12)).permuted((0, 1, 3, 2, 4))
    sides, permutation = merged(view, (0, 1, 2, 3, 4))
    assert block_of((1, 8, 12, 3), sides, permutation) == 4
    assert block_of((1, 12, 8, 3), sides, permutation) == 0  # another image of as many pixels


def test_an_order_must_fit_the_shape():
    with pytest.raises(ValueError, match="does not fit"):
        View((2, 3), (0, 2))
