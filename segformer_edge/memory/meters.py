"""Two ways to see a process's memory from inside: the allocator hook, and Linux' own count of resident pages."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from segformer_edge.memory.measurement import BY_HOOK, BY_RESIDENT, Phase

#: As in hook.c.
KINDS = ("malloc", "aligned", "mmap", "file", "reserved")
#: Whole pages from the kernel: reading one that nobody touched would give it memory.
MAPPINGS = ("mmap", "reserved")
_FIELDS, _NOW = 6, 16


@dataclass(frozen=True)
class Live:
    """One block that the hook logged: where, how large, one of KINDS, in which phase (1 is the first), which event."""

    address: int
    size: int
    kind: str
    phase: int
    born: int


class Meter(Protocol):
    """Counts phase by phase; what happens between two phases is left out of all of them."""

    kind: str
    phases: list[Phase]

    def phase(self, name: str) -> AbstractContextManager[None]:
        """A ``with`` block that is one phase."""
        ...


class HookMeter:
    """The allocator hook, which must be preloaded into this process."""

    kind = BY_HOOK

    def __init__(self) -> None:
        self._hook = ctypes.CDLL(None)
        for name in ("current", "allocations", "peak", "blocks"):
            getattr(self._hook, f"hook_{name}").restype = ctypes.c_ulong
        self.phases: list[Phase] = []
        self._stood = self._base = self._hook.hook_current()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """See Meter."""
        hook, number = self._hook, len(self.phases) + 1
        self._base += hook.hook_current() - self._stood
        before = hook.hook_allocations()
        hook.hook_phase(number)
        try:
            yield
        finally:
            self._stood, asked = hook.hook_current(), hook.hook_allocations() - before
            hook.hook_phase(0)
        self.phases.append(Phase(name, hook.hook_peak(number) - self._base, self._stood - self._base, asked))

    def blocks(self, at_peak_of: int | None = None) -> list[Live]:
        """The logged blocks that are live now, or were at the peak of a phase, oldest first. Mapped files too."""
        moment = _NOW if at_peak_of is None else at_peak_of
        count = self._hook.hook_blocks(moment, None, 0)
        fields = (ctypes.c_ulong * (_FIELDS * count))()
        self._hook.hook_blocks(moment, fields, count)
        rows = (fields[place : place + _FIELDS] for place in range(0, _FIELDS * count, _FIELDS))
        return [Live(address, size, KINDS[kind], phase, born) for address, size, kind, phase, born, _ in rows]


class ResidentMeter:
    """Resident memory of the process: whole pages, with the allocator's slack and whatever libraries touch."""

    kind = BY_RESIDENT

    def __init__(self) -> None:
        self.phases: list[Phase] = []
        self._base = _status("VmRSS")
        self._stood = self._base

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """See Meter."""
        self._base += _status("VmRSS") - self._stood
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts at what stands
        try:
            yield
        finally:
            peak, self._stood = _status("VmHWM"), _status("VmRSS")
        self.phases.append(Phase(name, peak - self._base, self._stood - self._base, None))


def mapped_and_resident(path: Path) -> tuple[int, int] | None:
    """Bytes of ``path`` that are mapped into this process, and how many of them are resident; None without smaps."""
    try:
        lines = Path("/proc/self/smaps").read_text().splitlines()
    except OSError:
        return None
    mapped = resident = 0
    ours, wanted = False, str(path.resolve())
    for line in lines:
        name, _, rest = line.partition(" ")
        if not name.endswith(":"):  # "7f00-7f10 r--p 00000000 08:01 42   /file"
            ours = rest.split(maxsplit=4)[4:] == [wanted]
        elif ours and name == "Size:":
            mapped += int(rest.split()[0]) * 1024
        elif ours and name == "Rss:":
            resident += int(rest.split()[0]) * 1024
    return mapped, resident


def touched(address: int, size: int) -> int:
    """Bytes of the mapping at ``address`` that have memory behind them."""
    page = mmap.PAGESIZE
    pages = (ctypes.c_ubyte * ((size + page - 1) // page))()
    libc = ctypes.CDLL(None)
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    if libc.mincore(address, size, pages):
        return size
    return min(size, page * sum(entry & 1 for entry in pages))


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")
