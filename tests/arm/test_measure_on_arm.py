"""Memory measured on emulated CPUs against the host. Without ``make arm-setup`` these fail, they do not skip."""

from __future__ import annotations

import json

import pytest

from segformer_edge.emulation.architectures import AARCH64
from segformer_edge.emulation.sysroot import open_cpu, run_python
from segformer_edge.errors import UsageError
from segformer_edge.memory.hook_build import emulated_hook
from segformer_edge.memory.measure import measure
from segformer_edge.memory.measurement import BY_HOOK

pytestmark = pytest.mark.arm
EXECUTORCH = {name: AARCH64.additions[0].wheels[name] for name in ("executorch", "torch")}

KNOWN = """
import ctypes, json
from segformer_edge.memory.meters import HookMeter
libc, address = ctypes.CDLL(None), ctypes.c_void_p
for function in (libc.malloc, libc.aligned_alloc, libc.realloc, libc.mmap):
    function.restype = address
size, meter = ctypes.c_size_t, HookMeter()
with meter.phase("x"):
    kept = libc.malloc(size(1_000_003))
    gone = libc.malloc(size(3_000_000))
    libc.free(address(gone))
    aligned = libc.aligned_alloc(size(64), size(640_000))
    moved = libc.realloc(address(libc.malloc(size(9_000))), size(70_001))
    area = libc.mmap(None, size(409_600), 3, 0x22, -1, ctypes.c_long(0))
    libc.munmap(address(area + 81_920), size(40_960))
(phase,) = meter.phases
print(json.dumps([phase.peak, sorted([block.size, block.kind] for block in meter.blocks())]))
"""


@pytest.mark.parametrize("cpu", ["cortex-a53", "cortex-a76"])
def test_the_hook_counts_there(cpu):
    environment = {"LD_PRELOAD": str(emulated_hook(*open_cpu(cpu))), "PYTHONMALLOC": "malloc"}
    done = run_python(cpu, ["-c", KNOWN], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    peak, blocks = json.loads(done.stdout)
    known = [[70_001, "malloc"], [81_920, "mmap"], [286_720, "mmap"], [640_000, "aligned"], [1_000_003, "malloc"]]
    assert [block for block in blocks if block[0] > 60_000] == known
    assert 4_000_003 <= peak < 4_000_003 + 50_000  # Python's own


@pytest.mark.parametrize(
    ("target", "tolerance", "cpu"),
    [
        *(("tflite", 0.02, cpu) for cpu in ("cortex-a72", "cortex-a76")),
        *(("onnx", 0.05, cpu) for cpu in ("cortex-a72", "cortex-a76")),
        ("executorch", 0.02, "cortex-a76"),
    ],
)
def test_the_same_file_takes_the_same(target, tolerance, cpu, tiny_run):
    """Kernels differ and pack otherwise; what inferences need follows from the graph."""
    here, there = measure(tiny_run.file(target)), measure(tiny_run.file(target), on=cpu)
    assert there.device == f"emulated {cpu}" and there.kind == BY_HOOK
    assert there.inputs == here.inputs
    assert there.versions == (EXECUTORCH if target == "executorch" else here.versions)
    assert there.inference_growth == pytest.approx(here.inference_growth, rel=tolerance)
    if target == "executorch":  # its ARM build is another release, which reserves 1 GiB of addresses when it loads
        return
    assert there.peak_bytes == pytest.approx(here.peak_bytes, rel=0.05)
    assert there.weights_bytes == pytest.approx(here.weights_bytes, rel=0.05)
    assert there.mapped_bytes == here.mapped_bytes and there.arena_bytes == here.arena_bytes


def test_formats_without_a_runtime_there(tiny_run):
    with pytest.raises(UsageError, match="openvino has no runtime on the emulated cortex-a72"):
        measure(tiny_run.file("openvino"), on="cortex-a72")
    with pytest.raises(UsageError, match="executorch has no runtime on the emulated armv7"):
        measure(tiny_run.file("executorch"), on="armv7")
