"""Equalisation: per-channel factors that change no function, only how evenly the channels fill a tensor's range.

A positive factor per channel may move from a tensor's writers to its readers wherever what lies between is positively
homogeneous per channel (cross-layer equalisation: Nagel et al., ICCV 2019; SmoothQuant: Xiao et al., ICML 2023). In
the deployed SegFormer that holds without a new operator for

- ``fc1``: fc1 -> depthwise; the depthwise weights have a scale per channel, so this costs nothing,
- ``query_key``: within each head, query against key,
- ``value``: value -> attention product -> attention output,
- ``stream``: a stage's residual stream -> norms, whose mean of squares takes the factor's square out -> norms' readers,
- ``reduction``, ``embedding``: convolution -> its RMS norm -> the norm's readers,
- ``feature``: the stage norm's own weight and bias -> the head's projection and the next patch embedding,
- ``head``: the head's projections -> upsampling, sum, ReLU -> classifier.

Factors are powers of two, so the float32 network keeps every bit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segformer_edge.rewrite.graph import EdgeSegFormer

KINDS = ("fc1", "query_key", "value", "stream", "reduction", "embedding", "feature", "head")


@dataclass(frozen=True)
class Group:
    """Tensors that share one factor per channel."""

    kind: str
    #: Sites whose channels the factor multiplies, and those whose channels it divides.
    sites: tuple[nn.Module, ...]
    inverse_sites: tuple[nn.Module, ...]
    #: (parameter, axis of the channel, power of the factor).
    terms: tuple[tuple[Tensor, int, int], ...]
    #: How much of the unevenness moves; the rest would go to weights that have no scale per channel of this kind.
    strength: float


def _out(*convs: nn.Module) -> list[tuple[Tensor, int, int]]:
    return [(tensor, 0, 1) for conv in convs for tensor in (conv.weight, conv.bias) if tensor is not None]


def _in(*convs: nn.Module) -> list[tuple[Tensor, int, int]]:
    return [(conv.weight, 1, -1) for conv in convs]


def groups(network: EdgeSegFormer, strength: float) -> Iterator[Group]:
    """Every group of ``network``."""
    for index, stage in enumerate(network.stages):
        embedding, final = stage.embedding, stage.norm
        yield Group(
            "embedding", (embedding.proj.output, embedding.norm.output), (),
            (*_out(embedding.proj), (embedding.norm.mean.weight, 1, -2), *_in(embedding.affine)), strength,
        )  # fmt: skip
        writers, readers, norms, sites = [embedding.affine], [], [], []
        for block in stage.blocks:
            attention, ffn = block.attention, block.ffn
            writers += [attention.proj, ffn.fc2]
            norms += [block.norm1, block.norm2]
            sites += [block.norm1.output, block.norm2.output]
            reduced = attention.reduction is not None
            readers += [attention.query, ffn.fc1]
            readers += [attention.reduction] if reduced else [attention.key, attention.value]
            if reduced:
                norm = attention.reduction_norm
                terms = (*_out(attention.reduction), (norm.mean.weight, 1, -2), *_in(attention.key, attention.value))
                yield Group("reduction", (attention.reduction.output, norm.output), (), terms, strength)
            yield Group(
                "query_key", (attention.query.output,), (attention.key.output,),
                (*_out(attention.query), *((tensor, 0, -1) for tensor, _, _ in _out(attention.key))), 0.5,
            )  # fmt: skip
            yield Group(
                "value", (attention.value.output, attention.context), (),
                (*_out(attention.value), *_in(attention.proj)), strength,
            )  # fmt: skip
            yield Group("fc1", (ffn.fc1.output,), (), (*_out(ffn.fc1), (ffn.depthwise.weight, 0, -1)), 1.0)
        terms = [*_out(*writers), *((norm.mean.weight, 1, -2) for norm in (*norms, final)), *_in(*readers)]
        yield Group("stream", tuple(sites), (), (*terms, (final.weight, 1, -1)), strength)
        readers = [network.decode_head.projections[index]]
        if index + 1 < len(network.stages):
            readers.append(network.stages[index + 1].embedding.proj)
        terms = [(final.weight, 1, 1), (final.bias, 1, 1), *_in(*readers)]
        yield Group("feature", (final.output,), (), tuple(terms), strength)
    head = network.decode_head
    terms = [*_out(*head.projections), *_in(head.classifier)]
    sites = (head.fused, *(projection.output for projection in head.projections))
    yield Group("head", sites, (), tuple(terms), strength)


@torch.no_grad()
def channel_ranges(
    network: EdgeSegFormer, batches: Iterable[Tensor], sites: Collection[nn.Module]
) -> dict[nn.Module, Tensor]:
    """Largest absolute value per channel of what passes each of ``sites`` in float."""
    ranges: dict[nn.Module, Tensor] = {}

    def hook(site: nn.Module) -> Callable[..., None]:
        def watch(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            x = arguments[0]
            # The attention product is (B, C, H, W) again where its site stands.
            largest = x.detach().abs().amax(dim=(0, 2, 3))
            ranges[site] = torch.maximum(ranges[site], largest) if site in ranges else largest

        return watch

    handles = [site.register_forward_pre_hook(hook(site)) for site in sites]
    try:
        for batch in batches:
            network(batch)
    finally:
        for handle in handles:
            handle.remove()
    return ranges


@torch.no_grad()
def equalise(
    network: EdgeSegFormer, batches: Iterable[Tensor], kinds: Collection[str], strength: float = 0.5, limit: int = 4
) -> None:
    """Apply the groups of ``kinds`` to ``network`` in place; factors are 2**-limit..2**limit."""
    chosen = [group for group in groups(network, strength) if group.kind in kinds]
    ranges = channel_ranges(network, batches, {s for g in chosen for s in (*g.sites, *g.inverse_sites)})
    for group in chosen:
        room = _room([ranges[site] for site in group.sites])
        if group.inverse_sites:
            room = room - _room([ranges[site] for site in group.inverse_sites])
        powers = (group.strength * room).round().clamp(-limit, limit)
        for tensor, axis, power in group.terms:
            shape = [1] * tensor.ndim
            shape[axis] = -1
            tensor.mul_(torch.exp2(powers * power).view(shape))


def _room(ranges: Sequence[Tensor]) -> Tensor:
    """How far below its tensor's range each channel stays, in powers of two: the least over several tensors."""
    shares = [(channel / channel.max()).clamp_min(2.0**-12) for channel in ranges]
    return -torch.stack(shares).amax(dim=0).log2()
