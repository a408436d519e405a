"""The part of LiteRT's C API that the Python package leaves out: CompiledModel with its profiler.

Structures and numbers are those of the headers in litert/c of LiteRT 2.3 (litert_profiler_event.h, litert_common.h,
litert_environment_options.h, litert_layout.h, litert_model_types.h). They differ between versions, so ``open_api``
refuses any other.
"""

from __future__ import annotations

import ctypes
from ctypes import byref, c_char_p, c_int, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from segformer_edge.errors import UsageError

VERSION = "2.3.0"

#: kLiteRtEnvOptionTagRuntimeLibraryDir, kLiteRtAnyTypeString, kLiteRtHwAcceleratorCpu.
_RUNTIME_FOLDER, _STRING, _CPU = 22, 8, 1
#: kLiteRtTensorBufferLockModeWrite.
WRITE = 1
#: Where operators' times are among the events (LiteRtProfilerEventType).
KERNEL_EVENT, DELEGATED_EVENT = 2, 8
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


class ProfiledEvent(NamedTuple):
    """What ran, the kind of event, how long it took, and its index in the delegate's graph or in ``subgraph``."""

    tag: str
    type: int
    ms: float
    operator: int
    subgraph: int


class _ProfiledEventData(ctypes.Structure):
    """Times are in whole microseconds."""

    _fields_ = (
        ("tag", c_char_p),
        ("type", c_int32),
        ("start", c_uint64),
        ("elapsed", c_uint64),
        ("memory", c_size_t * 6),
        ("operator", c_uint64),
        ("subgraph", c_uint64),
        ("source", c_int32),
    )


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


@cache
def open_api() -> Api:
    """Raises UsageError unless the version of LiteRT that this file was written for is installed."""
    try:
        found = version("ai-edge-litert")
    except PackageNotFoundError:
        found = "none"
    spec = find_spec("ai_edge_litert") if found == VERSION else None
    library = Path(spec.origin).with_name("libLiteRt.so") if spec is not None and spec.origin else None
    if library is None or not library.exists():
        raise UsageError(
            f"Operators of .tflite files are timed with ai-edge-litert {VERSION}; installed is {found}.",
            hint=f"pip install ai-edge-litert=={VERSION}",
        )
    return Api(library)


class ProfiledModel:
    """``path`` in a CompiledModel on the CPU, with or without its profiler.

    ``options`` are those of the CPU in TOML, as LiteRT's own Python package passes them on. Handles live as long as the
    process: taking them apart makes LiteRT talk. Raises RuntimeError for a file that LiteRT refuses.
    """

    def __init__(self, path: Path, options: str, profiling: bool) -> None:
        self._api = api = open_api()
        # A folder without libraries for other accelerators, which it would look for and miss.
        folder = str(Path(__file__).parent).encode()
        option = _EnvironmentOption(_RUNTIME_FOLDER, _Any(_STRING, folder))
        self._environment = api.make("CreateEnvironment", 1, byref(option))
        self._file = api.make("CreateModelFromFile", self._environment, str(path).encode())
        chosen = api.make("CreateOptions")
        api.call("SetOptionsHardwareAccelerators", chosen, _CPU)
        self._texts: list[Any] = []
        self._keep = ctypes.CFUNCTYPE(None, c_void_p)(lambda _: None)
        self._add(chosen, "xnnpack", options)
        if profiling:
            self._add(chosen, "runtime_options_string", "enable_profiling = true\n")
        self._model = api.make("CreateCompiledModel", self._environment, self._file, chosen)
        self._profiler = api.make("CompiledModelGetProfiler", self._model) if profiling else None
        self._signature = api.make("GetModelSignature", self._file, c_size_t(0))
        self.inputs, self.outputs = self._types("Input"), self._types("Output")

    def allocate(self) -> None:
        """Make buffers for input and output."""
        self._given, self._made = self._buffers("Input", self.inputs), self._buffers("Output", self.outputs)

    def write(self, place: int, data: bytes) -> None:
        """Fill input ``place``. Raises RuntimeError where it has another size."""
        size = c_size_t()
        self._api.call("GetTensorBufferPackedSize", self._given[place], byref(size))
        if size.value != len(data):
            raise RuntimeError(f"input {place} takes {size.value} bytes, not {len(data)}")
        memory = c_void_p()
        self._api.call("LockTensorBuffer", self._given[place], byref(memory), WRITE)
        ctypes.memmove(memory, data, len(data))
        self._api.call("UnlockTensorBuffer", self._given[place])

    def run(self) -> None:
        """One inference."""
        given, made = ((c_void_p * len(handles))(*handles) for handles in (self._given, self._made))
        self._api.call(
            "RunCompiledModel", self._model, c_size_t(0), c_size_t(len(given)), given, c_size_t(len(made)), made
        )

    def events(self) -> list[ProfiledEvent]:
        """What the profiler has recorded since this was last called; nothing the first time, which starts it."""
        count = c_int()
        self._api.call("GetNumProfilerEvents", self._profiler, byref(count))
        found = (_ProfiledEventData * count.value)()
        if count.value:
            self._api.call("GetProfilerEvents", self._profiler, count, found)
        # The profiler owns the tags, so they are copied before it forgets them.
        copied = [
            ProfiledEvent(e.tag.decode("utf-8", "replace"), e.type, e.elapsed / 1e3, e.operator, e.subgraph)
            for e in found
        ]
        self._api.call("ResetProfiler", self._profiler)
        self._api.call("StartProfiler", self._profiler)
        return copied

    def _add(self, options: c_void_p, name: str, text: str) -> None:
        payload = ctypes.create_string_buffer(text.encode())
        self._texts.append(payload)
        self._api.call(
            "AddOpaqueOptions", options, self._api.make("CreateOpaqueOptions", name.encode(), payload, self._keep)
        )

    def _types(self, side: str) -> list[TensorType]:
        count = c_size_t()
        self._api.call(f"GetNumSignature{side}s", self._signature, byref(count))
        found = []
        for place in range(count.value):
            tensor = self._api.make(f"GetSignature{side}TensorByIndex", self._signature, c_size_t(place))
            found.append(TensorType())
            self._api.call("GetRankedTensorType", tensor, byref(found[-1]))
        return found

    def _buffers(self, side: str, types: list[TensorType]) -> list[c_void_p]:
        made = []
        for place, kind in enumerate(types):
            needs = self._api.make(
                f"GetCompiledModel{side}BufferRequirements", self._model, c_size_t(0), c_size_t(place)
            )
            made.append(
                self._api.make("CreateManagedTensorBufferFromRequirements", self._environment, byref(kind), needs)
            )
        return made
