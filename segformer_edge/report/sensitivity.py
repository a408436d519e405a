"""``sensitivity.json`` and its table: what each part of a network costs when it alone is quantized. Torch-free."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import IO, Any

from rich.box import ASCII2, SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from segformer_edge.jsonfile import write_json
from segformer_edge.report.schema import plain
from segformer_edge.report.table import NOT_MEASURED, ascii_only, console_for, percent

SCHEMA_VERSION = 1
#: How many roles are proposed for a wider width.
SUGGESTIONS = 3


@dataclass(frozen=True)
class Harm:
    """One quantized network against float32, on the same images."""

    #: Kullback-Leibler divergence of the softmax of the logits, float32 to quantized: nats, mean over pixels.
    kl: float
    #: Share of pixels that get the float32 model's class.
    agreement: float
    #: float32 minus quantized; null without labels.
    miou_drop: float | None = None

    @property
    def rank(self) -> float:
        """What harm is sorted by: the loss of mIoU where there are labels, else the divergence."""
        return self.kl if self.miou_drop is None else self.miou_drop


@dataclass(frozen=True)
class PartHarm:
    """One class of sites (a role), or one module, such as a stage."""

    name: str
    #: Width -> how many activation sites have it.
    activations: Mapping[str, int]
    #: Width -> how many weights have it.
    weights: Mapping[str, int]
    #: Only this part quantized.
    alone: Harm
    #: Only its weights and only its activations; null where it has not both.
    weights_alone: Harm | None
    activations_alone: Harm | None
    #: All but this part quantized.
    left_out: Harm


@dataclass(frozen=True)
class Suggestion:
    """One line of a recipe: ``role`` of [``table``] at the width ``to``, which is wider than what it has."""

    table: str
    role: str
    has: str
    to: str


@dataclass(frozen=True)
class Sensitivity:
    """The whole analysis; ``roles`` and ``modules`` have the most harmful part first."""

    model: str
    weights: str
    size: tuple[int, int]
    recipe: str
    images: int
    #: Data set whose labels were used; null without labels.
    dataset: str | None
    fp32_miou: float | None
    #: Everything that the recipe quantizes.
    whole: Harm
    roles: tuple[PartHarm, ...]
    modules: tuple[PartHarm, ...]
    seconds: float | None = None
    schema_version: int = SCHEMA_VERSION

    @property
    def metric(self) -> str:
        """What harm is sorted by."""
        return "KL divergence" if self.fp32_miou is None else "mIoU drop"

    def suggestions(self) -> list[Suggestion]:
        """The roles of the largest divergence, one line each, at the next wider width.

        That is int16 in a recipe that uses it, whose targets have no float, and else float. The loss of mIoU does not
        choose: on few images it is as often a gain.
        """
        wider = "int16" if any("int16" in part.activations for part in self.roles) else "float"
        worst_first = sorted(self.roles, key=lambda part: part.alone.kl, reverse=True)
        lines = (_wider(part, wider) for part in worst_first if part.alone.kl > 0)
        return [line for line in lines if line is not None][:SUGGESTIONS]

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; a figure that is not a number is null."""
        value: dict[str, Any] = plain(asdict(self))
        lines = [asdict(suggestion) for suggestion in self.suggestions()]
        return {"schema_version": value.pop("schema_version"), **value, "suggestions": lines}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``path`` atomically. Raises DiskFullError."""
        write_json(path, self.to_json())


def _wider(part: PartHarm, wider: str) -> Suggestion | None:
    """The line that gives the worse half of ``part`` the width ``wider``; None where it cannot have that."""
    if part.weights_alone is None or part.activations_alone is None:
        table = "sites" if part.activations else "weights"
    else:
        table = "sites" if part.activations_alone.kl >= part.weights_alone.kl else "weights"
    has = part.activations if table == "sites" else part.weights
    if wider in has or (table, wider) == ("weights", "int16"):  # weights are int8 or float
        return None
    return Suggestion(table, part.name, ", ".join(has), wider)


def recipe_lines(suggestions: Sequence[Suggestion]) -> str:
    """The suggestions as TOML: what to change in a recipe."""
    lines = []
    for table in dict.fromkeys(suggestion.table for suggestion in suggestions):
        lines.append(f"[{table}]")
        lines += [f'{s.role} = "{s.to}"  # was {s.has}' for s in suggestions if s.table == table]
    return "\n".join(lines)


def sensitivity_table(found: Sensitivity, title: str, parts: Sequence[PartHarm], plain_box: bool = False) -> Table:
    """A rich table of ``parts``, and the whole network in the last row."""
    scored = found.fp32_miou is not None
    table = Table(box=ASCII2 if plain_box else SIMPLE_HEAD, pad_edge=False)
    table.add_column(title, no_wrap=True)
    columns = [
        "sites",
        "weights",
        *(["mIoU drop"] if scored else []),
        "KL",
        "= float32",
        "KL weights",
        "KL activations",
    ]
    for column in (*columns, "gain in float"):
        table.add_column(column, justify="right", no_wrap=True)

    def cells(harm: Harm) -> list[str]:
        drop = [] if not scored else [NOT_MEASURED if harm.miou_drop is None else f"{harm.miou_drop:+.4f}"]
        return [*drop, f"{harm.kl:.6f}", percent(harm.agreement)]

    for part in parts:
        halves = [NOT_MEASURED if h is None else f"{h.kl:.6f}" for h in (part.weights_alone, part.activations_alone)]
        gain = f"{found.whole.kl - part.left_out.kl:+.6f}"
        table.add_row(
            Text(part.name), *map(_counts, (part.activations, part.weights)), *cells(part.alone), *halves, gain
        )
    table.add_section()
    table.add_row("everything", "", "", *cells(found.whole), "", "", "")
    return table


def print_sensitivity(found: Sensitivity, file: IO[str] | None = None) -> None:
    """Print both tables on ``file`` (stdout)."""
    console = console_for(file)
    plain_box = ascii_only(console)
    height, width = found.size
    labels = f"mIoU float32 {found.fp32_miou:.4f}" if found.fp32_miou is not None else "no labels"
    console.print(
        Text(f"SegFormer-{found.model.upper()}, {height}x{width}, recipe {found.recipe}: one part quantized at a time"),
        style="bold",
        soft_wrap=True,
    )
    console.print(sensitivity_table(found, "class of sites", found.roles, plain_box))
    console.print(sensitivity_table(found, "module", found.modules, plain_box))
    seconds = "" if found.seconds is None else f" | {found.seconds:.0f} s"
    on = f" of {found.dataset}" if found.dataset else ""
    console.print(Text(f"{found.images} images{on} | {labels} | sorted by {found.metric}{seconds}"), soft_wrap=True)
    console.print(
        Text("gain in float: how far the KL divergence of everything falls when this part alone stays in float"),
        soft_wrap=True,
    )


def _counts(widths: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {width}" for width, count in widths.items()) or NOT_MEASURED
