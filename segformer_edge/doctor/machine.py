"""The machine: CPU, memory, disk, Python."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from segformer_edge.doctor.findings import Finding, State

AREA = "machine"
#: What /proc/cpuinfo calls an instruction set -> what INT8 inference has of it.
INSTRUCTION_SETS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "VNNI, int8 dot products",
    "avx512_vnni": "VNNI, int8 dot products",
    "amx_int8": "AMX, int8 matrices",
    "avx512_bf16": "bfloat16",
    "asimd": "NEON",
    "neon": "NEON",
    "asimddp": "dotprod, int8 dot products",
    "i8mm": "i8mm, int8 matrices",
    "asimdhp": "float16",
}
#: An exporting process takes about 1.5 GB for B0 at 512x512 (segformer_edge.export.pool).
_MEMORY_FOR_EXPORT = 2 * 2**30
_DISK_FOR_EXPORT = 2**30


def machine_findings(root: Path = Path("/"), folder: Path = Path()) -> list[Finding]:
    """Of the machine whose /proc and /sys lie below ``root``; free disk space is that of ``folder``."""
    return [_cpu(root), _memory(root), _disk(folder), _python()]


def _cpu(root: Path) -> Finding:
    lines = [line.partition(":") for line in _read(root / "proc/cpuinfo").splitlines()]
    fields = {key.strip(): value.strip() for key, _, value in lines}
    name = fields.get("model name") or fields.get("Model") or "unknown CPU"
    flags = fields.get("flags", fields.get("Features", "")).split()
    known = dict.fromkeys(title for flag, title in INSTRUCTION_SETS.items() if flag in flags)
    cores = len(os.sched_getaffinity(0))
    sets = "; ".join(known) or "no instruction set that speeds INT8 up"
    return Finding(AREA, "CPU", State.NOTE, f"{name} ({platform.machine()}), {cores} cores for this process; {sets}")


def _memory(root: Path) -> Finding:
    lines = [line.split() for line in _read(root / "proc/meminfo").splitlines()]
    sizes = {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) > 1}
    limit = _read(root / "sys/fs/cgroup/memory.max").strip()
    total, free = sizes.get("MemTotal", 0), sizes.get("MemAvailable", 0)
    if limit.isdigit():
        used = _read(root / "sys/fs/cgroup/memory.current").strip()
        left = int(limit) - (int(used) if used.isdigit() else 0)
        total, free = min(total, int(limit)), min(free, max(left, 0))
    detail = f"{_gib(free)} free of {_gib(total)}"
    if free < _MEMORY_FOR_EXPORT:
        detail += "; exporting takes about 1.5 GiB: name one of --targets at a time"
    return Finding(AREA, "memory", State.NOTE, detail)


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    if free < _DISK_FOR_EXPORT:
        return Finding(AREA, "disk", State.BROKEN, f"{_gib(free)} free here; exporting needs one", "df -h .")
    return Finding(AREA, "disk", State.OK, f"{_gib(free)} free here")


def _python() -> Finding:
    from packaging.specifiers import SpecifierSet

    version = platform.python_version()
    detail = f"{version} in {sys.prefix}"
    try:
        wanted = metadata("segformer-edge")["Requires-Python"]
    except PackageNotFoundError:
        return Finding(AREA, "Python", State.BROKEN, f"{detail}; segformer-edge is not installed in it",
                       "pip install segformer-edge")  # fmt: skip
    if not SpecifierSet(wanted).contains(version, prereleases=True):
        return Finding(AREA, "Python", State.BROKEN, f"{detail}; needed is {wanted}", "make setup PYTHON=python3.11")
    return Finding(AREA, "Python", State.OK, detail)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
