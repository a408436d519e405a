"""SegFormer variants B0-B5 as data (NeurIPS 2021, arXiv 2105.15203, Table 6)."""

from __future__ import annotations

from dataclasses import dataclass, field

from segformer_edge.errors import UsageError
from segformer_edge.suggestions import did_you_mean

#: Every input side must divide by this: four stages with strides 4, 2, 2, 2.
STRIDE = 32


@dataclass(frozen=True)
class SegformerConfig:
    """One SegFormer architecture; validated when it is made."""

    num_classes: int
    embed_dims: tuple[int, ...] = (32, 64, 160, 256)
    depths: tuple[int, ...] = (2, 2, 2, 2)
    num_heads: tuple[int, ...] = (1, 2, 5, 8)
    #: Side of the sequence-reduction convolution; the paper's R is its square: 64, 16, 4, 1.
    reduction_sides: tuple[int, ...] = (8, 4, 2, 1)
    mlp_ratios: tuple[int, ...] = (4, 4, 4, 4)
    #: Overlap patch embedding: kernel and stride per stage, padding is kernel // 2.
    patch_kernels: tuple[int, ...] = (7, 3, 3, 3)
    patch_strides: tuple[int, ...] = (4, 2, 2, 2)
    decoder_dim: int = 256
    #: Epsilon of the LayerNorms in the blocks and after each stage. Hugging Face has 1e-5, whatever its config says;
    #: the original code has 1e-6. Loaders set it by the layout that they find.
    norm_eps: float = 1e-5
    #: Epsilon of the LayerNorms behind a strided convolution: patch embedding and sequence reduction. 1e-5 everywhere.
    embed_norm_eps: float = 1e-5
    class_names: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.num_classes < 1 or self.num_classes > 255:
            raise UsageError(
                f"A label map is uint8 with 255 for 'ignore', so 1 to 255 classes fit; got {self.num_classes}.",
            )
        per_stage = {
            "depths": self.depths,
            "num_heads": self.num_heads,
            "reduction_sides": self.reduction_sides,
            "mlp_ratios": self.mlp_ratios,
            "patch_kernels": self.patch_kernels,
            "patch_strides": self.patch_strides,
        }
        for name, values in per_stage.items():
            if len(values) != len(self.embed_dims):
                raise UsageError(f"{name} has {len(values)} entries for {len(self.embed_dims)} stages: {values}.")
        for dim, heads in zip(self.embed_dims, self.num_heads, strict=True):
            if dim % heads:
                raise UsageError(f"Embedding width {dim} does not divide into {heads} heads.")
        if self.class_names and len(self.class_names) != self.num_classes:
            raise UsageError(f"{len(self.class_names)} class names for {self.num_classes} classes.")


#: What differs between the variants; the rest is SegformerConfig's defaults.
VARIANTS: dict[str, dict] = {
    "b0": {"embed_dims": (32, 64, 160, 256), "depths": (2, 2, 2, 2), "decoder_dim": 256},
    "b1": {"embed_dims": (64, 128, 320, 512), "depths": (2, 2, 2, 2), "decoder_dim": 256},
    "b2": {"embed_dims": (64, 128, 320, 512), "depths": (3, 4, 6, 3), "decoder_dim": 768},
    "b3": {"embed_dims": (64, 128, 320, 512), "depths": (3, 4, 18, 3), "decoder_dim": 768},
    "b4": {"embed_dims": (64, 128, 320, 512), "depths": (3, 8, 27, 3), "decoder_dim": 768},
    "b5": {"embed_dims": (64, 128, 320, 512), "depths": (3, 6, 40, 3), "decoder_dim": 768},
}


def variant_config(name: str, num_classes: int, class_names: tuple[str, ...] = ()) -> SegformerConfig:
    """Config of variant ``name`` (b0 to b5). Raises UsageError for an unknown name."""
    if name not in VARIANTS:
        raise UsageError(f"Unknown SegFormer variant '{name}'.", hint=did_you_mean(name, VARIANTS))
    return SegformerConfig(num_classes=num_classes, class_names=class_names, **VARIANTS[name])


def variant_of(config: SegformerConfig) -> str | None:
    """Name of the variant with these widths and depths, or None."""
    for name, values in VARIANTS.items():
        if all(getattr(config, key) == value for key, value in values.items()):
            return name
    return None
