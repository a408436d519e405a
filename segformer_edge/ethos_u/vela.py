"""Arm's compiler Vela on a ``.tflite``: compile in a folder of its own, and read what it says of the result.

Cycles, and the time that follows from them, are the compiler's own estimates of a reference system.
"""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from segformer_edge.errors import ArtifactError, MissingBackendError
from segformer_edge.ethos_u.configurations import MemoryMode, NpuConfig
from segformer_edge.report.npu import NpuLeft, NpuMode, NpuRefusal
from segformer_edge.verbosity import child_output

_MODULE = "ethosu.vela"
_TIMEOUT_SECONDS = 1800.0
_LEFT = re.compile(r"^Warning \(supported operators\) operator: (.+), ofm: '(.*)'\nReason: (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Step:
    """One operation of the compiler's schedule.

    ``source`` is the operator of the input graph, ``operation`` what became of it. ``sram`` is what is in use while it
    runs, in bytes; ``cycles`` the compiler's estimate.
    """

    source: str
    operation: str
    on_npu: bool
    cycles: int
    macs: int
    sram: int
    name: str


@dataclass(frozen=True)
class Compiled(NpuMode):
    """What the compiler made of a graph for one memory mode."""

    left: tuple[NpuLeft, ...]
    steps: tuple[Step, ...]
    #: The compiled ``.tflite``, or the arrays of the raw form by name.
    content: bytes | Mapping[str, np.ndarray]


def vela_version() -> str:
    """Version of the installed compiler. Raises MissingBackendError with the command that installs it."""
    try:
        return version("ethos-u-vela")
    except PackageNotFoundError as error:
        raise MissingBackendError("Arm's compiler Vela, which Ethos-U files need,", "ethos-u") from error


def compile_graph(
    content: bytes, config: NpuConfig, mode: MemoryMode, *, raw: bool = False, small: bool = False
) -> Compiled:
    """Compile the ``.tflite`` with bytes ``content``.

    ``raw`` asks for the NPU's command stream and constants alone, which is possible only where nothing is left to the
    CPU. ``small`` schedules for the least SRAM in place of speed. Raises MissingBackendError, or ArtifactError with
    what the compiler said.
    """
    vela_version()
    with TemporaryDirectory(prefix="vela-") as folder:
        source, out = Path(folder, "model.tflite"), Path(folder, "out")
        source.write_bytes(content)
        command = [
            sys.executable, "-m", _MODULE, str(source), f"--accelerator-config={config.name}",
            f"--system-config={mode.system}", f"--memory-mode={mode.vela}", "--config=Arm/vela.ini",
            f"--output-dir={out}", "--verbose-performance", f"--output-format={'raw' if raw else 'tflite'}",
            f"--optimise={'Size' if small else 'Performance'}",
        ]  # fmt: skip
        said = _run(command, f"{config.name} in {mode.name}", folder)
        if raw:
            with np.load(out / "model_vela.npz", allow_pickle=False) as arrays:
                made: bytes | dict[str, np.ndarray] = {
                    name: arrays[name] for name in arrays if not name.endswith("quantization")
                }
        else:
            made = (out / "model_vela.tflite").read_bytes()
        return read_folder(out, mode, said, made)


def in_every_mode(
    config: NpuConfig, compile_in: Callable[[MemoryMode], Compiled]
) -> tuple[list[Compiled], tuple[NpuRefusal, ...]]:
    """``compile_in`` each of the NPU's modes, and the modes that the compiler refuses: a cache may be too small.

    Raises ArtifactError where that is the default mode.
    """
    made, refused = [], []
    for mode in config.modes:
        try:
            made.append(compile_in(mode))
        except ArtifactError as error:
            if mode.name == config.default:
                raise
            refused.append(NpuRefusal(mode.name, error.args[0]))
    return made, tuple(refused)


def _run(command: list[str], what: str, folder: str) -> str:
    """What the compiler says on stdout."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", timeout=_TIMEOUT_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ArtifactError(
            f"Compiling for {what} took longer than {_TIMEOUT_SECONDS:g} s.",
            hint="Try a smaller input, or a larger memory budget: it needs fewer tiles.",
        ) from error
    child_output("vela", done.stdout + done.stderr)
    if done.returncode:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise ArtifactError(
            f"Vela does not compile the graph for {what} (exit code {done.returncode}): "
            f"{lines[-1] if lines else 'it said nothing'}"
        )
    return done.stdout + done.stderr


def read_folder(
    out: Path, mode: MemoryMode, said: str = "", content: bytes | Mapping[str, np.ndarray] = b""
) -> Compiled:
    """What the compiler left in the folder ``out``, and said. Raises ArtifactError where its tables are not there."""
    summaries, layers = list(out.glob("*_summary_*.csv")), list(out.glob("*_per-layer.csv"))
    if len(summaries) != 1 or len(layers) != 1:
        raise ArtifactError(f"The compiler wrote {len(summaries)} summaries and {len(layers)} schedules, not one each.")
    with summaries[0].open(newline="") as file:
        row: dict[str, Any] = next(csv.DictReader(file))
    with layers[0].open(newline="") as file:
        steps = tuple(_step(entry) for entry in csv.DictReader(file))

    def used(area: str) -> int:
        return round(float(row[f"{area}_memory_used"]) * 1024)

    left = tuple(NpuLeft(*(part.strip() for part in found)) for found in _LEFT.findall(said))
    return Compiled(
        mode=mode.name,
        system=mode.system,
        sram_bytes=used("sram"),
        dram_bytes=used("dram"),
        flash_bytes=used("on_chip_flash") + used("off_chip_flash"),
        cycles=int(float(row["cycles_total"])),
        inferences_per_second=float(row["inferences_per_second"]),
        left=_complete(left, steps),
        steps=steps,
        content=content,
    )


def _complete(left: tuple[NpuLeft, ...], steps: tuple[Step, ...]) -> tuple[NpuLeft, ...]:
    """``left``, and what the schedule gives to the CPU although nobody said why."""
    on_cpu = [step for step in steps if not step.on_npu]
    named = [entry.name for entry in left]
    unsaid = []
    for step in on_cpu:
        if step.name in named:
            named.remove(step.name)
        else:
            unsaid.append(NpuLeft(step.source, step.name, "the compiler gives no reason"))
    return (*left, *unsaid)


def _step(entry: Mapping[str, str]) -> Step:
    return Step(
        source=entry["Original Operator"].strip(),
        operation=entry["NNG Operator"].strip(),
        on_npu=entry["Target"].strip() == "NPU",
        cycles=int(float(entry["Op Cycles"])),
        macs=int(float(entry["MAC Count"])),
        sram=int(float(entry["Staging Usage"])),
        name=entry["Name"].strip(),
    )
