"""The ARM architectures and CPUs that can be emulated, as data. A new one is a new row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from segformer_edge.errors import UsageError
from segformer_edge.suggestions import did_you_mean

#: The Debian release whose packages fill the sysroots, and its Python: wheels are chosen for that version.
SUITE = "bookworm"
PYTHON = "3.11"


@dataclass(frozen=True)
class Cpu:
    """One CPU model: the name users give, QEMU's name, its identification register, what /proc/cpuinfo says of it.

    ``midr`` is MIDR_EL1 (MIDR on 32 bit); ``features`` are those of the Linux kernel on a board with that CPU.
    """

    name: str
    qemu: str
    midr: int
    features: str


@dataclass(frozen=True)
class Compiler:
    """A C compiler that runs on the emulated CPU itself, as files of the sysroot.

    Its parts are called one by one: the driver would start them by itself, which the host cannot run.
    """

    cc1: str
    assembler: str
    linker: str
    #: What the driver would tell cc1 of the architecture.
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Addition:
    """Wheels beside those of every sysroot, fetched where they are asked for: large, and few need them.

    Programs see them only where a file has one of their ``formats``.
    """

    name: str
    wheels: Mapping[str, str]
    #: Modules that must import for it to be good.
    modules: tuple[str, ...]
    formats: tuple[str, ...]
    #: Names of the CPUs whose instructions are enough for it, and the first of them tries it.
    cpus: tuple[str, ...]


@dataclass(frozen=True)
class Architecture:
    """What fills one sysroot, and which CPUs it serves."""

    name: str
    #: Debian's name for it, and the "platform" part of wheel names that fit.
    debian: str
    platforms: tuple[str, ...]
    #: The emulator's file name in Debian's package qemu-user-static.
    qemu: str
    #: What /proc/cpuinfo calls the architecture version.
    version: int
    debian_packages: tuple[str, ...]
    #: Wheel -> version; "" is the version installed on the host, so that only the CPU differs.
    wheels: Mapping[str, str]
    #: Modules that must import for the sysroot to be good.
    modules: tuple[str, ...]
    #: Formats (segformer_edge.runtime.formats) with a runtime here.
    formats: tuple[str, ...]
    cpus: tuple[Cpu, ...]
    #: Builds the allocator hook (segformer_edge.memory.hook_build).
    compiler: Compiler
    #: Folders of shared libraries, in the sysroot, that its dynamic loader does not search by itself.
    library_folders: tuple[str, ...] = ()
    additions: tuple[Addition, ...] = ()


def manylinux(machine: str, oldest: int = 17, newest: int = 36) -> tuple[str, ...]:
    """Wheel platforms that glibc 2.``newest`` (bookworm has 2.36) runs on ``machine``. pip wants each one named."""
    return (f"manylinux2014_{machine}", *(f"manylinux_2_{minor}_{machine}" for minor in range(oldest, newest + 1)))


#: What segformer_edge needs on every device: its own dependencies and theirs, pure Python.
_DEVICE = {"rich": "", "markdown-it-py": "", "mdurl": "", "pygments": ""}
_LITERT = {"ai-edge-litert": "", "backports.strenum": "", "ml_dtypes": "", "tqdm": "", "typing_extensions": ""}
#: cc1, and the assembler and linker for it: 14 MB, where gcc with all it depends on has 60.
_COMPILER = ("cpp-12", "binutils")
#: The newest pair whose torch for this CPU is built without CUDA. Later ExecuTorch needs later torch; the files of
#: today's exporter run here as well. Dependencies are those that importing takes.
_EXECUTORCH = {
    "executorch": "1.1.0",
    "torch": "2.10.0",
    "sympy": "",
    "mpmath": "",
    "networkx": "",
    "jinja2": "",
    "markupsafe": "",
    "fsspec": "",
    "filelock": "",
    "typing_extensions": "",
    "packaging": "",
    "pyyaml": "",
    "flatbuffers": "",
    "ruamel.yaml": "",
}
_ONNXRUNTIME = {"onnxruntime": "", "flatbuffers": "", "protobuf": "", "packaging": ""}

AARCH64 = Architecture(
    name="aarch64",
    debian="arm64",
    platforms=manylinux("aarch64"),
    qemu="qemu-aarch64-static",
    version=8,
    debian_packages=("python3.11", "libstdc++6", "libgomp1", "libatomic1", *_COMPILER),
    wheels={"numpy": "", "opencv-python-headless": "", **_DEVICE, **_LITERT, **_ONNXRUNTIME},
    modules=("numpy", "cv2", "rich", "ai_edge_litert.compiled_model", "ai_edge_litert.interpreter", "onnxruntime"),
    formats=("tflite", "onnx"),
    cpus=(
        Cpu("cortex-a53", "cortex-a53", 0x410FD034, "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"),
        Cpu("cortex-a72", "cortex-a72", 0x410FD083, "fp asimd evtstrm crc32 cpuid"),
        # The first with int8 dot products (asimddp).
        Cpu(
            "cortex-a76",
            "cortex-a76",
            0x414FD0B1,
            "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
        ),
    ),
    compiler=Compiler(
        cc1="usr/lib/gcc/aarch64-linux-gnu/12/cc1",
        assembler="usr/bin/aarch64-linux-gnu-as",
        linker="usr/bin/aarch64-linux-gnu-ld",
    ),
    additions=(
        Addition(
            name="executorch",
            wheels=_EXECUTORCH,
            modules=("torch", "executorch.kernels.quantized", "executorch.extension.pybindings._portable_lib"),
            formats=("executorch",),
            cpus=("cortex-a76",),  # this torch is compiled for ARMv8.2
        ),
    ),
)

#: 32-bit Raspberry Pi OS. There is no armv7 wheel of OpenCV, so it comes from Debian, as on such a board.
ARMV7 = Architecture(
    name="armv7",
    debian="armhf",
    platforms=manylinux("armv7l"),
    qemu="qemu-arm-static",
    version=7,
    debian_packages=("python3.11", "libstdc++6", "libatomic1", "python3-numpy", "python3-opencv", *_COMPILER),
    wheels={**_DEVICE, "tflite-runtime": "2.14.0"},
    modules=("numpy", "cv2", "rich", "tflite_runtime.interpreter"),
    formats=("tflite",),
    cpus=(
        Cpu(
            "armv7",
            "cortex-a7",
            0x410FC075,
            "half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm",
        ),
    ),
    compiler=Compiler(
        cc1="usr/lib/gcc/arm-linux-gnueabihf/12/cc1",
        assembler="usr/bin/arm-linux-gnueabihf-as",
        linker="usr/bin/arm-linux-gnueabihf-ld",
        options=("-march=armv7-a+fp", "-mfloat-abi=hard"),
    ),
    # Debian's alternatives system would link these into the usual folder; its scripts do not run here.
    # Without a cache of its own the loader passes the last folder over.
    library_folders=(
        "usr/lib/arm-linux-gnueabihf/blas",
        "usr/lib/arm-linux-gnueabihf/lapack",
        "lib/arm-linux-gnueabihf",
    ),
)

ARCHITECTURES: dict[str, Architecture] = {entry.name: entry for entry in (AARCH64, ARMV7)}


def find_cpu(name: str) -> tuple[Architecture, Cpu]:
    """The CPU that users call ``name``, and its architecture. Raises UsageError with the nearest name."""
    cpus = {cpu.name: (entry, cpu) for entry in ARCHITECTURES.values() for cpu in entry.cpus}
    if name not in cpus:
        raise UsageError(f"Unknown CPU '{name}'.", hint=did_you_mean(name, cpus))
    return cpus[name]


def find_addition(architecture: Architecture, name: str) -> Addition:
    """The addition ``name`` of ``architecture``. Raises UsageError with the nearest name."""
    additions = {addition.name: addition for addition in architecture.additions}
    if name not in additions:
        hint = did_you_mean(name, additions) if additions else "Leave it out."
        raise UsageError(f"There is nothing called '{name}' to add to {architecture.name}.", hint=hint)
    return additions[name]


def find_architecture(name: str) -> Architecture:
    """The architecture ``name``. Raises UsageError with the nearest name."""
    if name not in ARCHITECTURES:
        raise UsageError(f"Unknown architecture '{name}'.", hint=did_you_mean(name, ARCHITECTURES))
    return ARCHITECTURES[name]
