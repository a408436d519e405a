"""`quantization` is a package of its own: it loads where nothing but torch is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = """
import importlib, pkgutil, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"segformer_edge", "transformers", "safetensors", "accelerate", "cv2", "rich"}:
            raise ModuleNotFoundError(f"{name} is blocked")
sys.meta_path.insert(0, Block())
import quantization
names = [module.name for module in pkgutil.walk_packages(quantization.__path__, "quantization.")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def test_every_module_loads_without_segformer_edge():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 6
