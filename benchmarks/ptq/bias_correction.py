"""Bias correction: takes the mean error of every convolution's output out of its bias."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from quantization.sites import Mode, QuantConv2d, named_weights, set_mode

_Hook = Callable[[nn.Module, tuple[Tensor, ...]], Tensor | None]


@torch.no_grad()
def correct_biases(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Correct the bias of every active convolution of the calibrated ``model``, in place; leaves :attr:`Mode.FAKE`.

    Empirical correction (Nagel et al., ICCV 2019, section 4.2): per output channel, the mean over ``batches`` of what
    the float network computes minus what the quantized one does. All batches run as one, and each layer is corrected
    on the way, so that the layers behind it already see the corrected output. A convolution runs once in a pass.
    """
    image = torch.cat(list(batches))
    means: dict[QuantConv2d, Tensor] = {}

    def remember(conv: QuantConv2d, y: Tensor) -> None:
        means[conv] = y.mean(dim=(0, 2, 3))

    def correct(conv: QuantConv2d, y: Tensor) -> Tensor | None:
        if conv.bias is None or not conv.bias.requires_grad:  # a constant, such as a norm's epsilon
            return None
        shift = means[conv] - y.mean(dim=(0, 2, 3))
        conv.bias.add_(shift)
        return y + shift[:, None, None]

    for mode, act in ((Mode.FLOAT, remember), (Mode.FAKE, correct)):
        set_mode(model, mode)
        _run(model, image, act)


def _run(model: nn.Module, image: Tensor, act: Callable[[QuantConv2d, Tensor], Tensor | None]) -> None:
    """One pass in which ``act`` sees every active convolution's output before its site, and may replace it."""
    seen: set[QuantConv2d] = set()

    def hook(conv: QuantConv2d) -> _Hook:
        def watch(site: nn.Module, arguments: tuple[Tensor, ...]) -> Tensor | None:
            if conv in seen:  # the site again, behind a view
                return None
            seen.add(conv)
            return act(conv, arguments[0])

        return watch

    convs = [conv for _, conv in named_weights(model) if conv.active]
    handles = [conv.output.register_forward_pre_hook(hook(conv)) for conv in convs]
    try:
        model(image)
    finally:
        for handle in handles:
            handle.remove()
