"""Weights on their int8 grid: clipped scales, and rounding learned layer by layer."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quantization.params import fake_quantize_weight
from quantization.sites import Mode, QuantConv2d, named_weights, set_mode

#: AdaRound's rectified sigmoid (equation 23).
LOW, HIGH = -0.1, 1.1


@torch.no_grad()
def clip_weight_scales(model: nn.Module, steps: int = 12) -> None:
    """Shrink each output channel's scale, by at most 30 %, to the least squared error of its weights."""
    for _, conv in named_weights(model):
        if conv.scales is None:
            continue
        best, least = conv.scales, torch.full_like(conv.scales, torch.inf)
        for step in range(steps + 1):
            scales = conv.scales * (1.0 - 0.3 * step / steps)
            error = (fake_quantize_weight(conv.weight, scales) - conv.weight).square().flatten(1).sum(1)
            best, least = torch.where(error < least, scales, best), torch.minimum(error, least)
        conv.set_scales(best)


def _learn(conv: QuantConv2d, x: Tensor, target: Tensor, steps: int) -> None:
    """Choose floor or ceil of every weight for the least squared error of ``conv``'s output; sets ``conv.weight``."""
    assert conv.scales is not None
    scale = conv.scales.view(-1, 1, 1, 1)
    grid = conv.weight.detach() / scale
    floor, rest = grid.floor(), (grid - grid.floor()).clamp(0.01, 0.99)
    logits = torch.logit((rest - LOW) / (HIGH - LOW)).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.05)
    power = target.square().mean()
    for step in range(steps):
        up = (torch.sigmoid(logits) * (HIGH - LOW) + LOW).clamp(0, 1)
        some = torch.randint(len(x), (2,))
        weight = (floor + up).clamp(-127, 127) * scale
        got = F.conv2d(x[some], weight, conv.bias, conv.stride, conv.padding, groups=conv.groups)
        loss = (got - target[some]).square().mean() / power
        if step > steps // 5:
            beta = 20.0 - 18.0 * (step / steps)
            loss = loss + 0.01 * (1 - (2 * up - 1).abs() ** beta).mean() * (step / steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        conv.weight.copy_((floor + (logits > 0)).clamp(-127, 127) * scale)
        conv.set_scales(conv.scales)


def learn_rounding(model: nn.Module, batches: Iterable[Tensor], steps: int = 300) -> None:
    """AdaRound (Nagel et al., ICML 2020), each layer on its quantized input against its float output, in place.

    ``model`` is calibrated. All ``batches`` pass as one, so that a layer is done before the next one sees its output.
    """
    image = torch.cat(list(batches))
    targets: dict[QuantConv2d, Tensor] = {}
    convs = [conv for _, conv in named_weights(model) if conv.active]

    def remember(conv: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        assert isinstance(conv, QuantConv2d)
        with torch.no_grad():
            targets[conv] = F.conv2d(
                arguments[0], conv.weight, conv.bias, conv.stride, conv.padding, groups=conv.groups
            )

    def learn(conv: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        assert isinstance(conv, QuantConv2d)
        with torch.enable_grad():
            _learn(conv, arguments[0], targets.pop(conv), steps)

    torch.manual_seed(0)
    for mode, hook in ((Mode.FLOAT, remember), (Mode.FAKE, learn)):
        set_mode(model, mode)
        handles = [conv.register_forward_pre_hook(hook) for conv in convs]
        with torch.no_grad():
            model(image)
        for handle in handles:
            handle.remove()
