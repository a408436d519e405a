"""Builds the app without Gradle: strict compile, DEX, package, align, sign. And the checks' own classes and bridge."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from androidkit.toolchain import ROOT, Toolchain

APP = ROOT / "android_demo/app/src/main"
HERE = Path(__file__).parents[1]
ABIS = ("arm64-v8a", "x86_64")
MIN_SDK, TARGET_SDK = 26, 36
PACKAGE = "dev.segformeredge.demo"
#: What Android's Gradle plugin compiles with: its built-in Kotlin, and the Java that the build file names.
KOTLIN, JVM = "2.2", "17"


class BuildError(AssertionError):
    """A tool failed; the message is what it printed."""


@dataclass(frozen=True)
class Build:
    """One build in ``folder``; each part is made when it is first asked for."""

    tools: Toolchain
    folder: Path

    @cached_property
    def app(self) -> Path:
        """The app's classes: all sources against android.jar alone, warnings as errors, and the newer ExecuTorch."""
        generated = self.resources[1]
        classes = self.folder / "app"
        libraries = [self.tools.android_jar, self.tools.executorch("new"), self.tools.kotlin_stdlib]
        self._kotlin([APP / "kotlin", generated], libraries, classes, strict=True)
        # -source 8 is the last that lets an android.jar stand in for the JDK's classes.
        run("javac", "-Xlint:-options", "-source", "8", "-target", "8", "-bootclasspath", self.tools.android_jar,
            "-d", classes, *sorted(generated.rglob("*.java")))  # fmt: skip
        return classes

    @cached_property
    def old_engine(self) -> Path:
        """The engine's classes once more, against the older ExecuTorch."""
        classes = self.folder / "old-engine"
        libraries = [self.tools.android_jar, self.tools.executorch("old"), self.tools.kotlin_stdlib]
        self._kotlin([APP / "kotlin" / "dev/segformeredge/demo" / room for room in ("core", "engine")],
                     libraries, classes, strict=True)  # fmt: skip
        return classes

    @cached_property
    def tests(self) -> Path:
        """The JUnit tests and the end-to-end program."""
        classes = self.folder / "tests"
        self._kotlin([HERE / "junit"], [self.app, self.tools.kotlin_stdlib, *self.tools.junit], classes)
        return classes

    @cached_property
    def stand_ins(self) -> Path:
        """Classes that ExecuTorch's Java part takes from fbjni and SoLoader, for a desktop JVM."""
        classes = self.folder / "host"
        run("javac", "-Xlint:all", "-Werror", "-d", classes, *sorted((HERE / "host/java").rglob("*.java")))
        return classes

    @cached_property
    def bridge(self) -> Path:
        """The native half of ExecuTorch's Java part, and the JVM's launcher."""
        java_home = Path(shutil.which("javac") or "").resolve().parents[1]
        headers = Path(sysconfig.get_path("purelib")) / "executorch/include"
        library = self.folder / "libbridge.so"
        portable = headers / "executorch/runtime/core/portable_type/c10"
        run("g++", "-std=c++17", "-O1", "-fPIC", "-shared", "-DC10_USING_CUSTOM_GENERATED_MACROS",
            f"-I{headers}", f"-I{portable}", f"-I{java_home}/include", f"-I{java_home}/include/linux",
            *sorted((HERE / "host").glob("*.cpp")), "-o", library,
            f"-L{java_home}/lib/server", "-ljvm", f"-Wl,-rpath,{java_home}/lib/server")  # fmt: skip
        return library

    @cached_property
    def resources(self) -> tuple[Path, Path]:
        """The app's compiled resources with its manifest, and the folder with R.java."""
        generated, base, compiled = self.folder / "gen", self.folder / "base.apk", self.folder / "res.zip"
        generated.mkdir()
        aapt2 = self.tools.debian_tool("aapt2")
        run(*aapt2, "compile", "--dir", APP / "res", "-o", compiled)
        manifest = self.folder / "AndroidManifest.xml"
        # Gradle takes the package from the build file; aapt2 wants it here.
        text = (APP / "AndroidManifest.xml").read_text().replace("<manifest", f'<manifest package="{PACKAGE}"', 1)
        manifest.write_text(text)
        run(*aapt2, "link", "-I", self.tools.framework_resources, "--manifest", manifest, "--java", generated,
            "--min-sdk-version", MIN_SDK, "--target-sdk-version", TARGET_SDK, "--version-code", 1,
            "--version-name", "0", "-o", base, compiled)  # fmt: skip
        return base, generated

    @cached_property
    def dex(self) -> list[Path]:
        """classes.dex with the app's own classes, classes2.dex with the two dependencies."""
        return [
            self._dex("classes.dex", [self._jar(self.app)], [self.tools.executorch("new"), self.tools.kotlin_stdlib]),
            self._dex("classes2.dex", [self.tools.executorch("new"), self.tools.kotlin_stdlib], [self.stand_ins]),
        ]

    @cached_property
    def apk(self) -> Path:
        """The app, aligned and signed with a new key. It lacks fbjni and SoLoader, so it would not start."""
        unaligned, aligned, signed = (self.folder / f"{name}.apk" for name in ("unaligned", "aligned", "app"))
        shutil.copy(self.resources[0], unaligned)
        with zipfile.ZipFile(unaligned, "a") as archive:
            for i, dex in enumerate(self.dex):
                archive.write(dex, f"classes{i + 1 if i else ''}.dex", zipfile.ZIP_DEFLATED, 1)
            for abi in ABIS:
                archive.write(self.tools.executorch_library(abi), f"lib/{abi}/libexecutorch.so", zipfile.ZIP_STORED)
        run(*self.tools.debian_tool("zipalign"), "-p", "-f", 4, unaligned, aligned)
        key = self.folder / "key.jks"
        run("keytool", "-genkeypair", "-keystore", key, "-storepass", "password", "-alias", "check", "-keyalg", "RSA",
            "-keysize", 2048, "-dname", "CN=check")  # fmt: skip
        self.apksigner("sign", "--ks", key, "--ks-pass", "pass:password", "--min-sdk-version", MIN_SDK,
                       "--v4-signing-enabled", "false", "--out", signed, aligned)  # fmt: skip
        return signed

    @cached_property
    def from_dex(self) -> Path:
        """The app's classes again, translated back from the classes.dex of the signed APK."""
        dex, jar = self.folder / "from-apk.dex", self.folder / "from-dex.jar"
        with zipfile.ZipFile(self.apk) as archive:
            dex.write_bytes(archive.read("classes.dex"))
        enjarify = self.tools.debian / "usr/lib/python3/dist-packages"
        run(sys.executable, "-O", "-m", "enjarify.main", dex, "-o", jar, environment={"PYTHONPATH": str(enjarify)})
        return jar

    def apksigner(self, *words: object) -> str:
        """Debian's apksigner."""
        jars = self.tools.debian / "usr/share/java"
        return run("java", "-cp", path_of([jars / "apksigner.jar", jars / "apksig.jar"]),
                   "com.android.apksigner.ApkSignerTool", *words)  # fmt: skip

    def java(self, classpath: Sequence[Path], *words: object) -> str:
        """A Java program's output."""
        return run("java", "-XX:TieredStopAtLevel=1", "-cp", path_of(classpath), *words)

    def _kotlin(self, sources: Iterable[Path], classpath: Iterable[Path], out: Path, strict: bool = False) -> None:
        """Compile; ``strict`` sees no JDK, so that nothing is used that a phone lacks."""
        jars = self.tools.kotlin
        options = ["-no-jdk", "-Werror", "-language-version", KOTLIN, "-api-version", KOTLIN] if strict else []
        run("java", "-XX:TieredStopAtLevel=1", "-Xmx1g", "-cp", jars / "kotlin-preloader.jar",
            "org.jetbrains.kotlin.preloading.Preloader", "-cp", jars / "kotlin-compiler.jar",
            "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler", "-no-reflect", "-no-stdlib", "-Xsuppress-version-warnings",
            "-jvm-target", JVM, *options, "-cp", path_of(classpath), *sources, "-d", out)  # fmt: skip

    def _jar(self, classes: Path) -> Path:
        jar = self.folder / f"{classes.name}.jar"
        with zipfile.ZipFile(jar, "w") as archive:
            for file in sorted(classes.rglob("*.class")):
                archive.write(file, file.relative_to(classes))
        return jar

    def _dex(self, name: str, inputs: Sequence[Path], classpath: Sequence[Path]) -> Path:
        folder = self.folder / f"{name}.d"
        folder.mkdir()
        classpath = [part for path in classpath for part in ("--classpath", path)]
        run("java", "-XX:TieredStopAtLevel=1", "-cp", self.tools.d8, "com.android.tools.r8.D8", "--release",
            "--min-api", MIN_SDK, "--lib", self.tools.android_jar, *classpath, "--output", folder,
            *inputs)  # fmt: skip
        return folder / "classes.dex"


def path_of(parts: Iterable[Path]) -> str:
    """A class path."""
    return os.pathsep.join(map(str, parts))


def run(*words: object, environment: dict[str, str] | None = None) -> str:
    """A command's output; raises BuildError with all it printed where it fails."""
    command = [str(word) for word in words]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    if done.returncode:
        raise BuildError(f"{command[0]} failed ({done.returncode}):\n{done.stdout[-6000:]}")
    return done.stdout
