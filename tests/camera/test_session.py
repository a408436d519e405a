"""Cameras that are slow, go away or send damaged frames; disks that are full."""

from __future__ import annotations

import resource
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from segformer_edge.camera import capture as capture_module
from segformer_edge.camera.config import CameraConfig
from segformer_edge.camera.errors import BadFrameError, CameraError, SourceLostError
from segformer_edge.camera.latest import ClosedError, LatestFrame
from segformer_edge.camera.recorder import Recorder
from segformer_edge.camera.sources import check_frame
from segformer_edge.cli import DiskFullError
from segformer_edge.errors import UsageError
from tests.camera.kit import FakeCamera, StubSegmenter, finish, picture, until

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch):
    monkeypatch.setattr(capture_module, "RETRY", 0.02)


def test_a_slow_network_sees_the_newest_frame(start):
    """Old frames are dropped and counted; nothing queues up."""
    camera = FakeCamera([picture(value % 250) for value in range(5000)])
    session = start(CameraConfig(frames=8), StubSegmenter(0.05), [camera])
    seen = []
    while session.running():
        newer = session.results.newer(len(seen) and seen[-1][0], 0.05)
        if newer is not None:
            seen.append((newer[0], newer[1].number, camera.place))
    assert session.statistics.frames == 8 and session.status().dropped > 8
    for _, number, captured in seen:
        # The frame was the newest when its inference began: within what arrives during two inferences.
        assert captured - number < 100
    assert [number for _, number, _ in seen] == sorted(number for _, number, _ in seen)


def test_damaged_frames_are_passed_over(start, capsys):
    camera = FakeCamera([picture(), BadFrameError("a frame is empty"), np.zeros((0, 0, 3), np.uint8), picture(30)])
    session = start(CameraConfig(frames=5), cameras=[camera])
    finish(session)
    assert session.status().corrupt >= 1 and session.statistics.frames == 5
    assert capsys.readouterr().err.count("damaged") == 1  # said once, then counted


@pytest.mark.parametrize(
    "frame", [None, np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3))]
)
def test_what_is_no_picture(frame):
    with pytest.raises(BadFrameError):
        check_frame(frame)


def test_an_unplugged_camera_is_opened_again(start, capsys):
    first = FakeCamera([picture(), picture(), SourceLostError("the camera gives no more frames")])
    away = UsageError("Camera 0 cannot be opened: there is no /dev/video0.")
    session = start(CameraConfig(frames=200), cameras=[first, away, away, FakeCamera([picture()])])
    finish(session)
    assert session.lost == 1 and session.statistics.frames == 200 and first.closed
    assert "trying again" in capsys.readouterr().err


def test_a_camera_that_stays_away_ends_the_program(start):
    first = FakeCamera([picture(), SourceLostError("the camera gives no more frames")])
    away = UsageError("Camera 0 cannot be opened: there is no /dev/video0.", hint="No camera was found.")
    session = start(CameraConfig(patience=0.2), cameras=[first, away])
    with pytest.raises(CameraError, match=r"no picture for 0.2 s: .*there is no /dev/video0(.|\n)*cable"):
        finish(session)


def test_a_stopped_camera_is_switched_off(start):
    first, second = FakeCamera([picture()]), FakeCamera([picture(30)])
    session = start(CameraConfig(), cameras=[first, second])
    until(lambda: session.statistics.frames > 2)
    session.controls.set_running(False)
    until(lambda: first.closed)
    stood = session.statistics.frames
    session.controls.set_running(True)
    until(lambda: session.statistics.frames > stood + 2)
    session.close(keep_recording=False)
    assert second.closed


def test_a_hanging_driver_is_noticed(start, monkeypatch):
    session = start(CameraConfig(patience=1.0), cameras=[FakeCamera([picture()], interval=30.0)])
    session._capture.good_at -= 60
    with pytest.raises(CameraError, match="hangs"):
        session.running()


def test_the_queue_of_one():
    slot: LatestFrame[int] = LatestFrame()
    slot.put(1)
    slot.put(2)
    assert slot.dropped == 1 and slot.take(1) == 2 and slot.take(0.01) is None
    slot.put_next(3)
    slot.close()
    assert slot.take(1) == 3
    for call in (lambda: slot.take(1), lambda: slot.put(4), lambda: slot.put_next(4)):
        with pytest.raises(ClosedError):
            call()


def test_a_recording_follows_the_clock(tmp_path):
    """A camera's pictures come as fast as inference is; the film lasts as long as what it shows."""
    recorder = Recorder(tmp_path / "out.mp4", fps=None)
    now = [0.0]
    recorder._clock = lambda: now[0]
    for at in (0.0, 0.05, 0.31, 1.0, 60.0, 60.1):  # a minute's gap: the camera was stopped
        now[0] = at
        recorder.write(picture())
    recorder.finish()
    capture = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == recorder.written == 13  # 10 a second, the gap left out
    capture.release()


def test_a_file_at_its_own_speed_is_recorded_so(start, clip, tmp_path):
    """Late frames are dropped: what is left does not play faster for it."""
    config = CameraConfig(source=str(clip), loop=True, realtime=True, record=tmp_path / "out.mp4", frames=6)
    begun = time.monotonic()
    session = start(config, segmenter=StubSegmenter(0.3))
    finish(session)
    seconds = time.monotonic() - begun
    session.close(keep_recording=True)
    capture = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    lasts = capture.get(cv2.CAP_PROP_FRAME_COUNT) / capture.get(cv2.CAP_PROP_FPS)
    assert seconds - 1.0 < lasts < seconds + 0.5


def test_a_full_disk_stops_the_recording_before_it(tmp_path, monkeypatch):
    recorder = Recorder(tmp_path / "out.mp4", fps=10)
    recorder.write(picture())
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1 << 20, 1 << 20))
    with pytest.raises(DiskFullError, match=r"No space left for .*out.mp4(.|\n)*df -h"):
        recorder.write(picture())
    recorder.abandon()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("reserve", ["recorder.RESERVE", "0"])
def test_a_full_disk_leaves_no_recording(reserve, clip, tmp_path):
    """Also where only the end shows that the system took no more bytes: nothing that looks whole is left."""
    code = f"""
    import resource, sys
    from segformer_edge.camera import recorder
    from segformer_edge.camera.command import main
    from segformer_edge.cli import run
    from segformer_edge.runtime.segmenter import Segmenter
    from tests.camera.kit import StubSegmenter
    recorder.RESERVE = {reserve}
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    Segmenter.load = lambda *_, **__: StubSegmenter()
    options = ["--source", {str(clip)!r}, "--loop", "--frames", "200", "--record", {str(tmp_path / "out.mp4")!r}]
    sys.exit(run(main, ["model.tflite", *options]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1 and "error: " in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert "df -h" in done.stderr and not list(tmp_path.iterdir())
