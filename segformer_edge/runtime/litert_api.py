"""LiteRT's C API, which shows more of CompiledModel than its Python package does: the profiler, and who owns a file.

Structures and numbers are those of the headers in litert/c of LiteRT 2.3 (litert_profiler_event.h, litert_common.h,
litert_environment_options.h, litert_layout.h, litert_model_types.h). They differ between versions, so ``open_api``
refuses any other.
"""

from __future__ import annotations

import ctypes
from ctypes import byref, c_char_p, c_int32, c_uint32, c_void_p
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from segformer_edge.runtime.quiet import native_stderr_silenced

VERSION = "2.3.0"

#: kLiteRtEnvOptionTagRuntimeLibraryDir, kLiteRtAnyTypeString, kLiteRtHwAcceleratorCpu.
_RUNTIME_FOLDER, _STRING, CPU = 22, 8, 1
#: kLiteRtTensorBufferLockModeRead and Write.
READ, WRITE = 0, 1
#: LiteRtElementType -> numpy's name.
ELEMENT_TYPES = {
    1: "float32", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 9: "int8", 10: "float16", 11: "float64",
}  # fmt: skip


class _Any(ctypes.Structure):
    _fields_ = (("type", c_int32), ("text", c_char_p))


class _EnvironmentOption(ctypes.Structure):
    _fields_ = (("tag", c_int32), ("value", _Any))


class _Layout(ctypes.Structure):
    """Seven bits of rank, one bit for whether there are strides."""

    _fields_ = (("bits", c_uint32), ("sides", c_int32 * 8), ("strides", c_uint32 * 8))


class TensorType(ctypes.Structure):
    """LiteRtRankedTensorType."""

    _fields_ = (("element", c_int32), ("layout", _Layout))

    @property
    def shape(self) -> tuple[int, ...]:
        """Sides; one below 1 is open."""
        return tuple(self.layout.sides[: self.layout.bits & 0x7F])


class Api:
    """libLiteRt.so, whose functions return a status. ``call`` checks it."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))

    def call(self, name: str, *arguments: Any) -> None:
        """``LiteRt<name>(*arguments)``. Raises RuntimeError unless it returns success."""
        status = self._library["LiteRt" + name](*arguments)
        if status:
            raise RuntimeError(f"LiteRt{name} failed with status {status}")

    def make(self, name: str, *arguments: Any) -> c_void_p:
        """The same for a function whose last argument receives a handle, which is returned."""
        handle = c_void_p()
        self.call(name, *arguments, byref(handle))
        return handle

    def destroy(self, kind: str, handle: c_void_p) -> None:
        """``LiteRtDestroy<kind>``, which returns nothing."""
        self._library[f"LiteRtDestroy{kind}"](handle)


@cache
def open_api() -> Api:
    """Raises ImportError unless the version of LiteRT that this file was written for is installed."""
    try:
        found = version("ai-edge-litert")
    except PackageNotFoundError:
        found = "none"
    spec = find_spec("ai_edge_litert") if found == VERSION else None
    library = Path(spec.origin).with_name("libLiteRt.so") if spec is not None and spec.origin else None
    if library is None or not library.exists():
        raise ImportError(f"CompiledModel is used through the C API of ai-edge-litert {VERSION}; installed is {found}.")
    return Api(library)


@cache
def environment() -> c_void_p:
    """LiteRT's state for this process, never taken apart: LiteRT would report on it. Raises as ``open_api``."""
    # A folder without libraries for other accelerators, which it would look for and load.
    folder = str(Path(__file__).parent).encode()
    option = _EnvironmentOption(_RUNTIME_FOLDER, _Any(_STRING, folder))
    with native_stderr_silenced():
        return open_api().make("CreateEnvironment", 1, byref(option))
