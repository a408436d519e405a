"""Asks a runtime about a file, in a process of its own: native loaders trust their input, and a bad file can end them.

    python -m segformer_edge.memory.readers.native FORMAT FILE THREADS FOLDER

prints one JSON object. It runs on the host or on an emulated CPU (``ask(on=...)``) and imports what a device has.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from segformer_edge.errors import ArtifactError, MissingBackendError
from segformer_edge.runtime.base import backend
from segformer_edge.runtime.openvino import compile_options
from segformer_edge.runtime.quiet import native_stderr_silenced

_MODULE = "segformer_edge.memory.readers.native"
TIMEOUT = 300.0


class RuntimeMissingError(MissingBackendError):
    """The runtime of a format is not installed where it was asked."""


def ask(form: str, path: Path, *, threads: int, folder: Path, on: str = "host") -> dict[str, Any]:
    """What the runtime of ``form`` says about ``path``; it may leave files in ``folder``.

    Raises RuntimeMissingError, ArtifactError for a file that the runtime refuses or that ends its process, and what
    ``segformer_edge.emulation`` raises for CPUs.
    """
    arguments = ["-m", _MODULE, form, str(path.absolute()), str(threads), str(folder)]
    options: dict[str, Any] = {"capture_output": True, "text": True, "errors": "replace", "timeout": TIMEOUT}
    try:
        if on == "host":
            environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
            done = subprocess.run([sys.executable, *arguments], env=environment, **options)
        else:
            from segformer_edge.emulation.sysroot import run_python

            done = run_python(on, arguments, **options)
    except subprocess.TimeoutExpired as error:
        raise ArtifactError(f"The runtime of '{path}' did not answer in {TIMEOUT:.0f} s.") from error
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        # The last line of a native complaint is often a register dump's; the first says what it was.
        said = next((line.strip() for line in done.stderr.splitlines() if line.strip()), "no message")
        ending = f"exit code {done.returncode}"
        if done.returncode < 0:
            ending = f"signal {signal.Signals(-done.returncode).name}"
        raise ArtifactError(f"The runtime of '{path}' ended with {ending}: {said[:300]}")
    answer: dict[str, Any] = json.loads(lines[-1])
    if "missing" in answer:
        raise RuntimeMissingError(answer["missing"], answer["extra"])
    if "refused" in answer:
        raise ArtifactError(f"'{path}' cannot be loaded by its runtime: {answer['refused']}")
    return answer


def ask_tflite(path: Path, threads: int, folder: Path) -> dict[str, Any]:
    """Tensors and operators as the interpreter has them, "plain" and (LiteRT alone) with its "default" delegate."""
    module: Any = backend(["ai_edge_litert.interpreter", "tflite_runtime.interpreter"], "runtime-tflite")
    package = module.__name__.split(".")[0].replace("_", "-")
    kinds = getattr(module, "OpResolverType", None)
    setups: dict[str, dict[str, Any]] = {"default": {}}
    if kinds is not None:
        plain = kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        setups = {"plain": {"experimental_op_resolver_type": plain}, **setups}
    answer: dict[str, Any] = {"versions": {package: version(package)}}
    for name, options in setups.items():
        interpreter = module.Interpreter(model_path=str(path), num_threads=threads, **options)
        interpreter.allocate_tensors()
        operators = [
            [str(op["op_name"]), _numbers(op["inputs"]), _numbers(op["outputs"])]
            for op in interpreter._get_ops_details()
        ]
        tensors = {}
        for details in interpreter.get_tensor_details():
            try:
                array = interpreter.tensor(details["index"])()
            except ValueError:  # no memory of its own: inside a delegate
                continue
            if not isinstance(array, np.ndarray):  # a single number, copied
                continue
            tensors[details["index"]] = [int(array.ctypes.data), int(array.nbytes), array.dtype.name, list(array.shape)]
        answer[name] = {"operators": operators, "tensors": tensors}
    return answer


def ask_onnx(path: Path, threads: int, folder: Path) -> dict[str, Any]:
    """Writes the optimized graph and the trace of two runs into ``folder``; says what the session takes and gives."""
    ort: Any = backend(["onnxruntime"], "runtime-onnx")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "trace")
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feeds, open_shapes = {}, []
    for info in session.get_inputs():
        if any(not isinstance(side, int) for side in info.shape):
            open_shapes.append(f"{info.name} {info.shape}")
        shape = [side if isinstance(side, int) else 1 for side in info.shape]
        feeds[info.name] = np.zeros(shape, _ONNX_TYPES[info.type])
    for _ in range(2):
        session.run(None, feeds)
    trace = session.end_profiling()
    Path(trace).replace(folder / "trace.json")
    return {
        "versions": {"onnxruntime": version("onnxruntime")},
        "open_shapes": open_shapes,
        "inputs": {name: [feed.dtype.name, list(feed.shape)] for name, feed in feeds.items()},
        "outputs": [info.name for info in session.get_outputs()],
    }


def ask_openvino(path: Path, threads: int, folder: Path) -> dict[str, Any]:
    """The compiled model's nodes in the order of execution."""
    ov: Any = backend(["openvino"], "runtime-openvino")
    core = ov.Core()
    model = core.read_model(str(path))
    compiled = core.compile_model(model, "CPU", compile_options(core, model, threads))
    nodes = compiled.get_runtime_model().get_ordered_ops()
    number = {node.get_friendly_name(): i for i, node in enumerate(nodes)}
    found: list[dict[str, Any]] = []
    for node in nodes:
        about = {key: str(getattr(value, "value", value)) for key, value in node.get_rt_info().items()}
        sources = [port.get_source_output() for port in node.inputs()]
        found.append({
            "name": node.get_friendly_name(),
            "type": about.get("layerType", node.get_type_name()),
            "precision": about.get("runtimePrecision", ""),
            "order": int(about.get("execOrder", len(found))),
            "inputs": [[number[source.get_node().get_friendly_name()], source.get_index()] for source in sources],
            "outputs": [
                [port.get_element_type().to_string(), _sides(port.get_partial_shape())] for port in node.outputs()
            ],
        })  # fmt: skip
    return {"versions": {"openvino": version("openvino")}, "nodes": found}


_ONNX_TYPES = {
    "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64", "tensor(int8)": "int8",
    "tensor(uint8)": "uint8", "tensor(int16)": "int16", "tensor(uint16)": "uint16", "tensor(int32)": "int32",
    "tensor(int64)": "int64", "tensor(bool)": "bool",
}  # fmt: skip
_ASK = {"tflite": ask_tflite, "onnx": ask_onnx, "openvino": ask_openvino}


def _numbers(values: Any) -> list[int]:
    return [int(value) for value in values]


def _sides(shape: Any) -> list[int]:
    return [side.get_length() if side.is_static else -1 for side in shape]


def main(argv: Sequence[str] | None = None) -> int:
    """Answer on stdout, whatever native code may print there meanwhile."""
    form, file, threads, folder = argv if argv is not None else sys.argv[1:]
    answers = os.dup(1)
    os.dup2(2, 1)
    answer: dict[str, Any]
    try:
        with native_stderr_silenced():
            answer = _ASK[form](Path(file), int(threads), Path(folder))
    except MissingBackendError as error:
        answer = {"missing": str(error).partition(" is not installed")[0], "extra": error.hint.rpartition("[")[2][:-2]}
    except Exception as error:  # the runtimes' exceptions share no base
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        answer = {"refused": lines[-1][:500]}
    os.write(answers, (json.dumps(answer) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
