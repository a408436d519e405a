"""QEMU with TCG plugins: the emulator that can count instructions.

Debian's qemu-user-static, which runs everything else here, is built without plugins; its dynamically linked twin
qemu-user has them. It lies beside the sysroots with all libraries it needs and their own loader, so that nothing on the
host changes and the host's versions do not matter.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from segformer_edge.emulation.architectures import ARCHITECTURES, SUITE, Architecture
from segformer_edge.emulation.debian import download, find_mirror, host_architecture, unpack
from segformer_edge.emulation.errors import PREPARE, EmulationError
from segformer_edge.emulation.prepare import locked, replace_folder
from segformer_edge.emulation.sysroot import MANIFEST, cache_folder
from segformer_edge.errors import UsageError
from segformer_edge.jsonfile import read_json, write_json
from segformer_edge.progress import Progress

#: Raise it when what lies in the folder changes.
LAYOUT = 1
PACKAGE = "qemu-user"


@dataclass(frozen=True)
class PluginEmulator:
    """``folder`` holds usr/bin/qemu-*, their libraries as Debian lays them out, and the manifest."""

    folder: Path

    def command(self, architecture: Architecture, plugin: Path, options: Mapping[str, str]) -> list[str]:
        """The words in the place of ``Sysroot.qemu``: the emulator with ``plugin`` and its ``options`` loaded."""
        words = ",".join(f"{name}={value.replace(',', ',,')}" for name, value in options.items())
        file = str(plugin).replace(",", ",,")  # QEMU's way to write a comma inside a value
        return [*self._program(architecture), "-plugin", f"{file},{words}"]

    def check(self) -> None:
        """Raise UsageError unless it is there."""
        manifest = self.folder / MANIFEST
        if not manifest.exists() or read_json(manifest, EmulationError).get("contents") != _contents():
            raise UsageError(
                f"The emulator that counts instructions is not prepared: '{self.folder}' holds no QEMU with plugins "
                f"(Debian's package {PACKAGE}; qemu-user-static has none).",
                hint=f"make arm-setup, or: {PREPARE}",
            )

    def try_it(self) -> None:
        """Raise EmulationError unless each program starts and knows plugins."""
        for architecture in ARCHITECTURES.values():
            done = subprocess.run(
                [*self._program(architecture), "--help"], capture_output=True, text=True, stdin=subprocess.DEVNULL
            )
            if "-plugin" not in done.stdout:
                words = done.stderr.strip().splitlines()
                raise EmulationError(
                    f"The new {program_of(architecture)} has no plugins: {words[-1] if words else 'not in its --help'}",
                    hint=f"It is Debian's {PACKAGE} of {SUITE}. Is that what this machine's mirror has?",
                )

    def _program(self, architecture: Architecture) -> list[str]:
        # Its own loader: else the host's would have to be as new. Unlike LD_LIBRARY_PATH, the option is not inherited.
        loaders = sorted(self.folder.glob("lib/*/ld-linux*.so.*"))
        libraries = ":".join(str(folder) for folder in library_folders(self.folder))
        program = str(self.folder / "usr/bin" / program_of(architecture))
        return [*(str(loader) for loader in loaders[:1]), "--library-path", libraries, program]


def program_of(architecture: Architecture) -> str:
    """The emulator's file name in the dynamically linked package."""
    return architecture.qemu.removesuffix("-static")


def library_folders(folder: Path) -> list[Path]:
    """Where Debian puts the shared libraries of one architecture."""
    return sorted(folder.glob("lib/*-linux-*")) + sorted(folder.glob("usr/lib/*-linux-*"))


def plugin_emulator() -> PluginEmulator:
    """Its place in the cache folder, prepared or not."""
    return PluginEmulator(cache_folder() / "qemu-plugins")


def prepare_plugins(tell: Progress | None = None, force: bool = False) -> PluginEmulator:
    """Fetch it into the cache folder, 22 MB from Debian's mirror, or nothing where it is there. Needs no root.

    Raises UsageError for what the host lacks, EmulationError for a failed download; an earlier one stays.
    """
    tell, emulator = tell or Progress(), plugin_emulator()
    with locked(emulator.folder.parent):
        try:
            emulator.check()
            if not force:
                return emulator
        except (UsageError, EmulationError):
            pass
        scratch = Path(mkdtemp(prefix=".qemu-plugins-", dir=emulator.folder.parent))
        try:
            tell.step("download the emulator with plugins")
            packages = download(find_mirror(SUITE), host_architecture(), [PACKAGE], scratch / "apt")
            for deb in packages:
                unpack(deb, scratch)
            _drop_the_rest(scratch)
            PluginEmulator(scratch).try_it()
            write_json(scratch / MANIFEST, {"contents": _contents(), "packages": [deb.name for deb in packages]})
            replace_folder(emulator.folder, scratch)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return emulator


def _contents() -> dict[str, object]:
    return {"layout": LAYOUT, "suite": SUITE, "programs": [program_of(each) for each in ARCHITECTURES.values()]}


def _drop_the_rest(folder: Path) -> None:
    """Keep the programs that are used, and the libraries."""
    kept = {program_of(architecture) for architecture in ARCHITECTURES.values()}
    for file in (folder / "usr/bin").iterdir():
        if file.name not in kept:
            file.unlink()
    for name in ("apt", "etc", "sbin", "usr/share", "usr/sbin", "usr/libexec", "var"):
        shutil.rmtree(folder / name, ignore_errors=True)
