"""How much of a network runs at which width."""

from __future__ import annotations

from collections import Counter

from torch import nn

from quantization.sites import named_sites, named_weights

#: Width -> role -> how many sites (or weights) of that role have that width.
Widths = dict[str, dict[str, int]]


def activation_widths(model: nn.Module) -> Widths:
    """Widths of the activation sites of ``model``; ``float`` is a site that the recipe leaves alone."""
    return _table(Counter((site.dtype, site.role) for _, site in named_sites(model)))


def weight_widths(model: nn.Module) -> Widths:
    """Widths of the quantizable weights of ``model``."""
    return _table(Counter((conv.weight_dtype, conv.role) for _, conv in named_weights(model)))


def _table(counts: Counter[tuple[str, str]]) -> Widths:
    table: Widths = {}
    for (width, role), count in counts.items():
        table.setdefault(width, {})[role] = count
    return dict(sorted(table.items(), key=lambda entry: ("int8", "int16", "float").index(entry[0])))
