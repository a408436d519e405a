"""The app's sources: strict compile, style, layers; and its arithmetic against the Python package, bit for bit."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from androidkit.build import APP, HERE, Build
from androidkit.toolchain import Toolchain

pytestmark = pytest.mark.android

DEMO = APP.parents[2]
SOURCES = sorted((APP / "kotlin").rglob("*.kt"))
TESTS = ("GoldenTest", "MetadataTest", "GeometryTest")
#: What each room may import besides Kotlin's and Java's own packages.
ROOMS = {
    "core": ("dev.segformeredge.demo.core",),
    "engine": ("dev.segformeredge.demo.core", "dev.segformeredge.demo.engine", "org.pytorch.executorch"),
    "ui": ("dev.segformeredge.demo", "android"),
}


def test_ktlint(toolchain: Toolchain) -> None:
    """Every Kotlin source and build file, by ktlint's own rules."""
    done = subprocess.run(
        ["java", "--add-opens", "java.base/java.lang=ALL-UNNAMED", "-jar", toolchain.ktlint, "--relative",
         f"--editorconfig={DEMO}/.editorconfig", f"{DEMO}/**/*.kt", f"{DEMO}/**/*.kts", f"{HERE}/junit/*.kt"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_what_they_may(room: str) -> None:
    """core is plain JVM, engine knows ExecuTorch and no Android, ui knows both."""
    for file in (source for source in SOURCES if source.parent.name == room):
        for name in re.findall(r"^import (\S+)", file.read_text(), re.MULTILINE):
            allowed = name.startswith(("java.", "kotlin.", *(f"{package}." for package in ROOMS[room])))
            assert allowed, f"{file.name} imports {name}"


def test_no_native_code_and_short_files() -> None:
    """Kotlin only, about 300 lines a file at most."""
    kinds = {file.suffix for file in DEMO.rglob("*") if file.is_file() and "assets" not in file.parts}
    assert kinds <= {".kt", ".kts", ".xml", ".md", ".properties", ""}, kinds
    for file in SOURCES:
        assert len(file.read_text().splitlines()) <= 300, file.name


def test_strict_compile(build: Build) -> None:
    """All sources against android.jar and nothing of the JDK, with warnings as errors."""
    made = {file.name for file in build.app.rglob("*.class")}
    assert {f"{source.stem}.class" for source in SOURCES} <= made


def test_the_engine_compiles_against_an_older_release(build: Build) -> None:
    assert list(build.old_engine.rglob("ExecuTorchEngine.class"))


@pytest.mark.parametrize("classes", ["app", "from_dex"])
def test_bit_equal_to_python(build: Build, vectors: Path, classes: str) -> None:
    """JUnit on golden vectors; the second time with the classes taken back out of the APK's classes.dex."""
    classpath = [build.tests, getattr(build, classes), build.tools.kotlin_stdlib, *build.tools.junit]
    output = build.java(
        classpath, f"-Dvectors={vectors}", "org.junit.runner.JUnitCore",
        *(f"dev.segformeredge.demo.checks.{name}" for name in TESTS),
    )  # fmt: skip
    found = re.search(r"OK \((\d+) tests\)", output)
    assert found, output
    assert int(found[1]) == sum((HERE / f"junit/{name}.kt").read_text().count("@Test") for name in TESTS)
