"""The command: options, the loop that watches a session, and the summary."""

from __future__ import annotations

import ipaddress
import json
import platform
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2

from segformer_edge.camera.config import CAMERA_SIZE, CameraConfig
from segformer_edge.camera.overlay import figures
from segformer_edge.camera.server import PageServer
from segformer_edge.camera.session import CameraSession
from segformer_edge.camera.sources import open_source
from segformer_edge.camera.window import Window, check_window
from segformer_edge.cli import Parser, on_terminal
from segformer_edge.errors import UsageError
from segformer_edge.progress import Progress
from segformer_edge.runtime.segmenter import Segmenter

_PROG = "python -m segformer_edge.camera"
#: Seconds between two lines of figures on a terminal.
_LINE_EVERY = 1.0


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code. Raises SegformerEdgeError for what the user can mend."""
    options = _parser().parse_args(argv)
    config = _config(options)
    if config.show:
        check_window()
    segmenter = Segmenter.load(options.file, threads=options.threads, reference=options.reference_kernels)
    source = open_source(config)
    session = CameraSession(segmenter, source, lambda: open_source(config), config, Progress())
    _watch(session, config)
    summary = _summary(options.file, segmenter, session, config)
    if options.json:
        print(json.dumps(summary, indent=2, allow_nan=False))
    else:
        _print(summary)
    return 0


def _parser() -> Parser:
    parser = Parser(
        _PROG,
        "Segments a camera's pictures, or those of a file.",
        epilog=f"example: {_PROG} out/demo/model.tflite --source 0 --serve 8080",
    )
    parser.add_argument("file", metavar="FILE", help="an exported file with its .json beside it")
    parser.add_argument(
        "--source", default="0", metavar="SOURCE", help="0, picamera, a video, an image or a folder (default 0)"
    )
    parser.add_argument("--size", metavar="HxW", help="picture asked of a camera (default 480x640)")
    parser.add_argument("--loop", action="store_true", help="start a file again when it ends")
    parser.add_argument(
        "--realtime", action="store_true", help="play a file at its own speed and drop late frames, as --show, --serve"
    )
    parser.add_argument("--frames", type=int, metavar="N", help="end after N segmented frames")
    parser.add_argument("--show", action="store_true", help="a window on this machine's screen")
    parser.add_argument("--serve", type=int, metavar="PORT", help="a page for browsers; 0 takes a free port")
    parser.add_argument(
        "--host", metavar="ADDRESS", help="who may look: default 127.0.0.1, this machine; 0.0.0.0: the network"
    )
    parser.add_argument("--record", type=Path, metavar="OUT.mp4", help="write what is seen")
    parser.add_argument("--labels", type=Path, metavar="DIR", help="write each label map as a grey PNG")
    parser.add_argument("--headless", action="store_true", help="neither window nor page (the default)")
    parser.add_argument("--opacity", type=float, default=0.5, metavar="SHARE", help="of the class colours, 0 to 1")
    parser.add_argument(
        "--patience", type=float, default=30.0, metavar="S", help="seconds a camera may be away (default 30)"
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads of the network (default 1)")
    parser.add_argument(
        "--reference-kernels",
        action="store_true",
        help=".tflite: slow, the same bits on 64-bit CPUs; to compare devices",
    )
    parser.add_argument("--json", action="store_true", help="only JSON on stdout")
    return parser


def _config(options: Any) -> CameraConfig:
    if options.headless and (options.show or options.serve is not None):
        raise UsageError("--headless means neither --show nor --serve.", hint="Leave one of them out.")
    if options.host is not None and options.serve is None:
        raise UsageError(f"--host {options.host} is for the page.", hint="Add its port: --serve 8080")
    return CameraConfig(
        source=options.source,
        size=_size(options.size) if options.size else CAMERA_SIZE,
        loop=options.loop,
        realtime=options.realtime or options.show or options.serve is not None,
        frames=options.frames,
        show=options.show,
        port=options.serve,
        host=options.host or "127.0.0.1",
        record=options.record,
        labels=options.labels,
        opacity=options.opacity,
        patience=options.patience,
    )


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text, flags=re.ASCII)
    if match is None:
        raise UsageError(f"Size '{text}' is not HEIGHTxWIDTH.", hint="For example: --size 480x640")
    return int(match.group(1)), int(match.group(2))


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
        print("warning: Everybody who can reach this address sees the camera.", file=sys.stderr, flush=True)


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


def _print(summary: dict[str, Any]) -> None:
    latency = summary["latency_ms"]
    print(
        f"{summary['frames']} frames in {summary['seconds']:.1f} s, {summary['fps']:.1f} a second; "
        f"{summary['dropped']} dropped, {summary['corrupt']} damaged"
    )
    if latency["p50"] is not None:
        print(f"a frame: {latency['p50']:.1f} ms (p50), {latency['p95']:.1f} (p95), {latency['p99']:.1f} (p99)")
    for what in ("record", "labels"):
        if summary[what]:
            print(f"{what}: {summary[what]}")
