"""Our files for the memory table: the quantize command once with a row's budget, once without one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import cv2
from defaults.job import check_weights, load_model
from memory_cases import Case, Setting

from segformer_edge.data.demo import demo_calibration_images
from segformer_edge.errors import ArtifactError, SegformerEdgeError
from segformer_edge.export.targets import TARGETS
from segformer_edge.jsonfile import read_json
from segformer_edge.runtime.formats import RUNTIMES

#: Images drawn to calibrate on where a setting's weights are random and no folder was given.
DRAWN_IMAGES = 20


@dataclass(frozen=True)
class Source:
    """What one setting's files are made from: a folder in Hugging Face layout and one of images."""

    weights: Path
    calibration: Path


def prepare_source(setting: Setting, weights: str, calibration: Path | None, folder: Path) -> Source:
    """Random weights, and images where none were given, are written to ``folder`` once; both sides then read them."""

    def draw(empty: Path) -> None:
        for i, image in enumerate(demo_calibration_images(DRAWN_IMAGES, setting.size)):
            cv2.imwrite(str(empty / f"{i:02}.png"), image[:, :, ::-1])

    images = calibration or _made_once(folder / "images", draw)
    if not check_weights(weights):
        return Source(Path(weights), images)
    model = folder / weights.replace(":", "-")
    return Source(_made_once(model, lambda empty: write_random(weights, empty)), images)


def write_random(weights: str, folder: Path) -> None:
    """Write the random network ``weights`` in Hugging Face layout."""
    load_model(weights).model.save_pretrained(folder)


def _made_once(folder: Path, fill: Callable[[Path], None]) -> Path:
    """``folder``, filled now unless it exists; it appears whole or not at all."""
    if not folder.is_dir():
        scratch = Path(mkdtemp(dir=folder.parent))
        try:
            fill(scratch)
            scratch.rename(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return folder


def command(case: Case, source: Source, budget: int | None, out: Path) -> list[str]:
    """The quantize command of one file; ``budget`` in bytes, None for none."""
    return [
        *quantize_command(source, case.setting, case.kind.target, case.kind.recipe, out, "labels"),
        *(("--memory-budget", str(budget)) if budget is not None else ()),
    ]


def quantize_command(
    source: Source, setting: Setting, targets: str, recipe: str, out: Path, output: str = "logits"
) -> list[str]:
    """The quantize command with what every row has."""
    return [
        *(sys.executable, "-m", "segformer_edge.quantize", "--weights", str(source.weights)),
        *("--size", setting.size_text, "--output", output, "--calibration", str(source.calibration)),
        *("--targets", targets, "--recipe", recipe, "--out", str(out)),
    ]


def our_file(case: Case, source: Source | None, budget: int | None, out: Path) -> Path:
    """The file of ``case`` in ``out``, made now unless it is there. Raises SegformerEdgeError that says why not.

    A file over the budget counts too: what it takes is measured all the same.
    """
    file = out / f"model{RUNTIMES[TARGETS[case.kind.target].format].suffix}"
    if file.exists():
        return file
    if source is None:
        raise SegformerEdgeError("no weights given for this row")
    error = run_quantize(command(case, source, budget, out), out)
    if file.exists():
        return file
    raise SegformerEdgeError(error)


def run_quantize(command: Sequence[str], out: Path) -> str:
    """Run a quantize command that writes to ``out``. "" if it succeeds, else why not."""
    done = subprocess.run(command, capture_output=True, text=True)
    return _reason(done, out).replace(str(out), out.name) if done.returncode else ""


def _reason(done: subprocess.CompletedProcess[str], out: Path) -> str:
    """Why the command failed: its report's error, or its last words."""
    try:
        for target in read_json(out / "report.json", ArtifactError)["targets"]:
            if target["error"]:
                return f"quantize: {target['error'].splitlines()[0]}"
    except (SegformerEdgeError, KeyError, TypeError):
        pass
    words = [line for line in done.stderr.splitlines() if line.startswith("error:")] or done.stderr.splitlines()[-1:]
    return f"quantize ended with {done.returncode}: {''.join(words[:1]).removeprefix('error: ')}"
