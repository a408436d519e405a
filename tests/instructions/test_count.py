"""Counting instructions, as far as it needs no emulator."""

from __future__ import annotations

import ctypes
import errno
import json
import re
from pathlib import Path

import flatbuffers
import pytest
from ai_edge_litert import schema_py_generated as schema

from segformer_edge.emulation.architectures import AARCH64
from segformer_edge.emulation.errors import EmulationError
from segformer_edge.emulation.plugins import PluginEmulator, plugin_emulator, prepare_plugins
from segformer_edge.emulation.sysroot import MANIFEST, contents_of
from segformer_edge.errors import ArtifactError, UsageError
from segformer_edge.instructions import worker
from segformer_edge.instructions.count import PLUGIN, count
from segformer_edge.instructions.marks import SYSTEM_CALL, between


def _sound() -> bytes:
    """A ``.tflite`` of one graph with nothing in it."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.operatorCodes, model.buffers, model.subgraphs = 3, [], [schema.BufferT()], [graph]
    graph.tensors, graph.inputs, graph.outputs, graph.operators = [], [], [], []
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


TFLITE = _sound()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder that holds a sysroot's manifest, and no emulator with plugins."""
    monkeypatch.setenv("SEGFORMER_EDGE_ARM", str(tmp_path / "cache"))
    manifest = tmp_path / "cache/aarch64" / MANIFEST
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"contents": contents_of(AARCH64)}))
    return tmp_path / "cache"


def test_the_count_is_what_lies_between_the_marks():
    assert between("1 5000000000\n2 8330000000\n") == 3_330_000_000


@pytest.mark.parametrize(
    "text", ["", "1 5\n", "2 5\n1 6\n", "1 5\n2 x\n", "1 5\n2 6\n2 7\n", "1\n2\n", "1 5\n2 5\n", "1 5\n2 -6\n"]
)
def test_anything_else_is_no_count(text):
    with pytest.raises(EmulationError):
        between(text)


def test_an_emulator_without_plugins_is_named(cache, tmp_path):
    file = tmp_path / "model.tflite"
    file.write_bytes(TFLITE)
    with pytest.raises(UsageError, match=r"qemu-user; qemu-user-static has none(.|\n)*make arm-setup"):
        count(file, "cortex-a76")
    manifest = plugin_emulator().folder / MANIFEST
    manifest.parent.mkdir(parents=True)
    manifest.write_text('{"contents": {"layout": 0}}')
    with pytest.raises(UsageError, match="not prepared"):
        count(file, "cortex-a76")


@pytest.mark.parametrize(
    ("name", "cpu", "variant", "error", "words"),
    [
        ("model.tflite", "cortex-a67", "ours", UsageError, "Did you mean 'cortex-a76'"),
        ("model.tflite", "cortex-a76", "no-arena", UsageError, "no way to run .tflite"),
        ("model.tflite", "cortex-a76", "compild", UsageError, "Did you mean 'compiled'"),
        ("model.txt", "cortex-a76", "ours", UsageError, "model.txt"),
        ("empty.tflite", "cortex-a76", "ours", ArtifactError, "not a TFLite model|cut short|empty"),
        ("model.xml", "cortex-a76", "ours", UsageError, "no runtime on the emulated cortex-a76"),
    ],
)
def test_bad_input(name, cpu, variant, error, words, cache, tmp_path):
    contents = {".tflite": TFLITE, ".xml": b'<net name="x"></net>', ".txt": b""}
    (tmp_path / "model.bin").touch()
    (tmp_path / name).write_bytes(b"" if name.startswith("empty") else contents[Path(name).suffix])
    with pytest.raises(error, match=words):
        count(tmp_path / name, cpu, variant)


def test_the_plugin_is_built_once_and_exports_what_qemu_asks_for(cache):
    library = PLUGIN.build(cache / "plugin")
    made = library.stat().st_mtime_ns
    assert PLUGIN.build(cache / "plugin") == library and library.stat().st_mtime_ns == made
    content = library.read_bytes()
    assert b"qemu_plugin_install" in content and b"qemu_plugin_version" in content
    assert re.search(r"#define MARK (\d+)", PLUGIN.sources[0].read_text())[1] == str(SYSTEM_CALL)


def test_without_a_compiler(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(EmulationError, match=r"the plugin that counts instructions is compiled(.|\n)*apt-get install"):
        PLUGIN.build(cache / "plugin")


def test_commas_in_folders_reach_the_plugin(tmp_path):
    command = PluginEmulator(tmp_path).command(AARCH64, Path("/a,b/counter.so"), {"out": "/c,d/marks"})
    assert command[-3:] == [str(tmp_path / "usr/bin/qemu-aarch64"), "-plugin", "/a,,b/counter.so,out=/c,,d/marks"]


def test_an_emulator_that_cannot_count_is_not_kept(cache, monkeypatch):
    """Debian may build the package without plugins, as it does the static one."""
    from segformer_edge.emulation import plugins

    def unpack(deb: Path, folder: Path) -> None:
        (folder / "usr/bin").mkdir(parents=True)
        for name in ("qemu-aarch64", "qemu-arm", "qemu-s390x"):
            (folder / "usr/bin" / name).touch()
        (folder / "lib/x-linux-gnu").mkdir(parents=True)
        loader = folder / "lib/x-linux-gnu/ld-linux-x.so.2"
        loader.write_text(f"#!/bin/sh\necho 'usage: {option}'\n")
        loader.chmod(0o755)

    monkeypatch.setattr(plugins, "find_mirror", lambda suite: None)
    monkeypatch.setattr(plugins, "host_architecture", lambda: "x")
    monkeypatch.setattr(plugins, "download", lambda *arguments: [Path("qemu-user.deb")])
    monkeypatch.setattr(plugins, "unpack", unpack)
    option = "-cpu"
    with pytest.raises(EmulationError, match="qemu-aarch64 has no plugins"):
        prepare_plugins()
    assert sorted(path.name for path in cache.iterdir()) == [".lock", "aarch64"]
    option = "-plugin"
    folder = prepare_plugins().folder
    assert sorted(path.name for path in (folder / "usr/bin").iterdir()) == ["qemu-aarch64", "qemu-arm"]
    plugin_emulator().check()


def test_the_first_inference_is_not_counted(monkeypatch):
    """It packs weights and plans memory."""
    events: list[object] = []

    class Subject:
        runtime, versions = "a runtime", {"package": "1"}

        def load(self) -> None: ...
        def allocate(self) -> None: ...
        def inputs(self):
            return (("", "float32", (1,)),)

        def prepare(self, arrays):
            return arrays

        def run(self, prepared) -> None:
            events.append("run")

    class Libc:
        def syscall(self, number, mark):
            assert number == SYSTEM_CALL
            events.append(mark)

    monkeypatch.setattr(worker, "make_subject", lambda *arguments: Subject())
    monkeypatch.setattr(worker.ctypes, "CDLL", lambda name: Libc())
    assert worker._count("onnx", "", Path("model.onnx")) == {"runtime": "a runtime", "versions": {"package": "1"}}
    assert events == ["run", 1, "run", 2]


def test_the_mark_is_no_system_call_of_this_kernel():
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.syscall(SYSTEM_CALL, 1) == -1 and ctypes.get_errno() == errno.ENOSYS
