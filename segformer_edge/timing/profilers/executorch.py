"""ExecuTorch: XNNPACK's own profiler inside its delegates, turned on by a hook, and the time between the delegates.

The Python wheel is built without ExecuTorch's event tracer (it says so when asked for an ETDump), so operators outside
of delegates have no times of their own.
"""

from __future__ import annotations

import ctypes
import time
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from segformer_edge.compiler import Library
from segformer_edge.emulation.sysroot import cache_folder
from segformer_edge.errors import UsageError
from segformer_edge.memory.hook_build import HookError
from segformer_edge.memory.subjects import ExecuTorch
from segformer_edge.timing.operators import Event

_HOOK = Library("The XNNPACK hook", (Path(__file__).parent.with_name("xnnpack_hook.c"),), HookError)
#: xnn_profile_info_operator_name, xnn_profile_info_operator_timing.
_NAMES, _TIMES = 1, 2
#: What stands between two delegate calls in ``Event.kernel``.
BETWEEN = "between delegates"


class _Call(ctypes.Structure):
    _fields_ = (("runtime", ctypes.c_void_p), ("start", ctypes.c_uint64), ("end", ctypes.c_uint64))


class ExecuTorchProfiler(ExecuTorch):
    """See segformer_edge.timing.worker.Profiler. Without a compiler for the hook ``notes`` say so, and no times."""

    def __init__(self, path: Path, threads: int, delegate: bool, profiling: bool) -> None:
        self.notes: tuple[str, ...] = ()
        self._profiling, self._hook = profiling, None
        try:
            self._hook = _hook()
        except HookError as error:
            self.notes = (f"Operators are not timed: {error.args[0]} {error.hint}".strip(),)
        super().__init__(path, threads, "")
        self._runs: list[list[Event]] = []

    def load(self) -> None:
        if self._hook is not None:
            self._hook.attach(self._profiling)
        super().load()

    def run(self, prepared: Any) -> None:
        start = time.monotonic_ns()
        super().run(prepared)
        self._span = start, time.monotonic_ns()

    def collect(self) -> None:
        self._runs.append(self._hook.events(*self._span) if self._hook is not None else [])

    def events(self) -> list[list[Event]]:
        return self._runs


class _Hook:
    """xnnpack_hook.c, loaded so that libraries loaded later call its functions in place of XNNPACK's."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(str(_HOOK.build(cache_folder() / "hook")), mode=ctypes.RTLD_GLOBAL)
        self._profiling, self._count = (ctypes.c_int.in_dll(self._library, f"hook_{n}") for n in ("profiling", "count"))

    def attach(self, profiling: bool) -> None:
        """Tell the hook where the real functions are; runtimes that are created from now on are profiled or not."""
        native = import_module("executorch.extension.pybindings._portable_lib")
        self._xnnpack = ctypes.CDLL(native.__file__)
        try:
            real = [self._xnnpack[name] for name in ("xnn_create_runtime_v4", "xnn_invoke_runtime")]
        except AttributeError as error:
            raise UsageError(
                "This ExecuTorch does not export XNNPACK's functions, so its operators cannot be timed.",
                hint="pip install executorch==1.4.1",
            ) from error
        self._library.hook_real(*(ctypes.cast(function, ctypes.c_void_p) for function in real))
        self._profiling.value, self._count.value = profiling, 0

    def events(self, start: int, end: int) -> list[Event]:
        """Of the inference from ``start`` to ``end`` (nanoseconds): operators, and the gaps around delegate calls."""
        calls = (_Call * self._count.value).in_dll(self._library, "hook_calls")
        found = []
        for number, call in enumerate(call for call in calls if call.start >= start):
            found.append(Event((call.start - start) / 1e6, kernel=BETWEEN))
            start = call.end
            for name, microseconds in self._operators(call.runtime):
                found.append(Event(microseconds / 1e3, kernel=name, delegate=f"XNNPACK {number}"))
        found.append(Event((end - start) / 1e6, kernel=BETWEEN))
        self._count.value = 0
        return found

    def _operators(self, runtime: int) -> list[tuple[str, int]]:
        names = self._ask(runtime, _NAMES).split(b"\0")[:-1]
        times = memoryview(self._ask(runtime, _TIMES)).cast("Q")
        return [(name.decode("utf-8", "replace"), time) for name, time in zip(names, times, strict=True)]

    def _ask(self, runtime: int, what: int) -> bytes:
        """xnn_get_runtime_profiling_info: called with too little room, it says how much there must be."""
        size, ask = ctypes.c_size_t(), self._xnnpack.xnn_get_runtime_profiling_info
        ask(ctypes.c_void_p(runtime), what, ctypes.c_size_t(0), None, ctypes.byref(size))
        room = ctypes.create_string_buffer(size.value)
        status = ask(ctypes.c_void_p(runtime), what, size, room, ctypes.byref(size))
        if status:
            raise RuntimeError(f"XNNPACK's profiler answered with status {status}")
        return room.raw


_hook = cache(_Hook)
