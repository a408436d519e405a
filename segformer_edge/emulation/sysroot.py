"""A prepared sysroot: where its parts lie, and how a program of it is called."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import segformer_edge
from segformer_edge.emulation.architectures import PYTHON, SUITE, Addition, Architecture, Cpu, find_cpu
from segformer_edge.emulation.errors import EmulationError, NotPreparedError
from segformer_edge.errors import UsageError
from segformer_edge.jsonfile import read_json

#: Raise it when the layout of a sysroot changes: older ones are then built anew.
LAYOUT = 3
MANIFEST = "sysroot.json"


@dataclass(frozen=True)
class Sysroot:
    """``folder`` holds qemu, system/ (Debian), site/ (wheels), cpus/NAME/ (system/ plus that CPU's /proc and /sys).

    Its programs see the wheels of ``addition`` as well, which lie in additions/NAME/.
    """

    folder: Path
    architecture: Architecture
    addition: Addition | None = None

    @property
    def qemu(self) -> Path:
        """The emulator, a program of the host."""
        return self.folder / self.architecture.qemu

    @property
    def system(self) -> Path:
        """Debian's files."""
        return self.folder / "system"

    @property
    def site(self) -> Path:
        """The wheels."""
        return self.folder / "site"

    def addition_site(self, addition: Addition) -> Path:
        """The wheels of ``addition``, and a manifest of them."""
        return self.folder / "additions" / addition.name

    def root(self, cpu: Cpu) -> Path:
        """What a program on ``cpu`` sees as /, where a file is there; else it sees the host's."""
        return self.folder / "cpus" / cpu.name

    def program(self, cpu: Cpu, path: str, arguments: Sequence[str]) -> list[str]:
        """The command line, for the host, that runs the program ``path`` of Debian's files on ``cpu``."""
        return [str(self.qemu), "-cpu", cpu.qemu, "-L", str(self.root(cpu)), str(self.system / path), *arguments]

    def command(self, cpu: Cpu, arguments: Sequence[str]) -> list[str]:
        """The command line, for the host, that runs the sysroot's Python on ``cpu``."""
        # -P and -s: neither the current folder nor the user's own packages, which are the host's.
        return self.program(cpu, f"usr/bin/python{PYTHON}", ["-P", "-s", *arguments])

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """A program's whole environment: the host's could name libraries and Python packages of the wrong CPU."""
        kept = {name: os.environ[name] for name in ("HOME", "TMPDIR", "COLUMNS") if name in os.environ}
        added = [self.addition_site(self.addition)] if self.addition else []
        libraries = [str(self.system / folder) for folder in self.architecture.library_folders]
        return {
            **kept,
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": os.pathsep.join(map(str, (self.site, *added, project_path()))),
            **({"LD_LIBRARY_PATH": os.pathsep.join(libraries)} if libraries else {}),
            **(more or {}),
        }

    def check(self) -> None:
        """Raise NotPreparedError unless this sysroot is complete and holds what its architecture's row asks for."""
        manifest = self.folder / MANIFEST
        if not manifest.exists():
            raise NotPreparedError(self.architecture.name, f"is not prepared: there is no '{manifest}'")
        if read_json(manifest, EmulationError).get("contents") != contents_of(self.architecture):
            raise NotPreparedError(self.architecture.name, f"in '{self.folder}' was prepared for other versions")
        if self.addition is not None:
            self._check_addition(self.addition)

    def _check_addition(self, addition: Addition) -> None:
        manifest = self.addition_site(addition) / MANIFEST
        known = read_json(manifest, EmulationError).get("contents") if manifest.exists() else None
        if known != versions_of(addition.wheels):
            what = f"has {'no' if known is None else 'another'} {addition.name}"
            raise NotPreparedError(self.architecture.name, what, addition.name)


def cache_folder() -> Path:
    """Where sysroots lie: $SEGFORMER_EDGE_ARM, else segformer_edge/arm in the user's cache folder."""
    chosen = os.environ.get("SEGFORMER_EDGE_ARM")
    if chosen:
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "segformer_edge" / "arm"


def sysroot_of(architecture: Architecture) -> Sysroot:
    """Its place in the cache folder, prepared or not."""
    return Sysroot(cache_folder() / architecture.name, architecture)


def open_cpu(name: str) -> tuple[Sysroot, Cpu]:
    """The prepared sysroot of the CPU ``name``. Raises UsageError for an unknown one, NotPreparedError."""
    architecture, cpu = find_cpu(name)
    sysroot = sysroot_of(architecture)
    sysroot.check()
    return sysroot, cpu


def open_runtime(name: str, file: Path, form: str) -> tuple[Sysroot, Cpu]:
    """As ``open_cpu``, with what runs ``file`` of the format ``form``. Raises UsageError too where nothing does."""
    addition = addition_for(*find_cpu(name), file, form)
    sysroot, cpu = open_cpu(name)
    sysroot = replace(sysroot, addition=addition)
    sysroot.check()
    return sysroot, cpu


def addition_for(architecture: Architecture, cpu: Cpu, file: Path, form: str) -> Addition | None:
    """What ``file`` of the format ``form`` needs on ``cpu`` beside the sysroot's own wheels. Raises UsageError."""
    if form in architecture.formats:
        return None
    for addition in architecture.additions:
        if form in addition.formats and cpu.name in addition.cpus:
            return addition
    elsewhere = [name for each in architecture.additions if form in each.formats for name in each.cpus]
    raise UsageError(
        f"'{file.name}': {form} has no runtime on the emulated {cpu.name}.",
        hint=f"These have: {', '.join(architecture.formats)}."
        + (f" On {', '.join(elsewhere)}, {form} has one." if elsewhere else ""),
    )


def run_python(cpu_name: str, arguments: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run the emulated Python with ``arguments`` (``["-m", "module", ...]``) and segformer_edge on its path.

    ``options`` are those of subprocess.run; ``env`` adds to the environment. Programs it starts in turn run on the
    host. Raises UsageError, NotPreparedError; the exit code is in the result.
    """
    sysroot, cpu = open_cpu(cpu_name)
    environment = sysroot.environment(options.pop("env", None))
    return subprocess.run(sysroot.command(cpu, arguments), env=environment, **options)


def contents_of(architecture: Architecture) -> dict[str, Any]:
    """What a sysroot of ``architecture`` is made from, as JSON. Wheels without a version are the newest."""
    return {
        "layout": LAYOUT,
        "suite": SUITE,
        "debian": list(architecture.debian_packages),
        "wheels": versions_of(architecture.wheels),
        "cpus": [[cpu.name, cpu.midr, cpu.features] for cpu in architecture.cpus],
    }


def versions_of(wheels: Mapping[str, str]) -> dict[str, str]:
    """Wheel -> version; those that name none have the host's, or the newest ("") where it has none."""
    return {name: wanted or _host_version(name) for name, wanted in wheels.items()}


def project_path() -> Path:
    """A folder with this segformer_edge alone in it, as a link: beside it may lie packages of the host's CPU."""
    package = Path(segformer_edge.__file__).parent.resolve()
    folder = cache_folder() / "projects" / hashlib.sha256(os.fsencode(package)).hexdigest()[:16]
    link = folder / package.name
    if not link.is_symlink():
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):  # another process was faster
            link.symlink_to(package)
    return folder


def _host_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
