"""The float ``.onnx`` -> onnxruntime's pre-processing -> ``quantize_static`` as it comes (ORT's quantization page)."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from defaults.job import Job


class Reader(CalibrationDataReader):
    """Feeds the calibration images one by one."""

    def __init__(self, job: Job, name: str) -> None:
        self._feeds = iter([{name: batch.numpy()} for batch in job.batches])

    def get_next(self) -> dict[str, Any] | None:
        """The next image under the input's name, or None at the end."""
        return next(self._feeds, None)


def build(job: Job, out: Path) -> Path:
    """Write the int8 ``.onnx`` to ``out``: float32 in and out, QDQ, int8 activations and weights."""
    with TemporaryDirectory(dir=out.parent) as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(job.float_file), str(prepared))
        name = onnx.load(prepared).graph.input[0].name
        quantize_static(str(prepared), str(out), Reader(job, name))
    return out
