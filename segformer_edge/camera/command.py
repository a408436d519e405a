"""The command: its options, checked, and what it prints at the end."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segformer_edge.camera.config import CAMERA_SIZE, CameraConfig
from segformer_edge.cli import EXIT_OK, Parser, print_next
from segformer_edge.errors import UsageError

_PROG = "python -m segformer_edge.camera"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code. Raises SegformerEdgeError for what the user can mend."""
    options = build_parser().parse_args(argv)
    config = _config(options)

    from segformer_edge.camera.program import run_camera

    summary = run_camera(options.file, config, options.threads, options.reference_kernels)
    if options.json:
        print(json.dumps(summary, indent=2, allow_nan=False))
    else:
        _print(summary)
        print_next("python", "-m", "segformer_edge.profile", options.file, "--operators")
    return EXIT_OK


def build_parser() -> Parser:
    """All options, with their defaults."""
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
