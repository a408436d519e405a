"""Fetches a checkpoint from the Hugging Face hub: only when the user named one, with the licence said once."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from segformer_edge.errors import CheckpointError, MissingBackendError
from segformer_edge.model.published import ALIASES, NVIDIA_LICENCE, OWNER, PUBLISHED, meant

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


def hub_id_of(source: str) -> str | None:
    """The hub id that ``source`` is, or is the alias of; None for what can only be meant as a file."""
    if source in ALIASES:
        return ALIASES[source].hub_id
    return source if is_hub_id(source) else None


def cached_id(folder: Path) -> str | None:
    """The hub id of a snapshot in the hub's cache, ``models--OWNER--NAME/snapshots/REVISION``, else None."""
    match = re.fullmatch(r"models--(\w[\w.-]*?)--(\w[\w.-]*)", folder.absolute().parent.parent.name)
    return f"{match[1]}/{match[2]}" if match and folder.absolute().parent.name == "snapshots" else None


def fetch(hub_id: str) -> Path:
    """Folder with the checkpoint ``owner/name``, downloaded unless it is in the hub's local cache.

    Prints NVIDIA's licence once per process on stderr for an NVIDIA checkpoint. Raises CheckpointError when it cannot
    be fetched (no network, no such model, not allowed), MissingBackendError without huggingface_hub.
    """
    try:
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise MissingBackendError("huggingface_hub", "model") from error
    try:
        folder = _snapshot(hub_id)
    except LocalEntryNotFoundError as error:
        raise _not_here(hub_id) from error
    except (HfHubHTTPError, HFValidationError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CheckpointError(
            f"'{hub_id}' is no local file or folder, and the hub does not give a model of that name: {reason}",
            hint=_guess(hub_id) or "Check the spelling of the path or id; for a gated model log in with: hf auth login",
        ) from error
    except OSError as error:
        raise CheckpointError(
            f"'{hub_id}' cannot be fetched from the hub: {error}",
            hint="Check the network and the free disk space, or give a local folder: --weights DIR",
        ) from error
    _give_notice(hub_id)
    return folder


def _snapshot(hub_id: str) -> Path:
    """The folder in the cache, with weights in the first form that there is. Raises the hub's own errors."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    absent = None
    for patterns in WEIGHTS:
        try:
            folder = Path(snapshot_download(hub_id, allow_patterns=[*DESCRIPTIONS, *patterns]))
        except LocalEntryNotFoundError as error:
            absent = error  # without a network; the other form may be in the cache
            continue
        if any(match for pattern in patterns for match in folder.glob(pattern)):
            return folder
    if absent is not None:
        raise absent
    raise CheckpointError(f"The hub's model '{hub_id}' has no model.safetensors and no pytorch_model.bin.")


def _not_here(hub_id: str) -> CheckpointError:
    """The error for a model that is not in the cache while the hub is out of reach, by choice or not."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        why = f"it is not in the cache '{constants.HF_HUB_CACHE}', and HF_HUB_OFFLINE keeps it from being fetched"
        first = "Unset HF_HUB_OFFLINE"
    else:
        why, first = "the hub cannot be reached to fetch a model of that name", "Check the path or the network"
    elsewhere = f"fetch it elsewhere (hf download {hub_id} --local-dir DIR) and give the folder: --weights DIR"
    return CheckpointError(
        f"'{hub_id}' is no local file or folder; {why}.", hint=f"{_guess(hub_id)} {first}, or {elsewhere}".strip()
    )


def _guess(hub_id: str) -> str:
    """What a mistyped id of a published model was meant to be; empty for every other id."""
    return "" if hub_id in PUBLISHED else meant(hub_id)


def licence_of(hub_id: str) -> str | None:
    """The licence that an owner's checkpoints are known to be under, else None."""
    return NVIDIA_LICENCE if hub_id.split("/")[0].lower() == OWNER else None


def _give_notice(hub_id: str) -> None:
    global _notice_given
    if licence_of(hub_id) and not _notice_given:
        _notice_given = True
        print(
            f"Note: '{hub_id}' is under the {NVIDIA_LICENCE}, for research and evaluation only. "
            "So is every file made from it.",
            file=sys.stderr,
        )
