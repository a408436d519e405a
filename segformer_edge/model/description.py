"""What a checkpoint says about itself: class names, palette, input size, licence."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from segformer_edge.errors import CheckpointError
from segformer_edge.model.config import VARIANTS
from segformer_edge.model.published import published_model
from segformer_edge.model.save import FORMAT, SCHEMA
from segformer_edge.model.sources import UNSTATED_LICENCE, Source

#: Hugging Face's names of the config's fields that hold one number per stage.
CONFIG_FIELDS = {
    "hidden_sizes": "embed_dims",
    "depths": "depths",
    "num_attention_heads": "num_heads",
    "sr_ratios": "reduction_sides",
    "mlp_ratios": "mlp_ratios",
    "patch_sizes": "patch_kernels",
}


#: All variants have four.
STAGES = 4
#: Far above what the variants have. Blocks are built before they are compared with the weights.
_MOST_BLOCKS, _LARGEST = 64, 4096


@dataclass(frozen=True)
class Description:
    """Each None or empty if the checkpoint does not say."""

    class_names: tuple[str, ...] = ()
    palette: tuple[tuple[int, int, int], ...] | None = None
    #: (height, width) in pixels.
    native_size: tuple[int, int] | None = None
    licence: str = UNSTATED_LICENCE
    #: Fields of SegformerConfig that it states beside what the shapes say, such as depths and num_heads.
    architecture: Mapping[str, Any] = field(default_factory=dict)
    norm_eps: float | None = None
    embed_norm_eps: float | None = None


def generic_names(num_classes: int) -> tuple[str, ...]:
    """Names for classes that have none."""
    return tuple(f"class {index}" for index in range(num_classes))


def describe(source: Source) -> Description:
    """Description of ``source``. Raises CheckpointError for one that cannot be read or that SegFormer does not fit."""
    try:
        if source.meta.get("format") == FORMAT:
            return _from_header(source)
        if source.config:
            return _as_published(source, _from_config(source))
        return _as_published(source, _from_meta(source))
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError, RecursionError) as error:
        raise CheckpointError(
            f"'{source.label}' has a description (header or config.json) that cannot be read: {error}.",
            hint="Save or download the checkpoint again.",
        ) from error


def _from_meta(source: Source) -> Description:
    """From the "meta" of a ``.pth``: the original authors' code keeps the data set's classes there."""
    names, palette = source.meta.get("CLASSES"), source.meta.get("PALETTE")
    return Description(
        class_names=tuple(map(str, names)) if names else (),
        palette=_palette(palette) if palette else None,
        licence=source.licence or UNSTATED_LICENCE,
    )


def _from_header(source: Source) -> Description:
    """From the header strings of our own safetensors."""
    header = source.meta
    if header.get("schema") != SCHEMA:
        raise CheckpointError(
            f"'{source.label}' has schema {header.get('schema')!r}; this version reads {SCHEMA!r}.",
            hint="Upgrade: pip install -U segformer-edge",
        )
    palette = json.loads(header.get("palette", "null"))
    native_size = None
    if "size" in header:
        height, width = header["size"].split("x")
        native_size = int(height), int(width)
    eps = {key: float(header[key]) for key in ("norm_eps", "embed_norm_eps") if key in header}
    return Description(
        class_names=tuple(map(str, json.loads(header.get("class_names", "[]")))),
        palette=_palette(palette) if palette else None,
        native_size=native_size,
        licence=header.get("licence", UNSTATED_LICENCE),
        architecture=VARIANTS.get(header.get("model", ""), {}),
        **eps,
    )


def _from_config(source: Source) -> Description:
    """From Hugging Face's config.json, whose layer_norm_eps transformers itself does not use."""
    config = source.config
    if config.get("hidden_act", "gelu") != "gelu":
        raise CheckpointError(f"'{source.label}' has activation {config['hidden_act']!r}; SegFormer has GELU.")
    if tuple(config.get("strides", (4, 2, 2, 2))) != (4, 2, 2, 2):
        raise CheckpointError(f"'{source.label}' has strides {config['strides']}; SegFormer has 4, 2, 2, 2.")
    names: tuple[str, ...] = ()
    labels = config.get("id2label")
    if labels:
        by_id = {int(index): str(name) for index, name in labels.items()}
        if sorted(by_id) != list(range(len(by_id))):
            raise CheckpointError(f"'{source.label}': config.json has an id2label whose ids are not 0, 1, 2, ...")
        names = tuple(by_id[index] for index in range(len(by_id)))
    return Description(
        class_names=names,
        native_size=source.preprocessor_size,
        licence=source.licence or UNSTATED_LICENCE,
        architecture={
            ours: _per_stage(theirs, config[theirs]) for theirs, ours in CONFIG_FIELDS.items() if theirs in config
        },
    )


def _as_published(source: Source, found: Description) -> Description:
    """``found`` with the data set's names and palette and the size of training, for a model in the published table.

    The hub's files have no palette, and need not have the data set's spelling. A repository with another number of
    classes keeps what it says.
    """
    model = published_model(source.hub_id) if source.hub_id else None
    if model is None or len(found.class_names) not in (0, len(model.classes.names)):
        return found
    return replace(found, class_names=model.classes.names, palette=model.classes.palette, native_size=model.size)


def _per_stage(name: str, values: Any) -> tuple[int, ...]:
    found, largest = tuple(map(int, values)), _MOST_BLOCKS if name == "depths" else _LARGEST
    if len(found) != STAGES or not all(0 < value <= largest for value in found):
        raise ValueError(f"{name} must be {STAGES} numbers of 1 to {largest}, not {str(values)[:80]}")
    return found


def _palette(colours: Iterable[Iterable[int]]) -> tuple[tuple[int, int, int], ...]:
    return tuple((int(r), int(g), int(b)) for r, g, b in colours)
