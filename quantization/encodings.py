"""Encodings: every quantization parameter of a model in one JSON file, which feeds every target."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quantization.params import ActivationParams
from quantization.recipe import RecipeError
from quantization.sites import Mode, named_sites, named_weights, set_mode

SCHEMA_VERSION = 1


class EncodingsError(ValueError):
    """An encodings file cannot be read or belongs to another model."""


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over the quantizable weights: says whether encodings belong to these weights."""
    digest = hashlib.sha256()
    for name, conv in named_weights(model):
        digest.update(name.encode())
        digest.update(conv.weight.detach().to(torch.float16).contiguous().numpy().tobytes())
    return digest.hexdigest()


def encodings_of(model: nn.Module, recipe: str) -> dict[str, Any]:
    """All parameters of a calibrated ``model`` as JSON-ready data."""
    activations = {
        name: {"role": site.role, "dtype": site.dtype, "scale": site.params.scale, "zero_point": site.params.zero_point}
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


def apply_encodings(model: nn.Module, encodings: dict[str, Any]) -> None:
    """Set every site and weight of ``model`` from ``encodings`` and put it into :attr:`Mode.FAKE`.

    Raises EncodingsError when the encodings belong to other weights, or an entry is unknown or malformed.
    """
    if encodings.get("weights_fingerprint") != fingerprint(model):
        raise EncodingsError("The encodings were made for other weights; use the checkpoint they were saved with.")
    sites, weights = dict(named_sites(model)), dict(named_weights(model))
    for table, known in (("activations", sites), ("weights", weights)):
        unknown = sorted(set(encodings[table]) - set(known))
        if unknown:
            raise EncodingsError(f"The encodings' {table} name '{unknown[0]}', which the model does not have.")
    try:
        for name, site in sites.items():
            entry = encodings["activations"].get(name)
            site.dtype = "float" if entry is None else entry["dtype"]
            site.params = (
                None if entry is None else ActivationParams(entry["dtype"], entry["scale"], entry["zero_point"])
            )
        for name, conv in weights.items():
            entry = encodings["weights"].get(name)
            conv.weight_dtype = "float" if entry is None else entry["dtype"]
            conv.scales = None if entry is None else torch.tensor(entry["scale"], dtype=torch.float32)
            if conv.scales is not None and (conv.scales.shape != (conv.out_channels,) or not (conv.scales > 0).all()):
                raise EncodingsError(f"The encodings' scales of '{name}' are not {conv.out_channels} positive numbers.")
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, EncodingsError | RecipeError):
            raise
        raise EncodingsError(f"The encodings' entry of '{name}' is malformed: {error}.") from error
    set_mode(model, Mode.FAKE)
