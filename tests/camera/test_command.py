"""``python -m segformer_edge.camera`` on clips and images, as a user calls it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from segformer_edge.camera.command import main
from segformer_edge.cli import run
from segformer_edge.runtime.segmenter import Segmenter
from tests.camera.kit import CLIP_FRAMES, StubSegmenter, write_clip

ROOT = Path(__file__).parents[2]


def frames_of(path: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames


def camera(capsys, *arguments: object) -> dict:
    """The command's JSON; it must succeed."""
    code = run(main, ["model.tflite", "--json", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert code == 0, err
    return json.loads(out)


def test_every_frame_of_a_clip_is_segmented(tiny_run, clip, scenes, tmp_path, capsys):
    """The label maps on disk are the Segmenter's own."""
    file = tiny_run.file("tflite")
    code = run(main, [str(file), "--source", str(clip), "--headless", "--labels", str(tmp_path / "labels"), "--json"])
    summary = json.loads(capsys.readouterr().out)
    assert code == 0 and summary["frames"] == CLIP_FRAMES and summary["dropped"] == summary["corrupt"] == 0
    assert summary["latency_ms"]["p50"] <= summary["latency_ms"]["p95"] <= summary["latency_ms"]["p99"]
    assert summary["memory_bytes"] > 10e6 and "ai-edge-litert" in summary["tools"]
    segmenter = Segmenter.load(file)
    names = sorted(path.name for path in (tmp_path / "labels").iterdir())
    assert names == [f"{number:06d}.png" for number in range(CLIP_FRAMES)]
    for name, scene in zip(names, scenes, strict=True):
        written = cv2.imread(str(tmp_path / "labels" / name), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(written, segmenter(scene))


def test_reference_kernels(tiny_run, clip, capsys):
    """They give the same bits on two kinds of CPU; ONNX has none."""
    assert run(main, [str(tiny_run.file("tflite")), "--source", str(clip), "--reference-kernels", "--frames", "1"]) == 0
    assert run(main, [str(tiny_run.file("onnx")), "--source", str(clip), "--reference-kernels"]) == 2
    assert "Only .tflite files have reference kernels" in capsys.readouterr().err


def test_an_image_and_a_folder(stub, scenes, tmp_path, capsys):
    for number, scene in enumerate(scenes[:3]):
        cv2.imwrite(str(tmp_path / f"{number}.png"), scene[:, :, ::-1])
    assert camera(capsys, "--source", tmp_path / "0.png")["frames"] == 1
    assert camera(capsys, "--source", tmp_path)["frames"] == 3
    (tmp_path / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n no image")
    summary = camera(capsys, "--source", tmp_path, "--loop", "--frames", "7")
    assert summary["frames"] == 7 and summary["corrupt"] >= 3  # the damaged one is passed over in each round


def test_a_looping_clip_goes_on(stub, clip, capsys):
    assert camera(capsys, "--source", clip, "--loop", "--frames", 2 * CLIP_FRAMES + 3)["frames"] == 2 * CLIP_FRAMES + 3


def test_a_clip_cut_in_the_middle(stub, scenes, tmp_path, capsys):
    """What can be decoded is used; the user hears of the rest."""
    whole = write_clip(tmp_path / "whole.avi", scenes * 4)
    data = whole.read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    assert run(main, ["model.tflite", "--source", str(tmp_path / "cut.avi")]) == 0
    out, err = capsys.readouterr()
    assert 0 < int(out.split()[0]) < 4 * CLIP_FRAMES and "is damaged" in err


def test_a_clip_at_its_own_speed_drops_what_is_late(stub, scenes, tmp_path, capsys):
    stub.seconds = 0.05
    fast = write_clip(tmp_path / "fast.avi", scenes * 5, fps=100.0)
    summary = camera(capsys, "--source", fast, "--realtime")
    assert summary["captured"] == 5 * CLIP_FRAMES and summary["dropped"] >= CLIP_FRAMES
    assert summary["frames"] + summary["dropped"] == summary["captured"]


def test_a_recording_has_every_picture(stub, clip, tmp_path, capsys):
    summary = camera(capsys, "--source", clip, "--record", tmp_path / "out.mp4")
    assert summary["record"] == str(tmp_path / "out.mp4")
    assert len(frames_of(tmp_path / "out.mp4")) == CLIP_FRAMES
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--source", "clib.avi"], "Did you mean 'clip.avi'"),
        (["--source", "77"], "Camera 77 cannot be opened: there is no /dev/video77"),
        (["--source", "notes.txt"], "cannot be read as a video"),
        (["--source", "empty"], "There is no image"),
        (["--source", "picamera"], "python3-picamera2"),
        (["--source", "clip.avi", "--show"], "--serve 8080"),
        (["--source", "clip.avi", "--headless", "--serve", "0"], "--headless means"),
        (["--source", "clip.avi", "--host", "0.0.0.0"], "--serve 8080"),
        (["--source", "clip.avi", "--serve", "99999"], "at most 65535"),
        (["--source", "clip.avi", "--serve", "0", "--host", "203.0.113.7"], "Cannot serve on 203.0.113.7"),
        (["--source", "clip.avi", "--record", "out.avi"], "--record out.mp4"),
        (["--source", "clip.avi", "--record", "no/out.mp4"], "mkdir -p 'no'"),
        (["--source", "clip.avi", "--record", "there.mp4"], "exists"),
        (["--source", "clip.avi", "--labels", "notes.txt"], "is a file"),
        (["--source", "clip.avi", "--opacity", "50"], "between 0 and 1"),
        (["--source", "clip.avi", "--frames", "0"], "at least 1"),
        (["--source", "clip.avi", "--size", "640"], "480x640"),
        (["--sorce", "0"], "Did you mean '--source'"),
    ],
)
def test_bad_input_is_one_message(arguments, words, stub, clip, tmp_path, monkeypatch, capsys):
    (tmp_path / "clip.avi").write_bytes(clip.read_bytes())
    (tmp_path / "notes.txt").write_text("no video")
    (tmp_path / "there.mp4").touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    before = sorted(os.listdir())
    assert run(main, ["model.tflite", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and words in err
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ending_it_keeps_the_recording(number, code, tiny_run, clip, tmp_path):
    """Ctrl-C and systemctl stop are how a camera ends."""
    arguments = ["--source", str(clip), "--loop", "--realtime", "--record", str(tmp_path / "out.mp4")]
    process = subprocess.Popen(
        [sys.executable, "-m", "segformer_edge.camera", str(tiny_run.file("tflite")), *arguments],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 60
    while not any(path.stat().st_size for path in tmp_path.glob(".*.tmp.mp4")) and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code and "Traceback" not in err, err
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"] and frames_of(tmp_path / "out.mp4")


def test_a_window_needs_a_screen(monkeypatch):
    from segformer_edge.camera import window
    from segformer_edge.errors import UsageError

    monkeypatch.setattr(window.cv2, "getBuildInformation", lambda: "GUI: GTK3")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(UsageError, match="needs a screen"):
        window.check_window()


def test_an_error_in_a_thread_is_one_message(stub, clip, monkeypatch, capsys):
    from segformer_edge.errors import ArtifactError

    def broken(self, image, order="rgb"):
        raise ArtifactError("LiteRT failed in 'model.tflite': no kernel")

    monkeypatch.setattr(StubSegmenter, "timed", broken)
    assert run(main, ["model.tflite", "--source", str(clip)]) == 2
    assert capsys.readouterr().err == "error: LiteRT failed in 'model.tflite': no kernel\n"
