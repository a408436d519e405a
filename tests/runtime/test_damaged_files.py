"""Damage behind a right hash: the file is refused with a cause, or it runs. ``make fuzz`` tries 200 of each format."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from segformer_edge.errors import ArtifactError
from segformer_edge.profile import main as profile
from segformer_edge.runtime.formats import RUNTIMES
from segformer_edge.runtime.metadata import ArtifactMetadata, sidecar_path

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("form", RUNTIMES)
def test_damaged_files_are_refused_or_run(form, artifacts):
    command = [sys.executable, "-m", "tests.fuzz.damaged_files", str(artifacts[form]), "--count", "20"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["refused"] > 5 and found["refused"] + found.get("ran", 0) == 20


def test_profile_refuses_a_damaged_file_without_a_sidecar(artifacts, tmp_path):
    path = tmp_path / "foreign.tflite"
    content = bytearray(artifacts["tflite"].read_bytes())
    content[0:4] = len(content).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"foreign\.tflite' is not loaded: damaged: the root points to byte"):
        profile([str(path)])


@pytest.fixture
def openvino(artifacts, tmp_path) -> Path:
    for file in artifacts["openvino"].parent.glob("model.[xb]*"):
        shutil.copy(file, tmp_path)
    return tmp_path / "model.xml"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('<?xml version="1.0"?>', '<?xml version="1.0"?><!DOCTYPE net [<!ENTITY a SYSTEM "/etc/passwd">]>', "document"),
        ('offset="0"', 'offset="999999999"', "ends at byte"),
        ('offset="0"', 'offset="-8"', "ends at byte 856"),
        ('from-layer="0"', 'from-layer="77"', "an edge starts at port"),
        ("</net>", "</ne", "not valid XML"),
    ],
)
def test_openvino_descriptions_name_only_what_is_there(openvino, old, new, words):
    text = openvino.read_text()
    assert old in text
    openvino.write_text(text.replace(old, new, 1))
    with pytest.raises(ArtifactError, match=words):
        RUNTIMES["openvino"].check(openvino)


@pytest.mark.parametrize("location", ["../weights", "/etc/passwd", "a\nb", "link", ""])
def test_onnx_weights_outside_of_the_folder_are_refused(location, artifacts, tmp_path):
    import onnx

    model = onnx.load(str(artifacts["onnx"]))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(ArtifactError, match=r"not a plain file name|no file of its own"):
        RUNTIMES["onnx"].check(path)


@pytest.mark.parametrize("name", ["../model.bin", "/etc/passwd", "a\nb.bin", "a\0b", "..", "a\\b", "", "\u202emodel"])
def test_a_sidecar_names_files_beside_it_and_nothing_else(name, artifacts, tmp_path):
    for file in (artifacts["onnx"], sidecar_path(artifacts["onnx"])):
        shutil.copy(file, tmp_path)
    path = tmp_path / artifacts["onnx"].name
    content = json.loads(sidecar_path(path).read_text())
    content["files"][name] = "0" * 64
    sidecar_path(path).write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="not a plain file name"):
        ArtifactMetadata.load(path)


def test_a_sidecar_that_is_a_link_is_refused(artifacts, tmp_path):
    shutil.copy(artifacts["onnx"], tmp_path)
    path = tmp_path / artifacts["onnx"].name
    sidecar_path(path).symlink_to(sidecar_path(artifacts["onnx"]))
    with pytest.raises(ArtifactError, match="is a link"):
        ArtifactMetadata.load(path)
