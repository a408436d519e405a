"""What is missing is said, with what to do about it; what was downloaded is compared with its hash. No network."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import pytest
from androidkit import toolchain
from androidkit.toolchain import PINS, find_android_jar, prepare, verify

from segformer_edge.errors import UsageError


def test_a_missing_tool_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain.shutil, "which", lambda name: None if name == "javac" else f"/usr/bin/{name}")
    with pytest.raises(UsageError, match="'javac' was not found") as caught:
        prepare()
    assert "apt-get install openjdk-17-jdk-headless" in str(caught.value)


def test_a_missing_android_jar_says_where_there_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ANDROID_JAR", str(tmp_path / "android.jar"))
    with pytest.raises(UsageError, match=r"There is no '.*android\.jar'") as caught:
        find_android_jar()
    assert "ANDROID_JAR=$ANDROID_HOME/platforms" in str(caught.value)
    (tmp_path / "android.jar").write_bytes(b"")
    assert find_android_jar() == tmp_path / "android.jar"


def test_another_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "tool.tgz"
    with pytest.raises(UsageError, match="was not downloaded"):
        verify(file, "0" * 64)
    file.write_bytes(b"tool")
    verify(file, hashlib.sha256(b"tool").hexdigest())
    with pytest.raises(UsageError, match=f"{PINS.name} says {'0' * 64}"):
        verify(file, "0" * 64)


def test_only_named_members_are_unpacked(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("wanted.jar", "other.sh"):
        (tmp_path / "in" / name).write_text(name)
    archive = tmp_path / "tool.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "in", "package")
    pin = {"file": archive.name, "sha256": hashlib.sha256(archive.read_bytes()).hexdigest()}
    toolchain._extract(tmp_path, tmp_path / "out", {**pin, "members": ["package/*.jar"]})
    assert [file.name for file in (tmp_path / "out").rglob("*") if file.is_file()] == ["wanted.jar"]
    with pytest.raises(UsageError, match=r"holds no 'package/\*\.dex'"):
        toolchain._extract(tmp_path, tmp_path / "out", {**pin, "members": ["package/*.dex"]})
