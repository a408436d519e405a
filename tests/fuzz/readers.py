"""Every reader of a file from outside as a function of bytes. Of each, only its documented errors are expected."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import save_file

from quantization.encodings import EncodingsError, apply_encodings, load_encodings
from quantization.recipe import RecipeError, apply_recipe, load_recipe
from segformer_edge.errors import ArtifactError, CheckpointError, UsageError
from segformer_edge.model.checkpoint import load_checkpoint
from segformer_edge.model.config import SegformerConfig
from segformer_edge.model.segformer import SegFormer
from segformer_edge.runtime.formats import RUNTIMES
from segformer_edge.runtime.metadata import ArtifactMetadata
from tests.quantization.conftest import Net

CORPUS = Path(__file__).parent / "corpus"
_WEIGHTS = 1 << 16


@functools.cache
def _folder() -> Path:
    """Scratch of this process, removed at its end."""
    scratch = tempfile.TemporaryDirectory()
    _kept.append(scratch)
    return Path(scratch.name)


_kept: list[tempfile.TemporaryDirectory[str]] = []


def _written(name: str, content: bytes) -> Path:
    path = _folder() / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def read_metadata(content: bytes) -> None:
    """A sidecar, its file beside it."""
    artifact = _written("model.tflite", b"")
    _written("model.tflite.json", content)
    with suppress(ArtifactError):
        ArtifactMetadata.load(artifact, verify=False).validate()


def read_encodings(content: bytes) -> None:
    """Encodings, read and put into the network they are for."""
    with suppress(EncodingsError):
        apply_encodings(Net(), load_encodings(_written("encodings.json", content)))


def read_recipe(content: bytes) -> None:
    """A recipe, read and put into a network."""
    with suppress(RecipeError):
        apply_recipe(Net(), load_recipe(_written("recipe.toml", content)))


def read_safetensors(content: bytes) -> None:
    """A checkpoint in one file, told apart by its content."""
    _load(_written("weights.safetensors", content))


def read_pth(content: bytes) -> None:
    """A torch file: zip and pickle."""
    _load(_written("weights.pth", content))


def read_config(content: bytes) -> None:
    """config.json of a folder whose weights are in order."""
    folder = _folder() / "configured"
    if not (folder / "model.safetensors").exists():
        folder.mkdir()
        save_file(small_model().state_dict(), folder / "model.safetensors")
    _written("configured/config.json", content)
    _load(folder)


def read_shards(content: bytes) -> None:
    """The index of weights in several files, beside a file that it may name."""
    _written("sharded/model-1.safetensors", b"")
    _written("sharded/model.safetensors.index.json", content)
    _load(_folder() / "sharded")


def read_preprocessor(content: bytes) -> None:
    """preprocessor_config.json of a folder whose weights are in order."""
    read_config(json.dumps(small_config()).encode())
    path = _written("configured/preprocessor_config.json", content)
    try:
        _load(path.parent)
    finally:
        path.unlink()


def _load(source: Path) -> None:
    with suppress(CheckpointError, UsageError):
        load_checkpoint(source)


def _structure(form: str) -> Callable[[bytes], None]:
    """The check of a file's structure; OpenVINO's finds weights of 64 KiB."""

    def read(content: bytes) -> None:
        path = _written(f"file{RUNTIMES[form].suffix}", content)
        if form == "openvino" and not path.with_suffix(".bin").exists():
            path.with_suffix(".bin").write_bytes(bytes(_WEIGHTS))
        with suppress(ArtifactError):
            RUNTIMES[form].check(path)

    return read


#: Name -> the reader; each has a folder in the corpus.
READERS: dict[str, Callable[[bytes], None]] = {
    "metadata": read_metadata,
    "encodings": read_encodings,
    "recipe": read_recipe,
    "safetensors": read_safetensors,
    "pth": read_pth,
    "config": read_config,
    "shards": read_shards,
    "preprocessor": read_preprocessor,
    **{form: _structure(form) for form in ("tflite", "executorch", "openvino", "onnx")},
}
#: Those whose input is JSON.
JSON = ("metadata", "encodings", "config", "shards", "preprocessor")


def small_model() -> SegFormer:
    """A SegFormer of 4 to 8 channels, the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        widths = (4, 4, 8, 8)
        config = SegformerConfig(3, widths, (1, 1, 1, 1), (1, 1, 2, 2), mlp_ratios=(1, 1, 1, 1), decoder_dim=8)
        return SegFormer(config).eval()


def small_config() -> dict[str, object]:
    """config.json of ``small_model``."""
    return {
        "model_type": "segformer", "hidden_act": "gelu", "id2label": {"0": "sky", "1": "road", "2": "rest"},
        "hidden_sizes": [4, 4, 8, 8], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2],
        "sr_ratios": [8, 4, 2, 1], "mlp_ratios": [1, 1, 1, 1], "patch_sizes": [7, 3, 3, 3], "strides": [4, 2, 2, 2],
    }  # fmt: skip


def corpus(reader: str) -> list[Path]:
    """The inputs that are kept for ``reader``: good ones, and those that once went wrong."""
    return sorted((CORPUS / reader).iterdir())
