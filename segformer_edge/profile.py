"""``python -m segformer_edge.profile FILE`` and ``segformer_edge.profile(file)``: memory of a file, or its time.

The JSON of ``--json`` is described in segformer_edge/memory/timeline.py, with ``--operators`` in
segformer_edge/timing/table.py, on an NPU in segformer_edge/ethos_u/profiling.py. Nothing here imports torch, but
ExecuTorch's own runtime, in the process that measures a ``.pte``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from segformer_edge.callable_module import make_callable
from segformer_edge.cli import EXIT_OK, FILL_DATASET, Parser, print_next, run
from segformer_edge.errors import MissingBackendError, UsageError
from segformer_edge.options import at_least
from segformer_edge.suggestions import did_you_mean

if TYPE_CHECKING:
    from segformer_edge.ethos_u.profiling import NpuProfile
    from segformer_edge.memory.profiling import FileProfile
    from segformer_edge.progress import Progress
    from segformer_edge.timing.operators import OperatorProfile

#: Rows that are listed unless --top says otherwise.
TENSORS, OPERATORS = 8, 25
DEFAULT_RUNS = 20


def build_parser() -> Parser:
    """All options, with their defaults."""
    parser = Parser(
        "python -m segformer_edge.profile",
        "Memory of an exported file: liveness, the runtime's plan, the measured peak, and the gap between. With "
        "--operators its time instead: each operator by the runtime's own profiler on this machine, what ran it "
        "(XNNPACK or a kernel of the runtime), and whether it computes in int8, in float, or reads one and writes the "
        "other (mixed).",
        epilog="examples: python -m segformer_edge.profile out/model.tflite --on cortex-a72 --plot memory.html; "
        "python -m segformer_edge.profile out/model.tflite --operators --top 40",
    )
    parser.add_argument("file", metavar="FILE", help="a .pte, .tflite, .onnx or .xml file, of whatever origin")
    parser.add_argument(
        "--on",
        default="host",
        metavar="CPU",
        help="host (default), cortex-a53|a72|a76, armv7, tflm, or an NPU: ethos-u85-256 ...",
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads (default 1)")
    parser.add_argument("--no-delegate", action="store_true", help=".tflite with built-in kernels in place of XNNPACK")
    parser.add_argument(
        "--compiled", action="store_true", help=".tflite in CompiledModel, as this SDK runs it; --operators always does"
    )
    parser.add_argument("--no-measure", action="store_true", help="plan and liveness alone, without running the file")
    parser.add_argument("--operators", action="store_true", help="the time of each operator, in place of memory")
    parser.add_argument("--runs", type=int, metavar="N", help=f"inferences to time (default {DEFAULT_RUNS})")
    parser.add_argument(
        "--top",
        type=int,
        metavar="N",
        help=f"tensors to list at the peak (default {TENSORS}), or operators ({OPERATORS})",
    )
    parser.add_argument("--json", action="store_true", help="only JSON on stdout")
    parser.add_argument("--plot", metavar="OUT", help="the timeline as .svg, .png or .html")
    return parser


@overload
def profile(
    file: str | os.PathLike[str], *, operators: Literal[True], on: str = ..., threads: int = ..., delegate: bool = ...,
    compiled: bool = ..., measure: bool = ..., runs: int | None = ..., plot: str | os.PathLike[str] | None = ...,
    tell: Progress | None = ...,
) -> OperatorProfile: ...  # fmt: skip


@overload
def profile(
    file: str | os.PathLike[str], *, operators: Literal[False] = ..., on: str = ..., threads: int = ...,
    delegate: bool = ..., compiled: bool = ..., measure: bool = ..., runs: int | None = ...,
    plot: str | os.PathLike[str] | None = ..., tell: Progress | None = ...,
) -> FileProfile | NpuProfile: ...  # fmt: skip


def profile(
    file: str | os.PathLike[str],
    *,
    on: str = "host",
    threads: int = 1,
    delegate: bool = True,
    compiled: bool = False,
    measure: bool = True,
    operators: bool = False,
    runs: int | None = None,
    plot: str | os.PathLike[str] | None = None,
    tell: Progress | None = None,
) -> FileProfile | NpuProfile | OperatorProfile:
    """What an inference of ``file`` takes; the options are those of ``python -m segformer_edge.profile``.

    Memory, in bytes (FileProfile), on this machine or an emulated CPU (``on="cortex-a72"``); what the compiler of an
    NPU plans (NpuProfile, ``on="ethos-u85-256"``); or with ``operators`` the milliseconds of each operator
    (OperatorProfile). ``delegate=False`` is ``--no-delegate``, ``measure=False`` is ``--no-measure``.

    Raises UsageError for options that do not go together, ArtifactError for a file that is missing or damaged,
    MissingBackendError where the runtime is not installed, MeasurementError where the measured process ends otherwise.
    """
    at_least(1, threads=threads, runs=runs)
    path = Path(file)
    if on.startswith("ethos-u"):
        here = {"--operators": operators, "--plot": plot, "--compiled": compiled, "--no-delegate": not delegate,
                "--no-measure": not measure, "--runs": runs}  # fmt: skip
        _refuse(here, f"is for files that run here; {on} runs elsewhere.",
                "Leave it out: the compiler's plan lists operators and memory.")  # fmt: skip

        try:
            from segformer_edge.ethos_u.profiling import profile_on_npu
        except ModuleNotFoundError as error:
            raise MissingBackendError(f"{error.name}, which --on {on} needs,", "ethos-u") from error
        from segformer_edge.progress import Progress

        return profile_on_npu(path, on, tell or Progress())
    _check_device(on)
    if operators:
        mixed = "is for the memory profile, not for --operators."
        _refuse({"--on": on != "host"}, mixed, "An emulated CPU's time says nothing about a real one.")
        _refuse({"--plot": plot, "--no-measure": not measure}, mixed, "Leave one out.")
        if compiled and not delegate:
            raise UsageError("--compiled runs XNNPACK, --no-delegate does not.", hint="Name one of the two.")

        from segformer_edge.timing.profiling import profile_operators

        count = DEFAULT_RUNS if runs is None else runs
        return profile_operators(path, threads=threads, delegate=delegate, runs=count, tell=tell)
    _refuse({"--runs": runs}, "is for --operators.", "Add --operators, or leave --runs out.")

    from segformer_edge.memory.plot import check_plot, write_plot
    from segformer_edge.memory.profiling import profile_file

    if plot is not None:
        check_plot(Path(plot))
    found = profile_file(
        path, on=on, threads=threads, delegate=delegate, compiled=compiled, measuring=measure, tell=tell
    )  # fmt: skip
    if plot is not None:
        write_plot(Path(plot), found)
    return found


def _check_device(name: str) -> None:
    """Raise UsageError unless ``--on`` takes ``name``, with all that it takes."""
    from segformer_edge.emulation.architectures import ARCHITECTURES
    from segformer_edge.ethos_u.configurations import CONFIGURATIONS
    from segformer_edge.memory.profiling import MICRO

    cpus = [cpu.name for entry in ARCHITECTURES.values() for cpu in entry.cpus]
    devices = ["host", MICRO, *cpus, *CONFIGURATIONS]
    if name not in devices:
        raise UsageError(f"There is no device '{name}' for --on.", hint=did_you_mean(name, devices))


def _refuse(given: Mapping[str, object], why: str, hint: str) -> None:
    """Raise UsageError for the first of ``given`` that is."""
    for name, value in given.items():
        if value:
            raise UsageError(f"{name} {why}", hint=hint)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code. Raises SegformerEdgeError for what the user can mend."""
    options = build_parser().parse_args(argv)
    at_least(1, top=options.top)

    from segformer_edge.progress import progress_for_terminal

    with progress_for_terminal() as tell:
        found = profile(
            options.file,
            on=options.on,
            threads=options.threads,
            delegate=not options.no_delegate,
            compiled=options.compiled,
            measure=not options.no_measure,
            operators=options.operators,
            runs=options.runs,
            plot=options.plot,
            tell=tell,
        )
    _print(found, options.json, options.top)
    if not options.json:
        command = _next(Path(options.file), options.on, options.operators)
        print_next("python", "-m", *command, fill=FILL_DATASET if "DATASET" in command else "")
    return EXIT_OK


def _next(file: Path, on: str, operators: bool) -> tuple[object, ...]:
    """The module and arguments of the command that shows more of the same file."""
    if on.startswith("ethos-u"):
        host = file.with_name(f"{file.stem}.host.tflite")
        return "segformer_edge.evaluate", host if host.exists() else file, "--data", "DATASET"
    if on == "tflm":
        return "segformer_edge.firmware", file
    if on != "host":
        return "segformer_edge.profile", file, "--on", on, "--plot", "memory.html"
    return ("segformer_edge.profile", file) if operators else ("segformer_edge.profile", file, "--operators")


def _print(found: FileProfile | NpuProfile | OperatorProfile, as_json: bool, top: int | None) -> None:
    """The JSON of each kind of profile is described where the kind is."""
    from segformer_edge.memory.profiling import FileProfile
    from segformer_edge.timing.operators import OperatorProfile

    if isinstance(found, FileProfile):
        from segformer_edge.memory import table, timeline

        value, show = timeline.to_json(found), lambda: table.print_profile(found, top or TENSORS)
    elif isinstance(found, OperatorProfile):
        from segformer_edge.timing import table as times

        value, show = times.to_json(found), lambda: times.print_operators(found, top or OPERATORS)
    else:
        from segformer_edge.ethos_u import profiling

        value, show = profiling.to_json(found), lambda: profiling.print_npu_profile(found, top or OPERATORS)
    if as_json:
        print(json.dumps(value, allow_nan=False))
    else:
        show()


if __name__ == "__main__":
    sys.exit(run(main))
make_callable(__name__, profile)
