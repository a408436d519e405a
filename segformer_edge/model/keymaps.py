"""Names of SegFormer's tensors in the layouts found in the wild, as one small two-way table per layout.

A row pairs the layout's prefix with ours; ``{s}`` is a stage and ``{b}`` a block. ``weight``, ``bias`` and BatchNorm's
statistics keep their names, so a row stands for a whole module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

LEAVES = "weight|bias|running_mean|running_var"
NAMES = {"s": r"(?P<s>\d+)", "b": r"(?P<b>\d+)"}


@dataclass(frozen=True)
class Layout:
    """One naming of the tensors. ``rows`` pairs its module names with ours, more specific ones first."""

    name: str
    rows: tuple[tuple[str, str], ...]
    #: Number of the first stage in the names: the original code counts from 1.
    first_stage: int = 0
    #: A prefix that encoder-only files leave out.
    optional_prefix: str = ""
    #: Keys with no part in segmentation, dropped by name.
    ignored: str = r"(?!)"
    #: Epsilon of the LayerNorms in the blocks and after each stage, in the code that the layout belongs to.
    norm_eps: float = 1e-5

    @cached_property
    def _patterns(self) -> list[tuple[re.Pattern[str], str]]:
        return [
            (re.compile(rf"{_pattern(theirs, self.optional_prefix)}\.(?P<leaf>{LEAVES})"), ours)
            for theirs, ours in self.rows
        ]

    def to_ours(self, key: str) -> str | None:
        """Our name of the layout's ``key``, or None for a key that the layout does not have."""
        for pattern, ours in self._patterns:
            if match := pattern.fullmatch(key):
                groups = match.groupdict()
                stage = int(groups.get("s") or self.first_stage) - self.first_stage
                return f"{ours.format(s=stage, b=groups.get('b'))}.{groups['leaf']}"
        return None

    def to_theirs(self, key: str) -> str:
        """The layout's name of our ``key``: what a message about its file must say."""
        for theirs, ours in self.rows:
            if match := re.fullmatch(rf"{_pattern(ours)}\.(?P<leaf>{LEAVES})", key):
                groups = match.groupdict()
                stage = int(groups.get("s") or 0) + self.first_stage
                return f"{theirs.format(s=stage, b=groups.get('b'))}.{groups['leaf']}"
        return key

    def is_ignored(self, key: str) -> bool:
        """Whether ``key`` is one that inference has no use for."""
        return key.endswith(".num_batches_tracked") or re.fullmatch(self.ignored, key) is not None


def _pattern(template: str, optional_prefix: str = "") -> str:
    """Regular expression for a row's name."""
    prefix = ""
    if optional_prefix and template.startswith(optional_prefix):
        prefix, template = f"(?:{re.escape(optional_prefix)})?", template[len(optional_prefix) :]
    parts = re.split(r"\{([sb])\}", template)
    return prefix + "".join(NAMES[part] if i % 2 else re.escape(part) for i, part in enumerate(parts))


def _rows(stage: str, block: str, names: dict[str, str], stage_norm: str) -> tuple[tuple[str, str], ...]:
    """Rows of an encoder whose patch embedding, block and norm names begin with the given prefixes."""
    rows = [(stage_norm, "stages.{s}.norm")]
    for ours, theirs in names.items():
        place = "stages.{s}." if ours.startswith("patch_embedding") else "stages.{s}.blocks.{b}."
        rows.append(((stage if ours.startswith("patch_embedding") else block) + theirs, place + ours))
    return tuple(rows)


_HF_HEAD = (
    ("decode_head.linear_fuse", "decode_head.fuse"),
    ("decode_head.batch_norm", "decode_head.norm"),
    ("decode_head.classifier", "decode_head.classifier"),
)
#: nvidia/mit-b0 and its like carry an ImageNet classifier.
_HF_IGNORED = r"classifier\.(weight|bias)"

OURS = Layout(
    "segformer_edge",
    (
        *_rows(
            "stages.{s}.",
            "stages.{s}.blocks.{b}.",
            {
                name: name
                for name in (
                    *("patch_embedding.proj", "patch_embedding.norm", "norm1", "norm2"),
                    *("attention.q", "attention.k", "attention.v", "attention.proj"),
                    *("attention.reduction.conv", "attention.reduction.norm"),
                    *("ffn.fc1", "ffn.depthwise", "ffn.fc2"),
                )
            },
            "stages.{s}.norm",
        ),
        *((name, name) for name in ("decode_head.fuse", "decode_head.norm", "decode_head.classifier")),
        ("decode_head.projections.{s}", "decode_head.projections.{s}"),
    ),
)

HUGGING_FACE_4 = Layout(
    "Hugging Face (transformers 4.x names)",
    (
        *_rows(
            "segformer.encoder.patch_embeddings.{s}.",
            "segformer.encoder.block.{s}.{b}.",
            {
                "patch_embedding.proj": "proj",
                "patch_embedding.norm": "layer_norm",
                "norm1": "layer_norm_1",
                "norm2": "layer_norm_2",
                "attention.q": "attention.self.query",
                "attention.k": "attention.self.key",
                "attention.v": "attention.self.value",
                "attention.proj": "attention.output.dense",
                "attention.reduction.conv": "attention.self.sr",
                "attention.reduction.norm": "attention.self.layer_norm",
                "ffn.fc1": "mlp.dense1",
                "ffn.depthwise": "mlp.dwconv.dwconv",
                "ffn.fc2": "mlp.dense2",
            },
            "segformer.encoder.layer_norm.{s}",
        ),
        *_HF_HEAD,
        ("decode_head.linear_c.{s}.proj", "decode_head.projections.{s}"),
    ),
    optional_prefix="segformer.",
    ignored=_HF_IGNORED,
)

HUGGING_FACE_5 = Layout(
    "Hugging Face (transformers 5.x names)",
    (
        *_rows(
            "segformer.stages.{s}.",
            "segformer.stages.{s}.blocks.{b}.",
            {
                "patch_embedding.proj": "patch_embeddings.proj",
                "patch_embedding.norm": "patch_embeddings.layer_norm",
                "norm1": "layernorm_before",
                "norm2": "layernorm_after",
                "attention.q": "attention.q_proj",
                "attention.k": "attention.k_proj",
                "attention.v": "attention.v_proj",
                "attention.proj": "attention.o_proj",
                "attention.reduction.conv": "attention.sequence_reduction.sequence_reduction",
                "attention.reduction.norm": "attention.sequence_reduction.layer_norm",
                "ffn.fc1": "mlp.fc1",
                "ffn.depthwise": "mlp.dwconv.dwconv",
                "ffn.fc2": "mlp.fc2",
            },
            "segformer.stages.{s}.layer_norm",
        ),
        *_HF_HEAD,
        ("decode_head.linear_projections.{s}.proj", "decode_head.projections.{s}"),
    ),
    optional_prefix="segformer.",
    ignored=_HF_IGNORED,
)

ORIGINAL = Layout(
    "original authors' .pth",
    (
        *_rows(
            "backbone.patch_embed{s}.",
            "backbone.block{s}.{b}.",
            {
                "patch_embedding.proj": "proj",
                "patch_embedding.norm": "norm",
                "norm1": "norm1",
                "norm2": "norm2",
                "attention.q": "attn.q",
                "attention.kv": "attn.kv",
                "attention.proj": "attn.proj",
                "attention.reduction.conv": "attn.sr",
                "attention.reduction.norm": "attn.norm",
                "ffn.fc1": "mlp.fc1",
                "ffn.depthwise": "mlp.dwconv.dwconv",
                "ffn.fc2": "mlp.fc2",
            },
            "backbone.norm{s}",
        ),
        ("decode_head.linear_c{s}.proj", "decode_head.projections.{s}"),
        ("decode_head.linear_fuse.conv", "decode_head.fuse"),
        ("decode_head.linear_fuse.bn", "decode_head.norm"),
        ("decode_head.linear_pred", "decode_head.classifier"),
    ),
    first_stage=1,
    optional_prefix="backbone.",
    # conv_seg is the unused classifier of the base class; head is the ImageNet classifier.
    ignored=r"decode_head\.conv_seg\.(weight|bias)|auxiliary_head\..*|(backbone\.)?head\.(weight|bias)",
    norm_eps=1e-6,
)

LAYOUTS = (OURS, HUGGING_FACE_4, HUGGING_FACE_5, ORIGINAL)


def detect_layout(keys: Iterable[str]) -> Layout | None:
    """The layout that knows the most of ``keys``; None if none knows any key of the encoder."""
    keys = list(keys)

    def known(layout: Layout) -> int:
        return sum((layout.to_ours(key) or "").startswith("stages.") for key in keys)

    best = max(LAYOUTS, key=known)
    return best if known(best) else None


def to_our_names(tensors: dict[str, Tensor], layout: Layout) -> tuple[dict[str, Tensor], list[str]]:
    """Rename ``tensors`` from ``layout`` to ours: (renamed, keys that the layout does not have).

    The original code's joint key/value projection (2C, C) is split into ours, k first.
    """
    renamed: dict[str, Tensor] = {}
    unexpected = []
    for key, value in tensors.items():
        if layout.is_ignored(key):
            continue
        ours = layout.to_ours(key)
        if ours is None:
            unexpected.append(key)
        elif ".attention.kv." in ours and value.ndim and value.shape[0] > 1:
            k, v = value.chunk(2)
            renamed[ours.replace(".kv.", ".k.")], renamed[ours.replace(".kv.", ".v.")] = k, v
        else:
            renamed[ours] = value
    return renamed, unexpected


def name_in_file(key: str, layout: Layout) -> str:
    """What our ``key`` is called in a file of ``layout``."""
    if layout is ORIGINAL:
        key = re.sub(r"\.attention\.[kv]\.", ".attention.kv.", key)
    return layout.to_theirs(key)
