"""A window on the machine's own screen, where this OpenCV has windows."""

from __future__ import annotations

import os

import cv2

from segformer_edge.camera.latest import ClosedError
from segformer_edge.camera.session import CameraSession
from segformer_edge.errors import UsageError

_TITLE = "segformer_edge"
_ESCAPE = 27


def check_window() -> None:
    """Raise UsageError where no window can be opened: the headless build of OpenCV, or no screen."""
    if "GUI:                           NONE" in cv2.getBuildInformation() or not hasattr(cv2, "imshow"):
        raise UsageError(
            f"--show needs an OpenCV with windows; {cv2.__version__} here is the headless build.",
            hint="pip uninstall -y opencv-python-headless && pip install opencv-python, or look at it in a browser: "
            "--serve 8080",
        )
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise UsageError("--show needs a screen, and there is none here.", hint="In a browser: --serve 8080")


class Window:
    """Shows results; only the main thread may use it. Keys: q or Escape ends, space stops and starts."""

    def __init__(self, session: CameraSession) -> None:
        self._session = session
        self._number = 0
        cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)

    def step(self) -> bool:
        """Show what is new and look at the keyboard; whether to go on."""
        session = self._session
        try:
            newer = session.results.newer(self._number, 0.05)
        except ClosedError:
            return False
        if newer is not None:
            self._number, result = newer
            view = session.controls.view
            cv2.imshow(_TITLE, session.painter.annotate(result.image, result.labels, view, session.status()))
        key = cv2.waitKey(1) & 0xFF
        if key == ord(" "):
            session.controls.set_running(not session.controls.running)
        closed = cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) < 1
        return key not in (ord("q"), _ESCAPE) and not (closed and self._number)

    def close(self) -> None:
        """Take it off the screen."""
        cv2.destroyAllWindows()
