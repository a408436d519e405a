"""The part of ``python -m segformer_edge.train`` that ``--qat`` adds: the calibrated start, and the encodings."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from quantization.encodings import EncodingsError, encodings_of, load_encodings, save_encodings
from quantization.recipe import RecipeError
from quantization.recipe import load_recipe as load_precision
from segformer_edge.data.images import list_images, read_image
from segformer_edge.data.processing import Preprocessing
from segformer_edge.data.sample import SegmentationDataset
from segformer_edge.errors import UsageError
from segformer_edge.model.checkpoint import load_checkpoint
from segformer_edge.model.segformer import SegFormer
from segformer_edge.progress import progress_for_terminal
from segformer_edge.train import ENCODINGS_FILE, WEIGHTS_FILE
from segformer_edge.training.log import CURVE_FILE, LOG_FILE, draw_curve, read_log
from segformer_edge.training.loop import TrainingResult
from segformer_edge.training.qat import QatTask, QuantizedTraining, calibrated_network, deployed_network
from segformer_edge.training.recipe import QatRecipe, Recipe

#: Images that the start is calibrated on, picked evenly.
CALIBRATION_IMAGES = 64


def start(
    options: argparse.Namespace, model: SegFormer, recipe: Recipe, data: SegmentationDataset, size: tuple[int, int]
) -> QatTask:
    """The task, its ranges from ``--encodings`` or calibrated. Raises UsageError for what does not fit the model."""
    values = (recipe.qat or QatRecipe()).model_dump()
    try:
        encodings = None if options.encodings is None else load_encodings(options.encodings)
        if encodings is not None:
            values["quantization"] = str(encodings.get("recipe", "not stated"))
            precision = None
        else:
            precision = load_precision(options.quantization or values["quantization"])
            values["quantization"] = precision.name
    except (EncodingsError, RecipeError) as error:
        raise UsageError(str(error)) from error
    recipe = recipe.model_copy(update={"qat": QatRecipe(**values)})
    with progress_for_terminal() as tell:
        edge = calibrated_network(model, precision, _batches(options, data, size, tell), encodings)
    return QatTask(model, edge, recipe, size)


def _batches(
    options: argparse.Namespace, data: SegmentationDataset, size: tuple[int, int], tell: Any
) -> Iterator[torch.Tensor]:
    """Network inputs to calibrate on."""
    paths = None if options.calibration is None else list_images(options.calibration)
    total = len(data) if paths is None else len(paths)
    chosen = np.linspace(0, total - 1, min(total, CALIBRATION_IMAGES)).round().astype(int).tolist()
    if total < 5:
        tell.warn(f"only {total} calibration image(s); 20 or more give steadier ranges")
    preprocessing, advance = Preprocessing(size), tell.bar("calibrate", len(chosen))
    for index in chosen:
        image = data[index].image if paths is None else read_image(paths[index])
        yield torch.from_numpy(preprocessing(image))
        advance()


def finish(options: argparse.Namespace, result: TrainingResult) -> dict[str, Any]:
    """Write the encodings of the weights that were written, and the curve; returns what the summary adds."""
    assert isinstance(result.network, QuantizedTraining)
    # From the file, so that whoever loads it computes the same rewritten weights, scales and fingerprint.
    written = load_checkpoint(options.out / WEIGHTS_FILE)
    network = deployed_network(written.model, result.network)
    save_encodings(encodings_of(network, result.network.precision), options.out / ENCODINGS_FILE)
    draw_curve(options.out / LOG_FILE, options.out / CURVE_FILE)
    lines = read_log(options.out / LOG_FILE)
    first = {key: line[key] for line in lines if line["step"] == 0 for key in ("float_miou", "miou") if key in line}
    return {
        "encodings": str(options.out / ENCODINGS_FILE),
        "float_miou": first.get("float_miou"),
        "ptq_miou": first.get("miou"),
        "best_step": result.best_step,
    }
