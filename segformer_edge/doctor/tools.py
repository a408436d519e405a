"""Tools that some commands and tests need beside Python packages; none is needed to export."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from segformer_edge.compiler import COMPILERS
from segformer_edge.doctor.findings import Finding, State
from segformer_edge.emulation.architectures import ARCHITECTURES
from segformer_edge.emulation.errors import PREPARE
from segformer_edge.emulation.plugins import plugin_emulator
from segformer_edge.emulation.sysroot import sysroot_of
from segformer_edge.errors import SegformerEdgeError

AREA = "tools"


@dataclass(frozen=True)
class Programs:
    """Programs of which one, or with ``every`` each, must be on the PATH."""

    name: str
    names: tuple[str, ...]
    what_for: str
    fix: str
    every: bool = False

    def finding(self) -> Finding:
        """Where they are."""
        places = {name: path for name in self.names if (path := shutil.which(name))}
        if len(places) < (len(self.names) if self.every else 1):
            lacking = ", ".join(name for name in self.names if name not in places)
            return Finding(AREA, self.name, State.MISSING, f"no {lacking}: {self.what_for}", self.fix)
        return Finding(AREA, self.name, State.OK, ", ".join(places.values() if self.every else [*places.values()][:1]))


PROGRAMS = (
    Programs("C compiler", COMPILERS, "measures memory (profile)", "apt-get install gcc"),
    Programs("Chromium", ("chromium", "chromedriver"), "make test-browser", "make browser-setup", every=True),
    Programs("Java", ("java", "javac"), "make test-android", "make android-setup", every=True),
)


def tool_findings() -> list[Finding]:
    """Of each tool, prepared or not."""
    found = [tool.finding() for tool in PROGRAMS]
    found.append(_package("Vela", "ethos-u-vela", "compiles for Arm NPUs", "ethos-u"))
    found.append(_package("TFLite Micro", "tflite-micro", "runs files for microcontrollers", "tflm"))
    for architecture in ARCHITECTURES.values():
        what = f"emulated {architecture.name}"
        found.append(_prepared(what, sysroot_of(architecture).check, f"{PREPARE} {architecture.name}"))
    found.append(_prepared("instruction counter", plugin_emulator().check, PREPARE))
    return found


def _prepared(name: str, check: Callable[[], None], fix: str) -> Finding:
    try:
        check()
    except SegformerEdgeError as error:
        return Finding(AREA, name, State.MISSING, str(error.args[0]), fix)
    return Finding(AREA, name, State.OK, "prepared")


def _package(title: str, name: str, what_for: str, extra: str) -> Finding:
    try:
        return Finding(AREA, title, State.OK, f"{name} {version(name)}")
    except PackageNotFoundError:
        fix = f"pip install 'segformer-edge[{extra}]'"
        return Finding(AREA, title, State.MISSING, f"no {name}: {what_for}", fix)
