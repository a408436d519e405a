"""The training loop on Hugging Face Accelerate: one CPU, one GPU or many machines (``accelerate launch``)."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from segformer_edge.data.metrics import IGNORE
from segformer_edge.data.sample import SegmentationDataset
from segformer_edge.errors import SegformerEdgeError, UsageError
from segformer_edge.model.segformer import SegFormer
from segformer_edge.training.augment import TrainingSamples
from segformer_edge.training.folded_head import FoldedHeadTraining
from segformer_edge.training.recipe import Recipe
from segformer_edge.training.state import load_state, save_state
from segformer_edge.training.validate import normalise, validate

LOG_FILE = "log.jsonl"
#: A line in the log every so many steps, with the mean loss since the last one.
LOG_EVERY = 25


@dataclass(frozen=True)
class TrainingResult:
    """What a run ended with; ``best_miou`` (0..1) is on the validation set given to ``train``, nan without one."""

    model: SegFormer
    steps: int
    last_loss: float
    best_miou: float


def parameter_groups(model: SegFormer, recipe: Recipe) -> list[dict]:
    """AdamW groups: no decay for norms and biases, ``head_factor`` times the rate for the decode head."""
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        head, plain = name.startswith("decode_head."), parameter.ndim == 1
        groups.setdefault((head, plain), []).append(parameter)
    return [
        {
            "params": parameters,
            "peak": recipe.learning_rate * (recipe.head_factor if head else 1.0),
            "lr": 0.0,
            "weight_decay": 0.0 if plain else recipe.weight_decay,
        }
        for (head, plain), parameters in groups.items()
    ]


def segmentation_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits (B, C, H/4, W/4), upsampled bilinearly, against labels (B, H, W); 255 is ignored."""
    logits = F.interpolate(logits.float(), size=labels.shape[1:], mode="bilinear", align_corners=False)
    return F.cross_entropy(logits, labels, ignore_index=IGNORE)


class _Run:
    """The moving parts of one run; ``train`` below is the way in."""

    def __init__(
        self,
        model: SegFormer,
        train_set: SegmentationDataset,
        recipe: Recipe,
        out: Path,
        seed: int,
        resume: bool,
        cpu: bool,
    ) -> None:
        self.recipe, self.out, self.seed = recipe, out, seed
        precision = {"float32": "no"}.get(recipe.precision, recipe.precision)
        self.accelerator = Accelerator(mixed_precision=precision, cpu=cpu)
        if recipe.batch % self.accelerator.num_processes:
            raise UsageError(f"A batch of {recipe.batch} does not fit {self.accelerator.num_processes} processes.")
        self.step, self.best = 0, float("nan")
        state = load_state(out) if resume else None
        optimizer = torch.optim.AdamW(parameter_groups(model, recipe), betas=recipe.betas, fused=True)
        if state is not None:
            if state["recipe"] != recipe.model_dump_json() or state["seed"] != seed:
                raise UsageError(
                    f"The run in {out} was started with another recipe or seed.",
                    hint="Resume with the same --recipe, --steps and --seed, or give another --out.",
                )
            self.step, self.best = state["step"], state["best"]
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
        self.average: AveragedModel | None = None
        if recipe.average_decay:
            averaging = get_ema_multi_avg_fn(recipe.average_decay)
            self.average = AveragedModel(model, multi_avg_fn=averaging, use_buffers=True)
            if state is not None:
                self.average.load_state_dict(state["average"])
            self.average.to(self.accelerator.device)
        samples = TrainingSamples(train_set, recipe, seed, first_step=self.step)
        loader = DataLoader(
            samples,
            batch_size=recipe.batch // self.accelerator.num_processes,
            num_workers=recipe.workers,
            worker_init_fn=_one_thread,
        )
        self.model, self.optimizer, self.loader = self.accelerator.prepare(FoldedHeadTraining(model), optimizer, loader)

    @property
    def plain_model(self) -> SegFormer:
        return self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False).model

    @property
    def kept_model(self) -> SegFormer:
        """The weights that are validated and kept."""
        return self.plain_model if self.average is None else self.average.module

    def learn(self, images: Tensor, labels: Tensor) -> Tensor:
        """One optimiser step; returns the loss."""
        share = self.recipe.learning_rate_share(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * share
        self.model.train()
        # Dropout depends on (seed, step, process) alone, so a resumed run draws the same.
        torch.manual_seed((self.seed * 1_000_003 + self.step * 1009 + self.accelerator.process_index) % 2**63)
        with self.accelerator.autocast():
            logits = self.model(normalise(images))
        loss = segmentation_loss(logits, labels)
        self.accelerator.backward(loss)
        if self.recipe.max_gradient_norm:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.max_gradient_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update_parameters(self.plain_model)
        self.step += 1
        return loss.detach()

    def score(self, dataset: SegmentationDataset) -> float:
        """mIoU (0..1) of the kept weights; a better one than before is written to ``best.pt``."""
        with self.accelerator.autocast():
            miou = validate(self.kept_model, dataset, self.accelerator.device).miou
        if not miou <= self.best:
            self.best = miou
            if self.accelerator.is_main_process:
                partial = self.out / "best.pt.partial"
                torch.save({k: v.cpu() for k, v in self.kept_model.state_dict().items()}, partial)
                partial.replace(self.out / "best.pt")
        return miou

    def checkpoint(self) -> None:
        """Write everything a resumed run needs."""
        if not self.accelerator.is_main_process:
            return
        save_state(
            self.out,
            {
                "step": self.step,
                "best": self.best,
                "seed": self.seed,
                "recipe": self.recipe.model_dump_json(),
                "model": self.plain_model.state_dict(),
                "average": None if self.average is None else self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            },
        )

    def log(self, **values: float) -> None:
        if self.accelerator.is_main_process:
            with (self.out / LOG_FILE).open("a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")


def _one_thread(_: int) -> None:
    """Loader workers draw and distort on one thread each: the cores belong to the model."""
    import cv2

    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def train(
    model: SegFormer,
    train_set: SegmentationDataset,
    recipe: Recipe,
    out: Path,
    *,
    val_set: SegmentationDataset | None = None,
    seed: int = 0,
    resume: bool = False,
    cpu: bool = False,
) -> TrainingResult:
    """Train ``model`` in place on ``train_set`` and return its best weights by mIoU on ``val_set`` (else the last).

    ``out`` receives ``log.jsonl``, ``state.pt`` (to resume) and ``best.pt``. The same seed gives the same run, resumed
    or not. Raises UsageError when the data and the model differ in classes or the resumed run was another one, and
    SegformerEdgeError when the loss stops being a number.
    """
    for dataset in filter(None, (train_set, val_set)):
        if dataset.num_classes != model.config.num_classes:
            raise UsageError(f"{dataset.name} has {dataset.num_classes} classes, the model {model.config.num_classes}.")
        if len(dataset) == 0:
            raise UsageError(f"{dataset.name} has no images.")
    out.mkdir(parents=True, exist_ok=True)
    if not resume:
        (out / LOG_FILE).unlink(missing_ok=True)
    run = _Run(model, train_set, recipe, out, seed, resume, cpu)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    loss_sum, loss_count, last_loss = 0.0, 0, float("nan")
    started = time.perf_counter()
    with Progress(*columns, console=Console(stderr=True), disable=not run.accelerator.is_main_process) as progress:
        bar = progress.add_task("training", total=recipe.steps, completed=run.step)
        for images, labels in run.loader:
            last_loss = run.learn(images, labels).item()
            if last_loss != last_loss:
                raise SegformerEdgeError(
                    f"The loss is not a number at step {run.step}.", hint="Lower learning_rate in the recipe."
                )
            loss_sum, loss_count = loss_sum + last_loss, loss_count + 1
            progress.update(bar, completed=run.step, description=f"loss {last_loss:.3f} best mIoU {run.best:.3f}")
            done = run.step == recipe.steps
            if run.step % LOG_EVERY == 0 or done:
                seconds = time.perf_counter() - started
                run.log(step=run.step, loss=loss_sum / loss_count, seconds=round(seconds, 1))
                loss_sum, loss_count = 0.0, 0
            if val_set is not None and (run.step % recipe.validate_every == 0 or done):
                run.log(step=run.step, miou=run.score(val_set))
            if run.step % recipe.checkpoint_every == 0 or done:
                run.checkpoint()
    kept = run.kept_model
    if val_set is not None and (out / "best.pt").exists():
        kept.load_state_dict(torch.load(out / "best.pt", map_location="cpu", weights_only=True))
    run.accelerator.free_memory()
    return TrainingResult(kept.eval(), run.step, last_loss, run.best)
