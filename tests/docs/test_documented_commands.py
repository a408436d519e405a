"""Every command of the documentation runs, or is listed with the reason why not, and then its options exist."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch

from segformer_edge.commands import COMMANDS
from tests.docs.blocks import DOCUMENTS, ROOT, Block, blocks_of, command_of
from tests.docs.exceptions import ADDED, COMPILED, ELSEWHERE, INSTEAD_OF_DEMO, PARSED, SMALLER, SMALLER_PYTHON

#: Names that the documentation's Python takes for given.
GIVEN = {"batch": torch.zeros(1, 3, 64, 64)}


@pytest.fixture
def scratch(tiny_run, tiny_weights, tiny_dataset, calibration_folder, tmp_path, monkeypatch) -> Path:
    """The current folder, with what the documentation names in it."""
    data = Path(tiny_dataset.removeprefix("folder:"))
    for name, source in {
        "runs/my_b0": tiny_weights, "images": calibration_folder, "train": data, "val": data, "out/model": tiny_run.out,
    }.items():  # fmt: skip
        shutil.copytree(source, tmp_path / name)
    for target in ("tflite", "executorch", "onnx"):
        for suffix in ("", ".json"):
            name = tiny_run.file(target).name + suffix
            shutil.copy(tiny_run.out / name, tmp_path / name)
    shutil.copy(next(calibration_folder.glob("*.jpg")), tmp_path / "street.jpg")
    # As training with --qat leaves them.
    shutil.copytree(tiny_weights, tmp_path / "runs/my_b0_int8")
    shutil.copy(tiny_run.out / "encodings.json", tmp_path / "runs/my_b0_int8")
    app = tmp_path / "android_demo/app/src/main"
    app.mkdir(parents=True)
    shutil.copy(ROOT / "android_demo/app/src/main/AndroidManifest.xml", app)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGFORMER_EDGE_VERBOSITY", "normal")
    return tmp_path


def why_not(name: str, arguments: list[str]) -> str | None:
    """The reason in the table, if the command is there."""
    text = " ".join([name, *arguments])
    return next((reason for part, reason in PARSED.items() if part in text), None)


def smaller(name: str, arguments: list[str]) -> list[str]:
    """The same command on the tiny checkpoint."""
    text = shlex.join(arguments)
    for words, others in SMALLER:
        text = text.replace(words, others)
    if name == "quantize" and "--weights" not in text:
        text += f" {INSTEAD_OF_DEMO}"
    return shlex.split(f"{text} {ADDED.get(name, '')}")


def check_make(words: list[str]) -> None:
    """The target exists, and the Makefile knows the variables."""
    makefile = (ROOT / "Makefile").read_text()
    target, *variables = [word.strip("[]") for word in words[1:]]
    assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), f"make {target}"
    for variable in variables:
        assert f"$({variable.partition('=')[0]})" in makefile or variable.partition("=")[0] in makefile, variable


def check_script(words: list[str]) -> None:
    """The script is there and has the options; the benchmarks run for hours, tests/benchmarks tests their parts."""
    text = (ROOT / words[1]).read_text()
    for option in (word for word in words if word.startswith("--")):
        assert f'"{option}"' in text, option


def run_command(words: list[str], where: str) -> None:
    ours = command_of(words)
    if ours is not None:
        name, arguments = ours
        assert name in COMMANDS, f"{where}: there is no command {name}"
        if why_not(name, arguments) is not None:
            COMMANDS[name].parser().parse_args(arguments)
        else:
            assert COMMANDS[name].main(smaller(name, arguments)) == 0, f"{where}: {shlex.join(words)}"
    elif words[0] == "make":
        check_make(words)
    elif words[0] == "python" and words[1].startswith("benchmarks/"):
        check_script(words)
    else:
        assert words[0] in ELSEWHERE, f"{where}: '{shlex.join(words)}' is neither run nor listed in exceptions.py"


def run_python(block: Block, names: dict[str, object]) -> None:
    text = block.text
    for words, others in SMALLER_PYTHON:
        text = text.replace(words, others)
    code = compile(text, block.where, "exec")
    if block.where.partition(":")[0] not in COMPILED:
        exec(code, names)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_the_documentation_says_runs(document, scratch):
    names: dict[str, object] = dict(GIVEN)
    for block in blocks_of(document):
        if block.kind == "python":
            run_python(block, names)
        elif block.kind == "shell":
            for words in block.commands():
                run_command(words, block.where)


def all_commands() -> list[list[str]]:
    shells = [block for document in DOCUMENTS for block in blocks_of(document) if block.kind == "shell"]
    return [words for block in shells for words in block.commands()]


def test_no_exception_outlives_its_command():
    ours = [command_of(words) for words in all_commands()]
    texts = [" ".join([found[0], *found[1]]) for found in ours if found]
    for part in PARSED:
        assert any(part in text for text in texts), part
    assert set(ELSEWHERE) <= {words[0] for words in all_commands()}


def test_a_new_or_renamed_command_is_found():
    with pytest.raises(AssertionError, match="neither run nor listed"):
        run_command(["curl", "model.example"], "README.md:1")
    with pytest.raises(AssertionError, match="no command quantise"):
        run_command(["segformer-edge", "quantise"], "README.md:1")
    with pytest.raises(Exception, match="--on-cpu"):
        run_command(shlex.split("python -m segformer_edge.profile m.onnx --on-cpu --on cortex-a72"), "README.md:1")
    with pytest.raises(AssertionError, match="make no-such"):
        run_command(["make", "no-such"], "README.md:1")
    with pytest.raises(ValueError, match="neither run nor known"):
        Block("README.md:1", "fish", "ls")
