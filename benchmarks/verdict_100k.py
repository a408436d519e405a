"""Does SegFormer-B0 work "in a chip of edge device with only 100k memory"? Executed by TFLite Micro.

    python benchmarks/verdict_100k.py [--camvid W --calibration DIR --eval camvid:DIR:val] [--sizes 96,128,...]

For the demo checkpoint, and a CamVid one where it is named: two files of 128x128, tiled for 100,000 bytes of
activations and untiled; both run on every evaluation image and must agree bit for bit. For each size, the least arena
of all plans with labels out, and whether a file of that plan really takes it. Fills docs/100kB.md and 100kB.json.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from machine import machine
from marked_block import lines, update
from random_network import random_network

from segformer_edge.cli import EXIT_FAILED, EXIT_OK, Parser, run
from segformer_edge.data.datasets import open_dataset
from segformer_edge.errors import ArtifactError, DataError, UsageError
from segformer_edge.ethos_u.configurations import configuration
from segformer_edge.ethos_u.lowering import Compiler, npu_graph
from segformer_edge.export.planner import Planner, way_of
from segformer_edge.export.targets import choose_targets
from segformer_edge.export.tflm import emitted_micro, write_smallest
from segformer_edge.jsonfile import read_json, write_json
from segformer_edge.memory.flatbuffer import root_table
from segformer_edge.memory.micro import Allocations, allocations
from segformer_edge.memory.readers.tflite import graph_of
from segformer_edge.model.config import STRIDE
from segformer_edge.pipeline import QuantizeOptions, quantize
from segformer_edge.progress import Progress, progress_for_terminal
from segformer_edge.report.schema import Report
from segformer_edge.rewrite.tiling import Tiling
from segformer_edge.runtime.segmenter import Segmenter

BUDGET, SIDE = 100_000, 128
NPUS = ("ethos-u55-128", "ethos-u85-256")
#: For NPUs whose compiler does not take the verdict's tiling.
COARSER = (Tiling((8, 4, 2, 1), head=8, head_channels=8), Tiling((4, 2, 1, 1), head=4, head_channels=4))
SIDES = (96, 128, 160, 192, 256, 320, 384, 512)
#: Bytes of the devices asked about, and what they are called.
DEVICES = {"100 kB": 100_000, "256 kB": 256_000, "384 kB": 384_000, "1 MB": 1_000_000, "2 MB": 2_000_000,
           "4 MB": 4_000_000}  # fmt: skip
CLASSES = 11
Row = TypeVar("Row")
#: A piece is a share of the arena; finer ones than these have not needed less.
_SHARES = (4, 8, 16)


@dataclass(frozen=True)
class Verdict:
    """One checkpoint at 128x128: the file within the budget against the untiled one, on ``images`` images."""

    name: str
    images: int
    fp32_miou: float | None
    miou: float | None
    activations: int
    persistent: int
    untiled_activations: int
    untiled_persistent: int
    #: Images on which every logit is the same.
    same: int
    #: Milliseconds of one inference by TFLite Micro's reference kernels on this machine.
    ms: float
    untiled_ms: float
    operators: int
    untiled_operators: int
    tiling: dict[str, object]

    @property
    def holds(self) -> bool:
        """Whether SegFormer-B0 works in this memory, and computes what it computes elsewhere."""
        return self.activations <= BUDGET and self.same == self.images


@dataclass(frozen=True)
class Floor:
    """The least arena of all plans for a square input, and what the interpreter then recorded."""

    side: int
    planned: int
    recorded: int
    persistent: int
    operators: int


@dataclass(frozen=True)
class Npu:
    """The network on an Ethos-U with everything in SRAM: its compiler's plan and estimate."""

    name: str
    #: Bands of the stages, and of the head with its channel groups.
    tiling: str
    sram_bytes: int
    inferences_per_second: float
    operators: int
    #: Operators that the compiler leaves to the CPU.
    left: int


def on_npu(name: str, tilings: Iterable[Tiling]) -> Npu:
    """Compile the network for 128x128, labels out, by the first of ``tilings`` that the compiler takes."""
    config = configuration(name)
    mode = next(mode for mode in config.modes if mode.name == "Sram_Only")
    refused: ArtifactError | None = None
    for tiling in tilings:
        graph = npu_graph(random_network("b0", CLASSES, "npu", "labels").tile(tiling), (SIDE, SIDE), config)
        try:
            found, _ = Compiler(config).compile(graph, mode)
        except ArtifactError as error:
            refused = error
            continue
        words = f"{', '.join(map(str, tiling.bands))}; {tiling.head} x {tiling.head_channels}"
        return Npu(
            name, words, found.sram_bytes, found.inferences_per_second, len(graph.operators), len(found.left)
        )  # fmt: skip
    assert refused is not None
    raise refused


def verdict(name: str, options: QuantizeOptions, tell: Progress) -> Verdict:
    """Make both files below ``options.out``, run them on the whole data set and compare."""
    reports: dict[str, Report] = {}
    for kind, budget in (("tiled", BUDGET), ("untiled", None)):
        tell.step(f"{name}: the {kind} file")
        here = {**vars(options), "out": options.out / kind, "memory_budget": budget}
        if kind == "untiled":  # scored once
            here |= {"dataset": None, "encodings": options.out / "tiled" / "encodings.json"}
        reports[kind] = quantize(QuantizeOptions(**here), tell)
    targets = {kind: report.targets[0] for kind, report in reports.items()}
    for kind, found in targets.items():
        if not found.files:
            raise UsageError(f"The {kind} file was not made: {found.error}")
    files = {kind: options.out / kind / found.files[0] for kind, found in targets.items()}
    recorded = {kind: allocations(file) for kind, file in files.items()}
    assert options.dataset is not None
    same = compare(files["tiled"], files["untiled"], options, tell)
    score, plan = reports["tiled"].reference, targets["tiled"].budget
    return Verdict(
        name=name,
        images=len(options.dataset),
        fp32_miou=score.fp32_miou,
        miou=targets["tiled"].miou,
        activations=recorded["tiled"].activations,
        persistent=recorded["tiled"].persistent,
        untiled_activations=recorded["untiled"].activations,
        untiled_persistent=recorded["untiled"].persistent,
        same=same,
        ms=recorded["tiled"].latency_ms,
        untiled_ms=recorded["untiled"].latency_ms,
        operators=_operators(files["tiled"]),
        untiled_operators=_operators(files["untiled"]),
        tiling=dict(plan.tiling or {}) if plan is not None else {},
    )


def _operators(file: Path) -> int:
    return len(graph_of(root_table(file.read_bytes()))[0].operators)


def compare(one: Path, other: Path, options: QuantizeOptions, tell: Progress) -> int:
    """Images on which both files give the same logits."""
    segmenters, dataset = [Segmenter.load(file) for file in (one, other)], options.dataset
    assert dataset is not None
    advance, same = tell.bar("compare bit for bit", len(dataset)), 0
    for i in range(len(dataset)):
        image = dataset[i].image
        same += bool(np.array_equal(*(each.infer(each.prepare(image)) for each in segmenters)))
        advance()
    return same


def floor(side: int, folder: Path, tell: Progress) -> Floor:
    """Of some plans for ``side`` the one that needs least, written and executed."""
    network = random_network("b0", CLASSES, "full", "labels")
    planner = Planner(network, way_of("tflm", network))  # type: ignore[arg-type]
    best: tuple[int, Tiling] | None = None
    bound = 4 * side * side + side * side // 8
    for share in _SHARES:
        tiling = planner.tiling((side, side), max(bound // share, 2048))
        tell.step(f"{side}x{side}: {tiling}")
        needed = planner.forecast(tiling, (side, side)).arena
        if best is not None and needed >= best[0]:
            break
        best = needed, tiling
    assert best is not None
    graph = emitted_micro(random_network("b0", CLASSES, "full", "labels").tile(best[1]), (side, side))
    found: Allocations = write_smallest(graph, folder / f"floor-{side}.tflite")
    return Floor(side, best[0], found.activations, found.persistent, len(graph.operators))


def table(verdicts: Iterable[Verdict], npus: Iterable[Npu], floors: Iterable[Floor]) -> str:
    """The page's block."""
    verdicts, npus, floors = list(verdicts), list(npus), sorted(floors, key=lambda each: each.side)
    words = [f"Measured on: {machine()}.", ""]
    header = ["128x128, TFLite Micro", *(v.name for v in verdicts)]

    def row(title: str, cells: Sequence[str]) -> list[str]:
        return [title, *cells]

    rows = [
        row("activations, at most 100,000 bytes", [f"**{v.activations:,}**" for v in verdicts]),
        row("activations, untiled file", [f"{v.untiled_activations:,}" for v in verdicts]),
        row("persistent part of the arena (64-bit pointers)", [f"{v.persistent:,}" for v in verdicts]),
        row("persistent part, untiled file", [f"{v.untiled_persistent:,}" for v in verdicts]),
        row("images whose logits are equal bit for bit", [f"{v.same} of {v.images}" for v in verdicts]),
        row("mIoU, tiled file", [_fraction(v.miou) for v in verdicts]),
        row("mIoU, float32 at 128x128", [_fraction(v.fp32_miou) for v in verdicts]),
        row("operators, untiled -> tiled", [f"{v.untiled_operators} -> {v.operators}" for v in verdicts]),
        row("time, untiled -> tiled", [f"{v.untiled_ms:.0f} -> {v.ms:.0f} ms" for v in verdicts]),
        row("verdict", ["PASS" if v.holds else "FAIL" for v in verdicts]),
    ]
    words += lines(header, rows)
    if npus:
        words += ["", "The same network on Ethos-U NPUs, everything in SRAM, by Vela:", ""]
        header = [
            "NPU",
            "bands; head",
            "activations, planned",
            "inferences a second, estimated",
            "operators",
            "on the CPU",
        ]
        cells = [
            [n.name, n.tiling, f"{n.sram_bytes:,}", f"{n.inferences_per_second:.1f}", f"{n.operators:,}", str(n.left)]
            for n in npus
        ]
        words += lines(header, cells)
    if floors:
        words += ["", "What fits where: the least activation arena at each input size, executed by TFLite Micro.", ""]
        header = ["input", "activations", "persistent", "operators", *DEVICES]
        cells = [
            [
                f"{f.side}x{f.side}", f"{f.recorded:,}", f"{f.persistent:,}", f"{f.operators:,}",
                *("fits" if f.recorded <= size else "-" for size in DEVICES.values()),
            ]
            for f in floors
        ]  # fmt: skip
        words += lines(header, cells)
    return "\n".join(words)


def _fraction(value: float | None) -> str:
    return "not scored" if value is None else f"{value:.4f}"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; 1 where the verdict is FAIL."""
    parser = Parser("python benchmarks/verdict_100k.py", "SegFormer-B0 in 100,000 bytes of activation memory.")
    parser.add_argument("--camvid", metavar="W", help="a CamVid checkpoint beside the demo's")
    parser.add_argument("--calibration", type=Path, metavar="DIR", help="images to calibrate it on")
    parser.add_argument("--eval", metavar="DATASET", help="images to score it on, like camvid:DIR:val")
    parser.add_argument("--sizes", default=",".join(map(str, SIDES)), metavar="LIST", help="inputs of the second table")
    parser.add_argument("--out", type=Path, default=Path("out/verdict"), metavar="DIR", help="where the files go")
    parser.add_argument("--page", type=Path, default=Path("docs/100kB.md"), metavar="FILE", help="the page to fill")
    options = parser.parse_args(argv)
    sides = [int(side) for side in options.sizes.split(",") if side]
    if any(side % STRIDE or side < STRIDE for side in sides):
        raise UsageError(f"Sizes are multiples of {STRIDE}; got {options.sizes}.")
    if options.camvid and not (options.calibration and options.eval):
        raise UsageError("--camvid needs --calibration DIR and --eval DATASET.")
    common = {"size": (SIDE, SIDE), "output": "logits", "targets": choose_targets(["tflm"]), "max_drop": 100.0,
              "force": True}  # fmt: skip
    cases = {"demo scenes": QuantizeOptions(out=options.out / "demo", dataset=open_dataset("demo"), **common)}
    if options.camvid:
        cases["CamVid val"] = QuantizeOptions(
            out=options.out / "camvid", weights=options.camvid, calibration=options.calibration,
            dataset=open_dataset(options.eval), **common,
        )  # fmt: skip
    record = options.page.with_suffix(".json")
    options.out.mkdir(parents=True, exist_ok=True)
    with progress_for_terminal() as tell:
        verdicts = {v.name: v for v in earlier(record, "verdicts", Verdict)}
        npus = {n.name: n for n in earlier(record, "npus", Npu)}
        floors = {f.side: f for f in earlier(record, "floors", Floor)}
        for name, case in cases.items():
            verdicts[name] = verdict(name, case, tell)
            publish(options.page, verdicts.values(), npus.values(), floors.values())
        tiling = Tiling.from_json(next(iter(verdicts.values())).tiling)
        for name in NPUS:
            tell.step(f"{name}: {tiling}")
            npus[name] = on_npu(name, (tiling, *COARSER))
        for side in sides:
            floors[side] = floor(side, options.out, tell)
            publish(options.page, verdicts.values(), npus.values(), floors.values())
    publish(options.page, verdicts.values(), npus.values(), floors.values())
    print(table(verdicts.values(), npus.values(), floors.values()))
    return EXIT_OK if all(v.holds for v in verdicts.values()) else EXIT_FAILED


def publish(page: Path, verdicts: Iterable[Verdict], npus: Iterable[Npu], floors: Iterable[Floor]) -> None:
    """Fill the page, and write the figures behind it beside it: after each part, since all take an hour."""
    update(page, "verdict", table(verdicts, npus, floors))
    value = {
        "machine": machine(),
        "verdicts": [asdict(v) for v in verdicts],
        "npus": [asdict(n) for n in npus],
        "floors": [asdict(f) for f in sorted(floors, key=lambda each: each.side)],
    }
    write_json(page.with_suffix(".json"), value)


def earlier(path: Path, key: str, kind: type[Row]) -> list[Row]:
    """Rows of an earlier run, which this one adds to or replaces. Raises DataError for a damaged file."""
    if not path.exists():
        return []
    found = read_json(path, DataError).get(key, [])
    try:
        return [kind(**row) for row in found]  # type: ignore[union-attr]
    except TypeError as error:
        raise DataError(f"'{path}' was not written by this program: {error}.", hint="Delete it.") from error


if __name__ == "__main__":
    sys.exit(run(main))
