"""Pictures for browsers: drawn and encoded once, however many look, and not at all when nobody does."""

from __future__ import annotations

import threading

import cv2

from segformer_edge.camera.controls import View
from segformer_edge.camera.latest import ClosedError, Newest
from segformer_edge.camera.session import CameraSession, Result

_QUALITY = 85


class Streamer(threading.Thread):
    """Keeps the newest JPEG in ``pictures`` while somebody watches.

    It has a thread of its own: drawing for the page takes no time from inference, but for the CPU they share.
    """

    def __init__(self, session: CameraSession) -> None:
        super().__init__(name="page", daemon=True)
        self._session = session
        self._watched = threading.Condition()
        self._watchers = 0
        self.pictures: Newest[bytes] = Newest()

    def watch(self, most: int) -> bool:
        """One more looks; False, and nothing is counted, where ``most`` already do."""
        with self._watched:
            if self._watchers >= most:
                return False
            self._watchers += 1
            self._watched.notify_all()
            return True

    def unwatch(self) -> None:
        """One looks no more."""
        with self._watched:
            self._watchers -= 1

    @property
    def watchers(self) -> int:
        """How many look."""
        return self._watchers

    def run(self) -> None:
        results, controls = self._session.results, self._session.controls
        number, drawn, result = 0, None, None
        try:
            while True:
                with self._watched:
                    if not self._watched.wait_for(lambda: self._watchers > 0, 0.5):
                        if controls.ended.is_set():
                            return
                        continue
                # The view is looked at ten times a second, so that it also changes a picture that stands still.
                newer = results.newer(number, 0.1)
                if newer is not None:
                    number, result = newer
                elif result is None or drawn == controls.view:
                    continue
                drawn = controls.view
                if result is not None:
                    self.pictures.put(self._jpeg(result, drawn))
        except ClosedError:
            pass
        finally:
            self.pictures.close()

    def _jpeg(self, result: Result, view: View) -> bytes:
        picture = self._session.painter.blend(result.image, result.labels, view)
        _, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        return encoded.tobytes()
