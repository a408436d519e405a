"""One tiny network, exported to every format the quick way, with its metadata beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from segformer_edge.data.processing import IMAGENET_MEAN, IMAGENET_STD
from segformer_edge.runtime.formats import RUNTIMES
from segformer_edge.runtime.metadata import (
    ArtifactMetadata,
    InputSpec,
    Normalisation,
    OutputSpec,
    WeightsSource,
    sha256_of,
)

SIZE = (32, 64)
CLASSES = 4


class TinyNet(torch.nn.Module):
    """A SegFormer's outside: (1, 3, H, W) -> (1, 4, H/4, W/4)."""

    def __init__(self) -> None:
        super().__init__()
        self.down = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.classify = torch.nn.Conv2d(8, CLASSES, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classify(torch.relu(self.down(x)))


def _executorch(net: torch.nn.Module, x: torch.Tensor, path: Path) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = to_edge_transform_and_lower(torch.export.export(net, (x,)), partitioner=[XnnpackPartitioner()])
    path.write_bytes(program.to_executorch().buffer)


def _tflite(net: torch.nn.Module, x: torch.Tensor, path: Path) -> None:
    from segformer_edge.export.tflite_emit import build_graph
    from segformer_edge.export.tflite_write import tflite_bytes

    program = torch.export.export(net, (x,))
    path.write_bytes(tflite_bytes(build_graph(program, image_channels_last=True, output_channels_last=True)))


def _onnx(net: torch.nn.Module, x: torch.Tensor, path: Path) -> None:
    torch.onnx.export(net, (x,), str(path), dynamo=True, external_data=False, verbose=False)


def _openvino(net: torch.nn.Module, x: torch.Tensor, path: Path) -> None:
    import openvino as ov

    model = ov.convert_model(net, example_input=x, input=[tuple(x.shape)])
    ov.save_model(model, str(path), compress_to_fp16=False)


_EXPORTERS = {"executorch": _executorch, "tflite": _tflite, "openvino": _openvino, "onnx": _onnx, "tflm": _tflite}


@pytest.fixture(scope="session")
def net() -> TinyNet:
    torch.manual_seed(0)
    return TinyNet().eval()


@pytest.fixture(scope="session")
def describe() -> Callable[..., ArtifactMetadata]:
    """``describe(path, format, **changes)``: the metadata of a tiny artifact, with the hashes of what is there."""

    def make(path: Path, form: str, **changes: object) -> ArtifactMetadata:
        names = [path.name, *(path.with_suffix(suffix).name for suffix in RUNTIMES[form].companions)]
        values: dict[str, object] = {
            "format": form,
            "file": path.name,
            "model": "b0",
            "target": form,
            "size": SIZE,
            "input": InputSpec(None, (1, 3, *SIZE), "nchw", "float32"),
            "output": OutputSpec(None, "logits", (1, CLASSES, SIZE[0] // 4, SIZE[1] // 4), "nchw", "float32"),
            "normalisation": Normalisation(IMAGENET_MEAN, IMAGENET_STD),
            "class_names": ("sky", "road", "tree", "car"),
            "palette": ((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)),
            "recipe": "cpu",
            "weights": WeightsSource("demo", None, "Apache-2.0"),
            "tools": {"torch": torch.__version__},
            "files": {name: sha256_of(path.parent / name) for name in names},
        }
        return ArtifactMetadata(**{**values, **changes})  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def artifacts(
    tmp_path_factory: pytest.TempPathFactory, net: TinyNet, describe: Callable[..., ArtifactMetadata]
) -> dict[str, Path]:
    """Format -> exported file. Read-only; copy before changing one."""
    folder = tmp_path_factory.mktemp("artifacts")
    paths = {}
    for form, export in _EXPORTERS.items():
        name = "model_tflm" if form == "tflm" else "model"  # two formats share a suffix
        path = folder / f"{name}{RUNTIMES[form].suffix}"
        export(net, torch.zeros(1, 3, *SIZE), path)
        describe(path, form).save(path)
        paths[form] = path
    return paths


@pytest.fixture
def image() -> np.ndarray:
    """Not the network's size, and no multiple of anything."""
    return np.random.default_rng(0).integers(0, 256, (45, 77, 3), dtype=np.uint8)
