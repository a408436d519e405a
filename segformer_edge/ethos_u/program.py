"""An ExecuTorch program of one call: the network as the compiler made it, for ExecuTorch's Ethos-U backend.

The stream that the backend reads (``VelaBinStream.cpp`` of ExecuTorch 1.x) is a row of blocks, each with a name of 16
bytes, the content's length in four little-endian bytes and twelve zeros, and the content padded to 16 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from executorch.exir import EdgeCompileConfig, to_edge
from executorch.exir.backend.compile_spec_schema import CompileSpec
from executorch.exir.lowered_backend_module import LoweredBackendModule
from torch import Tensor, nn

from segformer_edge.errors import ArtifactError

BACKEND = "EthosUBackend"
_BLOCK = 16
_AXES = 6
_TORCH = {"int8": torch.int8, "int16": torch.int16, "int32": torch.int32}


def stream(raw: Mapping[str, np.ndarray], weights: bytes) -> bytes:
    """The backend's stream from the compiler's ``raw`` arrays, with ``weights`` in place of their constants.

    Raises ArtifactError where the constants have another size.
    """
    if len(weights) != raw["weight_data"].nbytes:
        raise ArtifactError(f"{len(weights)} bytes of constants in place of {raw['weight_data'].nbytes}.")
    blocks = {
        "vela_bin_stream": b"",
        "cmd_data": raw["cmd_data"].tobytes(),
        "weight_data": weights,
        "scratch_size": struct.pack("<I", int(raw["scratch_shape"][0])),
        "inputs": _tensors(raw, "input"),
        "outputs": _tensors(raw, "output"),
        "vela_end_stream": b"",
    }
    return b"".join(_block(name, content) for name, content in blocks.items())


def _block(name: str, content: bytes) -> bytes:
    head = name.encode().ljust(_BLOCK, b"\0") + struct.pack("<iiii", len(content), 0, 0, 0)
    return head + content + bytes(-len(content) % _BLOCK)


def _tensors(raw: Mapping[str, np.ndarray], kind: str) -> bytes:
    shapes = raw[f"{kind}_shape"]
    entries = [struct.pack("<i", len(shapes))]
    for shape, size, offset, region in zip(
        shapes, raw[f"{kind}_elem_size"], raw[f"{kind}_offset"], raw[f"{kind}_region"], strict=True
    ):
        if len(shape) != _AXES:
            raise ArtifactError(f"The compiler gives an {kind} of {len(shape)} axes; the backend reads {_AXES}.")
        entries.append(struct.pack("<9i", *map(int, shape), int(size), int(offset), int(region)))
    return b"".join(entries)


class _Signature(nn.Module):
    """Takes and gives tensors like the network's. It is traced for their shapes alone, and not kept."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        super().__init__()
        self.shape, self.dtype = shape, dtype

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros(self.shape, dtype=self.dtype) + x.flatten()[0].to(self.dtype)


class _Call(nn.Module):
    def __init__(self, lowered: LoweredBackendModule) -> None:
        super().__init__()
        self.lowered = lowered

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.lowered(x)
        return result


def program(
    content: bytes, taken: tuple[tuple[int, ...], str], given: tuple[tuple[int, ...], str], config: str
) -> bytes:
    """The ``.pte`` that calls the backend with the stream ``content``; ``taken``, ``given``: shape and dtype."""
    edge = EdgeCompileConfig(_check_ir_validity=False)
    example = (torch.zeros(taken[0], dtype=_TORCH[taken[1]]),)
    signature: Any = torch.export.export(_Signature(given[0], _TORCH[given[1]]).eval(), example)
    specs = [CompileSpec("compile_flags", f"--accelerator-config={config}".encode())]
    lowered = LoweredBackendModule(to_edge(signature, compile_config=edge).exported_program(), BACKEND, content, specs)
    call = torch.export.export(_Call(lowered).eval(), example)
    return bytes(to_edge(call, compile_config=edge).to_executorch().buffer)
