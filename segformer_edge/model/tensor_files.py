"""Reads the tensors of one weights file, safetensors or ``.pth``, and never runs code that is in it."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segformer_edge.errors import CheckpointError

#: A safetensors header longer than this is no header (the format's own limit).
MAX_HEADER = 100_000_000
#: Keys under which training code nests the state dict.
NESTS = ("state_dict", "model_state_dict", "model")


@dataclass(frozen=True)
class TensorFile:
    """Tensors by their names in the file; ``meta`` is a safetensors header's strings or a ``.pth``'s "meta"."""

    path: Path
    tensors: dict[str, Tensor]
    meta: dict[str, Any]


def read_tensors(path: Path) -> TensorFile:
    """Read a safetensors or torch file, told apart by content. Raises CheckpointError naming the file."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise CheckpointError(f"'{path}' cannot be read: {error.strerror}.") from error
    if not start:
        raise CheckpointError(f"'{path}' is empty.", hint="Copy or download the file again.")
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"'{path}' is a Git LFS pointer, not the weights.", hint="Fetch them with: git lfs pull")
    if start.startswith((b"PK\x03\x04", b"\x80")) and start[8:9] != b"{":
        return _read_torch(path)
    if start[8:9] == b"{":
        return _read_safetensors(path)
    raise CheckpointError(
        f"'{path}' is not a checkpoint: it begins with {start[:16]!r}.",
        hint="Give a .safetensors or .pth file, a folder in Hugging Face layout, a hub id owner/name, or 'demo'.",
    )


def sha256_of(paths: tuple[Path, ...]) -> str:
    """SHA-256 of a file; of several, that of the lines ``<sha256>  <name>`` in the order of names."""
    digests = {}
    for path in paths:
        with path.open("rb") as file:
            digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    if len(digests) == 1:
        return next(iter(digests.values()))
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _check_safetensors_size(path: Path) -> None:
    """Compare what the header promises with the file's size, so that a cut file is called just that."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER:
            raise CheckpointError(f"'{path}' is not a safetensors file: its header would be {length} bytes long.")
        if 8 + length > size:
            raise CheckpointError(
                f"'{path}' is truncated: its header is {length} bytes long and the file has {size}.",
                hint="Copy or download the file again.",
            )
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            promised = 8 + length + max(ends, default=0)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
            raise CheckpointError(
                f"'{path}' is damaged: its safetensors header cannot be parsed.",
                hint="Copy or download the file again.",
            ) from error
    if promised != size:
        what = "truncated" if size < promised else "damaged"
        raise CheckpointError(
            f"'{path}' is {what}: its header promises {promised} bytes and the file has {size}.",
            hint="Copy or download the file again.",
        )


def _read_safetensors(path: Path) -> TensorFile:
    from safetensors import SafetensorError, safe_open

    _check_safetensors_size(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
            meta = dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"'{path}' is damaged: {error}.", hint="Copy or download the file again.") from error
    return TensorFile(path, tensors, meta)


def _read_torch(path: Path) -> TensorFile:
    try:
        # Opened here: given a path, torch chooses the reader by the name's ending.
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols and TorchScript; the error below says it
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        names = re.findall(r"GLOBAL ([\w.]+)", str(error))
        raise CheckpointError(
            f"'{path}' was refused: its pickle holds more than tensors"
            + (f" ({names[0]})" if names else "")
            + ", and loading it could run code.",
            hint="If you trust it, convert it on a machine of its own: "
            'torch.save(torch.load(FILE, weights_only=False)["state_dict"], "clean.pth")',
        ) from error
    except Exception as error:  # a damaged pickle can raise anything
        if "TorchScript" in str(error):
            raise CheckpointError(
                f"'{path}' is a TorchScript program, not a state dict.", hint="Save model.state_dict() in its place."
            ) from error
        raise CheckpointError(
            f"'{path}' is damaged or truncated: torch cannot read it.", hint="Copy or download the file again."
        ) from error
    state, meta = _state_dict(content)
    if not state:
        raise CheckpointError(
            f"'{path}' holds no tensors by name, but a {type(content).__name__}.",
            hint="Save model.state_dict() in its place.",
        )
    return TensorFile(path, state, meta)


def _state_dict(content: object) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state dict inside ``content``, free of wrappers' prefixes, and the "meta" beside it."""
    meta: dict[str, Any] = {}
    if isinstance(content, Mapping) and isinstance(content.get("meta"), Mapping):
        meta = dict(content["meta"])
    for nest in NESTS:
        if isinstance(content, Mapping) and isinstance(content.get(nest), Mapping):
            content = content[nest]
            break
    if not isinstance(content, Mapping):
        return {}, meta
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    for prefix in ("_orig_mod.", "module."):
        if tensors and all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors, meta
