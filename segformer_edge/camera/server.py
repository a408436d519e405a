"""The page: one HTML file, the stream of pictures it shows, and what its controls send. Standard library alone."""

from __future__ import annotations

import contextlib
import io
import ipaddress
import json
import socket
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from select import select
from typing import Any

import numpy as np

from segformer_edge.camera.latest import ClosedError
from segformer_edge.camera.session import CameraSession
from segformer_edge.camera.streaming import Streamer
from segformer_edge.errors import UsageError
from segformer_edge.verbosity import warn

#: Browsers that may look at the stream at the same time, and connections in all.
MOST_WATCHERS, MOST_CONNECTIONS = 8, 32
#: Seconds that a browser may take to accept one picture before it is let go.
_PATIENCE = 10.0
#: Bytes that the system may hold back for a slow browser: a few pictures, not a minute of them.
_SEND_BUFFER = 128 << 10
_LONGEST_CHANGE = 64 << 10
_BOUNDARY = "picture"
#: The page is one file that fetches from its own server alone, and no other page may show or steer the camera.
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; connect-src 'self'; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class PageServer(ThreadingHTTPServer):
    """Serves ``session`` on ``host``:``port`` from threads of its own, between ``start`` and ``stop``."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, session: CameraSession, host: str, port: int) -> None:
        """``port`` 0 takes a free one. Raises UsageError where the address cannot be used."""
        if ":" in host:
            self.address_family = socket.AF_INET6
        self.session, self.host = session, host
        self.streamer = Streamer(session)
        self._connections = threading.Semaphore(MOST_CONNECTIONS)
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"Cannot serve on {host}, port {port}: {getattr(error, 'strerror', None) or error}.",
                hint="Name another port with --serve, or an address of this machine with --host.",
            ) from error
        self._thread = threading.Thread(target=self.serve_forever, name="server", daemon=True)

    @property
    def url(self) -> str:
        """The page's address on this machine."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.server_address[1]}/"

    def start(self) -> None:
        """Begin to answer."""
        self.streamer.start()
        self._thread.start()

    def stop(self) -> None:
        """Answer no more; open streams end."""
        self.session.controls.ended.set()
        if self._thread.is_alive():  # else nobody serves, and shutdown would wait for ever
            self.shutdown()
        self.server_close()
        self.streamer.pictures.close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread, as long as there are not too many."""
        if not self._connections.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The thread's whole work."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no error; anything else is told."""
        error = sys.exception()
        if not isinstance(error, OSError):
            warn(f"the page could not answer: {type(error).__name__}: {error}")

    def knows(self, host_header: str) -> bool:
        """Whether a request was meant for this machine.

        Another page can point a name of its own at this address and read the camera through the user's browser; its
        requests then carry that name.
        """
        host = host_header.rsplit(":", 1)[0] if host_header.rfind(":") > host_header.rfind("]") else host_header
        host = host.strip("[]").lower()
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(host)
            return True
        own = socket.gethostname().lower()
        return host in {"localhost", self.host.lower(), own, f"{own.split('.')[0]}.local"}

    @cached_property
    def page(self) -> bytes:
        """The HTML file."""
        return files("segformer_edge.camera").joinpath("page.html").read_bytes()

    def state(self) -> dict[str, Any]:
        """All that the page shows besides the picture."""
        session = self.session
        view, status = session.controls.view, session.status()
        painter = session.painter
        return {
            "running": session.controls.running,
            "opacity": view.opacity,
            "hidden": sorted(view.hidden),
            "classes": [{"name": n, "colour": np.flip(c).tolist()} for n, c in zip(*painter.legend, strict=True)],
            "device": session.device.pi_model,
            "status": asdict(status),
        }


class _Reader(socket.SocketIO):
    """Reads until a moment. A socket's own timeout begins anew with every byte that comes."""

    until = 0.0

    def readinto(self, buffer: Any) -> int | None:
        """See RawIOBase. Raises TimeoutError."""
        self._sock.settimeout(max(self.until - time.monotonic(), 0.001))  # type: ignore[attr-defined]
        return super().readinto(buffer)


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "segformer-edge", ""
    timeout = _PATIENCE

    def setup(self) -> None:
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        super().setup()
        self._reader = _Reader(self.connection, "rb")
        self.rfile = io.BufferedReader(self._reader)

    def handle_one_request(self) -> None:
        """One request, which must be there within ``_PATIENCE``, however slowly its bytes come."""
        self._reader.until = time.monotonic() + _PATIENCE
        super().handle_one_request()

    def send_response(self, code: int, message: str | None = None) -> None:
        """The request is there; each write of the answer has its own time."""
        self.connection.settimeout(self.timeout)
        super().send_response(code, message)

    def do_GET(self) -> None:
        """The page, its state, the stream."""
        if not self._meant_for_us():
            return
        path = self.path.partition("?")[0]
        if path == "/":
            self._answer(HTTPStatus.OK, self.server.page, "text/html; charset=utf-8")
        elif path == "/state":
            self._json(HTTPStatus.OK, self.server.state())
        elif path == "/stream":
            self._stream()
        else:
            self._json(HTTPStatus.NOT_FOUND, {"error": f"There is no {path}."})

    def do_POST(self) -> None:
        """A change of the controls, as JSON. The content type keeps forms of other pages out."""
        if not self._meant_for_us():
            return
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or int(length) > _LONGEST_CHANGE:
            self.close_connection = True
            self._json(HTTPStatus.BAD_REQUEST, {"error": "A change has a Content-Length, of 64 KB at most."})
            return
        body = self.rfile.read(int(length))
        if self.path != "/control" or self.headers.get_content_type() != "application/json":
            self._json(HTTPStatus.NOT_FOUND, {"error": "Changes are JSON and go to /control."})
            return
        try:
            self.server.session.controls.change(json.loads(body))
        except (ValueError, RecursionError):
            self._json(HTTPStatus.BAD_REQUEST, {"error": "That is no JSON."})
        except UsageError as error:
            self._json(HTTPStatus.BAD_REQUEST, {"error": str(error)})
        else:
            self._json(HTTPStatus.OK, self.server.state())

    def _stream(self) -> None:
        """Picture after picture. This thread waits for its browser; a slow one gets every second picture, or fewer."""
        streamer = self.server.streamer
        if not streamer.watch(MOST_WATCHERS):
            message = f"{MOST_WATCHERS} browsers look already; close one of their tabs."
            self._json(HTTPStatus.SERVICE_UNAVAILABLE, {"error": message})
            return
        self.close_connection = True
        try:
            self.send_response(HTTPStatus.OK)
            self._headers({"Content-Type": f"multipart/x-mixed-replace; boundary={_BOUNDARY}", "Connection": "close"})
            self.wfile.write(f"--{_BOUNDARY}\r\n".encode())
            number = 0
            while not self.server.session.controls.ended.is_set():
                newer = streamer.pictures.newer(number, 1.0)
                if newer is None:
                    if self._gone():
                        return
                    continue
                number, jpeg = newer
                head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                # The boundary that ends a part goes with it: a browser shows a picture when it has seen that.
                self.wfile.write(head.encode() + jpeg + f"\r\n--{_BOUNDARY}\r\n".encode())
        except (ClosedError, OSError):
            return
        finally:
            streamer.unwatch()

    def _gone(self) -> bool:
        """Whether the browser closed the connection; it sends nothing after its request."""
        # Asked first: a socket with a timeout waits that long in recv, whatever its flags say.
        return bool(select([self.connection], [], [], 0)[0]) and self.connection.recv(1, socket.MSG_PEEK) == b""

    def _meant_for_us(self) -> bool:
        if self.server.session.controls.ended.is_set():  # a browser's connection outlives the server's
            self.close_connection = True
            self._json(HTTPStatus.SERVICE_UNAVAILABLE, {"error": "The program has ended."})
            return False
        if self.server.knows(self.headers.get("Host", "")):
            return True
        self.close_connection = True
        self._json(HTTPStatus.FORBIDDEN, {"error": "Use this machine's address or name; see --host."})
        return False

    def _json(self, status: HTTPStatus, value: Mapping[str, Any]) -> None:
        self._answer(status, json.dumps(value, allow_nan=False).encode(), "application/json")

    def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        self._headers({"Content-Type": kind, "Content-Length": str(len(body))})
        self.wfile.write(body)

    def _headers(self, more: Mapping[str, str]) -> None:
        for name, value in {**_HEADERS, **more}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a page that asks each second would fill the journal."""
