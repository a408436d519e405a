"""The machine that figures were taken on, in words for a published page."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def machine() -> str:
    """The CPU in words, and how much of it was used."""
    name = platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        name = f"{models[0]} ({name})" if models else name
    return f"{name}, {os.cpu_count()} cores, one thread"
