"""Runs a session to its end: the loop that watches it, the line of figures, and the summary."""

from __future__ import annotations

import ipaddress
import platform
import sys
import time
from dataclasses import asdict
from typing import Any

import cv2

from segformer_edge.camera.config import CameraConfig
from segformer_edge.camera.overlay import figures
from segformer_edge.camera.server import PageServer
from segformer_edge.camera.session import CameraSession
from segformer_edge.camera.sources import open_source
from segformer_edge.camera.window import Window, check_window
from segformer_edge.cli import on_terminal
from segformer_edge.progress import Progress
from segformer_edge.runtime.segmenter import Segmenter
from segformer_edge.verbosity import warn

#: Seconds between two lines of figures on a terminal.
_LINE_EVERY = 1.0


def run_camera(file: str, config: CameraConfig, threads: int, reference: bool) -> dict[str, Any]:
    """Segment what ``config`` names with ``file`` until it ends; the summary. Raises SegformerEdgeError."""
    if config.show:
        check_window()
    segmenter = Segmenter.load(file, threads=threads, reference=reference)
    source = open_source(config)
    session = CameraSession(segmenter, source, lambda: open_source(config), config, Progress())
    _watch(session, config)
    return _summary(file, segmenter, session, config)


def _watch(session: CameraSession, config: CameraConfig) -> None:
    """Run ``session`` to its end. Ctrl-C and SIGTERM, which end a camera, keep the recording; errors do not."""
    server = PageServer(session, config.host, config.port) if config.port is not None else None
    window: Window | None = None
    keep = False
    try:
        session.start()
        if server is not None:
            server.start()
            _tell_address(server)
        window = Window(session) if config.show else None
        line = _StatusLine()
        while session.running():
            if window is not None and not window.step():
                break
            if window is None:
                session.controls.ended.wait(0.1)
            line.update(session)
        line.end()
        keep = True
    except Exception:
        raise
    except BaseException:
        keep = True
        raise
    finally:
        if server is not None:
            server.stop()
        if window is not None:
            window.close()
        session.close(keep_recording=keep)


def _tell_address(server: PageServer) -> None:
    print(f"The page is at {server.url}", file=sys.stderr, flush=True)
    try:
        local = ipaddress.ip_address(server.host).is_loopback
    except ValueError:
        local = server.host == "localhost"
    if not local:
        warn("Everybody who can reach this address sees the camera.")


class _StatusLine:
    """One line on a terminal that is written again each second; nothing in a log."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._shown = False

    def update(self, session: CameraSession) -> None:
        """Write it when it is due."""
        now = time.monotonic()
        if on_terminal() and now - self._at >= _LINE_EVERY:
            self._at, self._shown = now, True
            print(f"\r\x1b[K{figures(session.status())}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Go to the next line."""
        if self._shown:
            print(file=sys.stderr)


def _summary(file: str, segmenter: Segmenter, session: CameraSession, config: CameraConfig) -> dict[str, Any]:
    status, parts = session.fresh_status(), session.statistics.median_parts()
    return {
        "schema_version": 1,
        "file": file,
        "source": config.source,
        "frames": status.frames,
        "captured": session.captured,
        "dropped": status.dropped,
        "corrupt": status.corrupt,
        "camera_lost": session.lost,
        "seconds": session.seconds,
        "fps": status.frames / session.seconds if session.seconds else 0.0,
        "latency_ms": asdict(status.latency_ms),
        "parts_ms": asdict(parts) if parts else None,
        "memory_bytes": status.memory_bytes,
        "temperature_c": status.temperature,
        "throttling": asdict(status.throttling) if status.throttling else None,
        "record": str(config.record) if session.recorded else None,
        "labels": str(config.labels) if config.labels else None,
        "device": session.device.pi_model or f"host {platform.machine()}",
        "tools": {**segmenter.runtime.versions, "opencv": cv2.__version__},
    }
