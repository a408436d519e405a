"""What every command does with bad options, errors, signals and full disks."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from segformer_edge import cli
from segformer_edge.cli import DiskFullError, Parser, parse_size, print_next, run, unused_folder
from segformer_edge.errors import ArtifactError, DataError, SegformerEdgeError, UsageError
from segformer_edge.jsonfile import read_json, write_json
from segformer_edge.suggestions import did_you_mean, nearest


@pytest.mark.parametrize(
    ("text", "size"), [("512", (512, 512)), ("384x512", (384, 512)), ("32X64", (32, 64)), (" 64 x 96 ", (64, 96))]
)
def test_sizes_are_read(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("100", "Try: --size 96"),
        ("500x512", "Try: --size 512"),
        ("120x500", "Try: --size 128x512"),
        ("0", "Try: --size 32"),
        ("1", "Try: --size 32"),
        ("99999", "larger than 8192"),
        ("-32", "not a number"),
        ("512x", "not a number"),
        ("512x512x3", "not a number"),
        ("", "not a number"),
        ("٣٢", "not a number"),
        ("9" * 5000, "not a number"),
    ],
)
def test_bad_sizes_are_explained(text, words):
    with pytest.raises(UsageError, match=words):
        parse_size(text)


def test_the_nearest_choice_is_suggested():
    targets = ["executorch", "tflite", "openvino", "onnx"]
    assert did_you_mean("tflight", targets) == "Did you mean 'tflite'?"
    assert did_you_mean("ONXX", targets) == "Did you mean 'onnx'?"
    assert did_you_mean("coreml-ane", targets).startswith("Choose one of: executorch,")


@pytest.mark.parametrize(
    ("word", "choices", "found"),
    [
        ("--bogus", ["--out", "--quiet"], None),
        ("--limit", ["--quiet", "--size"], None),
        ("nope", ["openvino", "onnx"], None),
        (".pdf", [".png", ".svg"], None),
        ("--wieghts", ["--weights", "--eval"], "--weights"),
        ("qunatize", ["quantize", "evaluate"], "quantize"),
        ("--plott", ["--plot"], "--plot"),
        (".onx", [".pte", ".onnx"], ".onnx"),
    ],
)
def test_what_is_far_is_not_suggested(word, choices, found):
    assert nearest(word, choices) == found


def test_what_is_to_be_filled_in_is_a_comment_of_the_shell(capsys):
    print_next("segformer-edge", "evaluate", "a b.onnx", "--data", "DATASET", fill="with your images for DATASET")
    line = capsys.readouterr().out
    assert line == "next: segformer-edge evaluate 'a b.onnx' --data DATASET  # with your images for DATASET\n"


def test_a_suggested_folder_is_free(tmp_path):
    wanted = tmp_path / "out"
    assert unused_folder(str(wanted)) == str(wanted)
    wanted.mkdir()
    assert unused_folder(str(wanted)) == str(wanted)
    (wanted / "report.json").touch()
    (tmp_path / "out-2").write_text("a file")
    assert unused_folder(str(wanted)) == f"{wanted}-3"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UsageError("Wrong size.", hint="Try: --size 512"), 2, "error: Wrong size.\n  Try: --size 512\n"),
        (DataError("No images."), 2, "error: No images.\n"),
        (ArtifactError("No file."), 2, "error: No file.\n"),
        (SegformerEdgeError("Broken."), 1, "error: Broken.\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x/y"), 1, "error: No space left while writing '/x/y'."),
        (OSError(errno.EFBIG, os.strerror(errno.EFBIG)), 1, "error: No space left while writing."),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 1, "error: No space left"),
        (MemoryError(), 1, "error: Out of memory."),
        (PermissionError(errno.EACCES, "no", "/x"), 2, "error: No permission for '/x'."),
    ],
)
def test_errors_become_one_message_and_an_exit_code(error, code, words, capsys):
    def command(argv):
        raise error

    assert run(command) == code
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith(words)


def test_a_defect_of_ours_keeps_its_traceback():
    def command(argv):
        raise KeyError("oops")

    with pytest.raises(KeyError):
        run(command)


def test_success_passes_the_commands_code():
    assert run(lambda argv: 3) == 3


def test_unknown_options_are_suggested():
    parser = Parser("prog", "does things")
    parser.add_argument("--calibration")
    with pytest.raises(UsageError, match="Did you mean '--calibration'"):
        parser.parse_args(["--calibraton", "x"])
    with pytest.raises(UsageError, match="expected one argument"):
        parser.parse_args(["--calibration"])
    with pytest.raises(UsageError, match="unrecognized") as far:
        parser.parse_args(["--bogus", "x"])
    assert "Did you mean" not in str(far.value) and "See: prog --help" in str(far.value)
    with pytest.raises(UsageError, match="unrecognized"):
        parser.parse_args(["--cal", "x"])  # no abbreviations: a new option must not change what a script means


def python(code: str, **more) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more
    )


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interr"), (signal.SIGTERM, 143, "term"), (signal.SIGHUP, 129, "term")],
)
def test_signals_end_with_one_line(number, code, word):
    process = python(
        """
        import sys, time
        from segformer_edge.cli import run
        def command(argv):
            try:
                print("ready", flush=True); [time.sleep(0.05) for _ in range(600)]
            finally:
                print("cleaned", flush=True)
        sys.exit(run(command))
        """,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # under nohup, children ignore SIGHUP
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == code and out == "cleaned\n"
    assert err.startswith(word) and err.count("\n") == 1


def test_a_closed_pipe_is_silent():
    process = python("""
        import sys
        from segformer_edge.cli import run
        def command(argv):
            for i in range(200_000): print("a line of the table", i)
            return 0
        sys.exit(run(command))
    """)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait(20) == 141


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
@pytest.mark.parametrize(
    ("arguments", "code"), [("segformer_edge targets", 0), ("segformer_edge.evaluate nowhere.onnx --data demo", 2)]
)
def test_a_stream_that_the_caller_closed_is_no_defect(closed, arguments, code):
    line = f'"{sys.executable}" -m {arguments} {closed}'
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    # What was closed is not printed on the other one.
    assert ("error:" in done.stderr) == (code != 0 and closed == ">&-")
    assert "error:" not in done.stdout


def test_json_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})
    with pytest.raises(ValueError, match="not JSON"):
        write_json(path, {"x": float("nan")})

    def full(self, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(type(path), "replace", full)
    with pytest.raises(DiskFullError, match=r"a\.json"):
        write_json(path, {"x": 2})
    assert read_json(path, DataError) == {"x": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    assert json.loads(path.read_text()) == {"x": 1}


def test_a_cycle_of_causes_ends():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert not cli.is_disk_full(first)
