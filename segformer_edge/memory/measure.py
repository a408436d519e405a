"""``measure``: the peak heap of one inference of an exported file, on this machine or an emulated ARM CPU."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segformer_edge.emulation.sysroot import open_runtime
from segformer_edge.errors import UsageError
from segformer_edge.memory.hook_build import HookError, emulated_hook, host_hook
from segformer_edge.memory.measurement import BY_HOOK, BY_RESIDENT, Block, Measurement, Phase, Split
from segformer_edge.memory.subjects import VARIANTS
from segformer_edge.progress import Progress
from segformer_edge.runtime.formats import Format, format_of
from segformer_edge.suggestions import did_you_mean
from segformer_edge.worker_process import answer_of, host_environment

_WORKER = "segformer_edge.memory.worker"


def measure(
    path: str | os.PathLike[str],
    *,
    on: str = "host",
    threads: int = 1,
    variant: str = "",
    timeout: float = 600.0,
    tell: Progress | None = None,
) -> Measurement:
    """Load ``path`` in a process of its own, run it three times, and say what memory that took.

    ``on`` is "host" or a CPU of ``segformer_edge.emulation.architectures``. ``variant`` chooses another setup of the
    runtime: "compiled" for ``.tflite`` (LiteRT's CompiledModel as our own runtime uses it, in place of its Interpreter)
    and "no-delegate" (built-in kernels in place of XNNPACK), "no-arena" for ``.onnx``. Any file of a known format will
    do, with or without our sidecar; its inputs get random numbers. Where the allocator hook cannot be built on the
    host, resident memory is measured, ``tell`` warns, and ``kind`` says so.

    Raises UsageError for an unknown CPU or variant, a format without a runtime there, or an emulated CPU that is not
    prepared; ArtifactError for a file that its runtime refuses; MeasurementError where the process ends otherwise or
    takes longer than ``timeout`` seconds.
    """
    file, entry = Path(path).absolute(), format_of(Path(path))
    entry.check(file)
    if threads < 1:
        raise UsageError(f"The number of threads is at least 1; got {threads}.")
    if variant and VARIANTS.get(variant) != entry.name:
        known = [name for name, form in VARIANTS.items() if form == entry.name]
        hint = did_you_mean(variant, known) if known else "Leave it out."
        raise UsageError(f"'{variant}' is no way to run {entry.suffix} files.", hint=hint)
    arguments = [entry.name, variant, str(threads), str(file)]
    if on == "host":
        kind, command, environment = _on_host(arguments, threads, tell or Progress())
        device = f"host {platform.machine()}"
    else:
        kind, command, environment = _on_cpu(on, entry, file, arguments)
        device = f"emulated {on}"
    answer = answer_of(command, environment, file, device, timeout)
    return _measurement(answer, file, entry, kind, device, threads)


def _on_host(arguments: Sequence[str], threads: int, tell: Progress) -> tuple[str, list[str], dict[str, str]]:
    environment = host_environment(threads)
    kind = BY_HOOK
    try:
        library = str(host_hook())
        environment |= {"LD_PRELOAD": " ".join(filter(None, [library, os.environ.get("LD_PRELOAD")]))}
        environment |= {"PYTHONMALLOC": "malloc"}  # else Python's objects come in steps of its arenas
    except HookError as error:
        tell.warn(
            f"{error.args[0]} Resident memory is measured instead, which cannot tell weights from activations."
            f"\n  {error.hint}"
        )
        kind = BY_RESIDENT
    how = "hook" if kind == BY_HOOK else "resident"
    return kind, [sys.executable, "-m", _WORKER, how, *arguments], environment


def _on_cpu(name: str, entry: Format, file: Path, arguments: Sequence[str]) -> tuple[str, list[str], dict[str, str]]:
    sysroot, cpu = open_runtime(name, file, entry.name)
    # QEMU is linked statically and passes the variables on: the library is loaded into the emulated program alone.
    environment = {"LD_PRELOAD": str(emulated_hook(sysroot, cpu)), "PYTHONMALLOC": "malloc"}
    return BY_HOOK, sysroot.command(cpu, ["-m", _WORKER, "hook", *arguments]), sysroot.environment(environment)


def _measurement(
    answer: Mapping[str, Any], file: Path, entry: Format, kind: str, device: str, threads: int
) -> Measurement:
    files = [file, *(file.with_suffix(suffix) for suffix in entry.companions)]
    load, run = (Split(**answer[name]) if name in answer else None for name in ("load_split", "run_split"))
    phases = tuple(Phase(**phase) for phase in answer["phases"])
    return Measurement(
        file=str(file),
        file_bytes=sum(each.stat().st_size for each in files if each.exists()),
        format=entry.name,
        runtime=answer["runtime"],
        versions=answer["versions"],
        device=device,
        kind=kind,
        threads=threads,
        inputs=tuple((name, dtype, tuple(shape)) for name, dtype, shape in answer["inputs"]),
        phases=phases,
        peak_bytes=max(phase.peak for phase in phases),
        inference_growth=max(load.growth, run.growth) if load and run else None,
        load_growth=load.growth if load else None,
        run_growth=run.growth if run else None,
        run_split=run,
        load_split=load,
        mapped_bytes=answer["mapped"],
        resident_bytes=answer["resident"],
        arena_bytes=answer.get("arena"),
        blocks=tuple(Block(**block) for block in answer.get("blocks", ())),
    )
