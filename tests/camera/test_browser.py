"""The page in a real browser: what its controls do to the picture. ``make test-browser`` installs Chromium for it.

A missing browser fails these tests, it does not skip them. ``--screenshots DIR`` also writes the pictures of the docs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from segformer_edge.camera.config import CameraConfig
from segformer_edge.camera.controls import View
from segformer_edge.camera.server import PageServer
from segformer_edge.data.demo import demo_dataset
from segformer_edge.data.scenes import CLASS_NAMES, PALETTE, draw_scene
from segformer_edge.runtime.latency import FrameTimes
from tests.browser import on_phone, requests_of, theme
from tests.camera.kit import FakeCamera, until

pytestmark = pytest.mark.browser
SIZE = (384, 512)
SEED = 7
SKY = CLASS_NAMES.index("sky")


class SceneSegmenter:
    """Knows the label map of the one scene that its camera shows."""

    class_names = CLASS_NAMES
    palette = np.array(PALETTE, np.uint8)

    def __init__(self, labels):
        self.labels = labels

    def timed(self, image, order="rgb"):
        time.sleep(0.05)
        return self.labels.copy(), FrameTimes(0.5, 48.0, 1.5)


@pytest.fixture(scope="module")
def scene():
    image, labels = draw_scene(demo_dataset().seeds[SEED], SIZE)
    return np.ascontiguousarray(image[:, :, ::-1]), labels


@pytest.fixture
def server(start, scene):
    session = start(CameraConfig(), SceneSegmenter(scene[1]), [FakeCamera([scene[0]], interval=0.03)])
    server = PageServer(session, "127.0.0.1", 0)
    server.start()
    yield server
    server.stop()


class Page:
    """What a user sees and does."""

    def __init__(self, browser, server):
        self.browser, self.server = browser, server
        browser.get(server.url)
        until(lambda: len(self.all("#classes input")) == len(CLASS_NAMES))
        until(lambda: self.picture() is not None)

    def all(self, selector):
        return self.browser.find_elements("css selector", selector)

    def one(self, selector):
        return self.browser.find_element("css selector", selector)

    def picture(self):
        """The picture on the page as it is now, BGR; None before the first."""
        png = self.browser.execute_script(
            """const image = document.getElementById("picture");
            if (!image.naturalWidth) return null;
            const canvas = document.createElement("canvas");
            canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
            canvas.getContext("2d").drawImage(image, 0, 0);
            return canvas.toDataURL("image/png").split(",")[1];"""
        )
        if png is None:
            return None
        import base64

        return cv2.imdecode(np.frombuffer(base64.b64decode(png), np.uint8), cv2.IMREAD_COLOR)

    def shows(self, expected):
        """Wait until the picture is ``expected``, but for what JPEG changes."""
        until(lambda: np.abs(self.picture().astype(int) - expected).mean() < 4, 20)

    def slide(self, share):
        self.browser.execute_script(
            """const slider = document.getElementById("opacity");
            slider.value = arguments[0]; slider.dispatchEvent(new Event("input"));""",
            share,
        )

    def check_quiet(self):
        """No complaint on the console; every request went to the page's own server."""
        assert self.browser.get_log("browser") == []
        addresses = requests_of(self.browser)
        assert addresses and {urlsplit(each).netloc for each in addresses} == {urlsplit(self.server.url).netloc}


def test_controls_change_what_is_seen(browser, server, scene):
    image, labels = scene
    painter = server.session.painter
    page = Page(browser, server)
    page.shows(painter.blend(image, labels, View(0.5)))
    page.slide(100)
    page.shows(painter.blend(image, labels, View(1.0)))
    assert page.one("#share").text == "100 %"
    page.all("#classes input")[SKY].click()
    page.shows(painter.blend(image, labels, View(1.0, frozenset({SKY}))))
    page.one("#none").click()
    page.shows(image)
    page.one("#all").click()
    page.slide(0)
    page.shows(image)
    page.check_quiet()


def test_stop_and_start(browser, server):
    page = Page(browser, server)
    session = server.session
    page.one("#run").click()
    until(lambda: not session.controls.running and page.one("#run").text == "Start")
    time.sleep(0.3)
    stood = session.statistics.frames
    until(lambda: "stopped" in page.one("#figures").text)
    time.sleep(0.3)
    assert session.statistics.frames == stood
    page.one("#run").click()
    until(lambda: session.statistics.frames > stood + 2)
    until(lambda: " fps" in page.one("#figures").text and page.one("#run").text == "Stop")
    page.check_quiet()


def test_a_second_page_sees_what_the_first_changed(browser, server):
    page = Page(browser, server)
    server.session.controls.change({"opacity": 0.25, "hidden": [SKY]})
    until(lambda: page.one("#share").text == "25 %" and not page.all("#classes input")[SKY].is_selected())


def test_it_says_when_the_program_ended(browser, server):
    page = Page(browser, server)
    server.stop()
    until(lambda: "does not answer" in page.one("#notice").text)


def test_it_fits_a_phone(browser, server):
    page = Page(browser, server)
    on_phone(browser)
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    assert wide <= 360
    assert page.one("#run").size["height"] >= 44


def test_light_and_dark(browser, server):
    Page(browser, server)
    brightness = []
    for name in ("light", "dark"):
        theme(browser, name)
        colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        brightness.append(sum(int(part) for part in colour.strip("rgb()").split(",")))
    assert brightness[0] > 600 and brightness[1] < 150


def test_screenshots(request, browser, scene, screenshots, tmp_path):
    """The real program: with the file that MODEL names, else with a tiny network's."""
    cv2.imwrite(str(tmp_path / "scene.png"), scene[0])
    model = os.environ.get("MODEL") or _tiny_model(request)
    command = [sys.executable, "-m", "segformer_edge.camera", model, "--source", str(tmp_path / "scene.png"), "--loop"]
    process = subprocess.Popen([*command, "--serve", "0"], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    url = process.stderr.readline().split()[-1]
    threading.Thread(target=process.stderr.read, daemon=True).start()
    try:
        for name, width, height in (("light", 1000, 585), ("dark", 390, 844)):
            browser.set_window_size(width, height)
            mobile = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", mobile)
            theme(browser, name)
            browser.get(url)
            until(lambda: " fps" in browser.find_element("css selector", "#figures").text)
            time.sleep(2)
            (screenshots / f"camera-page-{name}.png").write_bytes(browser.get_screenshot_as_png())
    finally:
        process.terminate()
        process.wait(20)
    record = tmp_path / "out.mp4"
    subprocess.run([*command, "--realtime", "--frames", "15", "--record", str(record)], check=True)
    capture = cv2.VideoCapture(str(record))
    for _ in range(14):
        done, overlay = capture.read()
        assert done
    capture.release()
    cv2.imwrite(str(screenshots / "camera-overlay.png"), overlay)
    assert all(cv2.imread(str(path)).std() > 20 for path in screenshots.glob("camera-*.png"))


def _tiny_model(request) -> str:
    weights, quantize = request.getfixturevalue("tiny_weights"), request.getfixturevalue("run_quantize")
    return str(quantize(weights, (64, 96), targets="tflite").file("tflite"))
