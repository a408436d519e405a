"""The output folder is whole or not there, and nobody else's files are touched."""

from __future__ import annotations

import gc
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from segformer_edge.cli import DiskFullError
from segformer_edge.errors import UsageError
from segformer_edge.export.outdir import OutputFolder
from segformer_edge.export.staging import unfinished


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def fill(out: Path, *files: str, text: str = "new", force: bool = False) -> None:
    with OutputFolder(out, force=force) as folder:
        for file in files:
            (folder.path / file).write_text(text)


def test_it_appears_whole(tmp_path):
    out = tmp_path / "a" / "b" / "out"
    with OutputFolder(out) as folder:
        (folder.path / "model.tflite").write_text("x")
        assert not out.exists() and folder.path.parent == out.parent
    assert names(out) == ["model.tflite"] and names(out.parent) == ["out"]
    mask = os.umask(0)
    os.umask(mask)
    assert out.stat().st_mode & 0o777 == 0o777 & ~mask


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(3)])
def test_nothing_is_left_after_an_error(tmp_path, error):
    out = tmp_path / "a" / "out"
    with pytest.raises(type(error)), OutputFolder(out) as folder:
        (folder.path / "model.tflite").write_text("x")
        (folder.path / "scratch").mkdir()
        raise error
    assert names(tmp_path) == []


def test_an_empty_folder_is_taken_and_kept_on_failure(tmp_path):
    out = tmp_path / "out"
    out.mkdir(mode=0o700)
    with pytest.raises(KeyboardInterrupt), OutputFolder(out) as folder:
        (folder.path / "model.tflite").write_text("x")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["out"] and names(out) == []
    fill(out, "model.tflite")
    assert names(out) == ["model.tflite"] and out.stat().st_mode & 0o777 == 0o700
    assert names(tmp_path) == ["out"]


def test_the_current_folder_stays_the_same_one(tmp_path, monkeypatch):
    """``cd out`` and ``--out .``: exchanging it for another would leave the user in a folder without a name."""
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.chdir(out)
    for text in ("old", "new"):
        fill(Path(), "model.tflite", text=text, force=True)
    assert Path("model.tflite").read_text() == "new" and names(tmp_path) == ["out"]


def test_a_folder_with_content_needs_force(tmp_path):
    out = tmp_path / "out"
    fill(out, "model.tflite")
    with pytest.raises(UsageError, match=r"not empty \(it holds model.tflite\)(.|\n)*--force"):
        OutputFolder(out)
    with pytest.raises(UsageError, match="is a file"):
        OutputFolder(out / "model.tflite", force=True)
    with pytest.raises(UsageError, match="no name"):
        OutputFolder("")


def test_force_replaces_ours_and_leaves_the_rest(tmp_path):
    out = tmp_path / "out"
    fill(out, "model.tflite", "model.tflite.json", "model.onnx", "report.json", text="old")
    (out / "notes.txt").write_text("mine")
    (out / "photos").mkdir()
    (out / "photos" / "model.tflite").write_text("mine too")
    fill(out, "model.onnx", "report.json", force=True)
    assert names(out) == ["model.onnx", "notes.txt", "photos", "report.json"]
    assert (out / "model.onnx").read_text() == "new" and (out / "photos" / "model.tflite").read_text() == "mine too"
    assert names(tmp_path) == ["out"]


def test_force_keeps_the_old_content_until_success(tmp_path):
    out = tmp_path / "out"
    fill(out, "model.tflite", "report.json", text="old")
    with pytest.raises(KeyboardInterrupt), OutputFolder(out, force=True) as folder:
        (folder.path / "model.tflite").write_text("new")
        raise KeyboardInterrupt
    assert names(out) == ["model.tflite", "report.json"] and (out / "model.tflite").read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_force_follows_no_link_out(tmp_path):
    out, other = tmp_path / "out", tmp_path / "other"
    out.mkdir()
    other.write_text("mine")
    (out / "model.tflite").symlink_to(other)
    fill(out, "model.tflite", force=True)
    assert other.read_text() == "mine" and not (out / "model.tflite").is_symlink()


def test_a_folder_under_one_of_our_names_is_refused(tmp_path):
    (tmp_path / "out" / "model.tflite").mkdir(parents=True)
    with pytest.raises(UsageError, match="is a folder where a file would be written"):
        OutputFolder(tmp_path / "out", force=True)


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to("real")
    fill(tmp_path / "out", "model.onnx")
    assert (tmp_path / "out").is_symlink() and names(tmp_path / "real") == ["model.onnx"]


def test_a_folder_made_meanwhile_by_another_is_not_emptied(tmp_path):
    out = tmp_path / "out"
    with OutputFolder(out) as folder:
        (folder.path / "model.onnx").write_text("new")
        out.mkdir()
        (out / "theirs.txt").write_text("theirs")
    assert names(out) == ["model.onnx", "theirs.txt"]


def test_an_unknown_file_is_a_defect_and_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"scratch\.txt"):
        fill(tmp_path / "out", "scratch.txt")
    assert names(tmp_path) == []


@pytest.mark.parametrize("force", [False, True])
def test_a_second_run_into_the_same_folder_is_refused(tmp_path, force):
    out = tmp_path / "out"
    if force:
        fill(out, "model.onnx", text="old")
    process = start(out, 'file.write(b"first"); file.flush(); print("ready", flush=True); sys.stdin.readline()')
    assert process.stdout.readline() == "ready\n"
    with pytest.raises(UsageError, match=rf"Another run is writing the output folder '{out}'(.|\n)*--out"):
        fill(out, "model.onnx", force=force)
    fill(tmp_path / "other", "model.onnx")
    _, err = process.communicate("\n", timeout=20)
    assert process.returncode == 0, err
    assert (out / "model.onnx").read_text() == "first" and names(tmp_path) == ["other", "out"]


def test_what_a_killed_run_left_is_no_obstacle(tmp_path):
    process = start(tmp_path / "out", 'file.write(b"x"); print("ready", flush=True); time.sleep(30)')
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.communicate(timeout=20)
    assert names(tmp_path) == [".out.partial"]
    fill(tmp_path / "out", "model.tflite")
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == ["model.tflite"]


RESULT = ("encodings.json", "model.onnx", "model.onnx.json", "model.tflite", "report.json")


def end_of_run(out: Path, last_call: int | None) -> int:
    """In a child, write RESULT over ``out`` and leave the folder, up to call ``last_call``; how many calls it made.

    The child ends itself by SIGKILL there, and then the number is 0.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        calls = 0

        def trace(frame: object, event: str, what: object) -> None:
            nonlocal calls
            calls += event in ("call", "c_call")
            if calls == last_call:
                os.kill(os.getpid(), signal.SIGKILL)

        gc.disable()  # its callbacks would be counted, and they come when they please
        try:
            with OutputFolder(out, force=True) as folder:
                for name in RESULT:
                    (folder.path / name).write_text("new")
                sys.setprofile(trace)
            sys.setprofile(None)
            os.write(writer, str(calls).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        told = pipe.read()
    os.waitpid(pid, 0)
    return int(told or 0)


@pytest.mark.parametrize("before", ["nothing", "an earlier result", "an earlier result and notes"])
def test_a_run_killed_at_any_moment_leaves_the_old_folder_or_the_new_one(before, tmp_path):
    out, notes = tmp_path / "a" / "out", ["notes.txt"] if "notes" in before else []
    old = [*RESULT[:3], "model.pte", "report.json"]

    def reset() -> None:
        shutil.rmtree(out.parent, ignore_errors=True)
        if before != "nothing":
            fill(out, *old, text="old")
        for name in notes:
            (out / name).write_text("mine")

    def found() -> dict[str, str]:
        return {name: (out / name).read_text() for name in names(out)} if out.exists() else {}

    whole_old = dict.fromkeys(old, "old") if before != "nothing" else {}
    whole_new, mine = dict.fromkeys(RESULT, "new"), dict.fromkeys(notes, "mine")
    fill(out, *RESULT)  # fnmatch compiles a pattern once, and those calls would be counted in the first child alone
    reset()
    calls = end_of_run(out, None)
    assert found() == {**whole_new, **mine}
    seen = set()
    for last_call in random.Random(0).sample(range(1, calls), 50):
        reset()
        assert end_of_run(out, last_call) == 0
        if notes and found() not in ({**whole_old, **mine}, {**whole_new, **mine}):
            # Here files go one by one. The next run finishes that before it looks whether the folder is empty.
            assert unfinished(out)
            with pytest.raises(UsageError, match="not empty"):
                OutputFolder(out)
            assert found() == {**whole_new, **mine}
            seen.add("finished")
        else:
            assert found() in ({**whole_old, **mine}, {**whole_new, **mine})
            seen.add("old" if found() == {**whole_old, **mine} else "new")
        fill(out, "model.tflite", text="next", force=True)
        assert found() == {"model.tflite": "next", **mine} and names(out.parent) == ["out"]
    assert seen == {"old", "new"} | ({"finished"} if notes else set())


def test_a_parent_that_cannot_be_written_is_explained(tmp_path):
    with pytest.raises(UsageError, match="Cannot write beside"), OutputFolder("/proc/nowhere/out"):
        pass
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError), OutputFolder(tmp_path / "file" / "out"):
        pass


def test_another_file_system_is_built_inside(tmp_path, monkeypatch):
    """A mounted /out: renaming from beside it is impossible, so its partial folder lies within."""
    out = tmp_path / "out"
    out.mkdir()
    stat = Path.stat

    def other_device(self, **more):
        found = stat(self, **more)
        if self == out:
            return os.stat_result((*found[:2], found.st_dev + 1, *found[3:10]))
        return found

    monkeypatch.setattr(Path, "stat", other_device)
    with OutputFolder(out) as folder:
        assert folder.path.parent == out
        (folder.path / "model.onnx").write_text("new")
    assert names(out) == ["model.onnx"]
    with pytest.raises(KeyboardInterrupt), OutputFolder(out, force=True) as folder:
        raise KeyboardInterrupt
    assert names(out) == ["model.onnx"]


# A shell without job control starts what stands before an & with Ctrl-C ignored, and children inherit that.
PROGRAM = """
    import signal, sys, time
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from segformer_edge.cli import run
    from segformer_edge.export.outdir import OutputFolder
    def command(argv):
        with OutputFolder(sys.argv[1], force=True) as folder:
            with open(folder.path / "model.onnx", "wb") as file:
                {write}
        return 0
    sys.exit(run(command))
"""


def start(out: Path, write: str) -> subprocess.Popen:
    code = textwrap.dedent(PROGRAM).replace("{write}", write)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_leave_nothing(tmp_path, number, code):
    # Short sleeps: a signal just before a long one is only seen after it.
    write = 'file.write(b"x"); print("ready", flush=True); [time.sleep(0.05) for _ in range(600)]'
    process = start(tmp_path / "out", write)
    assert process.stdout.readline() == "ready\n"
    assert len(names(tmp_path)) == 1
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == code and err.count("\n") == 1
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "write",
    [
        'file.write(b"x" * 1_000_000)',
        # A native writer that stops at the limit and then complains about something else.
        'file.write(b"x" * 100_000); file.flush(); raise RuntimeError("serialisation failed")',
    ],
)
def test_a_full_disk_is_one_message_and_leaves_nothing(tmp_path, write):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.tflite").write_text("old")
    process = start(tmp_path / "out", write)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert err.startswith(f"error: No space left while writing '{tmp_path / 'out'}'.") and "Traceback" not in err
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == ["model.tflite"]


def test_a_full_device_is_a_disk_full_error(tmp_path):
    with pytest.raises(DiskFullError), OutputFolder(tmp_path / "out"), open("/dev/full", "wb", buffering=0) as full:
        full.write(b"x")
    assert names(tmp_path) == []
