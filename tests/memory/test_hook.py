"""The allocator hook against a model of what a program asked for, block by block."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from segformer_edge.memory import hook_build
from segformer_edge.memory.hook_build import HookError, host_hook

#: What each child begins with: the C functions and a meter.
PRELUDE = """
import ctypes, json, random, sys, threading
from segformer_edge.memory.meters import HookMeter
P, N, I, L = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_long
libc = ctypes.CDLL(None, use_errno=True)
def function(name, result, *arguments):
    found = libc[name]
    found.restype, found.argtypes = result, arguments
    return found
malloc, calloc = function("malloc", P, N), function("calloc", P, N, N)
realloc, reallocarray = function("realloc", P, P, N), function("reallocarray", P, P, N, N)
free, aligned_alloc = function("free", None, P), function("aligned_alloc", P, N, N)
posix_memalign = function("posix_memalign", I, ctypes.POINTER(P), N, N)
mmap, munmap = function("mmap", P, P, N, I, I, I, L), function("munmap", I, P, N)
mremap = function("mremap", P, P, N, N, I)
PAGE, RW, ANONYMOUS = 4096, 3, 0x22
meter = HookMeter()
"""


def in_child(code: str) -> dict[str, object]:
    """What ``code`` prints as JSON, run with the hook preloaded."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code],
        env={**os.environ, "LD_PRELOAD": str(host_hook()), "PYTHONMALLOC": "malloc"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("seed", range(3))
def test_heap_blocks_are_those_of_the_program(seed):
    """A random life of blocks: what the hook says is live, how it came and how large it is, is what the model says."""
    result = in_child(
        f"random.seed({seed})\n"
        + """
model, peak = {}, 0
with meter.phase("x"):
    for step in range(2000):
        size = random.randrange(10_048, 60_000)
        kind = random.randrange(6) if len(model) < 60 else 3
        if kind == 0:
            model[malloc(size)] = (size, "malloc")
        elif kind == 1:
            model[calloc(1, size)] = (size, "malloc")
        elif kind == 2:
            size = size // 64 * 64
            model[aligned_alloc(64, size)] = (size, "aligned")
        elif model:
            old = random.choice(list(model))
            del model[old]
            if kind == 3:
                free(old)
            else:
                model[realloc(old, size)] = (size, "malloc")
        peak = max(peak, sum(entry[0] for entry in model.values()))
blocks = {b.address: [b.size, b.kind] for b in meter.blocks() if b.size >= 9_000}  # Python has smaller ones
print(json.dumps({"blocks": blocks, "model": model, "peak": meter.phases[0].peak, "model_peak": peak}))
"""
    )
    assert result["blocks"] == result["model"]
    assert 0 <= result["peak"] - result["model_peak"] < 30_000  # Python's own dictionary and numbers


@pytest.mark.parametrize("seed", range(3))
def test_mappings_are_those_of_the_program(seed):
    """Mapping, unmapping any part, moving: page by page as in the model."""
    result = in_child(
        f"random.seed({seed})\n"
        + """
room = 200
with meter.phase("x"):
    base = mmap(None, room * PAGE, RW, ANONYMOUS, -1, 0)
    model = set(range(room))
    for step in range(400):
        start = random.randrange(room)
        count = random.randrange(1, room - start + 1)
        pages = set(range(start, start + count))
        if random.random() < 0.6:
            assert munmap(base + start * PAGE, count * PAGE) == 0
            model -= pages
        else:
            assert mmap(base + start * PAGE, count * PAGE, RW, ANONYMOUS | 0x10, -1, 0) == base + start * PAGE
            model |= pages
found = []
for b in meter.blocks():
    if b.kind == "mmap":
        found += range((b.address - base) // PAGE, (b.address - base + b.size) // PAGE)
print(json.dumps({"found": sorted(found), "model": sorted(model)}))
"""
    )
    assert result["found"] == result["model"]


def test_moving_a_mapping_and_mapping_a_file():
    result = in_child("""
import mmap as files
sizes = lambda: sorted([b.size // PAGE, b.kind] for b in meter.blocks() if b.kind in ("mmap", "file"))
seen = []
with meter.phase("x"):
    block = mmap(None, 10 * PAGE, RW, ANONYMOUS, -1, 0)
    block = mremap(block, 10 * PAGE, 30 * PAGE, 1)
    seen.append(sizes())
    with open(sys.executable, "rb") as file:
        mapped = files.mmap(file.fileno(), 2 * PAGE, access=files.ACCESS_READ)
    seen.append(sizes())
    munmap(block, 30 * PAGE)
    mapped.close()
    seen.append(sizes())
print(json.dumps({"seen": seen, "peak": meter.phases[0].peak}))
""")
    assert result["seen"] == [[[30, "mmap"]], [[2, "file"], [30, "mmap"]], []]
    assert 30 * 4096 <= result["peak"] < 35 * 4096  # the file is not heap


def test_reserved_addresses_are_no_heap_but_what_is_touched_of_them_is_seen():
    """An allocator's reserve of a gigabyte must not decide which moment counts as the peak."""
    result = in_child("""
from segformer_edge.memory.roles import find_roles
NORESERVE = 0x4000
with meter.phase("x"):
    room = mmap(None, 1 << 30, RW, ANONYMOUS | NORESERVE, -1, 0)
    ctypes.memset(room, 1, 3 * PAGE)
blocks = [block for block in meter.blocks() if block.kind == "reserved"]
split = find_roles(blocks, {}, [], {1}, False).split(0, blocks)
print(json.dumps({"sizes": [b.size for b in blocks], "peak": meter.phases[0].peak, "split": vars(split)}))
munmap(room, 1 << 30)
""")
    assert result["sizes"] == [1 << 30] and result["peak"] < 30_000
    split = result["split"]
    assert isinstance(split, dict) and split["activations"] == 3 * 4096 and split["runtime"] == 0


def test_refused_requests_change_nothing():
    result = in_child("""
out, huge = P(), 2**63
with meter.phase("x"):
    block = malloc(5000)
    codes = [posix_memalign(ctypes.byref(out), 24, 100), posix_memalign(ctypes.byref(out), 2, 100)]
    refused = [malloc(huge), calloc(2**33, 2**33), realloc(block, huge), reallocarray(block, 2**33, 2**33 + 1)]
    grown = reallocarray(block, 300, 20)
    good = posix_memalign(ctypes.byref(out), 4096, 3000)
blocks = sorted([b.size, b.kind] for b in meter.blocks())
print(json.dumps({"codes": codes, "refused": refused, "blocks": blocks, "good": good, "aligned": out.value % 4096}))
""")
    assert result["codes"] == [22, 22] and result["refused"] == [None] * 4
    assert result["blocks"] == [[3000, "aligned"], [6000, "malloc"]]
    assert result["good"] == 0 and result["aligned"] == 0


def test_threads_lose_nothing():
    result = in_child("""
def work():
    for _ in range(300):
        blocks = [malloc(2048) for _ in range(20)] + [mmap(None, PAGE, RW, ANONYMOUS, -1, 0)]
        for block in blocks[:-1]:
            free(block)
        munmap(blocks[-1], PAGE)
threads = [threading.Thread(target=work) for _ in range(4)]
with meter.phase("x"):
    for each in threads:
        each.start()
    for each in threads:
        each.join()
print(json.dumps({"left": len([b for b in meter.blocks() if b.size in (2048, PAGE)]), "kept": meter.phases[0].kept}))
""")
    assert result["left"] == 0 and abs(result["kept"]) < 50_000


def test_without_a_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(HookError, match=r"No C compiler(.|\n)*apt-get install gcc"):
        host_hook()


def test_a_compiler_that_fails_leaves_nothing(monkeypatch, tmp_path):
    compiler = tmp_path / "broken"
    compiler.write_text("#!/bin/sh\necho 'no space in the sky' >&2\nexit 3\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setenv("SEGFORMER_EDGE_ARM", str(tmp_path / "cache"))
    with pytest.raises(HookError, match="no space in the sky"):
        host_hook()
    assert list((tmp_path / "cache/hook").iterdir()) == []


def test_built_once_and_anew_for_another_source(monkeypatch, tmp_path):
    monkeypatch.setenv("SEGFORMER_EDGE_ARM", str(tmp_path / "cache"))
    first = host_hook()
    made = first.stat().st_mtime_ns
    assert host_hook() == first and first.stat().st_mtime_ns == made
    other = tmp_path / "hook.c"
    shutil.copy(hook_build.SOURCE.with_name("hook_tables.h"), tmp_path)
    other.write_text(hook_build.SOURCE.read_text() + "\n/* another */\n")
    monkeypatch.setattr(hook_build, "SOURCE", other)
    assert host_hook() != first
