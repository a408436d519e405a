"""LiteRT's CompiledModel against its Interpreter, on the same file."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from segformer_edge.data.demo import draw_scene
from segformer_edge.runtime import Segmenter, tflite, tflite_compiled
from segformer_edge.runtime.tflite_compiled import CompiledFile


@pytest.fixture(scope="module")
def file(tiny_run):
    return tiny_run.file("tflite")


def test_results_are_the_interpreters(file):
    interpreter = Interpreter(str(file))
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    compiled = CompiledFile(file, threads=1)
    compiled.allocate()
    assert [tuple(info) for info in compiled.inputs] == [("int8", tuple(taken["shape"]))]
    for seed in range(3):
        image = np.random.default_rng(seed).integers(-128, 128, taken["shape"], dtype=np.int8)
        interpreter.set_tensor(taken["index"], image)
        interpreter.invoke()
        compiled.write(0, image)
        compiled.run()
        assert np.array_equal(compiled.read(0), interpreter.get_tensor(given["index"]))


def test_an_older_litert_runs_files_by_its_interpreter(file, monkeypatch):
    image = draw_scene(0, (64, 96))[0]
    labels = Segmenter.load(file)(image)

    def missing(path, threads):
        raise ImportError("cannot import name 'CpuOptions'")

    monkeypatch.setattr(tflite, "CompiledFile", missing)
    assert np.array_equal(Segmenter.load(file)(image), labels)


def test_nothing_is_said_on_stderr_even_at_the_end(file):
    program = f"""
import numpy as np
from segformer_edge.runtime import Segmenter
segmenter = Segmenter.load({str(file)!r})
print(segmenter(np.zeros((64, 96, 3), np.uint8)).shape)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(64, 96)\n", "")


def test_an_arm_cpu_without_atomics_is_told_before_libraries_end_the_process(monkeypatch):
    class Process:
        features = 0

        def __init__(self, name):
            pass

        def getauxval(self, kind):
            return self.features if kind == 16 else 0

    monkeypatch.setattr(tflite_compiled.platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(tflite_compiled.ctypes, "CDLL", Process)
    with pytest.raises(ImportError, match="atomic instructions"):
        tflite_compiled.check_cpu()
    Process.features = 1 << 8
    tflite_compiled.check_cpu()
