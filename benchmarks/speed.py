"""Latency of the default pipelines' files and of ours: docs/speed.md's tables and bench.json.

    python benchmarks/speed.py --camvid WEIGHTS --calibration DIR --eval camvid:DIR:val

Both sides start from the same checkpoint and are run in turns in one process a runtime, so that what slows the machine
down slows all of them. Files are built where they are missing, half an hour in all; what is there is used as it is. A
default file runs with its runtime's default settings, ours as this SDK runs it. With ``--only`` or ``--settings`` the
other rows of an earlier run on the same machine stay.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from defaults.build import built_file, read_record
from defaults.pipelines import PIPELINES
from latency import SECONDS, timings
from machine import machine
from marked_block import update
from memory_cases import CAMVID, RANDOM, Setting
from memory_ours import Source, prepare_source
from speed_cases import LABELS, LANES, SETTINGS, Entry, Lane, Result
from speed_score import score
from speed_table import MARK, markdown

from segformer_edge.cli import EXIT_FAILED, EXIT_OK, Parser, run
from segformer_edge.data.datasets import open_dataset
from segformer_edge.data.sample import SegmentationDataset
from segformer_edge.errors import ArtifactError, SegformerEdgeError, UsageError
from segformer_edge.export.targets import TARGETS
from segformer_edge.jsonfile import read_json, write_json
from segformer_edge.memory.measure import measure
from segformer_edge.progress import Progress, progress_for_terminal
from segformer_edge.runtime.formats import RUNTIMES
from segformer_edge.suggestions import did_you_mean

OURS = LABELS[2:]


def default_entry(label: str, lane: Lane, setting: Setting, source: Source, folder: Path) -> tuple[Entry, Path]:
    """The default pipeline's file, built where it is missing. Raises SegformerEdgeError."""
    out, name = folder / setting.name, lane.default_float if label == LABELS[0] else lane.default_int8
    file = built_file(
        name, out, weights=str(source.weights), size=setting.size, calibration=str(source.calibration), images=16
    )
    record = read_record(out, PIPELINES[name]) or {"bytes": None, "seconds": None}
    return Entry(label, file.name, record["bytes"], build_seconds=record["seconds"]), file


def our_entry(label: str, lane: Lane, setting: Setting, source: Source, folder: Path) -> tuple[Entry, Path]:
    """Our file, made with all targets' where it is missing. Raises SegformerEdgeError that says why there is none."""
    recipe = "float" if label == LABELS[2] else lane.recipe
    targets = [each.target for each in LANES.values() if recipe in ("float", each.recipe)]
    out = folder / f"{setting.name}-{recipe}"
    if not (out / "report.json").exists():
        command = [
            *(sys.executable, "-m", "segformer_edge.quantize", "--weights", str(source.weights), "--out", str(out)),
            *("--size", setting.size_text, "--calibration", str(source.calibration), "--recipe", recipe),
            *("--targets", ",".join(dict.fromkeys(targets))),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if not (out / "report.json").exists():
            raise ArtifactError(f"quantize ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    reports = {entry["target"]: entry for entry in read_json(out / "report.json", ArtifactError)["targets"]}
    report: dict[str, Any] = reports.get(lane.target, {"error": "it was not exported"})
    file = out / f"model{RUNTIMES[TARGETS[lane.target].format].suffix}"
    if not file.exists():
        raise ArtifactError(f"quantize: {report['error']}")
    return Entry(label, file.name, report["bytes"], build_seconds=report.get("export_seconds")), file


def measured(
    lane: Lane, setting: Setting, source: Source, options: Any, dataset: SegmentationDataset | None, tell: Progress
) -> Result:
    """One lane: find its four files, time them in turns, score them, measure their memory."""
    entries: dict[str, Entry] = {}
    files: dict[str, Path] = {}
    for label in LABELS:
        tell.step(f"{lane.title}, {setting.title}: {label}")
        find, folder = (our_entry, options.ours) if label in OURS else (default_entry, options.defaults)
        try:
            entries[label], files[label] = find(label, lane, setting, source, folder)
        except SegformerEdgeError as error:
            entries[label] = Entry(label, error=str(error).splitlines()[0])
    variants = {label: lane.our_variant if label in OURS else lane.variant for label in files}
    for threads in options.threads:
        tell.step(f"{lane.title}, {setting.title}: latency, {threads} thread(s)")
        taken = timings(list(files.values()), list(variants.values()), threads, options.seconds)
        for label, timing in zip(files, taken, strict=True):
            entries[label] = replace(entries[label], timings={**(entries[label].timings or {}), threads: timing})
    for label, file in files.items():
        tell.step(f"{lane.title}, {setting.title}: {label}, memory and mIoU")
        try:
            peak = measure(file, variant=variants[label]).inference_growth
            miou = (
                None
                if dataset is None
                else score(file, dataset, options.limit, sidecar=label in OURS, variant=variants[label])
            )
            entries[label] = replace(entries[label], peak_bytes=peak, miou=miou)
        except SegformerEdgeError as error:
            entries[label] = replace(entries[label], error=str(error).splitlines()[0].replace(str(file), file.name))
    return Result(setting, lane, entries)


def chosen(names: str, known: Any, what: str) -> list[Any]:
    """The entries of ``known`` called ``names``, all for "". Raises UsageError."""
    wanted = [name for name in names.split(",") if name] or list(known)
    for name in wanted:
        if name not in known:
            raise UsageError(f"There is no {what} '{name}'.", hint=did_you_mean(name, known))
    return [known[name] for name in wanted]


def threads_of(text: str) -> tuple[int, ...]:
    """``1,2`` as numbers. Raises UsageError."""
    if not all(part.isdigit() and int(part) > 0 for part in text.split(",")):
        raise UsageError(f"--threads takes numbers like 1,2; got '{text}'.")
    return tuple(int(part) for part in text.split(","))


def merged(results: Sequence[Result], path: Path) -> list[Result]:
    """``results`` in the place of those of an earlier run on this machine, whose others stay. Raises ArtifactError."""
    found: dict[tuple[str, str], Result] = {}
    if path.exists():
        earlier = read_json(path, ArtifactError)
        try:
            if earlier["machine"] == machine():
                for row in earlier["results"]:
                    found[row["setting"], row["runtime"]] = Result.from_json(row)
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"'{path}' is no record of this benchmark: {error}.", hint=f"rm {path}") from error
    found |= {(result.setting.name, result.lane.name): result for result in results}
    return [found[setting, lane] for setting in SETTINGS for lane in LANES if (setting, lane) in found]


def build_parser() -> Parser:
    """All options, with their defaults."""
    parser = Parser("python benchmarks/speed.py", "Latency: the default pipelines' files against ours.")
    parser.add_argument("--weights", default="random:b0:150", metavar="W", help="for 512x512: folder or random:b0:150")
    parser.add_argument("--camvid", metavar="DIR", help="CamVid checkpoint for 384x512, HF layout")
    parser.add_argument("--calibration", type=Path, metavar="DIR", help="images (default: drawn scenes)")
    parser.add_argument("--eval", metavar="DATASET", help="scores the 384x512 files, like camvid:DIR:val")
    parser.add_argument("--limit", type=int, metavar="N", help="score only the first N images")
    parser.add_argument("--only", default="", metavar="RUNTIME,...", help=f"of {', '.join(LANES)}")
    parser.add_argument("--settings", default="", metavar="NAME,...", help=f"of {', '.join(SETTINGS)}")
    parser.add_argument("--threads", default="1,2", metavar="N,...", help="threads to time with (default 1,2)")
    parser.add_argument("--seconds", type=float, default=SECONDS, metavar="S", help="for each timing (default 30)")
    parser.add_argument("--defaults", type=Path, default=Path("out/bench/defaults"), metavar="DIR", help="their files")
    parser.add_argument("--ours", type=Path, default=Path("out/bench/ours"), metavar="DIR", help="our files")
    parser.add_argument("--out", type=Path, default=Path("docs"), metavar="DIR", help="for speed.md and bench.json")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the tables, write both files; returns 1 where a ratio is missed."""
    options = build_parser().parse_args(argv)
    options.threads = threads_of(options.threads)
    lanes, settings = chosen(options.only, LANES, "runtime"), chosen(options.settings, SETTINGS, "setting")
    given = {RANDOM.name: options.weights, CAMVID.name: options.camvid}
    dataset = open_dataset(options.eval) if options.eval else None
    options.ours.mkdir(parents=True, exist_ok=True)
    results = []
    with progress_for_terminal() as tell:
        for setting in settings:
            if not given[setting.name]:
                tell.step(f"{setting.title}: left out, since no weights were given for it")
                continue
            source = prepare_source(setting, given[setting.name], options.calibration, options.ours)
            scored = dataset if setting is CAMVID else None
            results += [measured(lane, setting, source, options, scored, tell) for lane in lanes]
    print(markdown(results, options.threads, machine()))
    options.out.mkdir(parents=True, exist_ok=True)
    record = options.out / "bench.json"
    everything = merged(results, record)
    text = markdown(everything, sorted({count for result in everything for count in result.threads}), machine())
    rows = [result.to_json() for result in everything]
    write_json(record, {"schema_version": 1, "machine": machine(), "results": rows})
    update(options.out / "speed.md", MARK, text)
    held = [value for result in results for value in result.verdicts.values()]
    return EXIT_FAILED if False in held else EXIT_OK


if __name__ == "__main__":
    sys.exit(run(main))
