"""LiteRT's CompiledModel against its Interpreter, on the same file."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from segformer_edge.data.demo import draw_scene
from segformer_edge.runtime import Segmenter, litert_api, tflite
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
        raise ImportError("installed is 2.2.0")

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


def test_another_litert_is_no_compiled_model_of_ours(monkeypatch):
    monkeypatch.setattr(litert_api, "version", lambda name: "2.4.1")
    with pytest.raises(ImportError, match=r"installed is 2\.4\.1"):
        litert_api.open_api.__wrapped__()


def test_the_file_stays_readable_after_litert_has_dropped_its_own_graph_of_it(file):
    """Freed memory is overwritten, so whatever still read LiteRT's graph would end the process or change results."""
    program = f"""
import sys, zlib
from pathlib import Path
import numpy as np
from segformer_edge.runtime.tflite_compiled import CompiledFile
for _ in range(2):  # the second after the first was taken apart
    compiled = CompiledFile(Path({str(file)!r}), 1)
    compiled.allocate()
    (info,) = compiled.inputs
    compiled.write(0, np.arange(np.prod(info.shape)).astype(np.int8).reshape(info.shape))
    compiled.run()
    print(zlib.crc32(compiled.read(0).tobytes()))
    del compiled
"""
    sums = []
    for freed in ("0", "165"):
        environment = {**os.environ, "MALLOC_PERTURB_": freed}
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        sums += done.stdout.split()
    assert len(sums) == 4 and len(set(sums)) == 1


def test_a_file_that_litert_refuses(tmp_path):
    broken = tmp_path / "model.tflite"
    broken.write_bytes(b"TFL3" * 100)
    with pytest.raises(RuntimeError, match="CreateModelFromBuffer"):
        CompiledFile(broken, 1)
