"""What ``python -m segformer_edge.train`` does once its options are checked."""

from __future__ import annotations

import argparse
import math
from typing import Any

import torch

from segformer_edge.cli import parse_size
from segformer_edge.data.class_map import ClassMap, load_class_map
from segformer_edge.data.datasets import open_dataset
from segformer_edge.data.sample import SegmentationDataset
from segformer_edge.errors import UsageError
from segformer_edge.evaluation import check_classes
from segformer_edge.model.checkpoint import load_checkpoint, load_for_training
from segformer_edge.model.config import variant_config
from segformer_edge.model.initialise import initialise
from segformer_edge.model.save import save_checkpoint, shipped_state
from segformer_edge.model.segformer import SegFormer
from segformer_edge.train import WEIGHTS_FILE
from segformer_edge.training.allocator import keep_freed_memory
from segformer_edge.training.loop import TrainingResult, train
from segformer_edge.training.recipe import Recipe, load_recipe
from segformer_edge.training.state import STATE_FILE
from segformer_edge.training.task import FloatTask, Task
from segformer_edge.training.validate import validate_with_progress

#: Recorded size of weights trained in float when the user names none.
DEFAULT_SIZE = "256x256"


def train_command(options: argparse.Namespace) -> dict[str, Any] | None:
    """Train as ``options`` say and write the best weights; returns the steps, the last loss and the scores reached.

    Of several processes that train together, all but the first return None.
    """
    if options.resume and not (options.out / STATE_FILE).exists():
        raise UsageError(
            f"There is nothing to resume in {options.out}: it has no {STATE_FILE}.",
            hint="Leave --resume out to start, or name the --out of the run that was stopped.",
        )
    keep_freed_memory()
    recipe = load_recipe(options.recipe or ("qat" if options.qat else "demo"), steps=options.steps)
    size = parse_size(options.size) if options.size else None
    class_map = load_class_map(options.class_map) if options.class_map else None

    def opened(spec: str) -> SegmentationDataset:
        dataset = open_dataset(spec)
        return class_map.apply(dataset) if class_map else dataset

    train_set = opened(options.data)
    val_set = None if options.val == "none" else opened(options.val)
    test_set = opened(options.test) if options.test else None
    if options.threads:
        torch.set_num_threads(options.threads)
    model, licence, native_size = _starting_model(options, recipe, train_set, class_map)
    task: Task
    if options.qat:
        from segformer_edge.training.qat_command import finish, start

        size = size or native_size
        task = start(options, model, recipe, train_set, size)
    else:
        size, task = size or parse_size(DEFAULT_SIZE), FloatTask(model, recipe)
    result = train(
        task, train_set, recipe, options.out, val_set=val_set, seed=options.seed, resume=options.resume, cpu=options.cpu
    )
    if not result.main:
        return None
    dtype = torch.float16 if options.float16 else torch.float32
    best = result.model
    # Score what is written, not what it was rounded from.
    best.load_state_dict(best.state_dict() | shipped_state(best, dtype))
    scores = _scores(options, task, result, val_set, test_set)
    start_weights = options.init or "random weights"
    save_checkpoint(
        best,
        options.out / WEIGHTS_FILE,
        size=size,
        class_names=train_set.class_names,
        palette=train_set.palette,
        licence=options.licence or licence,
        dtype=dtype,
        source=f"recipe {recipe.name}, {result.steps} steps on {train_set.name} from {start_weights}, "
        f"seed {options.seed}",
        extra={"val_miou": f"{list(scores.values())[-1]:.4f}", "val_set": list(scores)[-1]} if scores else {},
    )
    summary = {
        "weights": str(options.out / WEIGHTS_FILE),
        "steps": result.steps,
        "loss": None if math.isnan(result.last_loss) else result.last_loss,
        "miou": scores,
    }
    return summary | finish(options, result) if options.qat else summary


def _scores(
    options: argparse.Namespace,
    task: Task,
    result: TrainingResult,
    val_set: SegmentationDataset | None,
    test_set: SegmentationDataset | None,
) -> dict[str, float]:
    """mIoU (0..1) of the weights as they are written, by data set."""
    scores: dict[str, float] = {}
    if val_set is not None and not math.isnan(result.best_miou):
        scores[val_set.name] = result.best_miou
        if options.float16:
            scores[val_set.name] = validate_with_progress(task.deployed(result.network), val_set, task.size).miou
    if test_set is not None:
        scores[test_set.name] = validate_with_progress(task.deployed(result.network), test_set, task.size).miou
    return scores


def _starting_model(
    options: argparse.Namespace, recipe: Recipe, data: SegmentationDataset, class_map: ClassMap | None
) -> tuple[SegFormer, str, tuple[int, int]]:
    """The model to train, the licence its start weights bring along, and the (height, width) they are for."""
    torch.manual_seed(options.seed)
    if options.init is None:
        config = variant_config(options.model or "b0", data.num_classes, data.class_names)
        model = SegFormer(config, recipe.drop_path, recipe.dropout)
        initialise(model)
        return model, "not stated", parse_size(DEFAULT_SIZE)
    if options.qat:
        # A classifier for other classes would start from nothing, which is not what this training is for.
        loaded = load_checkpoint(options.init, variant=options.model)
        check_classes(options.init, loaded.class_names, data)
    else:
        loaded = load_for_training(
            options.init,
            num_classes=data.num_classes,
            class_names=data.class_names,
            variant=options.model,
            classifier_rows=class_map.classifier_rows if class_map and class_map.init else None,
        )
    model = SegFormer(loaded.config, recipe.drop_path, recipe.dropout)
    model.load_state_dict(loaded.model.state_dict())
    return model, loaded.licence, loaded.default_size
