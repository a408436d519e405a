"""No file is called ok before its own runtime has run it and its answers were compared with both references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segformer_edge.data.class_tables import voc_palette
from segformer_edge.data.metrics import agreement
from segformer_edge.data.processing import IMAGENET_MEAN, IMAGENET_STD
from segformer_edge.data.sample import SegmentationDataset
from segformer_edge.errors import SegformerEdgeError
from segformer_edge.evaluation import EvaluationResult, TorchSegmenter, evaluate, summarise_latency
from segformer_edge.export.exporter import Exported, Plan
from segformer_edge.export.pool import ExportFailure
from segformer_edge.export.targets import Target
from segformer_edge.memory.measure import measure
from segformer_edge.model.checkpoint import LoadedCheckpoint
from segformer_edge.report.budget import Budget
from segformer_edge.report.gates import Gates
from segformer_edge.report.schema import Memory, TargetReport
from segformer_edge.runtime.formats import format_of
from segformer_edge.runtime.metadata import (
    HOST,
    ArtifactMetadata,
    Normalisation,
    WeightsSource,
    sha256_of,
    sidecar_path,
)
from segformer_edge.runtime.segmenter import Segmenter

Image = npt.NDArray[np.uint8]

LATENCY_RUNS = 10


@dataclass(frozen=True)
class Provenance:
    """What every sidecar of a run has in common."""

    model: str
    size: tuple[int, int]
    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    recipe: str
    weights: WeightsSource
    encodings_sha256: str

    @classmethod
    def of(cls, loaded: LoadedCheckpoint, recipe: str, encodings: Path, size: tuple[int, int]) -> Provenance:
        """From the checkpoint and the encodings file of the run."""
        return cls(
            model=loaded.variant or "custom",
            size=size,
            class_names=loaded.class_names,
            palette=loaded.palette or voc_palette(len(loaded.class_names)),
            recipe=recipe,
            weights=WeightsSource(loaded.source, loaded.sha256, loaded.licence),
            encodings_sha256=sha256_of(encodings),
        )

    def metadata(self, target: Target, exported: Exported, folder: Path, file: str) -> ArtifactMetadata:
        """The sidecar of ``file``, one of those that have one."""
        parts = exported.files if len(exported.described) == 1 else (file,)
        return ArtifactMetadata(
            format=format_of(Path(file)).name if exported.npu else target.format,
            file=file,
            model=self.model,
            target=f"{target.name}{HOST}" if exported.npu and file == exported.runs_here else target.name,
            size=self.size,
            input=exported.input,
            output=exported.output,
            normalisation=Normalisation(IMAGENET_MEAN, IMAGENET_STD),
            class_names=self.class_names,
            palette=self.palette,
            recipe=self.recipe,
            weights=self.weights,
            tools={"segformer-edge": version("segformer-edge"), **exported.tools},
            files={name: sha256_of(folder / name) for name in parts},
            encodings_sha256=self.encodings_sha256,
        )


def _budget(wanted: int, meaning: str, used: int, plan: Plan | None) -> Budget:
    """``used`` of ``wanted`` bytes with ``plan``, whose meaning counts; what would fit only where nothing did."""
    if plan is None:
        return Budget(wanted, meaning, used)
    failed = not plan.fits and used > wanted
    return Budget(
        wanted, plan.meaning, used, plan.forecast, asdict(plan.tiling), used if failed else None,
        plan.blocked_by if failed else None, plan.largest_size if failed else None,
    )  # fmt: skip


def _loss(drop: float, max_drop: float, output: str) -> str:
    """Why a file fails the accuracy gate."""
    text = f"mIoU drops by {drop:.4f}, more than --max-drop {max_drop:g} points."
    # float32 is scored by its logits at full size.
    more = " Labels at a quarter of the size cost some of it, in float32 too; --output logits does without."
    return text + more if output == "labels" else text


class Judge:
    """Runs exported files and decides their status; keeps a Segmenter for each that is not failed."""

    def __init__(
        self, folder: Path, provenance: Provenance, held_back: Sequence[Image], original: TorchSegmenter,
        quantized: TorchSegmenter, dataset: SegmentationDataset | None, scores: Mapping[str, EvaluationResult],
        gates: Gates,
    ) -> None:  # fmt: skip
        self.folder, self.provenance, self.held_back = folder, provenance, held_back
        self.dataset, self.scores, self.gates = dataset, scores, gates
        self.references = {
            "fp32": [original(image) for image in held_back],
            "int8": [quantized(image) for image in held_back],
        }
        self.segmenters: dict[str, Segmenter] = {}

    def judge(self, target: Target, outcome: Exported | ExportFailure, progress: bool = False) -> TargetReport:
        """Write the sidecar, load, compare, evaluate and time one file. A failed file is removed again."""
        if isinstance(outcome, ExportFailure):
            return TargetReport(target.name, "failed", error=outcome.reason)
        for name in outcome.described:
            self.provenance.metadata(target, outcome, self.folder, name).save(self.folder / name)
        try:
            report = self._run(target, outcome, progress)
        except SegformerEdgeError as error:
            report = TargetReport(target.name, "failed", error=self._reason(str(error.args[0])))
        except Exception as error:  # runtimes raise anything; the other targets are still delivered
            report = TargetReport(target.name, "failed", error=self._reason(f"{type(error).__name__}: {error}"))
        if report.status == "failed":
            self.segmenters.pop(target.name, None)
            for name in outcome.files:
                for path in (self.folder / name, sidecar_path(self.folder / name)):
                    path.unlink(missing_ok=True)
        return report

    def _reason(self, text: str) -> str:
        """``text`` for the report: names of files without the folder they are built in, which is gone by then."""
        return text.replace(f"{self.folder}/", "")

    def _run(self, target: Target, exported: Exported, progress: bool) -> TargetReport:
        segmenter = self.segmenters[target.name] = Segmenter.load(self.folder / exported.runs_here)
        maps = [segmenter(image) for image in self.held_back]
        agreed = {
            name: float(np.mean([agreement(a, b) for a, b in zip(maps, reference, strict=True)]))
            for name, reference in self.references.items()
        }
        report = TargetReport(
            target.name,
            "ok",
            files=(*exported.files, *(f"{name}.json" for name in exported.described)),
            bytes=sum((self.folder / name).stat().st_size for name in exported.shipped),
            agreement_fp32=agreed["fp32"],
            agreement_int8=agreed["int8"],
            **self._memory(target, exported),
            ops=exported.ops,
            export_seconds=exported.seconds,
            npu=exported.npu,
            agreement_checked=agreed["int8"],
        )
        least = self.gates.min_agreement
        if agreed["int8"] < least:
            return replace(
                report,
                status="failed",
                files=(),
                bytes=None,
                error=f"The file agrees with the quantized reference on {agreed['int8']:.1%} of the pixels of "
                f"{len(maps)} images; at least {least:.0%} are needed. Its runtime computes something else.",
            )
        if exported.npu is None:
            report = replace(report, latency_ms=summarise_latency(segmenter.latency_ms(LATENCY_RUNS), threads=1))
        if self.dataset is not None:
            report = self._score(report, segmenter, progress)
        if report.budget is not None and not report.budget.fits:
            lost = f" {report.error}" if report.error else ""
            report = replace(report, status="over_budget", error=report.budget.verdict() + lost)
        return report

    def _memory(self, target: Target, exported: Exported) -> dict[str, Any]:
        """The fields ``memory`` and, with a budget, ``budget`` of a report. Raises MeasurementError with a budget."""
        plan, wanted = exported.plan, self.gates.memory_budget
        if target.records_memory:
            return self._recorded(exported)
        if wanted is None and target.slow_to_measure:
            return {"memory": exported.memory}
        arena = plan is not None and plan.meaning == "arena"
        try:
            variant = "no-delegate" if arena else target.measured_as
            found = measure(self.folder / exported.files[0], variant=variant)
        except SegformerEdgeError:
            if wanted is not None:
                raise
            return {"memory": exported.memory}
        planned = exported.memory.planned_bytes if exported.memory else found.arena_bytes
        split = found.run_split
        weights = split.weights + split.packed_weights if split else None
        memory = Memory(planned, found.inference_growth, weights, found.kind, found.device)
        if wanted is None:
            return {"memory": memory}
        meaning = plan.meaning if plan is not None else "growth"
        used = {
            "arena": found.arena_bytes,
            "plan": split.activations if split else None,
            "growth": found.inference_growth,
        }[meaning]
        if used is None:
            raise SegformerEdgeError(f"The memory budget cannot be checked: only {found.kind} is known here.")
        return {"memory": memory, "budget": _budget(wanted, meaning, used, plan)}

    def _recorded(self, exported: Exported) -> dict[str, Any]:
        """As ``_memory``, from what the exporter found."""
        memory, wanted = exported.memory, self.gates.memory_budget
        if wanted is None or memory is None or memory.planned_bytes is None:
            return {"memory": memory}
        return {"memory": memory, "budget": _budget(wanted, "arena", memory.planned_bytes, exported.plan)}

    def _score(self, report: TargetReport, segmenter: Segmenter, progress: bool) -> TargetReport:
        assert self.dataset is not None
        compare = {name: score.predictions for name, score in self.scores.items() if score.predictions is not None}
        result = evaluate(segmenter, self.dataset, progress=progress, compare=compare, description=report.target)
        drop = self.scores["fp32"].miou - result.miou
        over = not self.gates.drop_fits(drop)
        return replace(
            report,
            status="below_accuracy" if over else "ok",
            error=_loss(drop, self.gates.max_drop, segmenter.metadata.output.kind) if over else None,
            miou=result.miou,
            miou_drop=drop,
            agreement_fp32=result.agreement["fp32"],
            agreement_int8=result.agreement["int8"],
            per_class_iou=result.iou_by_name(self.dataset.class_names),
        )
