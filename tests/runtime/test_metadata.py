"""A sidecar is believed only after every field and every hash was checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segformer_edge.errors import ArtifactError, UsageError
from segformer_edge.runtime.metadata import ArtifactMetadata, sha256_of, sidecar_path


@pytest.fixture
def artifact(tmp_path: Path, describe) -> Path:
    """A .tflite of words: loading metadata does not look inside."""
    path = tmp_path / "model.tflite"
    path.write_bytes(b"\0\0\0\0TFL3 and so on")
    describe(path, "tflite").save(path)
    return path


def change(artifact: Path, keys: str, value: object) -> None:
    sidecar = sidecar_path(artifact)
    content = json.loads(sidecar.read_text())
    *parents, last = keys.split("/")
    section = content
    for key in parents:
        section = section[key]
    if value is KeyError:
        del section[last]
    else:
        section[last] = value
    sidecar.write_text(json.dumps(content))


def test_what_is_saved_is_loaded(artifact, describe):
    assert ArtifactMetadata.load(artifact) == describe(artifact, "tflite")
    content = json.loads(sidecar_path(artifact).read_text())
    assert next(iter(content)) == "schema_version"
    assert content["files"] == {"model.tflite": sha256_of(artifact)}
    assert [file.name for file in artifact.parent.iterdir() if file.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        ("schema_version", 2, "'schema_version' is 2"),
        ("schema_version", True, "not an integer"),
        ("format", "coreml", "not one of executorch, tflite"),
        ("format", KeyError, "'format' is missing"),
        ("file", "../model.tflite", "no hash of"),
        ("size", [32], "has 1 entries, not 2"),
        ("size", [32, 0], "at least 1"),
        ("size", "32x64", "not a list"),
        ("size", [64, 64], r"input.shape' is \[1, 3, 32, 64\]; with this size"),
        ("input", [], "not an object"),
        ("input/layout", "chw", "not one of nchw, nhwc"),
        ("input/dtype", "float16", "not one of float32"),
        ("input/dtype", "int8", "needs both"),
        ("input/scale", -1.0, "a scale is positive"),
        ("input/scale", "1", "not a finite number"),
        ("input/zero_point", 0.5, "not an integer"),
        ("output/kind", "masks", "not one of logits, labels"),
        ("output/shape", [1, 5, 8, 16], "4 classes are expected"),
        ("output/shape", [1, 4, 8], "has 3 entries, not 4"),
        ("normalisation/std", [1.0, 0.0, 1.0], "deviations are positive"),
        ("normalisation/mean", [0.1, 0.2], "has 2 entries, not 3"),
        ("class_names", [], "0 entries"),
        ("class_names", ["a", "b", "c", 4], r"class_names\[3\]"),
        ("palette", [[0, 0, 0]], "1 colours for 4 classes"),
        ("palette", [[0, 0, 256]] * 4, "red, green, blue"),
        ("weights/source", None, "not a text"),
        ("tools", {"torch": 2}, "tools.torch"),
        ("files", {}, "no hash of 'model.tflite'"),
        ("files", {"model.tflite": "0123"}, "not a SHA-256"),
        ("files", {"../secret": "0" * 64}, "not a plain file name"),
        ("files", {"/etc/passwd": "0" * 64}, "not a plain file name"),
        ("files", {"..": "0" * 64}, "not a plain file name"),
        ("files", {"a\\b": "0" * 64}, "not a plain file name"),
    ],
)
def test_a_wrong_field_is_named(artifact, keys, value, words):
    change(artifact, keys, value)
    with pytest.raises(ArtifactError, match=words):
        ArtifactMetadata.load(artifact, verify=False)


@pytest.mark.parametrize(
    ("scale", "zero_point", "words"),
    [
        (0.02, 128, "int8 holds -128 to 127"),
        (0.02, -129, "int8 holds"),
        (1e-60, 0, "a float32"),
        (1e60, 0, "a float32"),
    ],
)
def test_what_no_int8_tensor_has_is_refused(artifact, scale, zero_point, words):
    for key, value in (("dtype", "int8"), ("scale", scale), ("zero_point", zero_point)):
        change(artifact, f"input/{key}", value)
    with pytest.raises(ArtifactError, match=words):
        ArtifactMetadata.load(artifact)


@pytest.mark.parametrize(
    "text", ["", "{", "[1, 2]", "null", '{"schema_version": NaN}', "[" * 100_000, '{"a": "\udcff"}']
)
def test_a_sidecar_that_is_no_json_object_is_refused(artifact, text):
    sidecar_path(artifact).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ArtifactError, match=r"model\.tflite\.json"):
        ArtifactMetadata.load(artifact)


def test_missing_pieces_are_named(artifact, tmp_path):
    with pytest.raises(ArtifactError, match="no file"):
        ArtifactMetadata.load(tmp_path / "other.tflite")
    sidecar_path(artifact).unlink()
    with pytest.raises(ArtifactError, match="no metadata"):
        ArtifactMetadata.load(artifact)


def test_a_changed_file_is_found(artifact):
    artifact.write_bytes(artifact.read_bytes() + b".")
    with pytest.raises(ArtifactError, match="changed after export"):
        ArtifactMetadata.load(artifact)
    assert ArtifactMetadata.load(artifact, verify=False).file == "model.tflite"


def test_a_missing_companion_is_found(artifact):
    change(artifact, "files", {"model.tflite": sha256_of(artifact), "model.bin": "0" * 64})
    with pytest.raises(ArtifactError, match=r"model.bin' is missing"):
        ArtifactMetadata.load(artifact)


def test_a_link_out_of_the_folder_is_refused(artifact, tmp_path):
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (outside / "model.tflite").write_bytes(artifact.read_bytes())
    artifact.unlink()
    artifact.symlink_to(outside / "model.tflite")
    with pytest.raises(ArtifactError, match="not a file of its own"):
        ArtifactMetadata.load(artifact)


def test_a_folder_reached_through_a_link_is_fine(artifact, tmp_path):
    link = tmp_path / "latest"
    link.symlink_to(artifact.parent, target_is_directory=True)
    assert ArtifactMetadata.load(link / artifact.name).format == "tflite"


def test_a_renamed_or_exchanged_file_is_found(artifact):
    renamed = artifact.with_name("other.tflite")
    artifact.rename(renamed)
    sidecar_path(artifact).rename(sidecar_path(renamed))
    with pytest.raises(ArtifactError, match=r"describes 'model\.tflite', not"):
        ArtifactMetadata.load(renamed)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.bin", "Name the .xml"),
        ("model.tflite.json", r"Name the file it describes: .*model.tflite$"),
        ("model.tflit", r"Did you mean '.*model.tflite'"),
        ("model", "ends in none of"),
        ("model.pth", r"Exported files beside it: .*model.tflite\.$"),
        ("report.json", r"is no exported file(.|\n)*beside it: .*model.tflite\.$"),
        ("", r"is a folder(.|\n)*Name a file in it: .*model.tflite\.$"),
    ],
)
def test_a_name_that_is_no_artifacts_is_explained(tmp_path, name, words):
    (tmp_path / "model.tflite").touch()
    with pytest.raises(UsageError, match=words):
        ArtifactMetadata.load(tmp_path / name)


def test_a_folder_is_explained(tmp_path):
    (tmp_path / "x.onnx").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        ArtifactMetadata.load(tmp_path / "x.onnx")


def test_nothing_invalid_is_written(artifact, describe):
    with pytest.raises(ArtifactError, match="palette"):
        describe(artifact, "tflite", palette=()).save(artifact)
    with pytest.raises(ArtifactError, match=r"no hash of 'model\.bin'"):
        describe(artifact, "tflite", format="openvino", file="model.xml", files={
            "model.xml": "0" * 64,
        }).save(artifact)  # fmt: skip
    assert sorted(file.name for file in artifact.parent.iterdir()) == ["model.tflite", "model.tflite.json"]
