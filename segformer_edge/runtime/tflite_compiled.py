"""A ``.tflite`` in LiteRT's CompiledModel: the Interpreter's results in less memory.

XNNPACK keeps a pointer for every kernel tap and output pixel. Only here can it be asked to make these indirection
buffers anew for each inference, in the workspace, and only here do input and output lie in the caller's memory.
"""

from __future__ import annotations

import ctypes
import platform
import weakref
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from segformer_edge.runtime.quiet import native_stderr_silenced

#: TFLITE_XNNPACK_DELEGATE_FLAG_QS8, _QU8 and _TRANSIENT_INDIRECTION_BUFFER (xnnpack_delegate.h).
XNNPACK_FLAGS = 0x01 | 0x02 | 0x20


#: In the auxiliary vector of a process: its CPU's features, and among them ARMv8.1's atomic instructions.
_AT_HWCAP, _HWCAP_ATOMICS = 16, 1 << 8


class TensorInfo(NamedTuple):
    """An input or output of the file."""

    dtype: str
    shape: tuple[int, ...]


def check_cpu() -> None:
    """Raise ImportError on 64-bit ARM without atomic instructions (Cortex-A53, A72; Raspberry Pi 3 and 4).

    Libraries that LiteRT loads here are built with them, and end the process where they are missing.
    """
    if platform.machine() == "aarch64" and not ctypes.CDLL(None).getauxval(_AT_HWCAP) & _HWCAP_ATOMICS:
        raise ImportError("LiteRT's CompiledModel needs the atomic instructions of ARMv8.1, which this CPU lacks.")


@cache
def environment() -> Any:
    """LiteRT's state for this process, without accelerators besides the CPU. It is never taken apart: see _drop.

    Raises ImportError where there is none.
    """
    check_cpu()
    from ai_edge_litert.environment import Environment, EnvironmentOptions

    nowhere = str(Path(__file__).parent)  # a folder without LiteRT's libraries
    made = Environment.create(options=EnvironmentOptions(nowhere, nowhere, nowhere))
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(made.capsule))
    return made


def _drop(native: dict[str, Any]) -> None:
    """LiteRT reports on stderr what it takes apart, even at the end of the program."""
    with native_stderr_silenced():
        native.clear()


@cache
def _quiet_at_exit() -> None:
    """Close stderr before LiteRT reports on it, after Python's end, that its own state is taken apart.

    Functions registered now run before the destructors of what exists by now.
    """
    libc = ctypes.CDLL(None)
    libc["__cxa_atexit"](libc["close"], ctypes.c_void_p(2), None)


class CompiledFile:
    """``path`` on ``threads`` CPU threads. Not thread-safe.

    Raises ImportError for a LiteRT without CompiledModel (before 2.3) or a CPU that it cannot run on, RuntimeError for
    a file that it refuses. Verify the file before: unlike the Interpreter, LiteRT here trusts its structure.
    """

    def __init__(self, path: Path, threads: int) -> None:
        shared = environment()
        from ai_edge_litert.compiled_model import CompiledModel
        from ai_edge_litert.options import CpuOptions, HardwareAccelerator, Options

        options = Options(
            hardware_accelerators=HardwareAccelerator.CPU,
            cpu_options=CpuOptions(num_threads=threads, xnnpack_flags=XNNPACK_FLAGS),
        )
        model = CompiledModel.from_file(str(path), environment=shared, options=options)
        self._native: dict[str, Any] = {"model": model}
        weakref.finalize(self, _drop, self._native)

    def allocate(self) -> None:
        """Make the buffers of input and output, and say what they are in ``inputs`` and ``outputs``.

        The model itself would tell, too, but plan memory for an input and output of its own on the way.
        """
        model = self._native["model"]
        with native_stderr_silenced():
            given, made = model.create_input_buffers(0), model.create_output_buffers(0)
            self.inputs, self.outputs = ([_info(buffer) for buffer in buffers] for buffers in (given, made))
        self._native |= {"given": given, "made": made}
        _quiet_at_exit()

    def write(self, place: int, array: np.ndarray) -> None:
        """Fill input ``place``; ``array`` has its shape and dtype."""
        self._native["given"][place].write(array)

    def run(self) -> None:
        """One inference on what the inputs hold."""
        self._native["model"].run_by_index(0, self._native["given"], self._native["made"])

    def read(self, place: int) -> np.ndarray:
        """A copy of output ``place``."""
        info = self.outputs[place]
        flat: np.ndarray = self._native["made"][place].read(int(np.prod(info.shape)), np.dtype(info.dtype))
        return flat.reshape(info.shape)


def _info(buffer: Any) -> TensorInfo:
    details = buffer.get_tensor_details()
    return TensorInfo(np.dtype(details["dtype"]).name, tuple(details["shape"]))
