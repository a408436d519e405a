"""Writes our own checkpoint format: float16 safetensors whose header says what the weights are."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from segformer_edge.errors import CheckpointError
from segformer_edge.model.config import variant_of
from segformer_edge.model.segformer import SegFormer

#: Value of the header's ``format`` and ``schema``; readers refuse any other.
FORMAT, SCHEMA = "segformer_edge", "1"


def shipped_state(model: SegFormer, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """The state dict as it is shipped: ``dtype`` on the CPU, without BatchNorm's step counters.

    Raises CheckpointError, naming the key, for a value that is not finite once rounded.
    """
    state = {}
    for key, value in model.state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        value = value.detach().to("cpu", dtype).contiguous()
        if not torch.isfinite(value).all():
            raise CheckpointError(f"'{key}' has values that are not finite in {dtype}.")
        state[key] = value
    return state


def save_checkpoint(
    model: SegFormer,
    path: str | os.PathLike,
    *,
    size: tuple[int, int],
    palette: Sequence[Sequence[int]],
    source: str,
    licence: str,
    class_names: Sequence[str] = (),
    extra: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write ``model`` to ``path`` in one atomic step.

    ``size`` is the (H, W) in pixels the weights were trained and validated for, ``palette`` one RGB triple per class,
    ``source`` how they were made; ``extra`` adds string entries to the header (``val_miou``). Class names default to
    the model's own. Raises CheckpointError for weights that do not fit ``dtype`` or a model that is no B0-B5.
    """
    names = list(class_names or model.config.class_names)
    variant = variant_of(model.config)
    if variant is None:
        raise CheckpointError("The model is none of b0 to b5, so a reader could not rebuild it.")
    if len(names) != model.config.num_classes or len(palette) != model.config.num_classes:
        raise CheckpointError(
            f"{len(names)} class names and {len(palette)} colours for {model.config.num_classes} classes."
        )
    header = {
        "format": FORMAT,
        "schema": SCHEMA,
        "model": variant,
        "size": f"{size[0]}x{size[1]}",
        "class_names": json.dumps(names),
        "palette": json.dumps([list(map(int, colour)) for colour in palette]),
        "licence": licence,
        "source": source,
        # Of weights trained on from the original authors' layout: a part of the function, so it goes with them.
        "norm_eps": repr(model.config.norm_eps),
        "embed_norm_eps": repr(model.config.embed_norm_eps),
        **(extra or {}),
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        # Not save_file: its files are readable by their owner alone, also once installed.
        partial.write_bytes(save(shipped_state(model, dtype), metadata=header))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
