"""Both ends of a process that measures one file: the worker answers with one line of JSON, the caller waits for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from segformer_edge.errors import ArtifactError, SegformerEdgeError, UsageError


class MeasurementError(SegformerEdgeError):
    """The measured process ended unexpectedly or took too long."""


def give_answer(work: Callable[[], dict[str, Any]]) -> NoReturn:
    """Print what ``work`` returns and end the process; an error that a user can act on is an answer too."""
    # Native libraries print to descriptor 1; the answer goes out on a copy of it, and the prints to stderr.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        answer = work()
    except SegformerEdgeError as error:
        answer = {"error": error.args[0], "hint": error.hint, "code": error.exit_code}
    print(json.dumps(answer), file=answers, flush=True)
    # Some runtimes crash while their libraries are taken apart; nothing is left to do.
    os._exit(0)


def answer_of(
    command: Sequence[str], environment: Mapping[str, str], file: Path, device: str, timeout: float
) -> dict[str, Any]:
    """Run ``command``, which answers with ``give_answer``, on ``file``; ``device`` is for messages.

    Raises what the worker raised as UsageError or ArtifactError; MeasurementError where the process ends otherwise or
    takes longer than ``timeout`` seconds.
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
        kind = UsageError if answer["code"] == UsageError.exit_code else ArtifactError
        what = answer["error"]
        raise kind(what if file.name in what else f"'{file.name}': {what}", hint=answer["hint"])
    return answer
