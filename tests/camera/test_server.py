"""The page's server: controls, who may ask, slow browsers, many browsers."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from importlib.resources import files

import cv2
import numpy as np
import pytest

from segformer_edge.camera import server as server_module
from segformer_edge.camera.command import main
from segformer_edge.camera.config import CameraConfig
from segformer_edge.camera.server import MOST_WATCHERS, PageServer
from segformer_edge.cli import run
from tests.camera.kit import FakeCamera, picture, until


@pytest.fixture
def serve(start):
    """``serve(...)``: a session with a page, arguments as ``start``'s."""
    servers = []

    def make(config=None, **more):
        session = start(config or CameraConfig(), **more)
        server = PageServer(session, "127.0.0.1", 0)
        servers.append(server)
        server.start()
        return server

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
def page(serve):
    """A camera of plain pictures, and its page."""
    return serve(cameras=[FakeCamera([picture(100)])])


def ask(server, method, path, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    kind = {"Content-Type": "application/json"} if body is not None else {}
    connection.request(method, path, body, {**kind, **{name.replace("_", "-"): text for name, text in headers.items()}})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer, data


def change(server, **wish):
    answer, data = ask(server, "POST", "/control", json.dumps(wish))
    assert answer.status == 200, data
    return json.loads(data)


class Stream:
    """A browser's view of /stream."""

    def __init__(self, server, receive_buffer=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(10)
        self.socket.connect(server.server_address)
        self.socket.sendall(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.file = self.socket.makefile("rb")

    def head(self):
        status = int(self.file.readline().split()[1])
        while self.file.readline().strip():
            pass
        return status

    def picture(self):
        while not (line := self.file.readline()).startswith(b"Content-Length"):
            assert line
        length = int(line.split(b":")[1])
        assert self.file.readline() == b"\r\n"
        return cv2.imdecode(np.frombuffer(self.file.read(length), np.uint8), cv2.IMREAD_COLOR)

    def close(self):
        self.file.close()
        self.socket.close()


def test_the_page_and_its_state(page):
    answer, data = ask(page, "GET", "/")
    assert (
        answer.status == 200
        and b"<!doctype html>" in data
        and "default-src 'none'" in answer.headers["Content-Security-Policy"]
    )
    until(lambda: page.session.statistics.frames)
    time.sleep(0.6)
    state = json.loads(ask(page, "GET", "/state")[1])
    assert state["running"] and state["opacity"] == 0.5 and state["hidden"] == []
    assert state["classes"][0] == {"name": "dark", "colour": [200, 30, 30]}
    assert state["status"]["frames"] > 0 and state["status"]["memory_bytes"] > 0
    assert ask(page, "GET", "/nothing")[0].status == 404


def test_the_page_is_one_file():
    """Nothing in it names another host."""
    text = files("segformer_edge.camera").joinpath("page.html").read_text()
    assert not re.search(r"https?://|//[a-z]|@import|<link(?! rel=\"icon\" href=\"data:)", text.replace("// what", ""))


def test_controls_change_the_picture(page):
    stream = Stream(page)
    assert stream.head() == 200
    change(page, opacity=0)
    until(lambda: abs(stream.picture().astype(int) - 100).max() <= 3)
    change(page, opacity=1)
    until(lambda: abs(stream.picture().astype(int) - np.array([30, 200, 30])).max() <= 12)
    change(page, hidden=[1])
    until(lambda: abs(stream.picture().astype(int) - 100).max() <= 3)
    stream.close()


def test_stop_and_start(page):
    assert change(page, running=False)["running"] is False
    time.sleep(0.3)
    stood = page.session.statistics.frames
    time.sleep(0.3)
    assert page.session.statistics.frames == stood
    # The view still changes a picture that stands.
    stream = Stream(page)
    stream.head()
    change(page, opacity=1)
    until(lambda: abs(stream.picture().astype(int) - np.array([30, 200, 30])).max() <= 12)
    change(page, running=True)
    until(lambda: page.session.statistics.frames > stood)
    stream.close()


def test_a_stream_outlives_a_pause(page):
    """Longer than a second, after which the server looks whether the browser is still there."""
    stream = Stream(page)
    assert stream.head() == 200 and stream.picture() is not None
    change(page, running=False)
    time.sleep(2.5)
    change(page, running=True)
    stood = page.session.statistics.frames
    stream.socket.settimeout(3)
    until(lambda: stream.picture() is not None and page.session.statistics.frames > stood + 3)
    stream.close()
    until(lambda: page.streamer.watchers == 0)


def test_a_request_that_never_ends_is_let_go(page, monkeypatch):
    """Byte by byte, each in time."""
    monkeypatch.setattr(server_module, "_PATIENCE", 0.5)
    client = socket.create_connection(page.server_address, timeout=10)
    client.sendall(b"GET / HTTP/1.1\r\nX: ")
    end, closed = time.monotonic() + 5, False
    while not closed:
        assert time.monotonic() < end
        time.sleep(0.1)
        try:
            client.sendall(b"a")
        except OSError:
            closed = True
    client.close()


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/control", '{"opacity": 7}', {}, 400),
        ("/control", "{", {}, 400),
        ("/control", "[" * 50_000, {}, 400),
        ("/control", "x" * 70_000, {}, 400),
        ("/control", "{}", {"Content_Type": "text/plain"}, 404),  # what a form of another page can send
        ("/other", "{}", {}, 404),
        ("/control", "{}", {"Host": "evil.example"}, 403),
    ],
)
def test_bad_requests(page, path, body, headers, status):
    answer, data = ask(page, "POST", path, body, **headers)
    assert answer.status == status and json.loads(data)["error"]
    assert page.session.controls.running and page.session.controls.view.opacity == 0.5
    assert ask(page, "GET", "/state")[0].status == 200


@pytest.mark.parametrize(
    ("host", "known"),
    [("127.0.0.1:80", True), ("localhost", True), ("[::1]:8080", True), ("192.168.1.5:1", True),
     (socket.gethostname(), True), ("evil.example:8080", False), ("", False), ("localhost.evil.example", False)],
)  # fmt: skip
def test_only_this_machines_names_are_answered(page, host, known):
    """A name that another page made point here must not read the camera."""
    assert page.knows(host) is known


def test_a_slow_browser_slows_nobody(serve):
    """It never reads; inference and the other browser go on, and nothing piles up for it."""
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    server = serve(cameras=[FakeCamera([noise], interval=0.02)])
    slow, quick = Stream(server, receive_buffer=4096), Stream(server)
    assert quick.head() == 200
    frames = server.session.statistics.frames
    for _ in range(5):
        assert quick.picture().shape == (480, 640, 3)
    until(lambda: server.session.statistics.frames > frames + 5)
    assert server.streamer.watchers == 2
    slow.close()
    quick.close()
    until(lambda: server.streamer.watchers == 0)


def test_a_browser_that_accepts_nothing_is_let_go(serve, monkeypatch):
    monkeypatch.setattr(server_module._Handler, "timeout", 0.5)
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    server = serve(cameras=[FakeCamera([noise], interval=0.02)])
    slow = Stream(server, receive_buffer=4096)
    until(lambda: server.streamer.watchers == 1)
    until(lambda: server.streamer.watchers == 0)
    slow.close()


def test_many_browsers(page):
    streams = [Stream(page) for _ in range(MOST_WATCHERS)]
    assert {stream.head() for stream in streams} == {200}
    late = Stream(page)
    assert late.head() == 503
    late.close()
    for stream in streams:
        assert stream.picture() is not None
    streams.pop().close()
    until(lambda: page.streamer.watchers < MOST_WATCHERS)
    late = Stream(page)
    assert late.head() == 200
    for stream in [late, *streams]:
        stream.close()


def test_nothing_is_drawn_for_nobody(page, monkeypatch):
    drawn = []
    monkeypatch.setattr(page.streamer, "_jpeg", lambda result, view: drawn.append(1) or b"")
    until(lambda: page.session.statistics.frames > 20)
    assert not drawn


def test_the_end_of_the_program_ends_the_streams(serve):
    server = serve(cameras=[FakeCamera([picture()])])
    stream = Stream(server)
    stream.head()
    server.stop()
    end = time.monotonic() + 5
    while stream.file.readline():
        assert time.monotonic() < end
    stream.close()


def test_the_command_says_where_the_page_is(stub, clip, capsys):
    assert run(main, ["model.tflite", "--source", str(clip), "--serve", "0"]) == 0
    assert re.search(r"The page is at http://127\.0\.0\.1:\d+/\n$", capsys.readouterr().err)
    assert run(main, ["model.tflite", "--source", str(clip), "--serve", "0", "--host", "0.0.0.0"]) == 0
    assert "Everybody who can reach this address sees the camera" in capsys.readouterr().err


@pytest.mark.parametrize("page_too", [[], ["--serve", "0"]])
def test_a_start_that_fails_ends_at_once(page_too, stub, clip, tmp_path, capsys):
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "labels"
    assert run(main, ["model.tflite", "--source", str(clip), "--labels", str(folder), *page_too]) == 2
    assert "Cannot make the folder" in capsys.readouterr().err


def test_a_taken_port(page, stub, clip, capsys):
    port = str(page.server_address[1])
    assert run(main, ["model.tflite", "--source", str(clip), "--serve", port]) == 2
    assert f"Cannot serve on 127.0.0.1, port {port}" in capsys.readouterr().err
