"""Build the default pipelines' files, one process each, one after another.

    python benchmarks/defaults/build.py --weights DIR --size 384x512 --calibration DIR --out out/defaults/mine
    python benchmarks/defaults/build.py --weights random:b0:150 --size 512 --only litert_int8 --out out/defaults/b0

Beside each file lies ``<name>.build.json``: seconds, versions, inputs, SHA-256, or the error. A file with equal inputs
is kept. The exporters' own output is in ``<name>.log``.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from defaults.pipelines import PIPELINES, Pipeline, choose_pipelines
from segformer_edge.cli import EXIT_FAILED, EXIT_OK, Parser, parse_size, run
from segformer_edge.errors import ArtifactError, SegformerEdgeError
from segformer_edge.jsonfile import read_json, write_json
from segformer_edge.progress import progress_for_terminal
from segformer_edge.runtime.metadata import sha256_of


def record_path(out: Path, name: str) -> Path:
    """Where a pipeline's record lies."""
    return out / f"{name}.build.json"


def main_file(out: Path, pipeline: Pipeline) -> Path:
    """Where a pipeline's file lies."""
    return out / f"{pipeline.name}{pipeline.suffix}"


def read_record(out: Path, pipeline: Pipeline) -> dict[str, Any] | None:
    """A pipeline's record, or None without one, or where its files are not those that it describes."""
    path = record_path(out, pipeline.name)
    if not path.exists():
        return None
    try:
        record = read_json(path, ArtifactError)
        same = all(sha256_of(out / name) == digest for name, digest in record["files"].items())
    except (SegformerEdgeError, KeyError, AttributeError):
        return None
    return record if same else None


def build_one(name: str, weights: str, size: tuple[int, int], calibration: str, images: int, out: Path) -> None:
    """Build one pipeline's file and its record in ``out``, unless both are there from the same inputs."""
    from defaults.job import Job, digest_of, load_batches, load_model

    pipeline = PIPELINES[name]
    model, batches = load_model(weights), load_batches(calibration, size, images)
    inputs = {"size": list(size), "images": len(batches), **digest_of(model, batches), "tools": pipeline.versions()}
    earlier = read_record(out, pipeline)
    if earlier and earlier["status"] == "ok" and earlier["inputs"] == inputs:
        return
    before, source = 0.0, None
    record: dict[str, Any] = {"pipeline": name, "inputs": inputs}
    try:
        if pipeline.starts_from:
            float_record = read_record(out, PIPELINES[pipeline.starts_from])
            if float_record is None or float_record["status"] != "ok":
                raise RuntimeError(f"{pipeline.starts_from}, which it starts from, was not built")
            before, source = float_record["seconds"], main_file(out, PIPELINES[pipeline.starts_from])
        with TemporaryDirectory(dir=out, prefix=f".{name}-") as folder:
            start = time.perf_counter()
            made = pipeline.builder()(Job(model, size, batches, source), Path(folder) / main_file(out, pipeline).name)
            seconds = time.perf_counter() - start
            files = {}
            for suffix in (*pipeline.companions, pipeline.suffix):
                file = made.with_suffix(suffix)
                files[file.name] = sha256_of(file)
                file.replace(out / file.name)
    except Exception as error:  # whatever an exporter raises is the pipeline's result
        write_json(record_path(out, name), {**record, **failure(f"{type(error).__name__}: {error}")})
        raise
    record |= {
        "status": "ok",
        "error": None,
        "files": files,
        "bytes": sum((out / file).stat().st_size for file in files),
        # With the float file's, which an int8 pipeline starts from.
        "seconds": before + seconds,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    write_json(record_path(out, name), record)


def failure(reason: str) -> dict[str, Any]:
    """The fields of a record whose pipeline gave no file."""
    return {"status": "failed", "error": reason, "files": {}, "bytes": None, "seconds": None, "peak_rss_bytes": None}


def _worker(log: Path, arguments: Mapping[str, Any]) -> None:
    """In a process of its own: exporters print much, keep memory, and may end the process."""
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    build_one(**arguments)


def build(pipeline: Pipeline, out: Path, **arguments: Any) -> dict[str, Any]:
    """Build in a new process and return the record; a process that died leaves one that says so."""
    process = multiprocessing.get_context("spawn").Process(
        target=_worker, args=(out / f"{pipeline.name}.log", {"name": pipeline.name, "out": out, **arguments})
    )
    process.start()
    try:
        process.join()
    finally:
        if process.is_alive():
            process.terminate()
    record = read_record(out, pipeline)
    if process.exitcode and (record is None or record["status"] == "ok"):
        record = {"pipeline": pipeline.name, "inputs": None, **failure(f"its process ended with {process.exitcode}")}
        write_json(record_path(out, pipeline.name), record)
    assert record is not None
    return record


def built_file(name: str, out: Path, **arguments: Any) -> Path:
    """The file of the pipeline ``name`` in ``out``, built now with ``arguments`` unless it is there.

    Raises SegformerEdgeError with the exporter's complaint.
    """
    pipelines = choose_pipelines([name])
    file = main_file(out, pipelines[-1])
    if not file.exists():
        out.mkdir(parents=True, exist_ok=True)
        for pipeline in pipelines:
            record = build(pipeline, out, **arguments)
        if record["status"] != "ok":
            words = record["error"].splitlines()[0].replace(f"{out}{os.sep}", "")
            raise SegformerEdgeError(f"{record['pipeline']}: {words}")
    return file


def main(argv: Sequence[str] | None = None) -> int:
    """Build, print a line for each; returns 1 if a pipeline failed."""
    parser = Parser("python benchmarks/defaults/build.py", "What each ecosystem's documentation makes of SegFormer.")
    parser.add_argument("--weights", default="random:b0:150", metavar="W", help="folder (HF layout) or random:b0:150")
    parser.add_argument("--size", default="512", metavar="HxW", help="network input (default 512)")
    parser.add_argument("--calibration", default="random", metavar="DIR", help="images, or random for noise")
    parser.add_argument("--images", type=int, default=16, metavar="N", help="images to calibrate on (default 16)")
    parser.add_argument("--only", default="", metavar="NAME,...", help=f"of {', '.join(PIPELINES)}")
    parser.add_argument("--out", type=Path, default=Path("out/defaults"), metavar="DIR", help="output folder")
    options = parser.parse_args(argv)
    chosen = choose_pipelines([name for name in options.only.split(",") if name])
    size = parse_size(options.size)
    from defaults.job import check_weights, load_batches

    # Bad input is found before the first process starts.
    check_weights(options.weights)
    load_batches(options.calibration, size, 1)
    options.out.mkdir(parents=True, exist_ok=True)
    records = []
    with progress_for_terminal() as tell:
        for pipeline in chosen:
            tell.step(f"build {pipeline.name}")
            record = build(
                pipeline, options.out, weights=options.weights, size=size,
                calibration=options.calibration, images=options.images,
            )  # fmt: skip
            records.append(record)
            print(_line(record), flush=True)
    return EXIT_OK if all(record["status"] == "ok" for record in records) else EXIT_FAILED


def _line(record: Mapping[str, Any]) -> str:
    if record["status"] != "ok":
        return f"{record['pipeline']:18} failed: {record['error'].splitlines()[0][:200]}"
    return f"{record['pipeline']:18} {record['bytes']:>12,} bytes {record['seconds']:8.1f} s"


if __name__ == "__main__":
    sys.exit(run(main))
