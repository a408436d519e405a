"""``count``: instructions of one inference of an exported file on an emulated ARM CPU."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from segformer_edge.compiler import Library
from segformer_edge.emulation.errors import EmulationError
from segformer_edge.emulation.plugins import plugin_emulator
from segformer_edge.emulation.sysroot import cache_folder, open_runtime
from segformer_edge.errors import UsageError
from segformer_edge.instructions.marks import between
from segformer_edge.instructions.worker import OURS
from segformer_edge.memory.subjects import VARIANTS
from segformer_edge.runtime.formats import format_of
from segformer_edge.suggestions import did_you_mean
from segformer_edge.worker_process import answer_of

_WORKER = "segformer_edge.instructions.worker"
PLUGIN = Library("The plugin that counts instructions", (Path(__file__).with_name("counter.c"),), EmulationError)


@dataclass(frozen=True)
class InstructionCount:
    """One inference on one thread, after another on the same input."""

    file: str
    format: str
    #: "LiteRT CompiledModel, XNNPACK", "onnxruntime", ...
    runtime: str
    #: Package name -> version of what executes the file.
    versions: dict[str, str]
    #: As ``segformer_edge.emulation`` names it.
    cpu: str
    instructions: int


def count(path: str | os.PathLike[str], cpu: str, variant: str = OURS, timeout: float = 1800.0) -> InstructionCount:
    """Run ``path`` on the emulated ``cpu`` and count the instructions of its second inference.

    Any file of a known format will do, with or without our sidecar; its inputs get random numbers from a fixed seed.
    ``variant`` "ours" takes the runtime that ``segformer_edge.runtime`` takes on that CPU; "" and the names in
    ``segformer_edge.memory.subjects.VARIANTS`` take that setup ("" is LiteRT's Interpreter for ``.tflite``). Runs of
    the same file differ by less than 0.01 %; a count says nothing about cache misses or clock rates, so it orders
    files for one CPU, and is no time.

    Raises UsageError for an unknown CPU or variant, a format without a runtime there, a CPU or an emulator with
    plugins that is not prepared; ArtifactError for a file that its runtime refuses; MeasurementError where the process
    ends otherwise or takes longer than ``timeout`` seconds; EmulationError where nothing was counted.
    """
    file, entry = Path(path).absolute(), format_of(Path(path))
    entry.check(file)
    if variant not in ("", OURS) and VARIANTS.get(variant) != entry.name:
        known = [OURS, *(name for name, form in VARIANTS.items() if form == entry.name)]
        raise UsageError(f"'{variant}' is no way to run {entry.suffix} files.", hint=did_you_mean(variant, known))
    sysroot, model = open_runtime(cpu, file, entry.name)
    emulator = plugin_emulator()
    emulator.check()
    plugin = PLUGIN.build(cache_folder() / "plugin")
    with TemporaryDirectory(prefix="instructions-") as folder:
        marks = Path(folder) / "marks"
        marks.touch()
        # The sysroot's own emulator is its command's first word. -seed: the random bytes a program is started with.
        _, *words = sysroot.command(model, ["-m", _WORKER, entry.name, variant, str(file)])
        counting = [*emulator.command(sysroot.architecture, plugin, {"out": str(marks)}), "-seed", "0", *words]
        answer = answer_of(
            counting, sysroot.environment({"PYTHONHASHSEED": "0"}), file, f"emulated {model.name}", timeout
        )
        instructions = between(marks.read_text())
    return InstructionCount(str(file), entry.name, answer["runtime"], answer["versions"], model.name, instructions)
