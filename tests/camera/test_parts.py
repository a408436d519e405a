"""What a Pi says of itself, the picture people look at, the figures, the Pi's own camera."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from segformer_edge.camera.controls import Controls, View
from segformer_edge.camera.device import Device, Throttling
from segformer_edge.camera.errors import SourceLostError
from segformer_edge.camera.overlay import Painter, figures
from segformer_edge.camera.picamera import PiCamera
from segformer_edge.camera.statistics import LATEST, Percentiles, Statistics, Status
from segformer_edge.errors import UsageError
from segformer_edge.runtime.latency import FrameTimes
from tests.camera.kit import StubSegmenter, picture

STATUS = Status(100, 3, 0, 12.34, Percentiles(10.0, 20.0, 30.0), 200 << 20, None, None)


@pytest.fixture
def pi(tmp_path):
    """Files as on a Raspberry Pi 4."""

    def write(path, text):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    write("proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0")
    write("proc/self/status", "Name:\tpython\nVmRSS:\t  123456 kB\n")
    write("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
    write("sys/class/thermal/thermal_zone0/temp", "54321\n")
    return SimpleNamespace(root=tmp_path, write=write)


def test_a_pi_says_how_hot_it_is(pi):
    device = Device(pi.root)
    assert device.pi_model == "Raspberry Pi 4 Model B Rev 1.4"
    assert device.temperature() == pytest.approx(54.321) and device.memory_bytes() == 123456 * 1024


@pytest.mark.parametrize(
    ("bits", "now", "since"),
    [("0", (), ()), ("50005", ("under-voltage", "throttled"), ("under-voltage", "throttled")),
     ("80000", (), ("soft temperature limit",))],
)  # fmt: skip
def test_throttling(pi, bits, now, since):
    pi.write("sys/devices/platform/soc/soc:firmware/get_throttled", f"{bits}\n")
    assert Device(pi.root).throttling() == Throttling(now, since)


def test_the_voltage_alarm_where_the_firmware_says_nothing(pi):
    assert Device(pi.root).throttling() is None
    pi.write("sys/class/hwmon/hwmon1/name", "rpi_volt\n")
    pi.write("sys/class/hwmon/hwmon1/in0_lcrit_alarm", "1\n")
    assert Device(pi.root).throttling() == Throttling(("under-voltage",), ())


def test_other_machines_say_nothing(tmp_path):
    device = Device(tmp_path)
    assert (device.pi_model, device.temperature(), device.throttling()) == (None, None, None)
    assert Device().memory_bytes() > 10e6


def test_hidden_classes_show_the_picture():
    painter = Painter(StubSegmenter.class_names, StubSegmenter.palette)
    image = picture(100)
    labels = np.zeros(image.shape[:2], np.uint8)
    labels[:, 50:] = 1
    blended = painter.blend(image, labels, View(1.0, frozenset({1})))
    assert (blended[:, :50] == StubSegmenter.palette[0][::-1]).all() and (blended[:, 50:] == 100).all()
    assert (painter.blend(image, labels, View(0.0)) == image).all()


@pytest.mark.parametrize("classes", [3, 150])
def test_the_annotated_picture(classes):
    """The picture itself stays as it is; sides are even, as encoders want."""
    names = [f"größe {number}" for number in range(classes)]
    palette = np.random.default_rng(0).integers(50, 256, (classes, 3), dtype=np.uint8)
    painter = Painter(names, palette)
    image, labels = picture(90, (401, 333)), np.full((401, 333), classes - 1, np.uint8)
    canvas = painter.annotate(image, labels, View(0.5), STATUS)
    assert canvas.shape[0] % 2 == canvas.shape[1] % 2 == 0
    np.testing.assert_array_equal(canvas[:401, :333], painter.blend(image, labels, View(0.5)))
    own = (canvas[:, 333:] == palette[classes - 1][::-1]).all(axis=2)
    assert own.sum() >= 150  # its colour stands in the legend
    small = painter.annotate(picture(), np.zeros((64, 96), np.uint8), View(0.5), STATUS)
    assert small.shape[0] >= 360


def test_figures():
    assert figures(STATUS) == "12.3 fps   10.0 / 20.0 / 30.0 ms (p50/p95/p99)   200 MB"
    hot = Status(1, 0, 0, 1.0, Percentiles(None, None, None), None, 80.4, Throttling(("throttled",), ()))
    assert figures(hot) == "1.0 fps   80 C   throttled"


def test_percentiles_are_of_the_latest_frames():
    statistics = Statistics()
    assert statistics.latency() == Percentiles(None, None, None) and statistics.fps() == 0
    for _ in range(100):
        statistics.add(FrameTimes(1000, 0, 0))
    for value in range(LATEST):
        statistics.add(FrameTimes(1, value % 100, 0))
    latency = statistics.latency()
    assert latency.p50 == pytest.approx(50, abs=1) and latency.p99 == pytest.approx(99, abs=2)
    assert statistics.median_parts().preprocess_ms == 1


def test_frames_a_second():
    statistics = Statistics()
    for _ in range(20):
        statistics.add(FrameTimes(0, 1, 0))
        time.sleep(0.01)
    assert 30 < statistics.fps() <= 100


@pytest.mark.parametrize(
    "wish",
    [[], {"opacity": 2}, {"opacity": True}, {"opacity": "1"}, {"hidden": [3]}, {"hidden": [True]}, {"hidden": 1},
     {"running": 1}, {"colour": 1}, {"opacity": 0.1, "running": "no"}, {"opacity": float("nan")}],
)  # fmt: skip
def test_a_bad_change_changes_nothing(wish):
    controls = Controls(3, 0.5)
    with pytest.raises(UsageError):
        controls.change(wish)
    assert controls.view == View(0.5) and controls.running


class FakePicamera2:
    """As much of picamera2 as is used."""

    broken, stalls = False, False

    def __init__(self):
        if self.broken:
            raise IndexError("list index out of range")
        self.closed = False

    def create_video_configuration(self, main):
        return main

    def configure(self, configuration):
        assert configuration == {"size": (96, 64), "format": "RGB888"}

    def start(self):
        pass

    def capture_array(self, name, wait):
        return "job"

    def wait(self, job, timeout):
        if self.stalls:
            raise TimeoutError
        return picture()

    def close(self):
        self.closed = True


def test_picamera2_built_for_another_numpy(monkeypatch):
    class Broken:
        def __getattr__(self, name):
            raise ValueError("numpy.dtype size changed, may indicate binary incompatibility")

    monkeypatch.setitem(sys.modules, "picamera2", Broken())
    with pytest.raises(UsageError, match=r"numpy.dtype size(.|\n)*numpy<2"):
        PiCamera((64, 96))


def test_the_pis_own_camera(monkeypatch):
    monkeypatch.setitem(sys.modules, "picamera2", SimpleNamespace(Picamera2=FakePicamera2))
    camera = PiCamera((64, 96))
    assert (camera.read() == picture()).all()
    monkeypatch.setattr(FakePicamera2, "stalls", True)
    with pytest.raises(SourceLostError):
        camera.read()
    camera.close()
    assert camera._camera.closed
    monkeypatch.setattr(FakePicamera2, "broken", True)
    with pytest.raises(UsageError, match=r"list index(.|\n)*rpicam-hello"):
        PiCamera((64, 96))
