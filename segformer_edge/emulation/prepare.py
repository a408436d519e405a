"""Builds the sysroot of one architecture: an emulator, Debian's Python, and the wheels a device would install."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

from segformer_edge.emulation.architectures import PYTHON, SUITE, Addition, Architecture, Cpu, find_cpu
from segformer_edge.emulation.debian import download, find_mirror, host_architecture, unpack, unpack_file
from segformer_edge.emulation.errors import EmulationError, NotPreparedError
from segformer_edge.emulation.sysroot import MANIFEST, Sysroot, contents_of, sysroot_of, versions_of
from segformer_edge.jsonfile import write_json
from segformer_edge.progress import Progress
from segformer_edge.verbosity import child_output

#: CPU number -> its files below /proc and /sys; a guest may ask for any number the host has online.
CORES = 64
_CPUINFO = """\
processor\t: {core}
BogoMIPS\t: 108.00
Features\t: {features}
CPU implementer\t: 0x{implementer:02x}
CPU architecture: {version}
CPU variant\t: 0x{variant:x}
CPU part\t: 0x{part:03x}
CPU revision\t: {revision}

"""


def prepare(architecture: Architecture, tell: Progress | None = None, force: bool = False) -> Sysroot:
    """Make the sysroot of ``architecture`` in the cache folder, or nothing where it is there and right.

    Takes about a minute and 130 MB from Debian's mirror and the package index, both as the host is set up. Needs no
    root. Raises UsageError for what the host lacks, EmulationError for a failed download; an earlier sysroot stays.
    """
    tell, sysroot = tell or Progress(), sysroot_of(architecture)
    with locked(sysroot.folder.parent):
        try:
            sysroot.check()
            if not force:
                return sysroot
        except (NotPreparedError, EmulationError):
            pass
        scratch = Path(mkdtemp(prefix=f".{architecture.name}-", dir=sysroot.folder.parent))
        try:
            _build(Sysroot(scratch, architecture), tell)
            replace_folder(sysroot.folder, scratch)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return sysroot


def add(sysroot: Sysroot, addition: Addition, tell: Progress | None = None, force: bool = False) -> None:
    """Fetch the wheels of ``addition`` into a prepared sysroot, or nothing where they are there and right.

    Raises EmulationError for a failed download; earlier wheels stay.
    """
    tell, whole = tell or Progress(), replace(sysroot, addition=addition)
    with locked(sysroot.folder.parent):
        try:
            whole.check()
            if not force:
                return
        except (NotPreparedError, EmulationError):
            pass
        sysroot.check()
        folder = sysroot.addition_site(addition)
        folder.parent.mkdir(exist_ok=True)
        scratch = Path(mkdtemp(prefix=f".{addition.name}-", dir=folder.parent))
        try:
            tell.step(f"download the wheels of {addition.name}")
            _install_wheels(sysroot.architecture, addition.wheels, scratch)
            tell.step("try it")
            # What was built is found where it is: the check is that of an addition with the scratch folder's name.
            found = replace(sysroot, addition=replace(addition, name=scratch.name))
            _check_imports(found, addition.modules, find_cpu(addition.cpus[0])[1])
            write_json(scratch / MANIFEST, {"contents": versions_of(addition.wheels)})
            replace_folder(folder, scratch)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _build(sysroot: Sysroot, tell: Progress) -> None:
    architecture, apt = sysroot.architecture, sysroot.folder / "apt"
    tell.step("find the Debian mirror")
    mirror = find_mirror(SUITE)
    tell.step("download the emulator")
    (emulator,) = download(mirror, host_architecture(), ["qemu-user-static"], apt / "host", alone=True)
    unpack_file(emulator, architecture.qemu, sysroot.qemu)
    tell.step(f"download Debian's Python for {architecture.debian}")
    packages = download(mirror, architecture.debian, architecture.debian_packages, apt / "guest")
    advance = tell.bar("unpack", len(packages))
    for deb in packages:
        unpack(deb, sysroot.system)
        advance()
    tell.step("download the wheels")
    _install_wheels(architecture, architecture.wheels, sysroot.site)
    for cpu in architecture.cpus:
        write_cpu_root(sysroot, cpu)
    tell.step("try it")
    _check_imports(sysroot, (*architecture.modules, "segformer_edge.runtime.segmenter"), architecture.cpus[0])
    contents = {"contents": contents_of(architecture), "packages": [emulator.name, *(deb.name for deb in packages)]}
    shutil.rmtree(apt)
    write_json(sysroot.folder / MANIFEST, contents)


def wheel_command(architecture: Architecture, wheels: Mapping[str, str], folder: Path) -> list[str]:
    """pip's command line that fills ``folder``, with the index and certificates the host's pip is set up for.

    Dependencies are listed in the table: pip would evaluate their conditions for the host.
    """
    return [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"),
        *("--root-user-action", "ignore", "--target", str(folder), "--only-binary=:all:", "--no-compile"),
        *("--python-version", PYTHON, "--implementation", "cp"),
        *(option for platform in architecture.platforms for option in ("--platform", platform)),
        *(f"{name}=={version}" if version else name for name, version in versions_of(wheels).items()),
    ]


def write_cpu_root(sysroot: Sysroot, cpu: Cpu) -> None:
    """The root that programs on ``cpu`` see: Debian's folders, and that CPU's cpuinfo and MIDR.

    Without them the runtimes read the host's, take it for an ARM of unknown make and crash.
    """
    root = sysroot.root(cpu)
    root.mkdir(parents=True)
    for entry in sysroot.system.iterdir():
        (root / entry.name).symlink_to(Path("../../system") / entry.name)
    (root / "proc").mkdir()
    blocks = []
    for core in range(CORES):
        identification = root / f"sys/devices/system/cpu/cpu{core}/regs/identification"
        identification.mkdir(parents=True)
        (identification / "midr_el1").write_text(f"0x{cpu.midr:016x}\n")
        blocks.append(_cpuinfo(cpu, core, sysroot.architecture.version))
    (root / "proc/cpuinfo").write_text("".join(blocks))


def _cpuinfo(cpu: Cpu, core: int, version: int) -> str:
    return _CPUINFO.format(
        core=core,
        features=cpu.features,
        version=version,
        implementer=cpu.midr >> 24,
        variant=cpu.midr >> 20 & 0xF,
        part=cpu.midr >> 4 & 0xFFF,
        revision=cpu.midr & 0xF,
    )


def _install_wheels(architecture: Architecture, wheels: Mapping[str, str], folder: Path) -> None:
    command = wheel_command(architecture, wheels, folder)
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    child_output("pip", done.stdout + done.stderr)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise EmulationError(
            f"pip could not fetch the wheels for {architecture.name}: {' '.join(lines[-2:])}",
            hint="Is the package index reachable, and does the environment have pip 22 or newer?",
        )


def _check_imports(sysroot: Sysroot, modules: tuple[str, ...], cpu: Cpu) -> None:
    """Import every module once on ``cpu``, which also writes the bytecode that later starts read."""
    done = subprocess.run(
        sysroot.command(cpu, ["-c", f"import {', '.join(modules)}"]),
        env=sysroot.environment({"PYTHONDONTWRITEBYTECODE": ""}),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        words = done.stderr.strip().splitlines()
        raise EmulationError(
            f"The new {sysroot.architecture.name} does not work on {cpu.name} (exit code {done.returncode}): "
            f"{words[-1] if words else 'no message'}"
        )


def replace_folder(folder: Path, scratch: Path) -> None:
    """``scratch`` becomes ``folder``. Programs that still run in the old one keep their open files."""
    if folder.exists():
        old = scratch.with_name(scratch.name + "-old")
        folder.rename(old)
        scratch.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        scratch.rename(folder)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One preparation at a time in ``folder``; a second one waits, and then finds the work done."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
