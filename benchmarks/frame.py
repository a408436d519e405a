"""A camera frame to a full-size label map: median time of each part, for each file, in its own runtime.

    python benchmarks/frame.py out/model.tflite out/model.onnx --frame 1280x720 --image street.jpg

What a picture shows changes the time after the network, which is spent on the borders between classes, so measure a
picture of your own. Without ``--image`` it is a scene of the demo. ``--full-logits`` also times what is not done here:
logits of the frame's size, then argmax.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from segformer_edge.cli import EXIT_OK, Parser, run
from segformer_edge.data.images import read_image
from segformer_edge.data.processing import resize_image
from segformer_edge.data.scenes import VALIDATION_SEEDS, draw_scene
from segformer_edge.errors import UsageError
from segformer_edge.progress import progress_for_terminal
from segformer_edge.report.table import console_for
from segformer_edge.runtime.latency import FrameTimes, Stopwatch, measure_frames
from segformer_edge.runtime.segmenter import Segmenter

WARM_UP, FULL_LOGITS_RUNS = 3, 5


@dataclass(frozen=True)
class Row:
    """One file's medians."""

    file: str
    #: Shape and dtype of the network's output.
    output: str
    times: FrameTimes
    #: Milliseconds from the network's output to labels by way of full-size logits; None where not measured.
    full_logits_ms: float | None

    def to_json(self) -> dict[str, object]:
        """The row, its total and its share included."""
        times = {**asdict(self.times), "total_ms": self.times.total_ms}
        share = {"postprocess_share": self.times.postprocess_share}
        return {"file": self.file, "output": self.output, **times, **share, "full_logits_ms": self.full_logits_ms}


def parse_frame(text: str) -> tuple[int, int]:
    """``"1280x720"``, width first as cameras say it -> (height, width). Raises UsageError."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text.strip().lower(), flags=re.ASCII)
    if match is None:
        raise UsageError(f"Frame '{text}' is not WIDTHxHEIGHT.", hint="For example: --frame 1280x720")
    return int(match.group(2)), int(match.group(1))


def full_logits_ms(segmenter: Segmenter, frame: np.ndarray) -> float | None:
    """Median milliseconds from logits to labels with logits of the frame's size; None for a file that gives labels."""
    if segmenter.metadata.output.kind != "logits":
        return None
    logits = segmenter.logits(frame)
    taken = []
    for _ in range(1 + FULL_LOGITS_RUNS):
        watch = Stopwatch()
        full = [cv2.resize(plane, frame.shape[1::-1], interpolation=cv2.INTER_LINEAR) for plane in logits]
        np.argmax(full, axis=0).astype(np.uint8)
        taken.append(watch.lap_ms())
    return statistics.median(taken[1:])


def measure(file: Path, frame: np.ndarray, threads: int, runs: int, naive: bool) -> Row:
    """Load ``file`` and time it on ``frame``."""
    segmenter = Segmenter.load(file, threads=threads)
    labels = np.empty(frame.shape[:2], np.uint8)
    times = measure_frames(lambda image: segmenter.timed(image, out=labels), frame, runs, WARM_UP)
    spec = segmenter.metadata.output
    output = f"{spec.kind} {spec.dtype} {'x'.join(map(str, spec.shape[1:]))}"
    return Row(str(file), output, FrameTimes.median(times), full_logits_ms(segmenter, frame) if naive else None)


def print_rows(rows: Sequence[Row], frame: np.ndarray, threads: int, runs: int) -> None:
    """The table, on stdout."""
    from rich.table import Table

    height, width = frame.shape[:2]
    table = Table(title=f"{width}x{height} frame, median ms of {runs}, {threads} thread(s)", title_justify="left")
    table.add_column("file", overflow="fold")
    table.add_column("output")
    for name in ("before", "network", "after", "total", "after, share", "after, full-size logits"):
        table.add_column(name, justify="right")
    for row in rows:
        t = row.times
        parts = [f"{ms:.2f}" for ms in (t.preprocess_ms, t.inference_ms, t.postprocess_ms, t.total_ms)]
        naive = "-" if row.full_logits_ms is None else f"{row.full_logits_ms:.1f}"
        table.add_row(row.file, row.output, *parts, f"{100 * t.postprocess_share:.1f} %", naive)
    console_for().print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, or JSON."""
    parser = Parser("python benchmarks/frame.py", "Time of each part of a frame: before, in and after the network.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help=".pte, .tflite, .xml, .onnx")
    parser.add_argument("--frame", default="1280x720", metavar="WxH", help="camera frame, width first")
    parser.add_argument("--image", type=Path, metavar="FILE", help="what the frame shows (default: a demo scene)")
    parser.add_argument("--runs", type=int, default=30, metavar="N", help="frames to time (default 30)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads (default 1)")
    parser.add_argument("--full-logits", action="store_true", help="also time upsampled logits and argmax")
    parser.add_argument("--json", action="store_true", help="only JSON on stdout")
    options = parser.parse_args(argv)
    if options.runs < 1:
        raise UsageError(f"--runs is at least 1; got {options.runs}.")
    size = parse_frame(options.frame)
    frame = resize_image(read_image(options.image), size) if options.image else draw_scene(VALIDATION_SEEDS[0], size)[0]
    rows = []
    with progress_for_terminal() as tell:
        advance = tell.bar("frames", len(options.files))
        for file in options.files:
            rows.append(measure(file, frame, options.threads, options.runs, options.full_logits))
            advance()
    if options.json:
        image = str(options.image) if options.image else None
        about = {"height": size[0], "width": size[1], "image": image, "threads": options.threads, "runs": options.runs}
        print(json.dumps({**about, "files": [row.to_json() for row in rows]}, indent=2, allow_nan=False))
    else:
        print_rows(rows, frame, options.threads, options.runs)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(run(main))
