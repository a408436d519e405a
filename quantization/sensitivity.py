"""Which part of a calibrated network does the harm: quantize some of its sites and leave everything else in float."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from quantization.sites import Mode, QuantConv2d, Site, named_sites, named_weights


@dataclass(frozen=True)
class Part:
    """Activation sites and weights, by their paths in the model, that are switched together."""

    sites: frozenset[str] = frozenset()
    weights: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.sites or self.weights)

    def __sub__(self, other: Part) -> Part:
        """What is in this part and not in ``other``."""
        return Part(self.sites - other.sites, self.weights - other.weights)


def whole_of(model: nn.Module) -> Part:
    """Everything that the recipe quantizes in ``model``."""
    return Part(
        frozenset(name for name, site in named_sites(model) if site.active),
        frozenset(name for name, conv in named_weights(model) if conv.active),
    )


def parts_by_role(model: nn.Module) -> dict[str, Part]:
    """The quantized sites and weights of each role, in the order in which the model holds them."""
    sites: defaultdict[str, set[str]] = defaultdict(set)
    weights: defaultdict[str, set[str]] = defaultdict(set)
    for name, site in named_sites(model):
        if site.active:
            sites[site.role].add(name)
    for name, conv in named_weights(model):
        if conv.active:
            weights[conv.role].add(name)
    return {role: Part(frozenset(sites[role]), frozenset(weights[role])) for role in dict.fromkeys([*sites, *weights])}


def parts_by_module(model: nn.Module, paths: Collection[str]) -> dict[str, Part]:
    """What is quantized at or below each of ``paths``, such as ``stages.0``; a path with nothing is left out."""
    whole = whole_of(model)

    def below(names: Collection[str], path: str) -> frozenset[str]:
        return frozenset(name for name in names if name == path or name.startswith(f"{path}."))

    parts = {path: Part(below(whole.sites, path), below(whole.weights, path)) for path in paths}
    return {path: part for path, part in parts.items() if part}


@contextmanager
def quantized_only(model: nn.Module, part: Part) -> Iterator[None]:
    """Inside, ``part`` of a calibrated ``model`` is fake-quantized and everything else is float.

    Raises ValueError when ``part`` names something that the model does not quantize. Afterwards every site and weight
    is in the mode it was in.
    """
    unknown = part - whole_of(model)
    if unknown:
        raise ValueError(f"The model does not quantize {', '.join(sorted(unknown.sites | unknown.weights))}.")
    switches: list[tuple[Site | QuantConv2d, bool]] = [
        *((site, name in part.sites) for name, site in named_sites(model)),
        *((conv, name in part.weights) for name, conv in named_weights(model)),
    ]
    before = [module.mode for module, _ in switches]
    try:
        for module, chosen in switches:
            module.mode = Mode.FAKE if chosen else Mode.FLOAT
        yield
    finally:
        for (module, _), mode in zip(switches, before, strict=True):
            module.mode = mode
