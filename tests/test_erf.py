"""``segformer-edge erf``: the picture, the figures, and what it refuses."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from segformer_edge.cli import run
from segformer_edge.commands import COMMANDS
from segformer_edge.erf import main


@pytest.fixture
def command(tmp_path: Path, tiny_weights: Path, calibration_folder: Path):
    """Runs it on the tiny checkpoint: ``command("--out", "a.png")``; the last of an option counts."""

    def call(*more: object) -> int:
        options = ["--weights", tiny_weights, "--size", "64x96", "--calibration", calibration_folder, "--images", 2]
        return run(main, [str(option) for option in (*options, "--out", tmp_path / "erf.png", *more)])

    return call


MAGIC = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.mark.parametrize("form", MAGIC)
def test_picture_and_figures(command, tmp_path, capsys, form):
    picture = tmp_path / f"erf.{form}"
    assert command("--out", picture, "--json") == 0
    captured = capsys.readouterr()
    assert picture.read_bytes().startswith(MAGIC[form]) and captured.err == ""
    found = json.loads(captured.out)
    assert found["size"] == [64, 96] and found["images"] == 2 and found["recipe"] == "mixed"
    assert [row["name"] for row in found["outputs"]] == ["stage 1", "stage 2", "stage 3", "stage 4", "head"]
    for row in found["outputs"]:
        for precision in ("float", "int8"):
            sides = row[precision]
            assert 1 <= sides["side_50"] <= sides["side_90"] <= sides["side_95"] <= 96
        assert 0.5 < row["overlap"] < 1.0
    assert [path.name for path in tmp_path.iterdir()] == [picture.name]


def test_without_quantization_there_is_float_alone_and_a_table(command, tmp_path, capsys):
    (tmp_path / "none.toml").write_text('[sites]\nimage = "float"\n')
    assert command("--recipe", tmp_path / "none.toml", "--images", 99) == 0
    captured = capsys.readouterr()
    assert "stage 4" in captured.out and "int8" not in captured.out and f"plot: {tmp_path / 'erf.png'}" in captured.out
    assert "averaged over 10 images" in captured.err and "asked for: 99" in captured.err


def test_it_ends_with_a_command_that_its_parser_takes(command, capsys, calibration_folder, tiny_weights):
    assert command("--images", 1) == 0
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert words[:4] == ["next:", "python", "-m", "segformer_edge.sensitivity"]
    options = COMMANDS["sensitivity"].parser().parse_args(words[4:])
    assert (options.weights, options.size) == (str(tiny_weights), "64x96")
    assert options.calibration == calibration_folder and options.out.parts[0] == "out"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--out", "erf.gif"], ["'erf.gif'", ".png, .svg, .pdf"]),
        (["--out", "nowhere/erf.png"], ["nowhere/erf.png", "folder"]),
        (["--images", "0"], ["--images", "0"]),
        (["--size", "500"], ["500x500", "--size 512"]),
        (["--recipe", "mixt"], ["'mixt'", "Did you mean 'mixed'"]),
        (["--weights", "nowhere.pth"], ["nowhere.pth"]),
        (["--calibration", "nowhere"], ["nowhere"]),
    ],
)
def test_wrong_options_are_explained(command, tmp_path, capsys, more, words):
    assert command(*more) == 2
    captured = capsys.readouterr()
    assert all(word in captured.err for word in words), captured.err
    assert captured.out == "" and list(tmp_path.iterdir()) == []


def test_an_earlier_picture_stays_where_writing_fails(command, tmp_path, capsys, monkeypatch):
    picture = tmp_path / "erf.png"
    picture.write_bytes(b"earlier")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert command() == 1
    assert "No space left" in capsys.readouterr().err
    assert picture.read_bytes() == b"earlier" and [path.name for path in tmp_path.iterdir()] == ["erf.png"]
