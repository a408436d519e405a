"""Reads the architecture off the tensors' shapes, so that no file name or option has to be believed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from torch import Tensor

from segformer_edge.errors import CheckpointError, UsageError
from segformer_edge.model.config import VARIANTS, SegformerConfig
from segformer_edge.model.description import STAGES, Description, generic_names
from segformer_edge.model.keymaps import Layout, name_in_file
from segformer_edge.model.sources import Source


def infer_config(
    source: Source, layout: Layout, tensors: dict[str, Tensor], description: Description, num_classes: int | None
) -> SegformerConfig:
    """Config of ``tensors`` (in our names). ``num_classes`` is used only for an encoder without a head.

    Each width is the one that most tensors agree on, so that a single misshapen tensor is reported as such. Raises
    CheckpointError if a stage is missing, or if the class count contradicts the class names.
    """

    def most(keys: Iterable[tuple[str, int]], wanted: str) -> int:
        sizes = Counter(tensors[key].shape[axis] for key, axis in keys if key in tensors and tensors[key].ndim > axis)
        if not sizes:
            raise CheckpointError(
                f"'{source.label}' lacks the key '{name_in_file(wanted, layout)}'.",
                hint=f"It was read as {layout.name}. Save or download the checkpoint again.",
            )
        return sizes.most_common(1)[0][0]

    dims, depths, sides, ratios, kernels = [], [], [], [], []
    for s in range(STAGES):
        stage = f"stages.{s}"
        proj = f"{stage}.patch_embedding.proj"
        norms = [f"{stage}.{name}.{leaf}" for name in ("patch_embedding.norm", "norm") for leaf in ("weight", "bias")]
        dim = most([(f"{proj}.weight", 0), (f"{proj}.bias", 0), *((key, 0) for key in norms)], f"{proj}.weight")
        blocks = sorted({int(m[1]) for key in tensors if (m := re.match(rf"{stage}\.blocks\.(\d+)\.", key))})
        depth = description.architecture["depths"][s] if "depths" in description.architecture else len(blocks) or 1
        each = [f"{stage}.blocks.{b}" for b in range(depth)]
        hidden = most([(f"{block}.ffn.fc1.weight", 0) for block in each], f"{each[0]}.ffn.fc1.weight")
        reductions = [f"{block}.attention.reduction.conv.weight" for block in each]
        side = most(((key, 2) for key in reductions), reductions[0]) if any(k in tensors for k in reductions) else 1
        dims.append(dim)
        depths.append(depth)
        ratios.append(max(1, hidden // dim))
        sides.append(side)
        kernels.append(most([(f"{proj}.weight", 2)], f"{proj}.weight"))

    head = "decode_head."
    paper = next((v for v in VARIANTS.values() if v["embed_dims"] == tuple(dims) and v["depths"] == tuple(depths)), {})
    decoder_dim = paper.get("decoder_dim", 256)
    if num_classes is None:
        keys = [(f"{head}fuse.weight", 0), *((f"{head}norm.{leaf}", 0) for leaf in ("weight", "bias", "running_mean"))]
        decoder_dim = most(keys, f"{head}fuse.weight")
        classifier = f"{head}classifier.weight"
        num_classes = most([(classifier, 0), (f"{head}classifier.bias", 0)], classifier)
        if description.class_names and len(description.class_names) != num_classes:
            raise CheckpointError(
                f"'{source.label}' names {len(description.class_names)} classes, "
                f"but '{name_in_file(classifier, layout)}' has {num_classes}.",
                hint="Correct id2label in config.json, or take the weights that belong to it.",
            )
        names = description.class_names or generic_names(num_classes)
    else:
        names = generic_names(num_classes)
    found = {
        "embed_dims": tuple(dims),
        "depths": tuple(depths),
        "reduction_sides": tuple(sides),
        "mlp_ratios": tuple(ratios),
        "patch_kernels": tuple(kernels),
        "decoder_dim": decoder_dim,
    }
    if not paper and "num_heads" not in description.architecture:
        # Shapes do not show the heads, and a file that lost a whole block must not pass for a shallower model.
        raise CheckpointError(
            f"'{source.label}' has widths {tuple(dims)} and depths {tuple(depths)}: none of B0 to B5.",
            hint="For an architecture of your own, give a folder with a config.json beside the weights.",
        )
    for field, stated in description.architecture.items():
        if field in found and found[field] != stated:
            raise CheckpointError(
                f"'{source.label}' is described with {field} {stated}, but its tensors have {found[field]}.",
                hint="Put the config.json and the weights that belong together into one folder.",
            )
    heads = description.architecture.get("num_heads", SegformerConfig.num_heads)
    try:
        return SegformerConfig(
            num_classes=num_classes,
            num_heads=heads,
            norm_eps=description.norm_eps or layout.norm_eps,
            embed_norm_eps=description.embed_norm_eps or SegformerConfig.embed_norm_eps,
            class_names=names,
            **found,
        )
    except UsageError as error:
        raise CheckpointError(f"'{source.label}' cannot be built: {error}") from error
