"""Files of any producer, loaded and run step by step: what ``worker`` measures. One class a format, no torch of ours.

A subject imports its runtime when it is made, so that what the import allocates is there before measuring begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from segformer_edge.errors import ArtifactError, UsageError
from segformer_edge.runtime.base import backend
from segformer_edge.runtime.executorch_binding import SCALAR_TYPES, Binding
from segformer_edge.runtime.litert_api import environment
from segformer_edge.runtime.openvino import compile_options
from segformer_edge.runtime.quiet import native_stderr_silenced
from segformer_edge.runtime.tflite import PACKAGES
from segformer_edge.runtime.tflite_compiled import CompiledFile

#: The variant of ``.xml`` in which a CPU with bfloat16 computes floats as others do.
FLOAT32 = "float32"
#: The variant of ``.tflite`` that our own runtime is.
COMPILED = "compiled"
#: For a file whose memory depends on the input it gets.
_FIX = "Fix the size when exporting, then measure that file."
Inputs = tuple[tuple[str, str, tuple[int, ...]], ...]


class Subject(Protocol):
    """A file and its runtime. The steps are called in the order below, ``run`` several times."""

    versions: dict[str, str]

    @property
    def runtime(self) -> str:
        """What runs it, as a reader would say it."""
        ...

    @property
    def keeps_indirection(self) -> bool:
        """Whether operators may keep indirection buffers from one inference to the next, as XNNPACK's do."""
        ...

    @property
    def packs_into_arena(self) -> bool:
        """Whether packed weights lie in the same block as activations."""
        ...

    def load(self) -> None:
        """Open the file."""

    def allocate(self) -> None:
        """Whatever the runtime does between opening and the first inference."""

    def inputs(self) -> Inputs:
        """Name, dtype and shape of each input. Raises ArtifactError where a shape is open."""
        ...

    def prepare(self, arrays: Sequence[np.ndarray]) -> Any:
        """The arrays as ``run`` takes them: what a caller would hold anyway."""
        ...

    def run(self, prepared: Any) -> None:
        """One inference; the output stays where the runtime put it."""

    def tensor_addresses(self) -> list[int]:
        """Where the tensors lie that are no constants, as far as the runtime says."""
        ...


class LiteRT:
    """LiteRT or tflite-runtime, with the default delegate (XNNPACK) or the built-in kernels."""

    packs_into_arena = False

    def __init__(self, path: Path, threads: int, variant: str) -> None:
        module: Any = backend([f"{name}.interpreter" for name in PACKAGES], "runtime-tflite")
        package = PACKAGES[module.__name__.split(".")[0]]
        self._name = "LiteRT" if package == "ai-edge-litert" else package
        self.versions = {package: version(package)}
        kinds = module.OpResolverType
        resolver = kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES if variant else kinds.AUTO
        self._make: Callable[[], Any] = lambda: module.Interpreter(
            model_path=str(path), num_threads=threads, experimental_op_resolver_type=resolver
        )

    @property
    def keeps_indirection(self) -> bool:
        """tflite-runtime's 32-bit wheel is built without XNNPACK, so asking for it is not enough."""
        return any(entry["op_name"] == "DELEGATE" for entry in self._interpreter._get_ops_details())

    @property
    def runtime(self) -> str:
        """Once allocated."""
        return f"{self._name}, {'XNNPACK' if self.keeps_indirection else 'no delegate'}"

    def load(self) -> None:
        self._interpreter = self._make()

    def allocate(self) -> None:
        self._interpreter.allocate_tensors()

    def inputs(self) -> Inputs:
        details = self._interpreter.get_input_details()
        return tuple(
            (entry["name"], np.dtype(entry["dtype"]).name, tuple(map(int, entry["shape"]))) for entry in details
        )

    def prepare(self, arrays: Sequence[np.ndarray]) -> Any:
        indices = [entry["index"] for entry in self._interpreter.get_input_details()]
        return list(zip(indices, arrays, strict=True))

    def run(self, prepared: Any) -> None:
        for index, array in prepared:
            self._interpreter.set_tensor(index, array)
        self._interpreter.invoke()

    def tensor_addresses(self) -> list[int]:
        addresses = []
        for entry in self._interpreter.get_tensor_details():
            try:
                addresses.append(self._interpreter.tensor(entry["index"])().ctypes.data)
            except (ValueError, RuntimeError, AttributeError):  # in the delegate; a scalar comes as a copy
                continue
        return addresses


class CompiledLiteRT:
    """LiteRT's CompiledModel as our runtime asks for it. Input and output buffers are the caller's, and not counted."""

    keeps_indirection = packs_into_arena = False
    runtime = "LiteRT CompiledModel, XNNPACK"

    def __init__(self, path: Path, threads: int, variant: str) -> None:
        backend(["ai_edge_litert"], "runtime-tflite")
        try:
            environment()
        except ImportError as error:
            raise UsageError(str(error), hint="Measure what runs there: leave the compiled setup out.") from error
        self.versions = {"ai-edge-litert": version("ai-edge-litert")}
        self._path, self._threads = path, threads

    def load(self) -> None:
        self._file = CompiledFile(self._path, self._threads)

    def allocate(self) -> None:
        return None

    def inputs(self) -> Inputs:
        self._file.allocate()
        return tuple((f"input {place}", *info) for place, info in enumerate(self._file.inputs))

    def prepare(self, arrays: Sequence[np.ndarray]) -> Any:
        return arrays

    def run(self, prepared: Any) -> None:
        for place, array in enumerate(prepared):
            self._file.write(place, array)
        self._file.run()

    def tensor_addresses(self) -> list[int]:
        return []


class ONNXRuntime:
    """onnxruntime on the CPU, with its memory arena or without."""

    keeps_indirection = False

    def __init__(self, path: Path, threads: int, variant: str) -> None:
        ort: Any = backend(["onnxruntime"], "runtime-onnx")
        self.runtime = "onnxruntime, no arena" if variant else "onnxruntime"
        self.versions = {"onnxruntime": version("onnxruntime")}
        self.options = options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = self.packs_into_arena = not variant
        self._make: Callable[[], Any] = lambda: ort.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    def load(self) -> None:
        self._session = self._make()

    def allocate(self) -> None:
        return None

    def inputs(self) -> Inputs:
        names = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
        found = []
        for entry in self._session.get_inputs():
            if not all(isinstance(side, int) and side > 0 for side in entry.shape):
                raise ArtifactError(f"Its input '{entry.name}' has no fixed shape: {entry.shape}.", hint=_FIX)
            dtype = names.get(entry.type, entry.type.removeprefix("tensor(").removesuffix(")"))
            found.append((entry.name, dtype, tuple(entry.shape)))
        return tuple(found)

    def prepare(self, arrays: Sequence[np.ndarray]) -> Any:
        return {entry.name: array for entry, array in zip(self._session.get_inputs(), arrays, strict=True)}

    def run(self, prepared: Any) -> None:
        self._session.run(None, prepared)

    def tensor_addresses(self) -> list[int]:
        return []


class OpenVINO:
    """OpenVINO's CPU plugin with default settings. The plugin itself is loaded with the file, as in a program."""

    keeps_indirection = packs_into_arena = False

    def __init__(self, path: Path, threads: int, variant: str) -> None:
        self._api: Any = backend(["openvino"], "runtime-openvino")
        self.runtime = "OpenVINO"
        self.versions = {"openvino": version("openvino")}
        self.options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"} if variant == FLOAT32 else {}
        self._path, self._threads = path, threads

    def load(self) -> None:
        core = self._api.Core()
        model = core.read_model(str(self._path))
        options = compile_options(core, model, self._threads) | self.options
        self._compiled = core.compile_model(model, "CPU", options)

    def allocate(self) -> None:
        self._request = self._compiled.create_infer_request()

    def inputs(self) -> Inputs:
        found = []
        for port in self._compiled.inputs:
            name = port.get_any_name()
            if port.partial_shape.is_dynamic:
                raise ArtifactError(f"Its input '{name}' has no fixed shape: {port.partial_shape}.", hint=_FIX)
            found.append((name, port.get_element_type().to_dtype().name, tuple(port.shape)))
        return tuple(found)

    def prepare(self, arrays: Sequence[np.ndarray]) -> Any:
        return [self._api.Tensor(array, shared_memory=True) for array in arrays]

    def run(self, prepared: Any) -> None:
        for place, tensor in enumerate(prepared):
            self._request.set_input_tensor(place, tensor)
        self._request.start_async()
        self._request.wait()

    def tensor_addresses(self) -> list[int]:
        return []


class ExecuTorch:
    """ExecuTorch's Python binding. It imports torch, whose memory is there before measuring begins."""

    keeps_indirection, packs_into_arena = True, False

    def __init__(self, path: Path, threads: int, variant: str) -> None:
        self._path, self._binding = path, Binding(threads)
        self.runtime, self.versions, self._torch = "ExecuTorch", self._binding.versions, self._binding.torch
        self._torch.from_numpy(np.zeros(1)).numel()  # the first conversion imports

    def load(self) -> None:
        self._program = self._binding.load_program(self._path)

    def allocate(self) -> None:
        self._method = self._program.load_method("forward")

    def inputs(self) -> Inputs:
        about = self._method.method_meta()
        infos = [about.input_tensor_meta(place) for place in range(about.num_inputs())]
        return tuple(
            (f"input {place}", SCALAR_TYPES.get(info.dtype(), "unknown"), tuple(info.sizes()))
            for place, info in enumerate(infos)
        )

    def prepare(self, arrays: Sequence[np.ndarray]) -> Any:
        return [self._torch.from_numpy(array) for array in arrays]

    def run(self, prepared: Any) -> None:
        self._method(prepared)

    def tensor_addresses(self) -> list[int]:
        return []


#: Format -> its class; variant -> format it belongs to ("" is every runtime as it comes).
SUBJECTS: dict[str, Callable[[Path, int, str], Subject]] = {
    "tflite": LiteRT,
    "onnx": ONNXRuntime,
    "openvino": OpenVINO,
    "executorch": ExecuTorch,
}
VARIANTS: dict[str, str] = {
    COMPILED: "tflite", "no-delegate": "tflite", "no-arena": "onnx", FLOAT32: "openvino"
}  # fmt: skip


def make_subject(form: str, path: Path, threads: int, variant: str) -> Subject:
    """The subject for ``path``. Raises MissingBackendError where the runtime is not installed."""
    with native_stderr_silenced():
        subject = CompiledLiteRT if variant == COMPILED else SUBJECTS[form]
        return subject(path, threads, variant)


def random_inputs(inputs: Inputs, seed: int) -> list[np.ndarray]:
    """One array an input: floats like normalised images, 8 and 16 bit integers over their whole range.

    Wider integers are 0 or 1: they are indices more often than pixels. Raises ArtifactError for a type that
    numpy does not have.
    """
    random = np.random.default_rng(seed)
    arrays = []
    for name, dtype, shape in inputs:
        try:
            kind = np.dtype(dtype)
        except TypeError as error:
            raise ArtifactError(f"Its input '{name}' has the type '{dtype}', which cannot be filled here.") from error
        if kind.kind == "f":
            arrays.append(random.standard_normal(shape).astype(kind))
        elif kind.kind in "iu" and kind.itemsize <= 2:
            limits = np.iinfo(kind)
            arrays.append(random.integers(limits.min, limits.max, shape, dtype=kind, endpoint=True))
        elif kind.kind in "iub":
            arrays.append(random.integers(0, 2, shape).astype(kind))
        else:
            raise ArtifactError(f"Its input '{name}' has the type '{dtype}', which cannot be filled here.")
    return arrays
