"""Loads a SegFormer checkpoint from any layout in the wild, and checks it key by key before it is trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from segformer_edge.errors import CheckpointError, UsageError
from segformer_edge.model.config import VARIANTS, SegformerConfig, variant_of
from segformer_edge.model.description import Description, describe, generic_names
from segformer_edge.model.inference import infer_config
from segformer_edge.model.initialise import initialise
from segformer_edge.model.keymaps import Layout, detect_layout, name_in_file, to_our_names
from segformer_edge.model.segformer import SegFormer
from segformer_edge.model.sources import Source, open_source
from segformer_edge.suggestions import did_you_mean

#: Input size (height, width) of a checkpoint that does not name its own.
DEFAULT_SIZE = (512, 512)
#: How many keys a message lists.
SHOWN = 4


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A model with its weights, and where they came from."""

    #: In eval mode, float32, on the CPU.
    model: SegFormer
    config: SegformerConfig
    class_names: tuple[str, ...]
    #: One RGB triple per class, if the checkpoint says.
    palette: tuple[tuple[int, int, int], ...] | None
    #: (height, width) in pixels that the weights were trained for, if the checkpoint says.
    native_size: tuple[int, int] | None
    #: What the user named.
    source: str
    #: Of the weights file; of several shards, of the list of their sums.
    sha256: str
    licence: str
    #: Which naming the file had.
    layout: str

    @property
    def variant(self) -> str | None:
        """ "b0" to "b5", or None for other widths and depths."""
        return variant_of(self.config)

    @property
    def default_size(self) -> tuple[int, int]:
        """(height, width) to run at when the user names none: what it was trained for, or 512x512."""
        return self.native_size or DEFAULT_SIZE


def load_checkpoint(
    source: str | Path, *, num_classes: int | None = None, variant: str | None = None
) -> LoadedCheckpoint:
    """Load ``source`` for inference: every weight must be there, finite and of the right shape.

    ``source`` is "demo", a folder in Hugging Face layout (names of transformers 4.x or 5.x, sharded or not), a
    safetensors file of this project, the original authors' ``.pth``, or a hub id ``owner/name``. The architecture is
    read from the tensors' shapes; ``num_classes`` and ``variant`` (b0 to b5), if given, must agree with them.

    Raises CheckpointError naming the file and the first wrong keys: missing, unexpected, misshapen, not finite.
    """
    opened, layout, tensors = _open(source)
    if not any(key.startswith("decode_head.") for key in tensors):
        raise CheckpointError(
            f"'{opened.label}' is an encoder alone, as trained on ImageNet: it has no decode head.",
            hint="Train it first: python -m segformer_edge.train --init FILE; or name a segmentation checkpoint.",
        )
    description = describe(opened)
    config = _config(opened, layout, tensors, description, variant)
    if num_classes is not None and num_classes != config.num_classes:
        raise CheckpointError(
            f"'{opened.label}' has {config.num_classes} classes "
            f"('{name_in_file('decode_head.classifier.weight', layout)}'), not {num_classes}.",
            hint=f"Use a data set of {config.num_classes} classes, or fine-tune from these weights: --init",
        )
    return _build(opened, layout, tensors, config, description)


def load_for_training(
    source: str | Path,
    *,
    num_classes: int,
    class_names: tuple[str, ...] = (),
    variant: str | None = None,
    classifier_rows: Callable[[tuple[str, ...]], Mapping[int, Sequence[int]]] | None = None,
) -> LoadedCheckpoint:
    """Load ``source`` to be trained further, on a data set with ``num_classes`` classes.

    An ImageNet encoder gets a new decode head, and a classifier for another number of classes is replaced by a new one;
    new weights are drawn as for training from nothing, from torch's global random state. Everything else is checked as
    by ``load_checkpoint``, with the same errors. ``class_names``, if given, replace the file's names and palette.

    ``classifier_rows`` makes of the file's class names a table: new class -> the file's classes whose rows of the
    classifier it starts from (their mean); the other rows are new. Raises CheckpointError where there are no rows.
    """
    opened, layout, tensors = _open(source)
    description = describe(opened)
    has_head = any(key.startswith("decode_head.") for key in tensors)
    config = _config(opened, layout, tensors, description, variant, None if has_head else num_classes)
    same = has_head and config.num_classes == num_classes and classifier_rows is None
    rows: Mapping[int, Sequence[int]] = {}
    if classifier_rows is not None:
        if not has_head:
            raise CheckpointError(f"'{opened.label}' is an encoder alone; there is no classifier to take rows from.")
        rows = classifier_rows(config.class_names)
    if not same or class_names:
        class_names = class_names or generic_names(num_classes)
        config = replace(config, num_classes=num_classes, class_names=class_names)
        if class_names != description.class_names:
            description = replace(description, class_names=class_names, palette=None)
    if same:
        return _build(opened, layout, tensors, config, description)
    new = "decode_head.classifier." if has_head else "decode_head."
    kept = {key: value for key, value in tensors.items() if not key.startswith(new)}
    model = SegFormer(config)
    initialise(model)
    fresh = {
        key: value
        for key, value in model.state_dict().items()
        if key.startswith(new) and not key.endswith("num_batches_tracked")
    }
    for leaf in ("weight", "bias"):
        key = f"decode_head.classifier.{leaf}"
        for row, sources in rows.items():
            fresh[key][row] = tensors[key].float()[list(sources)].mean(dim=0)
    return _build(opened, layout, kept | fresh, config, description)


def _open(source: str | Path) -> tuple[Source, Layout, dict[str, Tensor]]:
    """Read the source and give its tensors our names. Raises CheckpointError for a file that is not a SegFormer's."""
    opened = open_source(source)
    layout = detect_layout(opened.tensors)
    if layout is None:
        raise CheckpointError(
            f"'{opened.label}' is not a SegFormer checkpoint: its keys are {_listed(opened.tensors)}.",
            hint="Known are the names of transformers 4.x and 5.x, of the original authors' code, and of this project.",
        )
    tensors, unexpected = to_our_names(opened.tensors, layout)
    if unexpected:
        raise CheckpointError(
            f"'{opened.label}' has {len(unexpected)} keys that SegFormer does not have: {_listed(unexpected)}.",
            hint=f"It was read as {layout.name}; take these keys out, or name another checkpoint.",
        )
    return opened, layout, tensors


def _config(
    opened: Source,
    layout: Layout,
    tensors: dict[str, Tensor],
    description: Description,
    variant: str | None,
    num_classes: int | None = None,
) -> SegformerConfig:
    """Config of the tensors, which ``variant`` must agree with. ``num_classes`` is for tensors without a head."""
    config = infer_config(opened, layout, tensors, description, num_classes)
    found = variant_of(config)
    if variant is not None and found != variant:
        if variant not in VARIANTS:
            raise UsageError(f"Unknown SegFormer variant '{variant}'.", hint=did_you_mean(variant, VARIANTS))
        raise CheckpointError(
            f"'{opened.label}' is {found or 'none of b0 to b5'} (widths {config.embed_dims}, "
            f"depths {config.depths}), not {variant}.",
            hint=f"Give --model {found}, or another checkpoint." if found else "Name another checkpoint.",
        )
    return config


def _build(
    opened: Source, layout: Layout, tensors: dict[str, Tensor], config: SegformerConfig, description: Description
) -> LoadedCheckpoint:
    """Model with ``tensors`` in it. Raises CheckpointError for the first kind of fault that they have."""
    with torch.random.fork_rng(devices=[]):  # loading leaves the caller's random state alone
        model = SegFormer(config)
    wanted = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}

    def fault(keys: Iterable[str], what: str, hint: str) -> None:
        # The original's joint key/value projection is two keys of ours.
        names = list(dict.fromkeys(name_in_file(key, layout) for key in keys))
        if names:
            raise CheckpointError(
                f"'{opened.label}' {what.format(n=len(names), s='' if len(names) == 1 else 's')}: {_listed(names)}.",
                hint=hint,
            )

    again = "Save or download the checkpoint again."
    fault((key for key in wanted if key not in tensors), "lacks {n} key{s}", f"It was read as {layout.name}. {again}")
    fault((key for key in tensors if key not in wanted), "has {n} key{s} too many", again)
    _check_shapes(opened, layout, tensors, wanted)
    fault(
        (k for k, v in tensors.items() if not v.is_floating_point()),
        "has {n} key{s} that are not floating point",
        again,
    )
    fault(
        (k for k, v in tensors.items() if not torch.isfinite(v.float()).all()),
        "has NaN or infinite values in {n} key{s}",
        "The training run has diverged or the file is damaged; take an earlier checkpoint.",
    )
    fault(
        (k for k, v in tensors.items() if k.endswith("running_var") and (v < 0).any()),
        "has a negative variance in {n} key{s}",
        again,
    )
    state = {key: value.to(torch.float32) for key, value in tensors.items()}
    model.load_state_dict(model.state_dict() | state)
    return LoadedCheckpoint(
        model=model.eval(),
        config=config,
        class_names=config.class_names,
        palette=description.palette,
        native_size=description.native_size,
        source=opened.label,
        sha256=opened.sha256,
        licence=description.licence,
        layout=layout.name,
    )


def _check_shapes(opened: Source, layout: Layout, tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    wrong = [key for key, value in wanted.items() if tensors[key].shape != value.shape]
    if wrong:
        listed = ", ".join(
            f"'{name_in_file(key, layout)}' is {tuple(tensors[key].shape)} and should be {tuple(wanted[key].shape)}"
            for key in wrong[:SHOWN]
        )
        raise CheckpointError(
            f"'{opened.label}' has {len(wrong)} tensor{'' if len(wrong) == 1 else 's'} of the wrong shape: {listed}.",
            hint="The file mixes two models, or its config.json is another's. Save or download the checkpoint again.",
        )


def _listed(keys: Iterable[str]) -> str:
    keys = list(keys)
    return ", ".join(f"'{key}'" for key in keys[:SHOWN]) + (
        f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    )
