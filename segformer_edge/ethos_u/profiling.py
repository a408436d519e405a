"""``profile FILE --on ethos-u85-256``: the compiler's plan of an integer ``.tflite``, in every memory mode.

The JSON: ``file``, ``on``, ``compiler``, ``kinds`` (what memory and cycles are), ``operators`` and ``on_npu`` of the
file's graph, ``left`` (operator, name, reason), ``modes`` and ``refused`` (as in ``report.json``), ``steps`` of
the default mode's schedule (source, operation, target, cycles, macs, sram_bytes, name) and ``notes``.
"""

from __future__ import annotations

import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import flatbuffers

from segformer_edge.errors import ArtifactError, MissingBackendError, UsageError
from segformer_edge.ethos_u.configurations import CONFIGURATIONS, MemoryMode, NpuConfig, configuration
from segformer_edge.ethos_u.tables import PLACEHOLDER
from segformer_edge.ethos_u.vela import Compiled, compile_graph, in_every_mode, vela_version
from segformer_edge.progress import Progress
from segformer_edge.report.budget import kib
from segformer_edge.report.npu import ESTIMATED, PLANNED, NpuRefusal
from segformer_edge.runtime.formats import check_tflite, format_of
from segformer_edge.runtime.metadata import ArtifactMetadata, sidecar_path


@dataclass(frozen=True)
class NpuProfile:
    """One file on one NPU. ``modes`` begin with the default."""

    file: Path
    config: NpuConfig
    compiler: str
    operators: int
    modes: tuple[Compiled, ...]
    refused: tuple[NpuRefusal, ...]
    notes: tuple[str, ...]

    @property
    def chosen(self) -> Compiled:
        """The default mode."""
        return self.modes[0]


def profile_on_npu(path: Path, name: str, tell: Progress) -> NpuProfile:
    """Compile ``path`` for the NPU ``name`` in each of its modes.

    A compiled file of ours stands for the host file beside it. Raises UsageError for another kind of file or an
    unknown NPU, ArtifactError for a damaged file or one that the compiler refuses, MissingBackendError without it.
    """
    config, compiler, notes = configuration(name), f"vela {vela_version()}", list[str]()
    path = _source(path, notes)
    content, operators, tables = file_with_placeholders(path.read_bytes(), path)
    if tables:
        notes.append(
            f"{tables} GELU: exact tables, scheduled as the compiler schedules any function of one int8 tensor."
        )

    def compile_in(mode: MemoryMode) -> Compiled:
        tell.step(f"Compiling {path.name} for {config.name}, {mode.name}")
        return compile_graph(content, config, mode)

    modes, refused = in_every_mode(config, compile_in)
    modes.sort(key=lambda each: each.mode != config.default)
    return NpuProfile(path, config, compiler, operators, tuple(modes), refused, tuple(notes))


def _source(path: Path, notes: list[str]) -> Path:
    """The integer ``.tflite`` to compile."""
    form = format_of(path)
    if not path.is_file():
        raise ArtifactError(f"There is no file '{path}'.", hint="python -m segformer_edge.quantize writes it.")
    if sidecar_path(path).exists():
        try:
            target = ArtifactMetadata.load(path, verify=False).target
        except ArtifactError as error:
            notes.append(f"Its sidecar is of no use: {error.args[0]}")
        else:
            host = path.with_name(f"{path.stem}.host.tflite")
            if target in CONFIGURATIONS and host.is_file():
                notes.append(f"'{path.name}' is compiled already; this is its graph, '{host.name}', compiled again.")
                return host
    if form.name != "tflite":
        raise UsageError(
            f"An NPU's compiler takes an integer .tflite; '{path}' is {form.name}.",
            hint="python -m segformer_edge.quantize --targets ethos-u85-256 writes one.",
        )
    check_tflite(path)
    return path


def file_with_placeholders(content: bytes, path: Path) -> tuple[bytes, int, int]:
    """``content`` with a function that the compiler knows in place of GELU, its operators, and the GELUs among them.

    Raises ArtifactError for damaged bytes.
    """
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ModuleNotFoundError as error:
        raise MissingBackendError("LiteRT, whose schema reads the file,", "tflite") from error
    try:
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        codes = [code.builtinCode for code in model.operatorCodes]
        operators = [op for graph in model.subgraphs for op in graph.operators]
        gelu = [op for op in operators if codes[op.opcodeIndex] == schema.BuiltinOperator.GELU]
    except (ValueError, LookupError, TypeError, AttributeError, struct.error) as error:
        raise ArtifactError(f"'{path}' is damaged: {error}.") from error
    if not gelu:
        return content, len(operators), 0
    for code in model.operatorCodes:
        if code.builtinCode == schema.BuiltinOperator.GELU:
            code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, PLACEHOLDER)
    for op in gelu:
        op.builtinOptionsType, op.builtinOptions = schema.BuiltinOptions.NONE, None
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output()), len(operators), len(gelu)


def to_json(profile: NpuProfile) -> dict[str, Any]:
    """As the head of this file says."""
    left = profile.chosen.left
    return {
        "file": str(profile.file),
        "on": profile.config.name,
        "compiler": profile.compiler,
        "kinds": {"memory": PLANNED, "cycles": ESTIMATED, "inferences_per_second": ESTIMATED},
        "operators": profile.operators,
        "on_npu": profile.operators - len(left),
        "left": [{"operator": each.operator, "name": each.name, "reason": each.reason} for each in left],
        "modes": [asdict(mode.figures()) for mode in profile.modes],
        "refused": [asdict(each) for each in profile.refused],
        "steps": [
            {
                "source": step.source, "operation": step.operation, "target": "NPU" if step.on_npu else "CPU",
                "cycles": step.cycles, "macs": step.macs, "sram_bytes": step.sram, "name": step.name,
            }
            for step in profile.chosen.steps
        ],
        "notes": list(profile.notes),
    }  # fmt: skip


def print_npu_profile(profile: NpuProfile, top: int) -> None:
    """The modes, what is left to the CPU, and the ``top`` steps that take most cycles, on stdout."""
    from rich.box import ASCII2, SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from segformer_edge.report.table import ascii_only, console_for

    console = console_for()
    box = ASCII2 if ascii_only(console) else SIMPLE_HEAD
    left = profile.chosen.left
    share = f"{profile.operators - len(left)} of {profile.operators} operators on the NPU"
    console.print(Text(f"{profile.file.name} on {profile.config.name}: {share}", "bold"), soft_wrap=True)
    modes = Table("memory mode", "SRAM", "DRAM", "flash", "cycles", "inferences/s", "system", box=box, pad_edge=False)
    for mode in profile.modes:
        sizes = (kib(mode.sram_bytes), kib(mode.dram_bytes), kib(mode.flash_bytes))
        modes.add_row(mode.mode, *sizes, f"{mode.cycles:,}", f"{mode.inferences_per_second:.1f}", mode.system)
    console.print(modes)
    for refusal in profile.refused:
        console.print(Text(f"not made for {refusal.mode}: {refusal.reason}"), soft_wrap=True)
    console.print(
        f"memory: {PLANNED}; cycles and speed: {ESTIMATED} ({profile.compiler}), not measured", soft_wrap=True
    )
    for each in left:
        console.print(Text(f"left to the CPU: {each.operator} {each.name}: {each.reason}"), soft_wrap=True)
    steps = Table("operation", "of", "where", "cycles", "SRAM", "name", box=box, pad_edge=False)
    for step in sorted(profile.chosen.steps, key=lambda step: -step.cycles)[:top]:
        where = "NPU" if step.on_npu else "CPU"
        steps.add_row(step.operation, step.source, where, f"{step.cycles:,}", kib(step.sram), step.name)
    console.print(steps)
    for note in profile.notes:
        console.print(Text(note), soft_wrap=True)
