"""A ``.tflite`` in LiteRT's CompiledModel: the Interpreter's results in less memory.

XNNPACK keeps a pointer for every kernel tap and output pixel. Only here can it be asked to make these indirection
buffers anew for each inference, in the workspace, and only here do input and output lie in the caller's memory. LiteRT
reads the file into a graph of its own first, 0.6 KB an operator, which only serves to compile it: here that goes then.
"""

from __future__ import annotations

import ctypes
import weakref
from ctypes import byref, c_size_t, c_void_p
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from segformer_edge.runtime.litert_api import CPU, ELEMENT_TYPES, READ, WRITE, Api, TensorType, environment, open_api
from segformer_edge.runtime.quiet import native_stderr_silenced

#: TFLITE_XNNPACK_DELEGATE_FLAG_QS8, _QU8 and _TRANSIENT_INDIRECTION_BUFFER (xnnpack_delegate.h).
XNNPACK_FLAGS = 0x01 | 0x02 | 0x20
#: Of the CPU, in TOML, as LiteRT's own Python package passes them on.
KERNELS = f"flags = {XNNPACK_FLAGS}\n"
#: One zero point a tensor in place of one a channel; it is 0 for weights.
_RUNTIME = "compress_quantization_zero_points = true\n"


class TensorInfo(NamedTuple):
    """An input or output of the file; a side below 1 is open."""

    dtype: str
    shape: tuple[int, ...]


class CompiledFile:
    """``path`` on ``threads`` CPU threads. Not thread-safe.

    ``kernels`` are options of the CPU, ``runtime`` of LiteRT, as its own Python package writes them. Raises ImportError
    for another LiteRT than the one known here, RuntimeError for a file that it refuses. Verify the file before: unlike
    the Interpreter, LiteRT here trusts its structure.
    """

    def __init__(self, path: Path, threads: int, kernels: str = KERNELS, runtime: str = "") -> None:
        self._api = api = open_api()
        content = np.memmap(path, np.uint8, "r")
        self._native: dict[str, Any] = {"content": content}
        with native_stderr_silenced():
            file = api.make(
                "CreateModelFromBuffer", environment(), c_void_p(content.ctypes.data), c_size_t(len(content))
            )
            try:
                self._inputs, self._outputs = _types(api, file, "Input"), _types(api, file, "Output")
                self._native["model"] = _compiled(api, file, f"num_threads = {threads}\n{kernels}", _RUNTIME + runtime)
            finally:
                # What was compiled reads the mapped file itself.
                api.destroy("Model", file)
        self.inputs, self.outputs = ([_info(kind) for kind in kinds] for kinds in (self._inputs, self._outputs))
        weakref.finalize(self, _drop, api, self._native)

    def allocate(self) -> None:
        """Make the buffers of input and output."""
        self._native["given"] = self._buffers("Input", self._inputs)
        self._native["made"] = self._buffers("Output", self._outputs)

    def write(self, place: int, array: np.ndarray) -> None:
        """Fill input ``place``; ``array`` has its dtype. Raises RuntimeError where it has another size."""
        self._copy("given", place, np.ascontiguousarray(array), WRITE)

    def run(self) -> None:
        """One inference on what the inputs hold."""
        sides = [self._native[name] for name in ("given", "made")]
        arguments = [each for side in sides for each in (c_size_t(len(side)), (c_void_p * len(side))(*side))]
        self._api.call("RunCompiledModel", self._native["model"], c_size_t(0), *arguments)

    def read(self, place: int) -> np.ndarray:
        """A copy of output ``place``."""
        info = self.outputs[place]
        array = np.empty(info.shape, info.dtype)
        self._copy("made", place, array, READ)
        return array

    def _copy(self, side: str, place: int, array: np.ndarray, mode: int) -> None:
        buffer, size, memory = self._native[side][place], c_size_t(), c_void_p()
        self._api.call("GetTensorBufferPackedSize", buffer, byref(size))
        if size.value != array.nbytes:
            raise RuntimeError(f"input or output {place} takes {size.value} bytes, not {array.nbytes}")
        self._api.call("LockTensorBuffer", buffer, byref(memory), mode)
        here, there = (array.ctypes.data, memory) if mode == READ else (memory, array.ctypes.data)
        ctypes.memmove(here, there, array.nbytes)
        self._api.call("UnlockTensorBuffer", buffer)

    def _buffers(self, side: str, kinds: list[TensorType]) -> list[c_void_p]:
        api, made = self._api, []
        for place, kind in enumerate(kinds):
            needs = api.make(
                f"GetCompiledModel{side}BufferRequirements", self._native["model"], c_size_t(0), c_size_t(place)
            )
            made.append(api.make("CreateManagedTensorBufferFromRequirements", environment(), byref(kind), needs))
        return made


def _types(api: Api, file: c_void_p, side: str) -> list[TensorType]:
    signature, count, found = api.make("GetModelSignature", file, c_size_t(0)), c_size_t(), []
    api.call(f"GetNumSignature{side}s", signature, byref(count))
    for place in range(count.value):
        tensor = api.make(f"GetSignature{side}TensorByIndex", signature, c_size_t(place))
        found.append(TensorType())
        api.call("GetRankedTensorType", tensor, byref(found[-1]))
    return found


def _info(kind: TensorType) -> TensorInfo:
    return TensorInfo(ELEMENT_TYPES.get(kind.element, f"type {kind.element}"), kind.shape)


def _compiled(api: Api, file: c_void_p, kernels: str, runtime: str) -> c_void_p:
    options = api.make("CreateOptions")
    api.call("SetOptionsHardwareAccelerators", options, CPU)
    texts = [ctypes.create_string_buffer(text.encode()) for text in (kernels, runtime)]
    ours = ctypes.CFUNCTYPE(None, c_void_p)(lambda _: None)  # Python frees the texts
    for name, text in zip((b"xnnpack", b"runtime_options_string"), texts, strict=True):
        api.call("AddOpaqueOptions", options, api.make("CreateOpaqueOptions", name, text, ours))
    try:
        return api.make("CreateCompiledModel", environment(), file, options)
    finally:
        api.destroy("Options", options)


def _drop(api: Api, native: dict[str, Any]) -> None:
    """LiteRT reports on stderr what it takes apart. The mapped file goes last."""
    with native_stderr_silenced():
        for buffer in (*native.pop("given", ()), *native.pop("made", ())):
            api.destroy("TensorBuffer", buffer)
        api.destroy("CompiledModel", native.pop("model"))
    native.clear()
