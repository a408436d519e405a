"""A process of its own for a file that its runtime may not survive: how it is started, and how it answers.

The worker prints one JSON object as its last line on stdout. Native loaders trust their input; a damaged file can end
their process, and then the user still gets a sentence.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from segformer_edge.emulation.sysroot import project_path
from segformer_edge.errors import ArtifactError, SegformerEdgeError, UsageError
from segformer_edge.verbosity import child_output


class MeasurementError(SegformerEdgeError):
    """The measured process ended unexpectedly or took too long."""


def host_environment(threads: int) -> dict[str, str]:
    """Our own environment for a worker on this machine: it finds this package, OpenMP takes ``threads``."""
    folders = [str(project_path()), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": str(threads)}


def answer_of(
    command: Sequence[str], environment: Mapping[str, str], file: Path, device: str, timeout: float
) -> dict[str, Any]:
    """What the worker answers about ``file``.

    Raises MeasurementError where it ends otherwise or takes longer than ``timeout`` seconds, and the UsageError or
    ArtifactError that it answers with.
    """
    try:
        done = subprocess.run(
            command, env=dict(environment), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", timeout=timeout,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise MeasurementError(
            f"'{file.name}' on {device} took longer than {timeout:g} s.", hint="Try a smaller input size."
        ) from error
    child_output(file.name, done.stderr)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        words = [line.strip() for line in done.stderr.splitlines() if line.strip()][-2:]
        code = done.returncode
        ending = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        raise MeasurementError(
            f"'{file.name}' on {device} ended with {ending}: {' '.join(words) or 'it said nothing'}",
            hint="A damaged file can end its runtime. Export it again, or run it alone to see more.",
        )
    answer: dict[str, Any] = json.loads(lines[-1])
    if "error" in answer:
        kind = UsageError if answer["usage"] else ArtifactError
        what = answer["error"]
        raise kind(what if file.name in what else f"'{file.name}': {what}", hint=answer["hint"])
    return answer


def answer_with(make: Callable[[], Mapping[str, Any]]) -> NoReturn:
    """The worker's side: print what ``make`` returns and end the process. An error a user can act on is an answer too.

    Native libraries print to descriptor 1; the answer goes out on a copy of it, and the prints to stderr.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        answer = make()
    except SegformerEdgeError as error:
        answer = {"error": error.args[0], "hint": error.hint, "usage": isinstance(error, UsageError)}
    print(json.dumps(answer), file=answers, flush=True)
    # Some runtimes crash while their libraries are taken apart; nothing is left to do.
    os._exit(0)
