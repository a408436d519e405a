"""The APK that the checks put together: what it asks for, what it holds, how large it is, and that it is signed."""

from __future__ import annotations

import re
import subprocess
import zipfile

import pytest
from androidkit.build import ABIS, APP, KOTLIN, MIN_SDK, TARGET_SDK, Build, run

pytestmark = pytest.mark.android

DEMO = APP.parents[2]
#: Of the app itself, without dependencies and models.
MOST_CODE, MOST_RESOURCES = 250_000, 40_000


@pytest.fixture(scope="module")
def archive(build: Build) -> zipfile.ZipFile:
    return zipfile.ZipFile(build.apk)


def test_permissions(build: Build) -> None:
    """The camera, and nothing else: no network, no storage."""
    printed = run(*build.tools.debian_tool("aapt2"), "dump", "permissions", build.apk)
    assert re.findall(r"uses-permission: name='([^']+)'", printed) == ["android.permission.CAMERA"]


def test_badging(build: Build) -> None:
    """Its name, its versions of Android, its ABIs, and that a phone without a camera may have it."""
    printed = run(*build.tools.debian_tool("aapt2"), "dump", "badging", build.apk)
    assert "package: name='dev.segformeredge.demo'" in printed
    assert f"sdkVersion:'{MIN_SDK}'" in printed and f"targetSdkVersion:'{TARGET_SDK}'" in printed
    assert "launchable-activity: name='dev.segformeredge.demo.ui.MainActivity'" in printed
    assert "uses-feature-not-required: name='android.hardware.camera.any'" in printed
    assert "native-code: 'arm64-v8a' 'x86_64'" in printed


def test_native_libraries(build: Build, archive: zipfile.ZipFile) -> None:
    """ExecuTorch's for two ABIs, none of ours; stored, and fit for pages of 16 KiB."""
    libraries = {info.filename: info for info in archive.infolist() if info.filename.startswith("lib/")}
    assert set(libraries) == {f"lib/{abi}/libexecutorch.so" for abi in ABIS}
    for abi, machine in zip(ABIS, ("AArch64", "X86-64"), strict=True):
        assert libraries[f"lib/{abi}/libexecutorch.so"].compress_type == zipfile.ZIP_STORED
        library = build.tools.executorch_library(abi)
        assert machine in run("readelf", "-h", library)
        segments = re.findall(r"^ +LOAD .* (0x[0-9a-f]+)$", run("readelf", "-lW", library), re.MULTILINE)
        assert segments and all(int(alignment, 16) >= 0x4000 for alignment in segments), segments


def test_sizes(archive: zipfile.ZipFile) -> None:
    """The app's own part stays small."""
    code = archive.getinfo("classes.dex").file_size
    resources = sum(info.file_size for info in archive.infolist() if info.filename.startswith("res"))
    assert 20_000 < code < MOST_CODE, code
    assert 1_000 < resources < MOST_RESOURCES, resources


def test_the_app_is_in_its_own_dex(archive: zipfile.ZipFile) -> None:
    """classes.dex holds the app, classes2.dex its two dependencies."""
    own, others = archive.read("classes.dex"), archive.read("classes2.dex")
    assert b"Ldev/segformeredge/demo/ui/MainActivity;" in own
    assert b"Lkotlin/collections/CollectionsKt;" in others and b"Lorg/pytorch/executorch/Module;" in others
    assert b"Landroidx/" not in own + others


def test_signed_and_aligned(build: Build) -> None:
    printed = build.apksigner("verify", "--verbose", "--min-sdk-version", MIN_SDK, build.apk)
    assert re.search(r"^Verifies$", printed, re.MULTILINE)
    assert "Verified using v2 scheme (APK Signature Scheme v2): true" in printed
    run(*build.tools.debian_tool("zipalign"), "-c", "-p", 4, build.apk)


def test_a_changed_apk_does_not_verify(build: Build) -> None:
    """The check of the signature sees a change."""
    changed = build.folder / "changed.apk"
    content = bytearray(build.apk.read_bytes())
    content[len(content) // 2] ^= 1
    changed.write_bytes(content)
    jars = build.tools.debian / "usr/share/java"
    done = subprocess.run(
        ["java", "-cp", f"{jars}/apksigner.jar:{jars}/apksig.jar", "com.android.apksigner.ApkSignerTool", "verify",
         "--min-sdk-version", str(MIN_SDK), changed], capture_output=True,
    )  # fmt: skip
    assert done.returncode != 0


def test_gradle_files_say_the_same() -> None:
    """The Gradle project, which cannot be run here, names the versions and the ABIs that the checks use."""
    app = (DEMO / "app/build.gradle.kts").read_text()
    assert f"minSdk = {MIN_SDK}" in app and f"targetSdk = {TARGET_SDK}" in app
    assert 'namespace = "dev.segformeredge.demo"' in app
    assert re.findall(r"abiFilters \+= listOf\(([^)]*)\)", app) == [", ".join(f'"{abi}"' for abi in ABIS)]
    dependencies = re.findall(r'^\s+\w*[iI]mplementation\("([^:"]+:[^:"]+):', app, re.MULTILINE)
    assert dependencies == ["org.pytorch:executorch-android", "org.jetbrains.kotlin:kotlin-stdlib"]
    assert re.search(rf"kotlin-stdlib:{re.escape(KOTLIN)}\.", app)
