"""The picture that people look at: class colours over the camera's picture, a legend, and a line of figures."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from segformer_edge.camera.controls import View
from segformer_edge.camera.statistics import Status
from segformer_edge.runtime.pictures import overlay

#: Pixels. Small pictures are enlarged so that the legend's text stays readable beside them.
_LEAST_HEIGHT, _LEGEND_WIDTH, _ROW, _FOOTER = 360, 180, 22, 26
#: Up to so many classes stand in the legend in their own order; of more, those in the picture, largest first.
_FEW = 12
_PAPER, _INK, _FAINT = (32, 30, 28), (235, 235, 235), (130, 130, 130)
_FONT, _SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.45

Picture = npt.NDArray[np.uint8]


class Painter:
    """Draws for one model. Pictures are BGR, OpenCV's order."""

    def __init__(self, class_names: Sequence[str], palette: npt.NDArray[np.uint8]) -> None:
        """``palette`` is RGB, (classes, 3)."""
        #: Names and BGR colours.
        self.legend = (tuple(class_names), np.ascontiguousarray(palette[:, ::-1]))
        # OpenCV's fonts have ASCII alone.
        self._names = [name.encode("ascii", "replace").decode() for name in class_names]
        self._colours = self.legend[1]

    def blend(self, image: Picture, labels: npt.NDArray[np.uint8], view: View) -> Picture:
        """The label map's colours over ``image``; classes that the view hides show the image alone."""
        blended = overlay(image, labels, self._colours, view.opacity)
        if view.hidden:
            hidden = np.zeros(256, np.uint8)
            hidden[list(view.hidden)] = 1
            cv2.copyTo(image, hidden[labels], blended)
        return blended

    def annotate(self, image: Picture, labels: npt.NDArray[np.uint8], view: View, status: Status) -> Picture:
        """``blend`` with the legend at its right and the figures below; sides are even, as video encoders want."""
        picture = self.blend(image, labels, view)
        times = -(-_LEAST_HEIGHT // picture.shape[0])
        if times > 1:
            picture = np.asarray(
                cv2.resize(picture, None, fx=times, fy=times, interpolation=cv2.INTER_NEAREST), np.uint8
            )
        height, width = picture.shape[:2]
        canvas = np.empty((_even(height + _FOOTER), _even(width + _LEGEND_WIDTH), 3), np.uint8)
        canvas[:] = _PAPER
        canvas[:height, :width] = picture
        self._legend(canvas, labels, view, width + 12, height)
        _write(canvas, figures(status), 8, canvas.shape[0] - 9, _INK)
        return canvas

    def _legend(self, canvas: Picture, labels: npt.NDArray[np.uint8], view: View, left: int, height: int) -> None:
        rows = (height - 8) // _ROW
        for place, number in enumerate(self._listed(labels)[:rows]):
            top = 8 + place * _ROW
            shown = number not in view.hidden
            colour = self._colours[number].tolist()
            cv2.rectangle(canvas, (left, top), (left + 14, top + 14), colour, -1 if shown else 1)
            _write(canvas, self._names[number], left + 22, top + 12, _INK if shown else _FAINT)

    def _listed(self, labels: npt.NDArray[np.uint8]) -> list[int]:
        if len(self._names) <= _FEW:
            return list(range(len(self._names)))
        counts = np.bincount(labels[::4, ::4].ravel(), minlength=256)[: len(self._names)]
        return [int(number) for number in np.argsort(-counts, kind="stable") if counts[number]]


def figures(status: Status) -> str:
    """The status as one line; what this machine does not say is left out."""
    latency = status.latency_ms
    parts = [f"{status.fps:.1f} fps"]
    if latency.p50 is not None:
        parts.append(f"{latency.p50:.1f} / {latency.p95:.1f} / {latency.p99:.1f} ms (p50/p95/p99)")
    if status.memory_bytes is not None:
        parts.append(f"{status.memory_bytes / 2**20:.0f} MB")
    if status.temperature is not None:
        parts.append(f"{status.temperature:.0f} C")
    if status.throttling is not None and status.throttling.now:
        parts.append(", ".join(status.throttling.now))
    return "   ".join(parts)


def _write(canvas: Picture, text: str, left: int, baseline: int, colour: tuple[int, int, int]) -> None:
    cv2.putText(canvas, text, (left, baseline), _FONT, _SCALE, colour, 1, cv2.LINE_AA)


def _even(length: int) -> int:
    return length + length % 2
