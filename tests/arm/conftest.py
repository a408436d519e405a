"""A sysroot's outside without an emulator in it: the host's Python stands in for the emulated one."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from segformer_edge.emulation import segmenter as segmenter_module
from segformer_edge.emulation.architectures import Cpu, find_cpu
from segformer_edge.emulation.sysroot import Sysroot, addition_for


class HostSysroot(Sysroot):
    """Runs on the CPU it has."""

    def command(self, cpu: Cpu, arguments: Sequence[str]) -> list[str]:
        return [sys.executable, *arguments]

    def environment(self, more: object = None) -> dict[str, str]:
        return dict(os.environ)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("SEGFORMER_EDGE_ARM", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def host_as_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any CPU is the host's."""

    def open_host(name: str, file: Path, form: str) -> tuple[Sysroot, Cpu]:
        architecture, cpu = find_cpu(name)
        addition_for(architecture, cpu, file, form)
        return HostSysroot(tmp_path, architecture), cpu

    monkeypatch.setattr(segmenter_module, "open_runtime", open_host)
