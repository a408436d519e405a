"""What a killed run needs to go on: one file, replaced atomically, read without unpickling code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from segformer_edge.errors import CheckpointError

STATE_FILE = "state.pt"


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, strings) to ``folder``; a kill half-way leaves the former file."""
    partial = folder / (STATE_FILE + ".partial")
    torch.save(state, partial)
    os.replace(partial, folder / STATE_FILE)


def load_state(folder: Path) -> dict[str, Any] | None:
    """The state in ``folder``, or None when there is none. Raises CheckpointError for a damaged file."""
    path = folder / STATE_FILE
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or "step" not in state:
            raise ValueError("no step in it")
    except Exception as error:
        raise CheckpointError(
            f"{path} is not the state of a training run ({type(error).__name__}).",
            hint="Delete it to start again, or give another --out.",
        ) from None
    return state
