"""The training loop on Hugging Face Accelerate: one CPU, one GPU or many machines (``accelerate launch``)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from segformer_edge.data.metrics import IGNORE
from segformer_edge.data.sample import SegmentationDataset
from segformer_edge.errors import SegformerEdgeError, UsageError
from segformer_edge.model.segformer import SegFormer
from segformer_edge.training.augment import TrainingSamples
from segformer_edge.training.log import LOG_FILE, prune_log
from segformer_edge.training.recipe import Recipe
from segformer_edge.training.state import load_state, save_state
from segformer_edge.training.task import Task
from segformer_edge.training.validate import normalise, validate
from segformer_edge.verbosity import is_quiet

#: What a resumed run goes on counting.
_COUNTERS = ("step", "best", "best_step", "stale", "plateau", "loss_sum", "loss_count")
#: A line in the log every so many steps, with the mean loss since the last one.
LOG_EVERY = 25


@dataclass(frozen=True)
class TrainingResult:
    """What a run ended with; ``best_miou`` (0..1) is on the validation set given to ``train``, nan without one."""

    #: The task's network with the weights that are kept.
    network: nn.Module
    steps: int
    last_loss: float
    best_miou: float
    best_step: int | None
    #: Whether this process writes the files, of several that trained together.
    main: bool

    @property
    def model(self) -> SegFormer:
        return self.network.model


class _Run:
    """The moving parts of one run; ``train`` below is the way in."""

    def __init__(
        self,
        task: Task,
        train_set: SegmentationDataset,
        recipe: Recipe,
        out: Path,
        seed: int,
        resume: bool,
        cpu: bool,
    ) -> None:
        self.task, self.recipe, self.out, self.seed = task, recipe, out, seed
        precision = {"float32": "no"}.get(recipe.precision, recipe.precision)
        self.accelerator = Accelerator(mixed_precision=precision, cpu=cpu)
        if recipe.batch % self.accelerator.num_processes:
            raise UsageError(f"A batch of {recipe.batch} does not fit {self.accelerator.num_processes} processes.")
        self.step, self.best = 0, float("nan")
        self.best_step: int | None = None
        #: Validations since the last gain worth counting, and the mIoU that it reached.
        self.stale, self.plateau = 0, float("-inf")
        self.loss_sum, self.loss_count = 0.0, 0
        state = load_state(out) if resume else None
        optimizer = torch.optim.AdamW(task.groups(), betas=recipe.betas, fused=True)
        if state is not None:
            self._check_same(state)
            try:
                for name in _COUNTERS:
                    setattr(self, name, state[name])
                task.network.load_state_dict(state["network"])
                optimizer.load_state_dict(state["optimizer"])
            except (KeyError, RuntimeError, ValueError) as error:
                raise UsageError(
                    f"The state in {out} is of another network ({type(error).__name__}).",
                    hint="Resume with the version and the options that it was started with, or give another --out.",
                ) from None
        self.average: AveragedModel | None = None
        if recipe.average_decay:
            averaging = get_ema_multi_avg_fn(recipe.average_decay)
            self.average = AveragedModel(task.network, multi_avg_fn=averaging, use_buffers=task.average_buffers)
            if state is not None:
                self.average.load_state_dict(state["average"])
            self.average.to(self.accelerator.device)
        self.samples = TrainingSamples(train_set, recipe, seed, first_step=self.step, size=task.size)
        loader = DataLoader(
            self.samples,
            batch_size=recipe.batch // self.accelerator.num_processes,
            num_workers=recipe.workers,
            worker_init_fn=_one_thread,
            # A forked worker hangs where OpenCV already runs threads here, as after a calibration.
            multiprocessing_context="spawn" if recipe.workers else None,
        )
        self.network, self.optimizer, self.loader = self.accelerator.prepare(task.network, optimizer, loader)

    def _check_same(self, state: dict) -> None:
        """Raise UsageError unless ``state`` is of a run with this task, recipe and seed."""
        same = {"task": self.task.name, "recipe": self.recipe.model_dump_json(), "seed": self.seed}
        for what, value in same.items():
            if state.get(what) != value:
                raise UsageError(
                    f"The run in {self.out} was started with another recipe or seed"
                    + (f": '{state.get(what)}', not '{value}'." if what != "recipe" else "."),
                    hint="Resume with the same options as at first, or give another --out.",
                )

    @property
    def plain_network(self) -> nn.Module:
        return self.accelerator.unwrap_model(self.network, keep_fp32_wrapper=False)

    @property
    def kept_network(self) -> nn.Module:
        """The weights that are validated and kept."""
        return self.plain_network if self.average is None else self.average.module

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches that are left; none where an early stop was resumed. Raises DataError for an unusable sample."""
        if 0 < self.recipe.patience <= self.stale:
            return
        try:
            yield from self.loader
        except SegformerEdgeError:
            # A worker's error comes with its traceback. Met again here, in this batch or the next, it is the plain one.
            first = self.step * self.recipe.batch - self.samples.first
            for index in range(first, min(first + 2 * self.recipe.batch, len(self.samples))):
                self.samples[index]
            raise

    def learn(self, images: Tensor, labels: Tensor) -> Tensor:
        """One optimiser step; returns the loss."""
        share = self.recipe.learning_rate_share(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * share
        self.task.before_step(self.step, self.plain_network, self.optimizer.param_groups)
        self.network.train()
        # Dropout depends on (seed, step, process) alone, so a resumed run draws the same.
        torch.manual_seed((self.seed * 1_000_003 + self.step * 1009 + self.accelerator.process_index) % 2**63)
        images = normalise(images)
        # The mean over all processes' pixels, as one process with the whole batch takes it.
        labelled = self.accelerator.reduce((labels != IGNORE).sum().float(), "mean").clamp_min(1.0)
        with self.accelerator.autocast():
            loss = self.task.loss(self.network(images), images, labels, labelled)
        self.accelerator.backward(loss)
        if self.recipe.max_gradient_norm:
            clipped = [p for group in self.optimizer.param_groups if group["clip"] for p in group["params"]]
            self.accelerator.clip_grad_norm_(clipped, self.recipe.max_gradient_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update_parameters(self.plain_network)
        self.step += 1
        return self.accelerator.reduce(loss.detach(), "mean")

    def score(self, dataset: SegmentationDataset) -> float:
        """mIoU (0..1) of the kept weights in float32; a better one than before is written to ``best.pt``."""
        network = self.task.deployed(self.kept_network)
        miou = validate(network, dataset, self.accelerator.device, size=self.task.size).miou
        if not miou <= self.best:
            self.best, self.best_step = miou, self.step
            if self.accelerator.is_main_process:
                partial = self.out / "best.pt.partial"
                torch.save({k: v.cpu() for k, v in self.kept_network.state_dict().items()}, partial)
                partial.replace(self.out / "best.pt")
        self.stale = 0 if miou > self.plateau + self.recipe.minimum_gain else self.stale + 1
        if not self.stale:
            self.plateau = miou
        self.log(step=self.step, miou=miou)
        return miou

    def checkpoint(self) -> None:
        """Write everything a resumed run needs."""
        if not self.accelerator.is_main_process:
            return
        save_state(
            self.out,
            {
                **{name: getattr(self, name) for name in _COUNTERS},
                "task": self.task.name,
                "seed": self.seed,
                "recipe": self.recipe.model_dump_json(),
                "network": self.plain_network.state_dict(),
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
    task: Task,
    train_set: SegmentationDataset,
    recipe: Recipe,
    out: Path,
    *,
    val_set: SegmentationDataset | None = None,
    seed: int = 0,
    resume: bool = False,
    cpu: bool = False,
) -> TrainingResult:
    """Train ``task`` in place on ``train_set`` and return its best weights by mIoU on ``val_set`` (else the last).

    ``out`` receives ``log.jsonl``, ``state.pt`` (to resume) and ``best.pt``. The same seed gives the same run, resumed
    or not. Raises UsageError when the data and the model differ in classes or the resumed run was another one, and
    SegformerEdgeError when the loss stops being a number.
    """
    for dataset in filter(None, (train_set, val_set)):
        if dataset.num_classes != task.network.model.config.num_classes:
            raise UsageError(
                f"{dataset.name} has {dataset.num_classes} classes, the model {task.network.model.config.num_classes}."
            )
        if len(dataset) == 0:
            raise UsageError(f"{dataset.name} has no images.")
    out.mkdir(parents=True, exist_ok=True)
    run = _Run(task, train_set, recipe, out, seed, resume, cpu)
    if run.accelerator.is_main_process:
        prune_log(out / LOG_FILE, run.step if resume else -1)
    if val_set is not None and run.step == 0:
        for name, value in task.baselines(val_set, run.accelerator.device).items():
            run.log(step=0, **{name: value})
        if task.start_is_candidate:
            run.score(val_set)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    last_loss = float("nan")
    started = time.perf_counter()
    silent = is_quiet() or not run.accelerator.is_main_process
    with Progress(*columns, console=Console(stderr=True), disable=silent) as progress:
        bar = progress.add_task("training", total=recipe.steps, completed=run.step)
        for images, labels in run.batches():
            last_loss = run.learn(images, labels).item()
            if last_loss != last_loss:
                raise SegformerEdgeError(
                    f"The loss is not a number at step {run.step}.", hint="Lower learning_rate in the recipe."
                )
            run.loss_sum, run.loss_count = run.loss_sum + last_loss, run.loss_count + 1
            best = "" if val_set is None else f" best mIoU {run.best:.3f}"
            progress.update(bar, completed=run.step, description=f"loss {last_loss:.3f}{best}")
            done = run.step == recipe.steps
            if run.step % LOG_EVERY == 0 or done:
                seconds = time.perf_counter() - started
                run.log(step=run.step, loss=run.loss_sum / run.loss_count, seconds=round(seconds, 1))
                run.loss_sum, run.loss_count = 0.0, 0
            if val_set is not None and (run.step % recipe.validate_every == 0 or done):
                run.score(val_set)
                done = done or 0 < recipe.patience <= run.stale
            if run.step % recipe.checkpoint_every == 0 or done:
                run.checkpoint()
            if done:
                break
    run.accelerator.wait_for_everyone()
    kept = run.kept_network
    if val_set is not None and (out / "best.pt").exists():
        kept.load_state_dict(torch.load(out / "best.pt", map_location="cpu", weights_only=True))
    run.accelerator.free_memory()
    return TrainingResult(kept.eval(), run.step, last_loss, run.best, run.best_step, run.accelerator.is_main_process)
