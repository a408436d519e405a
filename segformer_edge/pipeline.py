"""Checkpoint to verified INT8 files: load, calibrate, export every target, run each file, report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import torch

from quantization.calibration import CalibrationError, calibrate
from quantization.encodings import EncodingsError, apply_encodings, encodings_of, load_encodings, save_encodings
from quantization.recipe import Recipe, RecipeError, load_recipe
from quantization.sites import Mode, set_mode
from segformer_edge.cli import disk_full, is_disk_full, parse_size
from segformer_edge.data.demo import demo_calibration_images
from segformer_edge.data.images import list_images, read_image
from segformer_edge.data.processing import Preprocessing
from segformer_edge.data.sample import SegmentationDataset
from segformer_edge.errors import UsageError
from segformer_edge.evaluation import EvaluationResult, TorchSegmenter, check_classes, evaluate
from segformer_edge.export.exporter import Exported
from segformer_edge.export.outdir import OutputFolder
from segformer_edge.export.pool import ExportFailure, run_jobs
from segformer_edge.export.targets import CPU_TARGETS, Target, choose_targets
from segformer_edge.export.worker import Job, save_model
from segformer_edge.model.checkpoint import LoadedCheckpoint, load_checkpoint
from segformer_edge.progress import Progress
from segformer_edge.report.examples import example_strips
from segformer_edge.report.html import write_html
from segformer_edge.report.schema import Reference, Report, TargetReport
from segformer_edge.rewrite.graph import EdgeSegFormer
from segformer_edge.verify import Judge, Provenance

Image = npt.NDArray[np.uint8]

#: Calibration images beyond this many change the ranges little and cost time; they are picked evenly.
CALIBRATION_IMAGES = 64
#: Of the calibration images, how many are held back to compare each file with the references; at most a fifth of them.
HELD_BACK = 4


@dataclass(frozen=True)
class QuantizeOptions:
    """What ``quantize`` is asked for; the command line's options one by one."""

    out: Path
    weights: str = "demo"
    #: b0 to b5; None takes what the checkpoint is.
    variant: str | None = None
    #: (height, width); None takes the checkpoint's own, or 512x512.
    size: tuple[int, int] | None = None
    output: str = "logits"
    calibration: Path | None = None
    dataset: SegmentationDataset | None = None
    targets: Sequence[Target] = ()
    recipe: str | None = None
    encodings: Path | None = None
    #: Largest loss of mIoU against float32, in points (1.0 is 0.01).
    max_drop: float = 1.0
    force: bool = False


def _evenly(total: int, count: int) -> list[int]:
    """At most ``count`` of the indices below ``total``, from the first to the last."""
    if total <= count:
        return list(range(total))
    return [round(i * (total - 1) / (count - 1)) for i in range(count)]


def calibration_images(
    options: QuantizeOptions, size: tuple[int, int], tell: Progress
) -> tuple[list[Image], list[Image]]:
    """Images to calibrate on, and images held back. Raises UsageError without a source, DataError for a bad file."""
    if options.calibration is not None:
        paths = list_images(options.calibration)
        images = [read_image(paths[i]) for i in _evenly(len(paths), CALIBRATION_IMAGES + HELD_BACK)]
    elif options.encodings is not None:
        return [], _comparison_images(options, size, tell)
    elif options.weights == "demo":
        images = demo_calibration_images(CALIBRATION_IMAGES + HELD_BACK, size)
    else:
        raise UsageError(
            f"The weights '{options.weights}' need images to calibrate on.",
            hint="Name a folder of 20 to 100 typical images: --calibration DIR",
        )
    count = min(HELD_BACK, len(images) // 5)
    if not count:
        tell.warn(f"only {len(images)} calibration image(s); 20 or more give steadier ranges")
        return images, images[-1:]
    step = len(images) // count
    held = range(step - 1, len(images), step)[:count]
    return [image for i, image in enumerate(images) if i not in held], [images[i] for i in held]


def _comparison_images(options: QuantizeOptions, size: tuple[int, int], tell: Progress) -> list[Image]:
    """Where an encodings file spares the calibration: images to compare the files with the references on."""
    if options.dataset is not None:
        return [options.dataset[i].image for i in _evenly(len(options.dataset), HELD_BACK)]
    if options.weights != "demo":
        tell.warn("no images of yours to compare the files on (--calibration or --eval); demo scenes are used")
    return demo_calibration_images(HELD_BACK, size)


def quantized_network(
    loaded: LoadedCheckpoint, options: QuantizeOptions, recipe: Recipe, images: Sequence[Image],
    preprocessing: Preprocessing, tell: Progress,
) -> tuple[EdgeSegFormer, str]:  # fmt: skip
    """The rewritten network with parameters from the encodings file, or calibrated on ``images``; its recipe's name.

    Raises UsageError when recipe, encodings or images do not fit.
    """
    network = EdgeSegFormer(loaded.model, options.output)
    try:
        if options.encodings is not None:
            encodings = load_encodings(options.encodings)
            apply_encodings(network, encodings)
            return network, str(encodings.get("recipe", "not stated"))
        advance = tell.bar("calibrate", len(images))

        def batches() -> Iterator[torch.Tensor]:
            for image in images:
                yield torch.from_numpy(preprocessing(image))
                advance()

        calibrate(network, batches(), recipe)
    except (RecipeError, EncodingsError, CalibrationError) as error:
        raise UsageError(str(error)) from error
    return network, recipe.name


def recipe_for(options: QuantizeOptions, targets: Sequence[Target]) -> Recipe:
    """The user's recipe, or the targets' own. Raises UsageError for a bad one, or targets that need different ones."""
    if options.recipe and options.encodings:
        raise UsageError("--encodings already says what is quantized and how; leave out --recipe.")
    names = {options.recipe} if options.recipe else {target.recipe for target in targets}
    if len(names) > 1:
        raise UsageError(
            f"These targets use different recipes ({', '.join(sorted(map(str, names)))}).",
            hint="Run them one at a time, or name one for all: --recipe NAME_OR_FILE",
        )
    try:
        return load_recipe(str(names.pop()))
    except RecipeError as error:
        raise UsageError(str(error)) from error


def quantize(options: QuantizeOptions, tell: Progress | None = None) -> Report:
    """Run the whole job into ``options.out``; a target that fails is in the report, not an exception.

    Raises UsageError, CheckpointError, DataError for what was asked wrongly, DiskFullError; ``out`` is then untouched.
    """
    start, tell = time.perf_counter(), tell or Progress()
    targets = options.targets or choose_targets(CPU_TARGETS)
    recipe = recipe_for(options, targets)
    with (
        OutputFolder(options.out, force=options.force) as folder,
        TemporaryDirectory(dir=folder.path, prefix="scratch-") as scratch,
    ):
        loaded = load_checkpoint(options.weights, variant=options.variant)
        if options.dataset is not None:
            check_classes(options.weights, loaded.class_names, options.dataset)
        height, width = options.size or loaded.default_size
        size = parse_size(f"{height}x{width}")
        preprocessing = Preprocessing(size)
        images, held = calibration_images(options, size, tell)
        network, recipe_name = quantized_network(loaded, options, recipe, images, preprocessing, tell)
        encodings = folder.path / "encodings.json"
        save_encodings(encodings_of(network, recipe_name), encodings)
        # The references come first: unreadable labels are found before minutes go into exporting.
        original = TorchSegmenter(loaded.model, preprocessing)
        set_mode(network, Mode.FAKE)
        quantized = TorchSegmenter(network, preprocessing)
        scores: dict[str, EvaluationResult] = {}
        if options.dataset is not None:
            for name, model in (("fp32", original), ("int8", quantized)):
                tell.step(f"evaluate the {'float32 model' if name == 'fp32' else 'quantized reference'}")
                scores[name] = evaluate(
                    model, options.dataset, progress=tell.bars, keep_predictions=True, description=name
                )
        outcomes = _export(loaded, targets, size, options, folder, Path(scratch), tell)
        provenance = Provenance.of(loaded, recipe_name, encodings, size)
        judge = Judge(folder.path, provenance, held, original, quantized, options.dataset, scores, options.max_drop)
        reports = []
        for target in targets:
            tell.step(f"check {target.name}")
            reports.append(judge.judge(target, outcomes[target.name], tell.bars))
        report = Report(
            model=loaded.variant or "custom",
            weights=options.weights,
            size=size,
            output=options.output,
            seconds=time.perf_counter() - start,
            reference=_reference(scores, options.dataset),
            targets=tuple(reports),
        )
        report.save(folder.path / "report.json")
        strips = example_strips(held, original, judge.segmenters, provenance.palette)
        write_html(folder.path / "report.html", report, strips, _notes(loaded, options, recipe))
    return report


def _export(
    loaded: LoadedCheckpoint, targets: Sequence[Target], size: tuple[int, int], options: QuantizeOptions,
    folder: OutputFolder, scratch: Path, tell: Progress,
) -> Mapping[str, Exported | ExportFailure]:  # fmt: skip
    """Each target is built in a folder of its own, so that what a failed one leaves behind is not delivered."""
    for target in targets:
        (scratch / target.name).mkdir()
    weights = scratch / "weights.safetensors"
    config = save_model(loaded.model, weights)
    jobs = {
        target.name: Job(
            exporter=target.exporter,
            weights=str(weights),
            config=config,
            encodings=str(folder.path / "encodings.json"),
            size=size,
            output=options.output,
            stem=str(scratch / target.name / "model"),
            result=str(scratch / f"{target.name}.result.json"),
        )
        for target in targets
    }
    advance = tell.bar("export " + ", ".join(jobs), len(jobs))
    outcomes = run_jobs(jobs, scratch, on_end=lambda name: advance())
    # Int8 files are a quarter to a third of the float weights; a writer that failed has removed its own by now.
    needed = weights.stat().st_size // 2
    return {name: _collect(outcome, scratch / name, folder, needed) for name, outcome in outcomes.items()}


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


def _reference(scores: Mapping[str, EvaluationResult], dataset: SegmentationDataset | None) -> Reference:
    if dataset is None:
        return Reference(None, None, None, None)
    return Reference(scores["fp32"].miou, scores["int8"].miou, scores["fp32"].images, dataset.name)


def _notes(loaded: LoadedCheckpoint, options: QuantizeOptions, recipe: Recipe) -> list[str]:
    precision = f"Recipe {recipe.name}: {recipe.description}"
    if options.encodings is not None:
        precision = f"Encodings: {options.encodings}."
    return [f"Weights: {loaded.source}, licence: {loaded.licence}.", precision]


def exit_code(reports: Sequence[TargetReport]) -> int:
    """0 if every target is ok, else the first of 1 (one failed), 3 (over the memory budget), 4 (below the gate)."""
    codes = {"failed": 1, "over_budget": 3, "below_accuracy": 4}
    found = {report.status for report in reports}
    return next((code for status, code in codes.items() if status in found), 0)
