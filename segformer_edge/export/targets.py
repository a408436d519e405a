"""The table of targets, which the command line, the documentation and the tests read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from segformer_edge.errors import MissingBackendError, UsageError
from segformer_edge.ethos_u.configurations import CONFIGURATIONS
from segformer_edge.suggestions import did_you_mean


@dataclass(frozen=True)
class Target:
    """One thing to export to."""

    name: str
    #: Format of the file, as in ``segformer_edge.runtime.formats``.
    format: str
    #: ``module:class`` or ``module:class:argument`` of its Exporter; imported only in the process that exports.
    exporter: str
    #: Precision recipe when the user names none.
    recipe: str
    #: Packages that must be importable, and the extra that installs them.
    packages: tuple[str, ...]
    extra: str
    about: str
    #: Integer widths of activations that it has kernels for; a site of another width runs in float there.
    widths: tuple[str, ...] = ("int8",)
    #: Whether memory is measured only where a budget asks: under the allocator hook, loading takes half a minute.
    slow_to_measure: bool = False
    #: What is cut into blocks that stay in the cache, as ``segformer_edge.rewrite.cache_blocks`` takes it. OpenVINO
    #: fuses attention and adds by itself.
    cache_blocks: tuple[str, ...] = ("queries", "head_channels")
    #: The variant of ``segformer_edge.memory.measure.measure`` that our own runtime is.
    measured_as: str = ""
    #: Whether what its own tool says of memory, at export, counts against a budget; else the process is measured.
    records_memory: bool = False


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target(
            "executorch",
            "executorch",
            "segformer_edge.export.executorch:ExecuTorchExporter",
            "mixed",
            ("torch", "executorch", "torchao"),
            "executorch",
            "Android, iOS, Linux on Arm and x86: .pte, one XNNPACK delegate call",
        ),
        Target(
            "tflite",
            "tflite",
            "segformer_edge.export.tflite:TFLiteExporter",
            "mixed",
            ("torch", "ai_edge_litert", "flatbuffers"),
            "tflite",
            "Android, Raspberry Pi, Linux: .tflite, int8 in and out",
            widths=("int8", "int16"),
            measured_as="compiled",
        ),
        Target(
            "openvino",
            "openvino",
            "segformer_edge.export.openvino:OpenVINOExporter",
            "mixed",
            ("torch", "openvino", "onnx", "onnxscript", "onnxruntime"),
            "openvino",
            "x86 and Arm CPUs: OpenVINO IR, .xml and .bin",
            slow_to_measure=True,
            cache_blocks=(),
        ),
        Target(
            "onnx",
            "onnx",
            "segformer_edge.export.onnx:ONNXExporter",
            "mixed",
            ("torch", "onnx", "onnxscript", "onnxruntime"),
            "onnx",
            "anything that runs onnxruntime: .onnx with QDQ pairs",
            cache_blocks=("queries", "head_channels", "head_cells"),
        ),
        Target(
            "tflm",
            "tflm",
            "segformer_edge.export.tflm:TFLMExporter",
            "full",
            ("torch", "ai_edge_litert", "flatbuffers", "tflite_micro"),
            "tflm",
            "microcontrollers: .tflite for TFLite Micro, integers alone",
            widths=("int8", "int16"),
            cache_blocks=(),
            records_memory=True,
        ),
        *(
            Target(
                name,
                "executorch",
                f"segformer_edge.export.ethos_u:EthosUExporter:{name}",
                "npu",
                ("torch", "executorch", "ethosu", "ai_edge_litert", "flatbuffers"),
                "ethos-u",
                "Arm Ethos-U NPUs: .pte and .tflite, integer only",
                widths=("int8", "int16"),
                cache_blocks=(),
                records_memory=True,
            )
            for name in CONFIGURATIONS
        ),
    )
}

CPU_TARGETS = ("executorch", "tflite", "openvino", "onnx")


def choose_targets(names: Sequence[str]) -> list[Target]:
    """The targets called ``names``, in the table's order.

    Raises UsageError for an unknown or missing name, MissingBackendError for one whose packages are not installed.
    """
    for name in names:
        if name not in TARGETS:
            raise UsageError(f"Unknown target '{name}'.", hint=did_you_mean(name, TARGETS))
    if not names:
        raise UsageError("No target was named.", hint=f"Targets: {', '.join(TARGETS)}.")
    chosen = [target for target in TARGETS.values() if target.name in names]
    lacking = {target: [package for package in target.packages if find_spec(package) is None] for target in chosen}
    lacking = {target: missing for target, missing in lacking.items() if missing}
    if lacking:
        needs = "; ".join(f"target '{target.name}' needs {', '.join(missing)}" for target, missing in lacking.items())
        extras = ",".join(dict.fromkeys(target.extra for target in lacking))
        raise MissingBackendError(f"{needs[0].upper()}{needs[1:]}, which", extras)
    return chosen
