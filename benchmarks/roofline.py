"""How far each file is from what its runtime and this machine could do: docs/speed.md's roofline.

    python benchmarks/roofline.py out/model.tflite out/model.pte out/model.onnx out/model.xml

A file and a bare int8 matrix product of the same runtime (benchmarks/gemm.py) run in turns, one thread. Were every
multiply-accumulate of the network as fast as those, and nothing else to do, an inference would take "by products"; were
only memory to be read and written, each tensor once by each operator, "by memory". ``--page docs/speed.md`` fills the
page's block.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from gemm import macs, write_gemm
from latency import SECONDS, timings
from machine import machine
from marked_block import lines, update
from scaling import macs_of
from speed_cases import LANES

from segformer_edge.cli import EXIT_OK, Parser, run
from segformer_edge.errors import UsageError
from segformer_edge.export.targets import TARGETS
from segformer_edge.memory.profiling import read_file
from segformer_edge.model.config import variant_config
from segformer_edge.progress import Progress, progress_for_terminal
from segformer_edge.runtime.metadata import ArtifactMetadata

MARK = "roofline"
#: Rows of the bare product: as many as a map of 128x128 has, a quarter of 512x512.
SIDE = 128
_COPIED = 1 << 28


@dataclass(frozen=True)
class Row:
    """One file. Times in milliseconds, one thread; rates in 10^9 a second."""

    file: str
    runtime: str
    size: tuple[int, int]
    classes: int
    #: Multiply-accumulates of the network, and of them attention's, which recipe ``mixed`` leaves in float.
    macs: int
    attention_macs: int
    #: Read and written by all operators together, weights included.
    moved_bytes: int
    ms: float
    gemm_macs_per_second: float
    copied_bytes_per_second: float

    @property
    def macs_per_second(self) -> float:
        """What the file reaches."""
        return self.macs / self.ms * 1e3

    @property
    def share(self) -> float:
        """Of what the bare product reaches."""
        return self.macs_per_second / self.gemm_macs_per_second

    @property
    def least_ms(self) -> tuple[float, float]:
        """By products, and by memory."""
        return self.macs / self.gemm_macs_per_second * 1e3, self.moved_bytes / self.copied_bytes_per_second * 1e3


def copy_rate() -> float:
    """Bytes a second that one thread reads and writes, the best of five copies beyond the caches."""
    source = np.ones(_COPIED, np.uint8)
    target, best = np.empty_like(source), float("inf")
    for _ in range(5):
        before = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - before)
    return 2 * _COPIED / best


def moved(file: Path) -> int:
    """Bytes that the operators of ``file`` read and write, each tensor once an operator."""
    graph = read_file(file).graph
    return sum(
        graph.tensors[index].bytes for op in graph.operators for index in dict.fromkeys((*op.inputs, *op.outputs))
    )


def measured(file: Path, side: int, seconds: float, rate: float) -> Row:
    """Time ``file`` and a bare product of ``side * side`` rows in turns. Raises UsageError for a network of others."""
    about = ArtifactMetadata.load(file)
    lane = next((lane for lane in LANES.values() if TARGETS[lane.target].format == about.format), None)
    variant = about.model.rpartition("-")[2].lower()
    if lane is None or about.target not in TARGETS or variant not in ("b0", "b1", "b2", "b3", "b4", "b5"):
        known = ", ".join(lane.target for lane in LANES.values())
        raise UsageError(f"'{file}' is {about.model} for {about.target}; there are products for {known}.")
    linear, attention = macs_of(variant_config(variant, len(about.class_names)), about.size)
    with TemporaryDirectory() as folder:
        bare = write_gemm(about.format, side, Path(folder))
        own, product = timings([file, bare], [lane.our_variant] * 2, seconds=seconds)
    return Row(
        file.name, lane.title, about.size, len(about.class_names), linear + attention, attention, moved(file),
        own.median, macs(side * side) / product.median * 1e3, rate,
    )  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """The page's block."""
    header = ["", "MACs, 10^9", "moved", "ms", "by products", "by memory", "10^9 MACs/s", "bare product", "share"]
    cells = []
    for row in rows:
        products, memory = row.least_ms
        figures = (
            f"{row.macs / 1e9:.2f}",
            f"{row.moved_bytes / 2**20:.0f} MiB",
            f"{row.ms:.1f}",
            f"{products:.1f}",
            f"{memory:.1f}",
            f"{row.macs_per_second / 1e9:.0f}",
            f"{row.gemm_macs_per_second / 1e9:.0f}",
            f"{row.share:.0%}",
        )
        cells.append([f"{row.runtime}, {row.size[0]}x{row.size[1]}, {row.classes} classes", *figures])
    rate = f"{rows[0].copied_bytes_per_second / 1e9:.1f} * 10^9 bytes/s"
    return "\n".join([f"Measured on {machine()}; copying moves {rate}.", "", *lines(header, cells)])


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, or JSON."""
    parser = Parser("python benchmarks/roofline.py", "Each file beside bare int8 products of its runtime.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help=".pte, .tflite, .xml, .onnx")
    parser.add_argument("--side", type=int, default=SIDE, metavar="N", help=f"root of the product's rows ({SIDE})")
    parser.add_argument("--seconds", type=float, default=SECONDS, metavar="S", help="for each file (default 30)")
    parser.add_argument("--page", type=Path, metavar="FILE", help="fill this page's block")
    parser.add_argument("--json", action="store_true", help="only JSON on stdout")
    options = parser.parse_args(argv)
    if options.side < 1:
        raise UsageError(f"--side is at least 1; got {options.side}.")
    with progress_for_terminal() as tell:
        rows = _rows(options.files, options.side, options.seconds, tell)
    if options.page:
        update(options.page, MARK, table(rows))
    if options.json:
        figures = [{**asdict(row), "share": row.share, "least_ms": row.least_ms} for row in rows]
        print(json.dumps({"machine": machine(), "files": figures}, indent=2, allow_nan=False))
    else:
        print(table(rows))
    return EXIT_OK


def _rows(files: Sequence[Path], side: int, seconds: float, tell: Progress) -> list[Row]:
    rate, rows, advance = copy_rate(), [], tell.bar("files", len(files))
    for file in files:
        rows.append(measured(file, side, seconds, rate))
        advance()
    return rows


if __name__ == "__main__":
    sys.exit(run(main))
