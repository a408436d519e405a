"""Layouts: how a torch tensor lies in a LiteRT tensor.

Torch's feature maps are ``(B, C, H, W)``, LiteRT's ``(B, H, W, C)``. A :class:`View` says in which order the axes of
the one are stored in the other. Permuting is then a change of the view, reshaping mostly, too, and an operator is only
needed where a reader asks for another order.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

#: Order of a feature map ``(B, C, H, W)`` in memory.
CHANNELS_LAST = (0, 2, 3, 1)


def plain(rank: int) -> tuple[int, ...]:
    """The order in which torch writes the axes."""
    return tuple(range(rank))


@dataclass(frozen=True)
class View:
    """A torch tensor of ``shape`` whose axis ``order[i]`` is the ``i``-th in memory."""

    shape: tuple[int, ...]
    order: tuple[int, ...]

    def __post_init__(self) -> None:
        if sorted(self.order) != list(range(len(self.shape))):
            raise ValueError(f"Order {self.order} does not fit the shape {self.shape}.")

    @property
    def stored(self) -> tuple[int, ...]:
        """The shape in memory."""
        return tuple(self.shape[axis] for axis in self.order)

    @property
    def significant(self) -> tuple[int, ...]:
        """The order without axes of size 1, which may stand anywhere."""
        return tuple(axis for axis in self.order if self.shape[axis] != 1)

    def permuted(self, dims: tuple[int, ...]) -> View:
        """The same memory as ``x.permute(dims)``."""
        return View(tuple(self.shape[axis] for axis in dims), tuple(dims.index(axis) for axis in self.order))

    def expanded(self, rank: int) -> View:
        """With axes of size 1 in front, as broadcasting adds them."""
        more = rank - len(self.shape)
        return View((1,) * more + self.shape, plain(more) + tuple(axis + more for axis in self.order))

    def reshaped(self, shape: tuple[int, ...]) -> View | None:
        """The same memory as ``x.reshape(shape)``; None where axes that become one are not neighbours in it."""
        place = {axis: i for i, axis in enumerate(self.significant)}
        groups = []
        for old, new in _groups(self.shape, shape):
            if [place[axis] for axis in old] != list(range(place[old[0]], place[old[0]] + len(old))):
                return None
            groups.append((place[old[0]], new))
        significant = [axis for _, new in sorted(groups) for axis in new]
        return View(shape, _with_units(significant, len(shape)))

    def order_to_reshape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """An order from which ``x.reshape(shape)`` moves nothing; what lies last in memory stays last."""
        place = {axis: i for i, axis in enumerate(self.significant)}
        groups = sorted(
            (old for old, _ in _groups(self.shape, shape)), key=lambda old: max(place[axis] for axis in old)
        )
        return _with_units([axis for old in groups for axis in old], len(self.shape))


def _groups(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """The axes of ``old`` and ``new``, without those of size 1, cut where the products of their sizes meet."""
    left = [axis for axis, side in enumerate(old) if side != 1]
    right = [axis for axis, side in enumerate(new) if side != 1]
    groups = []
    while left or right:
        a, b = [left.pop(0)], [right.pop(0)]
        while (x := prod(old[i] for i in a)) != (y := prod(new[i] for i in b)):
            if x < y:
                a.append(left.pop(0))
            else:
                b.append(right.pop(0))
        groups.append((a, b))
    return groups


def _with_units(significant: list[int], rank: int) -> tuple[int, ...]:
    """An order with the axes of size 1: at their own place if the rest is in order, else behind their neighbour."""
    if significant == sorted(significant):
        return plain(rank)
    order = list(significant)
    for axis in range(rank):
        if axis not in significant:
            order.insert(order.index(axis - 1) + 1 if axis else 0, axis)
    return tuple(order)


def merged(view: View, order: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape and permutation of the smallest transpose that brings ``view`` into ``order``."""
    source, target = view.significant, View(view.shape, order).significant
    runs: list[list[int]] = []
    for axis in target:
        if runs and source.index(axis) == source.index(runs[-1][-1]) + 1:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    in_source = sorted(runs, key=lambda run: source.index(run[0]))
    return tuple(prod(view.shape[axis] for axis in run) for run in in_source), tuple(
        in_source.index(run) for run in runs
    )


def block_of(shape: tuple[int, ...], sides: tuple[int, ...], permutation: tuple[int, ...]) -> int:
    """The block size where that transpose is a space-to-depth of an image of ``shape``; 0 where it is none."""
    if len(shape) != 4 or shape[0] != 1 or permutation != (0, 2, 1, 3):
        return 0
    rows, block, columns, run = sides
    return block if shape[1] == rows * block and shape[2] == columns * block and run == block * shape[3] else 0
