"""A device installs numpy, OpenCV and one runtime: what it imports must need nothing else."""

from __future__ import annotations

import ast
import json
import pkgutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: What a device does not have.
BLOCKED = (
    "torch",
    "torchvision",
    "transformers",
    "nncf",
    "litert_torch",
    "safetensors",
    "accelerate",
    "albumentations",
)
#: Modules of segformer_edge.data that only training uses may import torch; none does today.
ALLOWED_TORCH: frozenset[str] = frozenset()


def modules_of(package: str) -> list[str]:
    """``package`` and all that is in it, found without importing any of it."""
    folder = str(ROOT / package.replace(".", "/"))
    return [package, *(module.name for module in pkgutil.walk_packages([folder], f"{package}."))]


DEVICE_MODULES = [
    "segformer_edge",
    "segformer_edge.errors",
    "segformer_edge.profile",
    *modules_of("segformer_edge.runtime"),
    *modules_of("segformer_edge.camera"),
    *modules_of("segformer_edge.memory"),
    *modules_of("segformer_edge.timing"),
    *modules_of("segformer_edge.instructions"),
    *(name for name in modules_of("segformer_edge.data") if name not in ALLOWED_TORCH),
]


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    """Module -> "" or the error of its import, in one process where what a device lacks cannot be imported."""
    code = f"""
import importlib, json, sys, traceback
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"{{name}} is blocked")
sys.meta_path.insert(0, Block())
result = {{}}
for name in {DEVICE_MODULES!r}:
    try:
        importlib.import_module(name)
        result[name] = ""
    except BaseException:
        result[name] = traceback.format_exc()
print(json.dumps(result))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("module", DEVICE_MODULES)
def test_imports_without_torch(outcomes, module):
    assert outcomes[module] == ""


def imported_by(path: Path) -> set[str]:
    """Top-level packages that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("path", sorted((ROOT / "quantization").rglob("*.py")), ids=lambda path: path.name)
def test_quantization_knows_nothing_of_segformer(path):
    assert not imported_by(path) & {"segformer_edge", "transformers", "executorch", "litert_torch", "openvino", "onnx"}


@pytest.mark.parametrize("room", ["runtime", "camera", "data"])
def test_no_torch_even_inside_functions(room):
    # ExecuTorch's Python binding imports torch by itself; its own file is the one that may.
    for path in (ROOT / "segformer_edge" / room).rglob("*.py"):
        if "executorch" not in path.name:
            assert not imported_by(path) & {"torch", "transformers", "nncf", "litert_torch"}, path


def test_opencv_is_installed_once():
    """opencv-python and opencv-python-headless write the same folder and break each other."""
    from importlib.metadata import distributions

    found = {name for d in distributions() if (name := d.metadata["Name"] or "").lower().startswith("opencv")}
    assert found == {"opencv-python-headless"}
    assert find_spec("cv2") is not None
