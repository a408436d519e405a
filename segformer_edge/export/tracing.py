"""From a network to the program of ATen operators that every exporter starts from."""

from __future__ import annotations

from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from quantization.sites import Mode, set_mode
from segformer_edge.export.recording import Recording, record
from segformer_edge.rewrite.graph import EdgeSegFormer


def trace(module: nn.Module, example: Tensor) -> ExportedProgram:
    """``module`` for inputs of the shape of ``example``, whose values do not matter.

    No operator is given the stack trace it came from, which nothing reads here and which takes a tenth of the time.
    """
    with torch.no_grad(), patch("torch.fx.config.do_not_emit_stack_traces", True):
        return torch.export.export(module, (example,))


def trace_maps(network: EdgeSegFormer, size: tuple[int, int]) -> ExportedProgram:
    """For the image ``(1, 3, H, W)``. ``network`` is put into ``Mode.EXPORT``."""
    set_mode(network, Mode.EXPORT)
    return trace(network, torch.zeros(1, 3, *size))


def record_channels_last(network: EdgeSegFormer, size: tuple[int, int]) -> Recording:
    """For the image ``(1, H, W, 3)``, which ``network`` takes from now on. It is put into ``Mode.EXPORT``."""
    set_mode(network, Mode.EXPORT)
    return record_image(network.take_channels_last(), size)


def record_image(network: EdgeSegFormer, size: tuple[int, int]) -> Recording:
    """The same for a network that is in ``Mode.EXPORT`` and takes its image so already."""
    return record(network, torch.empty(1, *size, 3, device="meta"), "image")
