"""The training recipe: every number of a run, read from TOML and checked before anything starts."""

from __future__ import annotations

import difflib
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from segformer_edge.errors import UsageError

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=32, multiple_of=32)]


class Phase(BaseModel):
    """A stretch of the run with one crop size."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    #: Ends at this share of all steps.
    until: Share
    #: Side of the square crop in pixels, or its (height, width), multiples of 32. Left out, it is the network's input
    #: size, and the resize factors are relative to an image scaled to that size.
    crop: Side | tuple[Side, Side] | None = None
    #: Random resize factors, smallest and largest; the recipe's where left out.
    resize: tuple[Positive, Positive] | None = None


class QatRecipe(BaseModel):
    """What quantization-aware training adds."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    #: Precision recipe: a name from ``quantization/recipes`` or a TOML file.
    quantization: str = "mixed"
    #: Weight of the distillation loss (KL divergence from the float model's classes) beside the cross entropy.
    distillation: Annotated[float, Field(ge=0)] = 1.0
    #: Both models' logits are divided by this for the distillation.
    temperature: Positive = 1.0
    #: Learning rate of the logarithms of the ranges' ends, as a multiple of the weights'.
    range_factor: Positive = 20.0
    #: From this share of the steps on, ranges and weight scales stay as they are.
    freeze_ranges_at: Share = 0.8


class Recipe(BaseModel):
    """Hyper-parameters of one training run; defaults are the paper's (section 4.1)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    steps: Annotated[int, Field(ge=1)] = 160_000
    #: Images per step over all processes.
    batch: Annotated[int, Field(ge=1)] = 16
    learning_rate: Positive = 6e-5
    #: The decode head learns this much faster.
    head_factor: Positive = 10.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    betas: tuple[Share, Share] = (0.9, 0.999)
    #: Linear warm-up, then polynomial decay to zero.
    warmup_steps: Annotated[int, Field(ge=0)] = 1500
    poly_power: Positive = 1.0
    #: Clip the gradient's norm; 0 leaves it alone.
    max_gradient_norm: Annotated[float, Field(ge=0)] = 0.0
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    #: Decay per step of the averaged weights that are validated and kept; 0 keeps the plain weights.
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    resize: tuple[Positive, Positive] = (0.5, 2.0)
    flip: Share = 0.5
    photometric: bool = True
    phases: Annotated[tuple[Phase, ...], Field(min_length=1)]
    validate_every: Annotated[int, Field(ge=1)] = 4000
    #: Stop after so many validations without a gain of ``minimum_gain`` in mIoU (0..1); 0 never stops early.
    patience: Annotated[int, Field(ge=0)] = 0
    minimum_gain: Share = 0.0
    checkpoint_every: Annotated[int, Field(ge=1)] = 2000
    workers: Annotated[int, Field(ge=0)] = 4
    qat: QatRecipe | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        for small, large in filter(None, (self.resize, *(phase.resize for phase in self.phases))):
            if small > large:
                raise ValueError(f"resize must go from small to large, got {small} to {large}")
        ends = [phase.until for phase in self.phases]
        if ends != sorted(set(ends)) or ends[-1] != 1.0:
            raise ValueError(f"the phases' 'until' must rise and end at 1.0, got {ends}")
        if self.qat and (self.drop_path or self.dropout):
            raise ValueError("with [qat], drop_path and dropout must be 0: the deployed network has neither")
        return self

    def phase_at(self, step: int) -> Phase:
        """The phase that ``step`` (0 first) is in, with its resize factors filled in."""
        phase = next((phase for phase in self.phases if step < phase.until * self.steps), self.phases[-1])
        return phase if phase.resize else phase.model_copy(update={"resize": self.resize})

    def learning_rate_share(self, step: int) -> float:
        """The learning rate at ``step`` (0 first) as a share of its peak."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        rest = max(1, self.steps - self.warmup_steps)
        return max(0.0, 1 - (step - self.warmup_steps) / rest) ** self.poly_power


def bundled_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = files("segformer_edge.training") / "recipes"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_recipe(name_or_file: str, **overrides: object) -> Recipe:
    """A bundled recipe by name, or a TOML file; ``overrides`` that are not None replace its values.

    Raises UsageError for an unknown name, unreadable TOML, an unknown key or a value out of range.
    """
    path = Path(name_or_file)
    if path.suffix == ".toml":
        if not path.is_file():
            raise UsageError(f"There is no recipe file {path}.", hint=f"Bundled ones: {', '.join(bundled_recipes())}.")
    elif name_or_file in bundled_recipes():
        path = Path(str(files("segformer_edge.training") / "recipes" / f"{name_or_file}.toml"))
    else:
        near = difflib.get_close_matches(name_or_file, bundled_recipes(), n=1)
        guess = f"Did you mean '{near[0]}'? " if near else ""
        raise UsageError(
            f"Unknown training recipe '{name_or_file}'.",
            hint=f"{guess}Bundled ones: {', '.join(bundled_recipes())}; or give a .toml file.",
        )
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"Cannot read the recipe {path}: {error.strerror or error}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"Recipe {name_or_file} is not TOML: {error}.") from None
    values |= {key: value for key, value in overrides.items() if value is not None}
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'recipe'}: {e['msg']}" for e in error.errors())
        raise UsageError(f"Recipe {name_or_file} does not hold: {faults}.") from None
