"""A runtime that crashes ends in a sentence and an exit code, and signals still reach who works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

PROGRAM = """
    import os, signal, sys, time
    from segformer_edge.cli import run
    from segformer_edge.guard import stand_guard
    stand_guard()
    def command(argv):
        print(os.getpid(), flush=True)
        {body}
        return 3
    sys.exit(run(command))
"""


def start(body: str) -> subprocess.Popen:
    code = textwrap.dedent(PROGRAM).replace("{body}", body)
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def test_an_ordinary_end_is_passed_on():
    process = start("print('done')")
    out, err = process.communicate(timeout=30)
    assert process.returncode == 3 and out.endswith("\ndone\n") and err == ""


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE])
def test_a_crash_is_told(number):
    process = start(f"os.kill(os.getpid(), {int(number)})")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err.startswith(f"error: The runtime crashed on this file (signal {number.name}).\n") and err.count("\n") == 2


@pytest.mark.parametrize(("number", "code", "words"), [
    (signal.SIGINT, 130, "interrupted\n"), (signal.SIGTERM, 143, "terminated\n"), (signal.SIGHUP, 129, "terminated\n"),
])  # fmt: skip
@pytest.mark.parametrize("to_all", [False, True])
def test_a_signal_arrives_once(number, code, words, to_all):
    """To the first process alone, as kill does, or to both, as a terminal does: cleaning up is not cut short."""
    process = start(
        # Short sleeps: a signal just before a long one is only seen after it.
        "try: print('ready', flush=True); [time.sleep(0.05) for _ in range(600)]\n    "
        "finally: time.sleep(0.5); print('clean', flush=True)"
    )
    assert [process.stdout.readline() for _ in range(2)][1] == "ready\n"
    if to_all:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (code, "clean\n", words)


def test_a_killed_guard_takes_the_worker_with_it():
    process = start("time.sleep(30)")
    worker = int(process.stdout.readline())
    process.kill()
    process.wait(timeout=20)
    deadline = time.monotonic() + 10
    while (status := Path(f"/proc/{worker}/stat")).exists() and time.monotonic() < deadline:
        if status.read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.05)
    else:
        assert not status.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("segformer_edge.evaluate", "--data", "demo"),
        ("segformer_edge.camera", "--source", "/nowhere.mp4"),
        ("segformer_edge", "evaluate", "--data", "demo"),
    ],
)
def test_commands_that_run_files_are_guarded(arguments, tiny_run):
    """The runtime itself dies on loading."""
    module, *rest = arguments
    words = [*rest[:1], str(tiny_run.file("onnx")), *rest[1:]] if module == "segformer_edge" else [
        str(tiny_run.file("onnx")), *rest
    ]  # fmt: skip
    code = (
        "import os, runpy, sys\n"
        "import segformer_edge.runtime.segmenter as segmenter\n"
        "segmenter.load_runtime = lambda *_: os.abort()\n"
        f"sys.argv = ['x', *{words!r}]\n"
        f"runpy.run_module({module!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "The runtime crashed on this file (signal SIGABRT)" in done.stderr
