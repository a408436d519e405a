"""Checkpoint to verified INT8 files: load, calibrate, export every target, run each file, report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from quantization.encodings import encodings_of, save_encodings
from quantization.precision import activation_widths, weight_widths
from quantization.recipe import Recipe
from quantization.sites import Mode, set_mode
from segformer_edge.cli import disk_full, is_disk_full
from segformer_edge.data.sample import SegmentationDataset
from segformer_edge.evaluation import EvaluationResult, TorchSegmenter, evaluate
from segformer_edge.export.exporter import Exported
from segformer_edge.export.outdir import OutputFolder
from segformer_edge.export.pool import ExportFailure, run_jobs
from segformer_edge.export.targets import CPU_TARGETS, Target, choose_targets
from segformer_edge.export.worker import Job, save_model
from segformer_edge.model.checkpoint import LoadedCheckpoint
from segformer_edge.prepare import Prepared, QuantizeOptions, prepare, recipe_for
from segformer_edge.progress import Progress
from segformer_edge.report.examples import example_strips
from segformer_edge.report.gates import Gates
from segformer_edge.report.html import write_html
from segformer_edge.report.profiling import look_into
from segformer_edge.report.reproduction import Reproduction, changed_options, reproduction, sha256_of_images
from segformer_edge.report.schema import Precision, Reference, Report, TargetReport
from segformer_edge.report.sensitivity_plot import check_plotting
from segformer_edge.sensitivity_analysis import save_sensitivity, sensitivity_of
from segformer_edge.verify import Judge, Provenance


def quantize(options: QuantizeOptions, tell: Progress | None = None) -> Report:
    """Run the whole job into ``options.out``; a target that fails is in the report, not an exception.

    Raises UsageError, CheckpointError, DataError for what was asked wrongly, DiskFullError; ``out`` is then untouched.
    """
    start, tell = time.perf_counter(), tell or Progress()
    if options.sensitivity:
        check_plotting()
    targets = options.targets or choose_targets(CPU_TARGETS)
    recipe = recipe_for(options, targets)
    with (
        OutputFolder(options.out, force=options.force) as folder,
        TemporaryDirectory(dir=folder.path, prefix="scratch-") as scratch,
    ):
        prepared = prepare(options, recipe, tell)
        loaded, network, recipe_name = prepared.loaded, prepared.network, prepared.recipe
        size, preprocessing, held = prepared.size, prepared.preprocessing, prepared.held_back
        encodings = folder.path / "encodings.json"
        save_encodings(encodings_of(network, recipe_name), encodings)
        # The references come first: unreadable labels are found before minutes go into exporting.
        original = TorchSegmenter(prepared.reference.model, preprocessing)
        set_mode(network, Mode.FAKE)
        quantized = TorchSegmenter(network, preprocessing)
        scores: dict[str, EvaluationResult] = {}
        if options.dataset is not None:
            for name, model in (("fp32", original), ("int8", quantized)):
                tell.step(f"evaluate the {'float32 model' if name == 'fp32' else 'quantized reference'}")
                scores[name] = evaluate(
                    model, options.dataset, progress=tell.bars, keep_predictions=True, description=name
                )
        harm = sensitivity_of(prepared, options, tell) if options.sensitivity else None
        outcomes = _export(loaded, targets, size, options, folder, Path(scratch), tell)
        provenance = Provenance.of(loaded, recipe_name, encodings, size)
        gates = Gates(options.max_drop, options.memory_budget)
        judge = Judge(folder.path, provenance, held, original, quantized, options.dataset, scores, gates)
        reports, charts = [], {}
        for target in targets:
            tell.step(f"check {target.name}")
            found = judge.judge(target, outcomes[target.name], tell.bars)
            tighter = tighter_budget(found, outcomes[target.name])
            if tighter is not None:
                tell.step(f"tile {target.name} once more: {found.error}")
                again = _export(
                    loaded, [target], size, replace(options, memory_budget=tighter), folder, Path(scratch), tell
                )
                if not isinstance(again[target.name], ExportFailure):  # else the first file stands, over its budget
                    found = judge.judge(target, again[target.name], tell.bars)
            if options.profile:
                tell.step(f"profile {target.name}")
                looked = look_into(found, folder.path)
                if looked is not None:
                    found = replace(found, profile=looked.profile)
                    charts[target.name] = looked.svg
            reports.append(found)
        plot = save_sensitivity(harm, folder.path) if harm else None
        report = Report(
            model=loaded.variant or "custom",
            weights=options.weights,
            size=size,
            output=options.output,
            seconds=time.perf_counter() - start,
            reference=_reference(scores, options.dataset, options.reference or options.weights),
            targets=tuple(reports),
            precision=Precision(activation_widths(network), weight_widths(network)),
            gates=gates,
            reproduce=_reproduction(prepared, options, targets, outcomes, folder.path),
        )
        report.save(folder.path / "report.json")
        strips = example_strips(held, original, judge.segmenters, provenance.palette, options.output == "labels")
        write_html(folder.path / "report.html", report, strips, _notes(loaded, options, recipe), plot, charts)
    return report


def _export(
    loaded: LoadedCheckpoint, targets: Sequence[Target], size: tuple[int, int], options: QuantizeOptions,
    folder: OutputFolder, scratch: Path, tell: Progress,
) -> Mapping[str, Exported | ExportFailure]:  # fmt: skip
    """Each target is built in a folder of its own, so that what a failed one leaves behind is not delivered."""
    for target in targets:
        (scratch / target.name).mkdir(exist_ok=True)
        (scratch / f"{target.name}.result.json").unlink(missing_ok=True)
    weights = scratch / "weights.safetensors"
    config = save_model(loaded.model, weights)
    jobs = {
        target.name: Job(
            exporter=target.exporter,
            weights=str(weights),
            config=config,
            encodings=str(folder.path / "encodings.json"),
            widths=target.widths,
            size=size,
            output=options.output,
            stem=str(scratch / target.name / "model"),
            result=str(scratch / f"{target.name}.result.json"),
            target=target.name,
            budget=options.memory_budget,
            cache_blocks=target.cache_blocks,
        )
        for target in targets
    }
    advance = tell.bar("export " + ", ".join(jobs), len(jobs))
    outcomes = run_jobs(jobs, scratch, on_end=lambda name: advance())
    # Int8 files are a quarter to a third of the float weights; a writer that failed has removed its own by now.
    needed = weights.stat().st_size // 2
    return {name: _collect(outcome, scratch / name, folder, needed) for name, outcome in outcomes.items()}


def tighter_budget(report: TargetReport, outcome: Exported | ExportFailure) -> int | None:
    """What to plan for where the model said that a file fits and the measurement says no; None otherwise."""
    if report.status != "over_budget" or report.budget is None or isinstance(outcome, ExportFailure):
        return None
    if outcome.plan is None or not outcome.plan.fits:
        return None
    return int(report.budget.bytes * outcome.plan.forecast / report.budget.used * 0.99)


def _collect(
    outcome: Exported | ExportFailure, made: Path, folder: OutputFolder, needed: int
) -> Exported | ExportFailure:
    """Move one target's files from ``made`` into ``folder``. Raises DiskFullError where a full disk made it fail."""
    if isinstance(outcome, ExportFailure):
        if is_disk_full(RuntimeError(outcome.reason)) or folder.out_of_space(needed):
            raise disk_full(RuntimeError(outcome.reason), folder.out)
        return outcome
    missing = [name for name in outcome.files if not (made / name).is_file()]
    if missing:
        return ExportFailure(f"The exporter did not write {', '.join(missing)}.")
    for name in outcome.files:
        (made / name).replace(folder.path / name)
    return outcome


def _reference(scores: Mapping[str, EvaluationResult], dataset: SegmentationDataset | None, weights: str) -> Reference:
    if dataset is None:
        return Reference(None, None, None, None, weights=weights)
    fp32, int8 = scores["fp32"], scores["int8"]
    return Reference(
        fp32.miou,
        int8.miou,
        fp32.images,
        dataset.name,
        fp32.iou_by_name(dataset.class_names),
        int8.iou_by_name(dataset.class_names),
        weights,
    )


def _reproduction(
    prepared: Prepared, options: QuantizeOptions, targets: Sequence[Target],
    outcomes: Mapping[str, Exported | ExportFailure], folder: Path,
) -> Reproduction:  # fmt: skip
    tools = [outcome.tools for outcome in outcomes.values() if isinstance(outcome, Exported)]
    inputs = {"weights": prepared.loaded.sha256}
    if options.reference is not None:
        inputs["reference weights"] = prepared.reference.sha256
    if prepared.calibrated_on:
        name = f"{len(prepared.calibrated_on)} calibration images, their pixels"
        inputs[name] = sha256_of_images(prepared.calibrated_on)
    return reproduction(
        options.command,
        changed_options(options, left_out=("command", "force")),
        [module for target in targets for module in target.packages],
        {name: tool for each in tools for name, tool in each.items()},
        inputs,
        folder,
    )


def _notes(loaded: LoadedCheckpoint, options: QuantizeOptions, recipe: Recipe) -> list[str]:
    precision = f"Recipe {recipe.name}: {recipe.description}"
    if options.encodings is not None:
        precision = f"Encodings: {options.encodings}."
    notes = [f"Weights: {loaded.source}, licence: {loaded.licence}.", precision]
    if options.reference is not None:
        notes.append(f"Float32 means the weights {options.reference}.")
    return notes


def exit_code(reports: Sequence[TargetReport]) -> int:
    """0 if every target is ok, else the first of 1 (one failed), 3 (over the memory budget), 4 (below the gate)."""
    codes = {"failed": 1, "over_budget": 3, "below_accuracy": 4}
    found = {report.status for report in reports}
    return next((code for status, code in codes.items() if status in found), 0)
