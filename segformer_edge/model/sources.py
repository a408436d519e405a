"""From what the user named (demo, folder, file or hub id) to weights files and what is known about them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from segformer_edge.errors import CheckpointError
from segformer_edge.jsonfile import is_plain_name
from segformer_edge.model import hub
from segformer_edge.model.published import meant
from segformer_edge.model.tensor_files import read_tensors, sha256_of
from segformer_edge.paths import user_path

#: The bundled checkpoint's file.
DEMO = Path(__file__).parent.parent / "demo" / "b0_demo.safetensors"
#: Weights files that a folder in Hugging Face layout may have, in the order of preference.
FOLDER_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
UNSTATED_LICENCE = "not stated; weights that descend from NVIDIA's published SegFormer are non-commercial"


@dataclass(frozen=True)
class Source:
    """Tensors as named in the files, and what the files beside them say."""

    #: What a message should call it.
    label: str
    tensors: dict[str, Tensor]
    #: safetensors header or the ``.pth``'s "meta".
    meta: dict[str, Any]
    #: config.json, or empty.
    config: dict[str, Any]
    #: (height, width) in preprocessor_config.json.
    preprocessor_size: tuple[int, int] | None
    #: Stated licence of a hub owner or a model card, or None.
    licence: str | None
    sha256: str
    #: ``owner/name``, where it came from the hub or its cache.
    hub_id: str | None = None


def open_source(source: str | Path) -> Source:
    """Read "demo", a folder, a weights file, a hub id or the alias of one.

    Raises CheckpointError naming the file and its fault.
    """
    text = str(source)
    path = user_path(text)
    if text == "demo":
        if not DEMO.is_file():
            raise CheckpointError(
                f"The demo checkpoint '{DEMO}' is not part of this installation.",
                hint="Reinstall segformer-edge, or name your own checkpoint: --weights DIR",
            )
        return _open_file(DEMO, "demo")
    if path.is_dir():
        return _open_folder(path, text, hub.cached_id(path))
    if path.exists():
        return _open_file(path, text)
    if isinstance(source, str) and (hub_id := hub.hub_id_of(text)) is not None:
        return _open_folder(hub.fetch(hub_id), hub_id, hub_id)
    raise CheckpointError(
        f"There is no file or folder '{text}'.",
        hint=(meant(text) if not path.suffix and path.name == text else "")
        or "Give a .safetensors or .pth file, a folder in Hugging Face layout, a hub id owner/name, or 'demo'.",
    )


def _open_file(path: Path, label: str) -> Source:
    file = read_tensors(path)
    return Source(label, file.tensors, file.meta, {}, None, None, sha256_of((path,)))


def _open_folder(folder: Path, label: str, hub_id: str | None = None) -> Source:
    files = _weights_in(folder)
    tensors: dict[str, Tensor] = {}
    meta: dict[str, Any] = {}
    for path in files:
        file = read_tensors(path)
        tensors |= file.tensors
        meta |= file.meta
    config = _read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if config.get("model_type", "segformer") != "segformer":
        raise CheckpointError(f"'{folder / 'config.json'}' is of a {config['model_type']!r} model, not of a SegFormer.")
    return Source(
        label,
        tensors,
        meta,
        config,
        _preprocessor_size(folder / "preprocessor_config.json"),
        (hub.licence_of(hub_id) if hub_id else None) or _model_card_licence(folder / "README.md"),
        sha256_of(files),
        hub_id,
    )


def _weights_in(folder: Path) -> tuple[Path, ...]:
    """The weights file of ``folder``, or all shards that its index names."""
    for name in FOLDER_WEIGHTS:
        path = folder / name
        if path.is_file():
            return _shards(path) if name.endswith(".index.json") else (path,)
    found = sorted(path for path in folder.iterdir() if path.suffix in {".safetensors", ".pth", ".pt"})
    if len(found) == 1:
        return (found[0],)
    if found:
        names = ", ".join(path.name for path in found[:5])
        raise CheckpointError(
            f"The folder '{folder}' has {len(found)} weights files: {names}.", hint=f"Name one: --weights {found[0]}"
        )
    raise CheckpointError(
        f"The folder '{folder}' has no weights file.", hint=f"Looked for {', '.join(FOLDER_WEIGHTS)}, *.pth."
    )


def _shards(index: Path) -> tuple[Path, ...]:
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, Mapping) or not weight_map:
        raise CheckpointError(f"'{index}' has no weight_map.", hint="Copy or download the file again.")
    paths = []
    for name in sorted({str(value) for value in weight_map.values()}):
        # An index is data from elsewhere: it may name files beside it and nothing else.
        if not is_plain_name(name):
            raise CheckpointError(f"'{index}' names a file outside its folder: {name!r:.100}.")
        path = index.parent / name
        if not path.is_file():
            raise CheckpointError(
                f"'{index}' names '{name}', which is missing.", hint="Copy or download all shards into the folder."
            )
        paths.append(path)
    return tuple(paths)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"'{path}' cannot be read as JSON: {error}.", hint="Copy or download the file again."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"'{path}' holds a {type(content).__name__}, not an object.")
    return content


def _preprocessor_size(path: Path) -> tuple[int, int] | None:
    """(height, width) in pixels that the image processor resizes to, if the file says so."""
    if not path.is_file():
        return None
    size = _read_json(path).get("size")
    if isinstance(size, int):
        return size, size
    if isinstance(size, dict) and isinstance(size.get("height"), int) and isinstance(size.get("width"), int):
        return size["height"], size["width"]
    return None


def _model_card_licence(path: Path) -> str | None:
    """``license:`` in the front matter of a model card."""
    if not path.is_file():
        return None
    front = re.match(r"---\n(.*?)\n---", path.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    stated = re.search(r"^license(?:_name)?:\s*([\w.-]+)\s*$", front[1], re.MULTILINE) if front else None
    return stated[1] if stated and stated[1] != "other" else None
