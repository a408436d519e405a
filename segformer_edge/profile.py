"""``python -m segformer_edge.profile FILE``: what an exported file needs, what its runtime plans, what a run takes.

The JSON of ``--json`` is described in segformer_edge/memory/timeline.py, with ``--operators`` in
segformer_edge/timing/table.py, on an NPU in segformer_edge/ethos_u/profiling.py. Nothing here imports torch, but
ExecuTorch's own runtime, in the process that measures a ``.pte``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from segformer_edge.cli import Parser, run
from segformer_edge.errors import MissingBackendError, UsageError
from segformer_edge.progress import progress_for_terminal

#: Rows that are listed unless --top says otherwise.
TENSORS, OPERATORS = 8, 25
DEFAULT_RUNS = 20


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code. Raises SegformerEdgeError for what the user can mend."""
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
    options = parser.parse_args(argv)
    if options.top is not None and options.top < 1:
        raise UsageError(f"--top is at least 1; got {options.top}.")
    if options.on.startswith("ethos-u"):
        return _on_npu(options)
    if options.operators:
        return _operators(options)
    if options.runs is not None:
        raise UsageError("--runs is for --operators.", hint="Add --operators, or leave --runs out.")

    from segformer_edge.memory.plot import check_plot, write_plot
    from segformer_edge.memory.profiling import profile_file
    from segformer_edge.memory.table import print_profile
    from segformer_edge.memory.timeline import to_json

    plot = Path(options.plot) if options.plot else None
    if plot is not None:
        check_plot(plot)
    with progress_for_terminal() as tell:
        profile = profile_file(
            Path(options.file),
            on=options.on,
            threads=options.threads,
            delegate=not options.no_delegate,
            compiled=options.compiled,
            measuring=not options.no_measure,
            tell=tell,
        )
    if plot is not None:
        write_plot(plot, profile)
    if options.json:
        print(json.dumps(to_json(profile), allow_nan=False))
    else:
        print_profile(profile, options.top or TENSORS)
    return 0


def _on_npu(options: argparse.Namespace) -> int:
    """The plan of an NPU's compiler."""
    for name in ("operators", "plot", "compiled", "no_delegate", "no_measure", "runs"):
        if getattr(options, name):
            raise UsageError(
                f"--{name.replace('_', '-')} is for files that run here; {options.on} runs elsewhere.",
                hint="Leave it out: the compiler's plan lists operators and memory.",
            )

    try:
        from segformer_edge.ethos_u.profiling import print_npu_profile, profile_on_npu, to_json
    except ModuleNotFoundError as error:
        raise MissingBackendError(f"{error.name}, which --on {options.on} needs,", "ethos-u") from error

    with progress_for_terminal() as tell:
        profile = profile_on_npu(Path(options.file), options.on, tell)
    if options.json:
        print(json.dumps(to_json(profile), allow_nan=False))
    else:
        print_npu_profile(profile, options.top or OPERATORS)
    return 0


def _operators(options: argparse.Namespace) -> int:
    """The time of each operator."""
    for name, given in (("--on", options.on != "host"), ("--plot", options.plot), ("--no-measure", options.no_measure)):
        if given:
            raise UsageError(
                f"{name} is for the memory profile, not for --operators.",
                hint="An emulated CPU's time says nothing about a real one." if name == "--on" else "Leave one out.",
            )
    if options.compiled and options.no_delegate:
        raise UsageError("--compiled runs XNNPACK, --no-delegate does not.", hint="Name one of the two.")

    from segformer_edge.timing.profiling import profile_operators
    from segformer_edge.timing.table import print_operators, to_json

    runs = DEFAULT_RUNS if options.runs is None else options.runs
    with progress_for_terminal() as tell:
        profile = profile_operators(
            Path(options.file), threads=options.threads, delegate=not options.no_delegate, runs=runs, tell=tell
        )
    if options.json:
        print(json.dumps(to_json(profile), allow_nan=False))
    else:
        print_operators(profile, options.top or OPERATORS)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
