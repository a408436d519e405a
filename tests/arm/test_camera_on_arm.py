"""``pip install segformer-edge[pi]`` on emulated CPUs, from wheels alone, and the camera program on them.

pip runs on the emulated CPU, so that conditions on the platform are its own. Without ``make arm-setup`` and the package
index these fail, they do not skip.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pip
import pytest

from segformer_edge.camera.command import main
from segformer_edge.cli import run
from segformer_edge.data.metrics import agreement
from segformer_edge.data.scenes import draw_scene
from segformer_edge.emulation.sysroot import open_cpu
from tests.camera.kit import write_clip

pytestmark = pytest.mark.arm
ROOT = Path(__file__).parents[2]
#: A 64-bit Pi 4, and 32-bit Raspberry Pi OS.
CPUS = ("cortex-a72", "armv7")
RUNTIME = {"cortex-a72": "ai-edge-litert", "armv7": "tflite-runtime"}
FRAMES = 4
#: The network's own size, and one that is scaled before and behind it.
SIZES = ((128, 128), (120, 160))
#: What pip needs to reach the index that the host's pip uses.
_PASSED_ON = ("PIP_", "SSL_CERT", "REQUESTS_CA", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """This tree as a wheel, built from a copy: a build leaves files beside its sources."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    for name in ("segformer_edge", "quantization"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(source)]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory, wheel) -> Callable[[str], Path]:
    """CPU -> the folder of packages that pip installed on it, once."""
    done: dict[str, Path] = {}

    def install(cpu_name: str) -> Path:
        if cpu_name not in done:
            folder = tmp_path_factory.mktemp(cpu_name)
            (folder / "pip").symlink_to(Path(pip.__file__).parent)
            sysroot, cpu = open_cpu(cpu_name)
            passed = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
            options = ["--prefix", str(folder / "prefix"), "--only-binary=:all:", "--no-compile"]
            process = subprocess.run(
                sysroot.command(cpu, ["-m", "pip", "install", *options, f"{wheel}[pi]"]),
                env=sysroot.environment({**passed, "PYTHONPATH": str(folder)}),
                capture_output=True,
                text=True,
            )
            assert process.returncode == 0, process.stderr
            done[cpu_name] = next((folder / "prefix").rglob("segformer_edge")).parent
        return done[cpu_name]

    return install


def distributions(folder: Path) -> set[str]:
    return {path.name.split("-")[0].replace("_", "-") for path in folder.glob("*.dist-info")}


@pytest.mark.parametrize("cpu", CPUS)
def test_pi_extra_is_light(cpu, installed):
    """numpy, OpenCV, one runtime, rich and what these need. On 32 bit numpy and OpenCV are Debian's."""
    found = distributions(installed(cpu))
    assert {"segformer-edge", "rich", RUNTIME[cpu]} <= found
    assert not found & {"torch", "transformers", "executorch", "onnxruntime", *(set(RUNTIME.values()) - {RUNTIME[cpu]})}
    assert ({"numpy", "opencv-python-headless"} <= found) == (cpu == "cortex-a72")


def label_maps(folder: Path) -> list[np.ndarray]:
    return [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted(folder.iterdir())]


def run_there(cpu_name: str, site: Path, *arguments: str) -> dict:
    """The installed camera program's summary. Neither this tree nor the prepared wheels are on its path."""
    sysroot, cpu = open_cpu(cpu_name)
    process = subprocess.run(
        sysroot.command(cpu, ["-m", "segformer_edge.camera", *arguments, "--json"]),
        env=sysroot.environment({"PYTHONPATH": str(site)}),
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


@pytest.fixture(scope="module")
def demo_file(run_quantize) -> Path:
    """The demo checkpoint as a ``.tflite``: in a network of random weights, one grey level moves many borders."""
    return run_quantize(Path("demo"), SIZES[0], targets="tflite").file("tflite")


@pytest.fixture(scope="module")
def portable_file(run_quantize) -> Path:
    """The same with sums in integers alone."""
    return run_quantize(Path("demo"), SIZES[0], targets="tflite", recipe="portable").file("tflite")


@pytest.fixture(scope="module")
def shares(tmp_path_factory, demo_file, installed) -> Callable[..., list[float]]:
    """Shares of equal pixels, frame by frame, between the host's label maps and a CPU's."""
    folder = tmp_path_factory.mktemp("clips")

    def compare(cpu: str, size: tuple[int, int], *options: str, file: Path = demo_file) -> list[float]:
        name = "-".join([file.parent.parent.name, cpu, *map(str, size), *options])
        clip = write_clip(folder / f"{name}.avi", [draw_scene(seed, size)[0] for seed in range(FRAMES)])
        common = [str(file), "--source", str(clip), "--headless", *options]
        assert run(main, [*common, "--labels", str(folder / f"{name}-host"), "--json"]) == 0
        summary = run_there(cpu, installed(cpu), *common, "--labels", str(folder / f"{name}-there"))
        assert summary["frames"] == FRAMES and RUNTIME[cpu] in summary["tools"]
        pairs = zip(label_maps(folder / f"{name}-host"), label_maps(folder / f"{name}-there"), strict=True)
        found = [agreement(*pair) for pair in pairs]
        print(f"{name}: mean {np.mean(found):.6f}, least {min(found):.6f}")
        return found

    return compare


def test_reference_kernels_give_the_host_s_bits_on_64_bit(shares):
    assert shares("cortex-a72", SIZES[0], "--reference-kernels") == [1.0] * FRAMES


def test_reference_kernels_on_scaled_frames(shares):
    """OpenCV's builds for the two kinds of CPU scale a picture with a grey level of difference."""
    assert np.mean(shares("cortex-a72", SIZES[1], "--reference-kernels")) >= 0.995


@pytest.mark.parametrize("size", SIZES)
def test_xnnpack_agrees_on_64_bit(size, shares):
    assert np.mean(shares("cortex-a72", size)) >= 0.995


@pytest.mark.parametrize("cpu", CPUS)
def test_portable_files_have_one_answer(cpu, portable_file, shares):
    """The 32-bit build fuses multiplying with adding, which rounds once in place of twice; here is nothing to fuse."""
    assert shares(cpu, SIZES[0], "--reference-kernels", file=portable_file) == [1.0] * FRAMES


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("options", [(), ("--reference-kernels",)])
def test_32_bit_agrees(options, size, shares):
    """Its runtime has no XNNPACK, and its float sums round otherwise, in the reference kernels too: recipe mixed."""
    assert np.mean(shares("armv7", size, *options)) >= 0.995
