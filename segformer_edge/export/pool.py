"""Runs export jobs in child processes, a few at a time, and always takes them down with it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from segformer_edge.export.exporter import Exported
from segformer_edge.export.worker import Job, exported_from_json
from segformer_edge.verbosity import child_output

#: Each worker holds torch and one backend: about 1.5 GB for B0 at 512x512.
MAX_WORKERS = 2
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class ExportFailure:
    """One target could not be exported; the reason is for the report."""

    reason: str


def _start(job: Job, folder: Path, name: str) -> subprocess.Popen:
    path = folder / f"{name}.job.json"
    path.write_text(json.dumps(asdict(job)), encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "segformer_edge.export.worker", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            # Ctrl-C reaches only the parent, which then ends its workers in order.
            start_new_session=True,
        )


def _outcome(job: Job, code: int, log: Path) -> Exported | ExportFailure:
    child_output(job.target, log.read_text(encoding="utf-8", errors="replace"))
    result = Path(job.result)
    if result.exists():
        value = json.loads(result.read_text(encoding="utf-8"))
        return ExportFailure(value["error"]) if "error" in value else exported_from_json(value["exported"])
    ending = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    return ExportFailure(f"The exporting process {ending}. {' '.join(last)}".strip())


def run_jobs(
    jobs: Mapping[str, Job],
    folder: Path,
    *,
    workers: int | None = None,
    on_start: Callable[[str], None] = lambda name: None,
    on_end: Callable[[str], None] = lambda name: None,
) -> dict[str, Exported | ExportFailure]:
    """Run all ``jobs``, keyed by target, with scratch files in ``folder``; a failed one is a value, not an exception.

    ``workers`` processes at a time (default: one per core, at most :data:`MAX_WORKERS`).
    """
    limit = workers or max(1, min(MAX_WORKERS, len(os.sched_getaffinity(0))))
    waiting, running = list(jobs), dict[str, subprocess.Popen]()
    outcomes: dict[str, Exported | ExportFailure] = {}
    try:
        while waiting or running:
            while waiting and len(running) < limit:
                name = waiting.pop(0)
                running[name] = _start(jobs[name], folder, name)
                on_start(name)
            for name, process in list(running.items()):
                code = process.poll()
                if code is not None:
                    del running[name]
                    outcomes[name] = _outcome(jobs[name], code, folder / f"{name}.log")
                    on_end(name)
            time.sleep(_POLL_SECONDS)
    finally:
        for process in running.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with the compilers it started
        for process in running.values():
            process.wait()
    return {name: outcomes[name] for name in jobs}
