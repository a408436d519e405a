"""``measure``: the peak heap of one inference of an exported file, on this machine or an emulated ARM CPU."""

from __future__ import annotations

import os

from segformer_edge.memory.measurement import Measurement


def measure(
    path: str | os.PathLike[str],
    *,
    on: str = "host",
    threads: int = 1,
    variant: str = "",
    timeout: float = 600.0,
) -> Measurement:
    """Load ``path`` in a process of its own, run it three times, and say what memory that took.

    ``on`` is "host" or a CPU of ``segformer_edge.emulation.architectures``. ``variant`` chooses another setup of the
    runtime: "no-delegate" for ``.tflite`` (built-in kernels in place of XNNPACK), "no-arena" for ``.onnx``. Any file of
    a known format will do, with or without our sidecar; its inputs get random numbers. Raises UsageError for an unknown
    CPU or variant, a format without a runtime there, or an emulated CPU that is not prepared; ArtifactError for a file
    that its runtime refuses; MeasurementError where the process ends otherwise or takes longer than ``timeout`` s.
    """
    raise NotImplementedError
