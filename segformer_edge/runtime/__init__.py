"""Running exported files on a device: numpy, OpenCV and one runtime; never torch, but for ExecuTorch's own binding.

>>> from segformer_edge.runtime import Segmenter
>>> labels = Segmenter.load("out/model.tflite")(image)  # uint8 RGB (H, W, 3) -> uint8 (H, W)

A camera's frames are the same call, with OpenCV's order of colours and an array that is written each time:

>>> labels = np.empty(frame.shape[:2], np.uint8)
>>> _, times = segmenter.timed(frame, order="bgr", out=labels)  # times: FrameTimes, milliseconds of each part
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segformer_edge.runtime.latency import FrameTimes
    from segformer_edge.runtime.metadata import ArtifactMetadata
    from segformer_edge.runtime.pictures import overlay
    from segformer_edge.runtime.segmenter import Segmenter

__all__ = ["ArtifactMetadata", "FrameTimes", "Segmenter", "overlay"]

_HOME = {"ArtifactMetadata": "metadata", "FrameTimes": "latency", "Segmenter": "segmenter", "overlay": "pictures"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
