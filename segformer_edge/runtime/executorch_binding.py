"""ExecuTorch's native library from Python, without the exporter.

``executorch.runtime`` and ``portable_lib`` import ``executorch.exir`` for one class of warnings, and with it half of
torch: 6.5 s of CPU time in place of 2.2 s for what is here, which is what they call.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from segformer_edge.runtime.base import backend

_EXTRA = "runtime-executorch"
#: ExecuTorch's ScalarType numbers -> numpy's names.
SCALAR_TYPES = {0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 6: "float32", 7: "float64", 11: "bool"}


class Binding:
    """The library with ``threads`` CPU threads, which belong to the process. Raises MissingBackendError."""

    def __init__(self, threads: int) -> None:
        #: First: the library takes torch's own from the process.
        self.torch: Any = backend(["torch"], _EXTRA)
        # Registers quantize/dequantize kernels for what a delegate left outside.
        backend(["executorch.kernels.quantized"], _EXTRA)
        self._native: Any = backend(["executorch.extension.pybindings._portable_lib"], _EXTRA)
        self.versions = {name: version(name) for name in ("executorch", "torch")}
        if self._native._threadpool_get_thread_count() != threads:
            self._native._unsafe_reset_threadpool(threads)

    def load_program(self, path: Path) -> Any:
        """The program in ``path``; a method does not keep its program alive. Raises RuntimeError for a damaged file."""
        return self._native._load_program(
            str(path),
            enable_etdump=False,
            debug_buffer_size=0,
            program_verification=self._native.Verification.InternalConsistency,
        )
