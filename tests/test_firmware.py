"""C sources for firmware: the array is the file, the macros are its metadata."""

from __future__ import annotations

import ctypes
import re
import subprocess

import pytest

from segformer_edge.errors import ArtifactError, UsageError
from segformer_edge.firmware import NAMES, adder, main
from segformer_edge.memory.micro import allocations
from segformer_edge.runtime.metadata import ArtifactMetadata


@pytest.fixture(scope="module")
def micro(run_quantize, tiny_weights):
    return run_quantize(tiny_weights, (32, 32), targets="tflm", output="labels").file("tflm")


def test_a_compiler_makes_the_same_bytes(micro, tmp_path, capsys):
    out = tmp_path / "firmware"
    assert main([str(micro), "--out", str(out)]) == 0
    *files, suggestion = capsys.readouterr().out.splitlines()
    assert [line.rsplit("/")[-1] for line in files] == list(NAMES) and suggestion.startswith("next: ")
    library = tmp_path / "model.so"
    subprocess.run(["gcc", "-std=c11", "-Wall", "-Werror", "-shared", "-o", library, out / NAMES[0]], check=True)
    content = micro.read_bytes()
    array = (ctypes.c_ubyte * len(content)).in_dll(ctypes.CDLL(str(library)), "segformer_model")
    assert bytes(array) == content and ctypes.addressof(array) % 16 == 0
    macros = dict(re.findall(r"#define SEGFORMER_(\w+) (\S+)", (out / NAMES[1]).read_text()))
    metadata, found = ArtifactMetadata.load(micro), allocations(micro)
    assert float(macros["INPUT_SCALE"].rstrip("f")) == metadata.input.scale
    assert int(macros["ACTIVATION_BYTES"]) == found.activations and int(macros["CLASSES"]) == 5
    assert "resolver.AddConv2D();" in (out / NAMES[2]).read_text()


def test_only_files_for_tflite_micro(micro, tiny_run, tmp_path):
    with pytest.raises(UsageError, match=r"made for tflite(.|\n)*--targets tflm"):
        main([str(tiny_run.file("tflite")), "--out", str(tmp_path / "out")])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError):
        main([str(micro), "--out", str(tmp_path / "out")])
    (tmp_path / micro.name).write_bytes(micro.read_bytes())
    with pytest.raises(ArtifactError, match="no metadata"):
        main([str(tmp_path / micro.name), "--out", str(tmp_path / "other")])


def test_names_of_the_resolver():
    assert [adder(code) for code in ("ARG_MAX", "SPACE_TO_DEPTH", "CONV_2D")] == [
        "AddArgMax", "AddSpaceToDepth", "AddConv2D",
    ]  # fmt: skip
