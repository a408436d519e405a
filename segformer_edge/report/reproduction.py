"""How to make a run again: command or options, versions, machine, and SHA-256 of what went in and out."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segformer_edge.jsonfile import Fields
from segformer_edge.runtime.metadata import sha256_of

#: What every run imports; targets add their own.
COMMON = ("segformer_edge", "torch", "numpy", "cv2", "safetensors")
#: Written after the hashes are taken, so they cannot be among them.
_LAST = ("report.json", "report.html")


@dataclass(frozen=True)
class Reproduction:
    """``command`` is None where the library was called; ``options`` are those that differ from the default, as text.

    ``versions`` are of Python and of the packages that took part, ``machine`` describes this one. ``sha256`` has the
    files of the run by name, ``inputs`` what went in: the weights where they are one file, and the calibration images'
    pixels in their order.
    """

    command: str | None
    options: Mapping[str, str]
    versions: Mapping[str, str]
    machine: Mapping[str, str]
    inputs: Mapping[str, str]
    sha256: Mapping[str, str]


def reproduction(
    command: Sequence[str] | None, options: Mapping[str, str], modules: Iterable[str], tools: Mapping[str, str],
    inputs: Mapping[str, str | None], folder: Path,
) -> Reproduction:  # fmt: skip
    """Of a run that has written all its files but the report into ``folder``.

    ``command`` are the arguments of the command line. ``modules`` names what was imported for the targets, ``tools``
    has versions that exporters told of themselves. Raises ArtifactError for a file that cannot be read.
    """
    return Reproduction(
        command=None if command is None else command_line(command),
        options=dict(options),
        versions={**versions_of(modules), **tools},
        machine=this_machine(),
        inputs={name: digest for name, digest in inputs.items() if digest is not None},
        sha256=sha256_of_files(folder),
    )


def command_line(argv: Sequence[str]) -> str:
    """``python -m segformer_edge.quantize`` with ``argv``, quoted for a POSIX shell."""
    return shlex.join(["python", "-m", "segformer_edge.quantize", *argv])


def versions_of(modules: Iterable[str]) -> dict[str, str]:
    """Python's version, and those of the packages that bring ``modules`` and of ``COMMON``, by the packages' names."""
    packages = packages_distributions()
    names = [name for module in (*COMMON, *modules) for name in packages.get(module, ())]
    return {"python": platform.python_version(), **{name: version(name) for name in dict.fromkeys(names)}}


def this_machine() -> dict[str, str]:
    """Operating system, architecture, processor and the number of CPUs that this process may use."""
    return {
        "system": platform.platform(),
        "architecture": platform.machine(),
        "processor": _processor() or platform.processor() or "not known",
        "cpus": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1),
    }


def _processor() -> str:
    """The model's name as Linux has it; "" elsewhere and on Arm, where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def sha256_of_images(images: Sequence[npt.NDArray[np.uint8]]) -> str:
    """SHA-256 of the shapes and pixels of ``images``, uint8 RGB, in their order."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(repr(image.shape).encode())
        digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def sha256_of_files(folder: Path) -> dict[str, str]:
    """Name -> SHA-256 of every file in ``folder`` but the report itself. Raises ArtifactError for an unreadable one."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name not in _LAST)
    return {path.name: sha256_of(path) for path in files}


def changed_options(options: Any, left_out: Sequence[str] = ()) -> dict[str, str]:
    """Fields of the dataclass ``options`` that differ from their default, as text."""
    fields = {name: each for name, each in type(options).__dataclass_fields__.items() if name not in left_out}
    values = {name: getattr(options, name) for name in fields}
    return {name: _as_text(value) for name, value in values.items() if value != fields[name].default}


def _as_text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_as_text, value))
    return str(getattr(value, "name", value) if not isinstance(value, Path) else value)


def read_reproduction(f: Fields) -> Reproduction:
    """From a report. Raises the reader's own error naming the field."""
    return Reproduction(
        command=f.optional("command", f.text),
        options=f.mapping("options"),
        versions=f.mapping("versions"),
        machine=f.mapping("machine"),
        inputs=f.mapping("inputs"),
        sha256=f.mapping("sha256"),
    )
