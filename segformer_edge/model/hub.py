"""Fetches a checkpoint from the Hugging Face hub: only when the user named one, with the licence said once."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from segformer_edge.errors import CheckpointError, MissingBackendError

NVIDIA_LICENCE = "NVIDIA Source Code License for SegFormer (non-commercial)"
#: Small files that say what the weights are, wanted beside them.
DESCRIPTIONS = ("config.json", "preprocessor_config.json", "README.md")
#: The first form that the repository has is fetched, so that no weights come twice.
WEIGHTS = (
    ("model*.safetensors", "model.safetensors.index.json"),
    ("pytorch_model*.bin", "pytorch_model.bin.index.json"),
)

_notice_given = False


def is_hub_id(source: str) -> bool:
    """Whether ``source`` reads as ``owner/name`` and cannot be meant as a file."""
    if Path(source).suffix in {".safetensors", ".pth", ".pt", ".bin", ".ckpt"}:
        return False
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source) is not None


def fetch(hub_id: str) -> Path:
    """Folder with the checkpoint ``owner/name``, downloaded unless it is in the hub's local cache.

    Prints NVIDIA's licence once per process on stderr for an NVIDIA checkpoint. Raises CheckpointError when it cannot
    be fetched (no network, no such model, not allowed), MissingBackendError without huggingface_hub.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise MissingBackendError("huggingface_hub", "model") from error
    try:
        for patterns in WEIGHTS:
            folder = Path(snapshot_download(hub_id, allow_patterns=[*DESCRIPTIONS, *patterns]))
            if any(match for pattern in patterns for match in folder.glob(pattern)):
                break
        else:
            raise CheckpointError(f"The hub's model '{hub_id}' has no model.safetensors and no pytorch_model.bin.")
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"'{hub_id}' is no local file or folder, and the hub cannot be reached to fetch a model of that name.",
            hint="Check the path or the network, or download the model elsewhere and give its folder: --weights DIR",
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CheckpointError(
            f"'{hub_id}' is no local file or folder, and the hub does not give a model of that name: {reason}",
            hint="Check the spelling of the path or id; for a gated model log in with: hf auth login",
        ) from error
    except OSError as error:
        raise CheckpointError(
            f"'{hub_id}' cannot be fetched from the hub: {error}",
            hint="Check the network and the free disk space, or give a local folder: --weights DIR",
        ) from error
    _give_notice(hub_id)
    return folder


def licence_of(hub_id: str) -> str | None:
    """The licence that an owner's checkpoints are known to be under, else None."""
    return NVIDIA_LICENCE if hub_id.split("/")[0].lower() == "nvidia" else None


def _give_notice(hub_id: str) -> None:
    global _notice_given
    if licence_of(hub_id) and not _notice_given:
        _notice_given = True
        print(
            f"Note: '{hub_id}' is under the {NVIDIA_LICENCE}, for research and evaluation only. "
            "So is every file made from it.",
            file=sys.stderr,
        )
