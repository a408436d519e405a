"""What every job starts with: the checkpoint, the images to calibrate on, and the quantized reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from quantization.calibration import CalibrationError, calibrate
from quantization.encodings import EncodingsError, apply_encodings, load_encodings
from quantization.recipe import Recipe, RecipeError, load_recipe
from segformer_edge.cli import parse_size
from segformer_edge.data.demo import demo_calibration_images
from segformer_edge.data.images import list_images, read_image
from segformer_edge.data.processing import Preprocessing
from segformer_edge.data.sample import SegmentationDataset
from segformer_edge.errors import UsageError
from segformer_edge.evaluation import check_classes
from segformer_edge.export.targets import Target
from segformer_edge.model.checkpoint import LoadedCheckpoint, load_checkpoint
from segformer_edge.progress import Progress
from segformer_edge.rewrite.graph import EdgeSegFormer

Image = npt.NDArray[np.uint8]

#: Calibration images beyond this many change the ranges little and cost time; they are picked evenly.
CALIBRATION_IMAGES = 64
#: Of the calibration images, how many are held back to compare each file with the references; at most a fifth of them.
HELD_BACK = 4
#: With fewer images the ranges are unsteady, and one is held back.
_ENOUGH = 5


@dataclass(frozen=True)
class QuantizeOptions:
    """What ``quantize`` is asked for; the command line's options one by one."""

    out: Path
    weights: str = "demo"
    #: b0 to b5; None takes what the checkpoint is.
    variant: str | None = None
    #: Float checkpoint that the files are held against; None takes ``weights``. For weights from quantization-aware
    #: training it is what that started from.
    reference: str | None = None
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
    #: Bytes that an inference may take, in each target's own meaning.
    memory_budget: int | None = None
    force: bool = False
    #: Images to compare on in a sensitivity analysis; None leaves the analysis out.
    sensitivity: int | None = None
    #: Whether the report has per-operator times and memory timelines.
    profile: bool = True
    #: The command line's arguments, for the report to name; None where the library is called.
    command: Sequence[str] | None = None


@dataclass(frozen=True)
class Prepared:
    """A checkpoint and the quantized reference made of it."""

    loaded: LoadedCheckpoint
    #: The float checkpoint that the files are held against.
    reference: LoadedCheckpoint
    network: EdgeSegFormer
    #: The recipe's name, or what the encodings say of it.
    recipe: str
    preprocessing: Preprocessing
    #: Images that were calibrated on, and images held back from that.
    calibrated_on: list[Image]
    held_back: list[Image]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network's input."""
        return self.preprocessing.size

    def some_images(self, count: int) -> list[Image]:
        """At most ``count`` images: those held back first, then evenly of those calibrated on."""
        more = [self.calibrated_on[i] for i in evenly(len(self.calibrated_on), count)]
        return [*self.held_back, *more][:count]


def evenly(total: int, count: int) -> list[int]:
    """At most ``count`` of the indices below ``total``, from the first to the last."""
    if total <= count:
        return list(range(total))
    return [round(i * (total - 1) / max(count - 1, 1)) for i in range(count)]


def calibration_images(
    options: QuantizeOptions, size: tuple[int, int], tell: Progress
) -> tuple[list[Image], list[Image]]:
    """Images to calibrate on, and images held back. Raises UsageError without a source, DataError for a bad file."""
    if options.calibration is not None:
        paths = list_images(options.calibration)
        images = [read_image(paths[i]) for i in evenly(len(paths), CALIBRATION_IMAGES + HELD_BACK)]
    elif options.encodings is not None:
        return [], _comparison_images(options, size, tell)
    elif options.weights == "demo":
        images = demo_calibration_images(CALIBRATION_IMAGES + HELD_BACK, size)
    else:
        raise UsageError(
            f"The weights '{options.weights}' need images to calibrate on.",
            hint="Name a folder of 20 to 100 typical images: --calibration DIR",
        )
    few = len(images) < _ENOUGH
    if few and options.encodings is None:
        tell.warn(f"only {len(images)} calibration image(s); 20 or more give steadier ranges")
    if len(images) == 1:
        return images, images
    count = 1 if few else min(HELD_BACK, len(images) // _ENOUGH)
    step = len(images) // count
    held = range(step - 1, len(images), step)[:count]
    return [image for i, image in enumerate(images) if i not in held], [images[i] for i in held]


def _comparison_images(options: QuantizeOptions, size: tuple[int, int], tell: Progress) -> list[Image]:
    """Where an encodings file spares the calibration: images to compare the files with the references on."""
    if options.dataset is not None:
        return [options.dataset[i].image for i in evenly(len(options.dataset), HELD_BACK)]
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
    if len(names) > 1 and options.encodings is None:
        raise UsageError(
            f"These targets use different recipes ({', '.join(sorted(map(str, names)))}).",
            hint="Run them one at a time, or name one for all: --recipe NAME_OR_FILE",
        )
    try:
        return load_recipe(str(names.pop()))
    except RecipeError as error:
        raise UsageError(str(error)) from error


def prepare(options: QuantizeOptions, recipe: Recipe, tell: Progress) -> Prepared:
    """Load the checkpoint, choose the images, calibrate. Raises UsageError, CheckpointError, DataError."""
    loaded = load_checkpoint(options.weights, variant=options.variant)
    if options.dataset is not None:
        check_classes(options.weights, loaded.class_names, options.dataset)
    reference = loaded
    if options.reference is not None:
        reference = load_checkpoint(options.reference)
        if reference.config.num_classes != loaded.config.num_classes:
            raise UsageError(
                f"'{options.reference}' has {reference.config.num_classes} classes, "
                f"'{options.weights}' {loaded.config.num_classes}.",
                hint="--reference is the float checkpoint that these weights were trained from.",
            )
    height, width = options.size or loaded.default_size
    preprocessing = Preprocessing(parse_size(f"{height}x{width}"))
    images, held = calibration_images(options, preprocessing.size, tell)
    network, recipe_name = quantized_network(loaded, options, recipe, images, preprocessing, tell)
    return Prepared(loaded, reference, network, recipe_name, preprocessing, images, held)
