"""``make soak``: the camera program for a long time; fails where its memory or its open files grow.

    python benchmarks/soak.py out/demo/model.tflite [--frames 10000] [--size 240x320]

The program runs as users run it, in a process of its own that is looked at from outside: a looping clip, the page, one
browser that reads its pictures and one that accepts none.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from segformer_edge.data.scenes import draw_scene
from segformer_edge.jsonfile import write_json

#: Bytes that the process may grow after its warm-up.
MOST_GROWTH = 1 << 20
_CLIP_FRAMES = 20


@dataclass(frozen=True)
class Sample:
    """The process at one moment: frames so far, bytes resident in memory, descriptors that stay open."""

    frames: int
    resident: int
    files: int


@dataclass(frozen=True)
class Soak:
    """First and last sample after the warm-up, and what lies between them.

    Open files are compared by the fewest seen in the first and in the second half.
    """

    frames: int
    seconds: float
    warm: Sample
    last: Sample
    most_resident: int
    files_before: int
    files_after: int

    @property
    def growth(self) -> int:
        """Bytes from the warm-up to the end."""
        return self.last.resident - self.warm.resident

    @property
    def passed(self) -> bool:
        """Neither memory nor open files grew."""
        return self.growth <= MOST_GROWTH and self.files_after <= self.files_before


def soak(model: Path, frames: int, warm_up: int, size: tuple[int, int], folder: Path) -> Soak:
    """Run the program on ``model`` for ``frames`` frames of (H, W) ``size``. Raises RuntimeError where it fails."""
    clip = _clip(folder / "clip.avi", size)
    command = [sys.executable, "-m", "segformer_edge.camera", str(model), "--source", str(clip), "--loop"]
    begun = time.monotonic()
    # Files play at their own speed where a page is served: this clip says a speed that no network reaches.
    process = subprocess.Popen([*command, "--serve", "0", "--frames", str(frames)], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    first = process.stderr.readline()
    if "http://" not in first:
        raise RuntimeError(f"The camera program did not start: {first}{process.stderr.read()}")
    url = first.split()[-1]
    threading.Thread(target=_look, args=(url,), daemon=True).start()
    with contextlib.closing(_connect(url)):  # never read: the slowest browser there can be
        samples = _watch(process, url, clip.resolve())
    errors = process.stderr.read()
    if process.wait() != 0:
        raise RuntimeError(f"The camera program ended with exit code {process.returncode}: {errors}")
    warm = [sample for sample in samples if sample.frames >= warm_up]
    if len(warm) < 2:
        raise RuntimeError(f"Only {len(samples)} samples were taken; ask for more frames.")
    halves = warm[: len(warm) // 2], warm[len(warm) // 2 :]
    files = [min(sample.files for sample in half) for half in halves]
    return Soak(frames, time.monotonic() - begun, warm[0], warm[-1], max(sample.resident for sample in warm), *files)


def _watch(process: subprocess.Popen[str], url: str, clip: Path) -> list[Sample]:
    samples: list[Sample] = []
    before: set[str] = set()
    while process.poll() is None:
        with contextlib.suppress(OSError, ValueError, IndexError):  # it may be about to end
            with urllib.request.urlopen(f"{url}state", timeout=10) as answer:
                frames = json.load(answer)["status"]["frames"]
            # The process that was started only watches the one that works.
            worker = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
            status = Path(f"/proc/{worker}/status").read_text()
            resident = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))
            opened = _opened(Path(f"/proc/{worker}/fd"))
            samples.append(Sample(frames, resident, _staying(opened, before, clip)))
            before = set(opened)
        time.sleep(0.1)
    return samples


def _opened(folder: Path) -> list[str]:
    """What each descriptor in ``folder`` (/proc/PID/fd) is of; one that is closed meanwhile is left out."""
    found = []
    for link in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(link))
    return found


def _staying(opened: Sequence[str], before: Set[str], clip: Path) -> int:
    """How many of ``opened`` stay open: those that were open ``before``, at the sample ahead of this one, too.

    A question for the state is a socket of its own that comes and goes; the clip is closed for a moment at each of its
    ends, so the first descriptor of it counts whether it is open or not. What leaks stays.
    """
    others = [name for name in opened if name != str(clip) and name in before]
    return len(others) + max(opened.count(str(clip)), 1)


def _look(url: str) -> None:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}stream", timeout=30) as stream:
        while stream.read(1 << 16):
            pass


def _connect(url: str) -> socket.socket:
    host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    connection.sendall(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return connection


def _clip(path: Path, size: tuple[int, int]) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 500.0, (size[1], size[0]))
    for seed in range(_CLIP_FRAMES):
        writer.write(np.ascontiguousarray(draw_scene(seed, size)[0][:, :, ::-1]))
    writer.release()
    return path


def main() -> int:
    """0 where nothing grew, else 1."""
    parser = argparse.ArgumentParser(description="The camera program for a long time.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--warm-up", type=int, default=1_000)
    parser.add_argument("--size", default="240x320", metavar="HxW", help="of the clip")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    height, width = map(int, options.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        result = soak(options.model, options.frames, options.warm_up, (height, width), Path(folder))
    print(
        f"{result.frames} frames in {result.seconds:.0f} s: {result.warm.resident / 2**20:.2f} MB after "
        f"{result.warm.frames} frames, {result.last.resident / 2**20:.2f} MB after {result.last.frames} "
        f"({result.growth / 1024:+.0f} KB, at most {MOST_GROWTH / 1024:.0f} KB allowed); open files "
        f"{result.files_before} -> {result.files_after}: {'PASS' if result.passed else 'FAIL'}"
    )
    if options.json:
        write_json(options.json, {**asdict(result), "growth": result.growth, "passed": result.passed})
    return 0 if result.passed else 1


if __name__ == "__main__":
    sys.exit(main())
