"""Encodings: every quantization parameter of a model in one JSON file, which feeds every target."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from quantization.params import ActivationParams, is_scale
from quantization.sites import Mode, QuantConv2d, named_sites, named_weights, set_mode

SCHEMA_VERSION = 1

T = TypeVar("T")


class EncodingsError(ValueError):
    """An encodings file cannot be read or belongs to another model."""


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over the quantizable weights: says whether encodings belong to these weights."""
    digest = hashlib.sha256()
    for name, conv in named_weights(model):
        digest.update(name.encode())
        digest.update(conv.weight.detach().to(torch.float16).contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def encodings_of(model: nn.Module, recipe: str) -> dict[str, Any]:
    """All parameters of a calibrated ``model`` as JSON-ready data."""
    activations = {
        name: {
            "role": site.role,
            "dtype": site.dtype,
            "scale": site.params.scale,
            "zero_point": site.params.zero_point,
            **({"symmetric": True} if site.params.symmetric else {}),
        }
        for name, site in named_sites(model)
        if site.active and site.params is not None
    }
    weights = {
        name: {"role": conv.role, "dtype": conv.weight_dtype, "axis": 0, "scale": conv.scales.tolist()}
        for name, conv in named_weights(model)
        if conv.active and conv.scales is not None
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "recipe": recipe,
        "weights_fingerprint": fingerprint(model),
        "activations": activations,
        "weights": weights,
    }


def save_encodings(encodings: dict[str, Any], path: Path) -> None:
    """Write ``encodings`` under a temporary name and rename it into place."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_text(json.dumps(encodings, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_encodings(path: Path) -> dict[str, Any]:
    """Read and check an encodings file. Raises EncodingsError naming the file and the entry."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise EncodingsError(f"Cannot read the encodings '{path}': {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise EncodingsError(f"'{path}' is not an encodings file: {error}.") from error
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
        raise EncodingsError(f"'{path}' is not an encodings file of schema_version {SCHEMA_VERSION}.")
    for table in ("activations", "weights"):
        if not isinstance(content.get(table), dict):
            raise EncodingsError(f"'{path}' has no table '{table}'.")
    return content


def _scales(conv: QuantConv2d, entry: dict[str, Any]) -> Tensor:
    """The per-channel scales in ``entry``. Raises ValueError where they do not fit ``conv``."""
    if entry["dtype"] != "int8":
        raise ValueError(f"weights are int8; got {entry['dtype']!r}.")
    scales = entry["scale"]
    if not isinstance(scales, list) or len(scales) != conv.out_channels or not all(map(is_scale, scales)):
        raise ValueError(f"scale must be {conv.out_channels} positive numbers, one per output channel.")
    return torch.tensor(scales, dtype=torch.float32, device=conv.weight.device)


def _read(table: dict[str, Any], read: Callable[[str, dict[str, Any]], T]) -> dict[str, T]:
    """What ``read`` makes of every entry. Raises EncodingsError naming the entry it cannot read."""
    result = {}
    for name, entry in table.items():
        try:
            result[name] = read(name, entry)
        except KeyError as error:
            raise EncodingsError(f"The encodings' entry of '{name}' has no {error}.") from error
        except (TypeError, ValueError) as error:
            raise EncodingsError(f"The encodings' entry of '{name}' is malformed: {error}") from error
    return result


def apply_encodings(model: nn.Module, encodings: dict[str, Any]) -> None:
    """Set every site and weight of ``model`` from ``encodings`` and put it into :attr:`Mode.FAKE`.

    Raises EncodingsError when the encodings belong to other weights, or an entry is unknown or malformed; the model is
    then as it was.
    """
    if encodings.get("weights_fingerprint") != fingerprint(model):
        raise EncodingsError("The encodings were made for other weights; use the checkpoint they were saved with.")
    sites, weights = dict(named_sites(model)), dict(named_weights(model))
    for table, known in (("activations", sites), ("weights", weights)):
        unknown = sorted(set(encodings[table]) - set(known))
        if unknown:
            raise EncodingsError(f"The encodings' {table} name '{unknown[0]}', which the model does not have.")
    params = _read(
        encodings["activations"],
        lambda _, entry: ActivationParams(
            entry["dtype"], entry["scale"], entry["zero_point"], entry.get("symmetric", False)
        ),
    )
    scales = _read(encodings["weights"], lambda name, entry: _scales(weights[name], entry))
    for name, site in sites.items():
        site.params = params.get(name)
        site.dtype = "float" if site.params is None else site.params.dtype
    for name, conv in weights.items():
        conv.weight_dtype = "int8" if name in scales else "float"
        conv.set_scales(scales.get(name))
    set_mode(model, Mode.FAKE)
