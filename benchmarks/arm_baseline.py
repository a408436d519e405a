"""Instruction counts as data: which files are counted, the recorded baseline, and how a new count is judged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from memory_cases import RANDOM

from segformer_edge.emulation.architectures import find_cpu
from segformer_edge.errors import DataError, UsageError
from segformer_edge.jsonfile import Fields, read_json, write_json

SCHEMA_VERSION = 1
#: Random weights, so that counting needs no data set: what they are does not change what is executed.
WEIGHTS = "random:b0:150"
#: How far a count may move from the recorded one, either way. Runs of one file differ by less than 0.0001.
TOLERANCE = 0.02
#: Side -> how its files compute. int8_attention is our recipe of that name, int8 the recipe mixed.
PRECISIONS = {"default": ("int8", "float"), "ours": ("int8", "int8_attention", "float")}
#: Our target -> how the default pipelines call it.
TARGETS = {"tflite": "litert", "onnx": "onnx", "executorch": "executorch"}
CPUS = ("cortex-a72", "cortex-a76")


@dataclass(frozen=True)
class Case:
    """One file on one CPU."""

    cpu: str
    target: str
    side: str
    precision: str

    @property
    def name(self) -> str:
        """As progress and messages call it."""
        return f"{self.cpu} {self.target}: {self.side} {self.precision}"

    @property
    def pipeline(self) -> str:
        """The default pipeline that makes the file of the side "default"."""
        return f"{TARGETS[self.target]}_{self.precision}"

    @property
    def lacking(self) -> str | None:
        """Why it cannot be counted anywhere: no runtime on that CPU."""
        architecture, _ = find_cpu(self.cpu)
        return None if self.target in architecture.formats else f"no runtime on emulated {architecture.name}"


CASES = tuple(
    Case(cpu, target, side, precision)
    for cpu in CPUS
    for target in TARGETS
    for side, precisions in PRECISIONS.items()
    for precision in precisions
    if (cpu, target) != ("cortex-a72", "executorch")  # no release has run there
    if precision != "int8_attention" or target == "tflite"  # what the recipe is for
)


@dataclass(frozen=True)
class Row:
    """What was counted; ``error`` says why ``instructions`` is None."""

    case: Case
    instructions: int | None = None
    runtime: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """One entry of the baseline."""
        return {**asdict(self.case), **{key: value for key, value in asdict(self).items() if key != "case"}}


@dataclass(frozen=True)
class Change:
    """A row beside the recorded one."""

    row: Row
    recorded: Row | None

    @property
    def share(self) -> float | None:
        """0.05 is five per cent more than recorded."""
        if self.recorded is None or not self.recorded.instructions or self.row.instructions is None:
            return None
        return self.row.instructions / self.recorded.instructions - 1.0

    @property
    def verdict(self) -> str:
        """What to tell: "" where nothing is wrong."""
        before, now = self.recorded.instructions if self.recorded else None, self.row.instructions
        if now is None:
            return "" if before is None and self.row.case.lacking else f"not counted: {self.row.error}"
        if before is None:
            return "not in the baseline"
        if abs(now - before) <= TOLERANCE * before:
            return ""
        return "more instructions" if now > before else "fewer instructions, to be recorded"

    @property
    def other_versions(self) -> str:
        """Where the runtimes' versions differ from the recorded ones, which may explain a change; else ""."""
        before = self.recorded.versions if self.recorded else {}
        return ", ".join(
            f"{name} {before[name]} -> {version}"
            for name, version in self.row.versions.items()
            if name in before and before[name] != version
        )


@dataclass(frozen=True)
class Goal:
    """Our int8_attention takes at most ``share`` of what another file takes, with LiteRT on Cortex-A76."""

    share: float
    side: str
    precision: str

    def ratio(self, rows: Iterable[Row]) -> float | None:
        """What it takes; None where one of the two is missing."""
        ours = find(rows, Case("cortex-a76", "tflite", "ours", "int8_attention"))
        other = find(rows, Case("cortex-a76", "tflite", self.side, self.precision))
        return ours / other if ours and other else None


GOALS = (Goal(0.25, "default", "int8"), Goal(0.5, "ours", "float"))


def find(rows: Iterable[Row], case: Case) -> int | None:
    """The instructions of ``case`` among ``rows``."""
    return next((row.instructions for row in rows if row.case == case), None)


def choose(cpus: Sequence[str], targets: Sequence[str], sides: Sequence[str] = tuple(PRECISIONS)) -> list[Case]:
    """The cases on ``cpus`` with ``targets`` of ``sides``. Raises UsageError for an unknown one."""
    for names, known in ((cpus, CPUS), (targets, tuple(TARGETS)), (sides, tuple(PRECISIONS))):
        for name in names:
            if name not in known:
                raise UsageError(f"'{name}' is not counted here.", hint=f"These are: {', '.join(known)}.")
    return [case for case in CASES if case.cpu in cpus and case.target in targets and case.side in sides]


def compare(rows: Sequence[Row], recorded: Iterable[Row]) -> list[Change]:
    """Each row beside the recorded one of the same case."""
    known = {row.case: row for row in recorded}
    return [Change(row, known.get(row.case)) for row in rows]


def merge(rows: Iterable[Row], recorded: Iterable[Row]) -> list[Row]:
    """The baseline with ``rows`` in it, in the order of CASES. A row that failed leaves the recorded one."""
    known = {row.case: row for row in recorded}
    known |= {row.case: row for row in rows if row.instructions is not None or row.case.lacking}
    return [known[case] for case in CASES if case in known]


def load(path: Path) -> list[Row]:
    """The recorded rows. Raises DataError for a file that is missing or not such a baseline."""
    if not path.exists():
        raise DataError(f"There is no baseline '{path}'.", hint="Record one with --update.")
    fields = Fields(read_json(path, DataError), f"'{path}'", DataError)
    fields.integer("schema_version", SCHEMA_VERSION, SCHEMA_VERSION)
    fields.text("weights", (WEIGHTS,))
    if fields.integers("size", 2) != RANDOM.size:
        fields.fail("size", f"is not {list(RANDOM.size)}")
    return [_row(entry) for entry in fields.sections("rows")]


def _row(entry: Fields) -> Row:
    side = entry.text("side", tuple(PRECISIONS))
    return Row(
        Case(entry.text("cpu"), entry.text("target"), side, entry.text("precision", PRECISIONS[side])),
        entry.optional("instructions", lambda key: entry.integer(key, 1)),
        entry.optional("runtime", entry.text),
        entry.mapping("versions"),
        entry.optional("error", entry.text),
    )


def save(path: Path, rows: Iterable[Row]) -> None:
    """Write the baseline. Nothing in it names the machine."""
    write_json(
        path,
        {
            "schema_version": SCHEMA_VERSION,
            "unit": "instructions of one inference on one thread, on an emulated CPU",
            "weights": WEIGHTS,
            "size": list(RANDOM.size),
            "rows": [row.to_json() for row in rows],
        },
    )
