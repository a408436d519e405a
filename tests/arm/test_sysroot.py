"""Building and finding a sysroot, as far as it needs neither network nor emulator."""

from __future__ import annotations

import json
import os
import stat
from importlib.metadata import version
from pathlib import Path

import pytest

from segformer_edge.cli import run
from segformer_edge.emulation.__main__ import main
from segformer_edge.emulation.architectures import AARCH64, ARCHITECTURES, find_cpu
from segformer_edge.emulation.debian import find_mirror, mirror_in
from segformer_edge.emulation.errors import EmulationError, NotPreparedError
from segformer_edge.emulation.prepare import prepare, wheel_command, write_cpu_root
from segformer_edge.emulation.sysroot import (
    MANIFEST,
    Sysroot,
    contents_of,
    open_cpu,
    open_runtime,
    project_path,
    run_python,
    sysroot_of,
    versions_of,
)
from segformer_edge.errors import UsageError
from segformer_edge.runtime.formats import RUNTIMES

#: Part numbers in Linux' arch/arm64/include/asm/cputype.h and arch/arm/include/asm/cputype.h.
PARTS = {"cortex-a53": "0xd03", "cortex-a72": "0xd08", "cortex-a76": "0xd0b", "armv7": "0xc07"}
CPUS = [cpu.name for architecture in ARCHITECTURES.values() for cpu in architecture.cpus]


def program(folder: Path, name: str, text: str) -> None:
    """A shell script on what will be the PATH."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(stat.S_IRWXU)


@pytest.mark.parametrize("name", CPUS)
def test_a_cpu_calls_itself_by_its_number(name, tmp_path):
    architecture, cpu = find_cpu(name)
    sysroot = Sysroot(tmp_path, architecture)
    (sysroot.system / "usr").mkdir(parents=True)
    write_cpu_root(sysroot, cpu)
    root = sysroot.root(cpu)
    cpuinfo = (root / "proc/cpuinfo").read_text().split("\n\n")[0]
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in cpuinfo.splitlines())}
    assert fields["CPU part"] == PARTS[name] and fields["CPU implementer"] == "0x41"
    assert ("asimddp" in fields["Features"].split()) == (name == "cortex-a76")  # the only one with int8 dot products
    midr = int((root / "sys/devices/system/cpu/cpu0/regs/identification/midr_el1").read_text(), 16)
    assert midr >> 24 == 0x41 and f"0x{midr >> 4 & 0xFFF:x}" == PARTS[name]
    assert (root / "usr").resolve() == (sysroot.system / "usr").resolve()


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=lambda each: each.name)
def test_formats_have_runtimes_here(architecture):
    assert {*architecture.formats, *(form for each in architecture.additions for form in each.formats)} <= set(RUNTIMES)


def test_wheels_are_those_of_the_host(tmp_path):
    command = wheel_command(AARCH64, AARCH64.wheels, tmp_path)
    for name in ("numpy", "opencv-python-headless", "ai-edge-litert", "onnxruntime"):
        assert f"{name}=={version(name)}" in command
    assert "--no-deps" in command and "manylinux_2_17_aarch64" in command
    assert not any("x86_64" in word or "37_aarch64" in word for word in command)  # newer than the sysroot's libc


def test_unknown_cpu_names_the_nearest(cache):
    with pytest.raises(UsageError, match="Did you mean 'cortex-a72'"):
        open_cpu("cortex-a77x2")


def test_the_program_sees_nothing_of_the_host(cache, monkeypatch):
    for name in ("LD_PRELOAD", "PYTHONHOME", "PYTHONPATH", "QEMU_CPU", "LD_LIBRARY_PATH"):
        monkeypatch.setenv(name, "/host")
    sysroot = sysroot_of(AARCH64)
    environment = sysroot.environment({"MORE": "1"})
    assert "/host" not in " ".join(environment.values()) and environment["MORE"] == "1"
    site, project = environment["PYTHONPATH"].split(os.pathsep)
    assert Path(site) == cache / "aarch64/site"
    assert os.listdir(project) == ["segformer_edge"]  # beside the package may lie the host's numpy
    assert (Path(project) / "segformer_edge/runtime/segmenter.py").exists()
    assert project_path() == Path(project)
    command = sysroot.command(AARCH64.cpus[1], ["-m", "x"])
    assert command[0] == str(cache / "aarch64/qemu-aarch64-static") and command[-2:] == ["-m", "x"]
    assert command[command.index("-cpu") + 1] == "cortex-a72"


def test_what_is_not_prepared_says_how(cache):
    with pytest.raises(NotPreparedError, match=r"not prepared(.|\n)*make arm-setup"):
        run_python("cortex-a72", ["-c", "pass"])
    manifest = cache / "aarch64" / MANIFEST
    manifest.parent.mkdir(parents=True)
    contents = contents_of(AARCH64)
    manifest.write_text(json.dumps({"contents": contents}))
    sysroot_of(AARCH64).check()
    contents["wheels"]["numpy"] = "1.0"
    manifest.write_text(json.dumps({"contents": contents}))
    with pytest.raises(NotPreparedError, match="other versions"):
        open_cpu("cortex-a53")


def test_an_addition_is_seen_where_a_file_needs_it(cache):
    (addition,) = AARCH64.additions
    sysroot, file = sysroot_of(AARCH64), Path("model.pte")
    for folder, contents in (
        (sysroot.folder, contents_of(AARCH64)),
        (sysroot.addition_site(addition), {**versions_of(addition.wheels), "executorch": "0.1"}),
    ):
        folder.mkdir(parents=True)
        (folder / MANIFEST).write_text(json.dumps({"contents": contents}))
    with pytest.raises(NotPreparedError, match=r"has another executorch(.|\n)*prepare aarch64 --with executorch"):
        open_runtime("cortex-a76", file, "executorch")
    (sysroot.addition_site(addition) / MANIFEST).unlink()
    with pytest.raises(NotPreparedError, match=r"has no executorch(.|\n)*prepare aarch64 --with executorch"):
        open_runtime("cortex-a76", file, "executorch")
    contents = {"contents": versions_of(addition.wheels)}
    (sysroot.addition_site(addition) / MANIFEST).write_text(json.dumps(contents))
    there, elsewhere = open_runtime("cortex-a76", file, "executorch")[0], open_runtime("cortex-a76", file, "onnx")[0]
    assert str(sysroot.addition_site(addition)) in there.environment()["PYTHONPATH"].split(os.pathsep)
    assert "additions" not in elsewhere.environment()["PYTHONPATH"]
    with pytest.raises(
        UsageError, match=r"no runtime on the emulated cortex-a72(.|\n)*On cortex-a76, executorch has one"
    ):
        open_runtime("cortex-a72", file, "executorch")
    with pytest.raises(UsageError, match="openvino has no runtime on the emulated cortex-a76"):
        open_runtime("cortex-a76", Path("model.xml"), "openvino")


LISTING = "\n".join(
    "\t".join(line)
    for line in (
        ("https://elsewhere.example/x", "bookworm", "", "contrib"),
        ("https://mirror.example/debian-security/", "bookworm-security", "bookworm-security", "main"),
        ("https://mirror.example/debian/", "stable", "bookworm", "main"),
        ("https://second.example/debian/", "bookworm", "bookworm", "main"),
    )
)


def test_mirror_is_the_host_s_main_archive():
    assert mirror_in(LISTING, {"bookworm"}) == "https://mirror.example/debian/"
    assert mirror_in(LISTING, {"trixie"}) is None
    assert mirror_in("", {"bookworm"}) is None


def test_no_apt(monkeypatch, tmp_path, cache):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="'apt-get' was not found"):
        prepare(AARCH64)


def test_no_mirror(monkeypatch, tmp_path):
    program(tmp_path / "bin", "apt-get", "echo 'https://mirror.example/ubuntu\tnoble\tnoble\tmain'")
    program(tmp_path / "bin", "dpkg-deb", "")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    with pytest.raises(UsageError, match="no Debian mirror with 'bookworm'"):
        find_mirror("bookworm")


def test_a_failed_preparation_leaves_what_was_there(monkeypatch, tmp_path, cache):
    lists = f"[ $1 = indextargets ] && {{ cat {tmp_path}/listing; exit 0; }}"
    program(tmp_path / "bin", "apt-get", f"{lists}\necho 'E: Could not resolve mirror.example' >&2; exit 100")
    (tmp_path / "listing").write_text(LISTING)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    old = cache / "aarch64" / MANIFEST
    old.parent.mkdir(parents=True)
    old.write_text('{"contents": {"layout": 0}}')
    with pytest.raises(EmulationError, match=r"Could not resolve(.|\n)*network"):
        prepare(AARCH64)
    assert old.read_text() == '{"contents": {"layout": 0}}'
    assert sorted(path.name for path in cache.iterdir()) == [".lock", "aarch64"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], "needs a CPU"),
        (["run", "cortex-a72", "-c", "pass"], "make arm-setup"),
        (["prepare", "aarch46"], "Did you mean 'aarch64'"),
        (["prepare", "aarch64", "--quick"], "--quick"),
        (["prepare", "aarch64", "--with", "executorh"], "Did you mean 'executorch'"),
        (["prepare", "armv7", "--with", "executorch"], "nothing called 'executorch' to add to armv7"),
        (["prepar"], "invalid choice"),
    ],
)
def test_bad_input_is_one_message(arguments, words, cache, capsys):
    assert run(main, arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: ") and words in captured.err
