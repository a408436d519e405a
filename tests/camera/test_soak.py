"""A short soak: neither memory nor open files grow. ``make soak`` runs 10,000 frames."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.soak import MOST_GROWTH, Sample, Soak, _staying, soak
from segformer_edge.camera.config import CameraConfig
from segformer_edge.camera.device import Device
from tests.camera.kit import finish

#: Bytes. The long soak allows 1 MB in 9,000 frames; here it stands for the allocator's noise alone.
MOST = 1 << 20


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_sessions_leave_nothing_behind(start, clip):
    """Frames and whole sessions, one after the other in this process."""
    seen = []
    for _ in range(4):
        session = start(CameraConfig(source=str(clip), loop=True, frames=300))
        finish(session)
        session.close(keep_recording=False)
        seen.append((Device().memory_bytes(), open_files()))
    assert seen[-1][0] - seen[1][0] <= MOST and seen[-1][1] == seen[0][1], seen


def test_the_program_does_not_grow(tiny_run, tmp_path: Path):
    """The program with a real network, its page, a browser that reads and one that does not."""
    result = soak(tiny_run.file("tflite"), frames=2500, warm_up=500, size=(120, 160), folder=tmp_path)
    assert result.passed, result
    assert result.last.frames - result.warm.frames > 1000


def test_what_grows_is_found():
    def passed(resident: int, files: int) -> bool:
        return Soak(2500, 6.0, Sample(500, 1 << 26, 9), Sample(2500, resident, 9), resident, 9, files).passed

    assert passed(1 << 26, 9)
    assert not passed((1 << 26) + MOST_GROWTH + 1, 9)
    assert not passed(1 << 26, 10)


def test_what_comes_and_goes_is_no_leak_and_what_stays_is():
    clip, base = Path("/clip.avi"), ["/log", "socket:[1]"]
    assert _staying([*base, "/clip.avi", "socket:[7]"], {*base, "/clip.avi"}, clip) == 3
    assert _staying(base, {*base, "socket:[7]"}, clip) == 3  # between two ends of the clip
    assert _staying([*base, "/clip.avi", "/clip.avi"], {*base, "/clip.avi"}, clip) == 4
    assert _staying([*base, "/clip.avi", "socket:[7]"], {*base, "socket:[7]"}, clip) == 4
