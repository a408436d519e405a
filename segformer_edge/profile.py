"""``python -m segformer_edge.profile FILE``: what an exported file needs, what its runtime plans, what a run takes.

The JSON of ``--json`` is described in segformer_edge/memory/timeline.py. Nothing here imports torch, but ExecuTorch's
own runtime, in the process that measures a ``.pte``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from segformer_edge.cli import Parser, run
from segformer_edge.errors import UsageError
from segformer_edge.progress import progress_for_terminal


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code. Raises SegformerEdgeError for what the user can mend."""
    parser = Parser(
        "python -m segformer_edge.profile",
        "Memory of an exported file: liveness, the runtime's plan, the measured peak, and the gap between.",
        epilog="example: python -m segformer_edge.profile out/model.tflite --on cortex-a72 --plot memory.html",
    )
    parser.add_argument("file", metavar="FILE", help="a .pte, .tflite, .onnx or .xml file, of whatever origin")
    parser.add_argument("--on", default="host", metavar="CPU", help="host (default), cortex-a53|a72|a76, armv7")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads (default 1)")
    parser.add_argument("--no-delegate", action="store_true", help=".tflite with built-in kernels in place of XNNPACK")
    parser.add_argument("--compiled", action="store_true", help=".tflite in CompiledModel, as this SDK runs it")
    parser.add_argument("--no-measure", action="store_true", help="plan and liveness alone, without running the file")
    parser.add_argument("--top", type=int, default=8, metavar="N", help="tensors to list at the peak (default 8)")
    parser.add_argument("--json", action="store_true", help="only JSON on stdout")
    parser.add_argument("--plot", metavar="OUT", help="the timeline as .svg, .png or .html")
    options = parser.parse_args(argv)
    if options.top < 1:
        raise UsageError(f"--top is at least 1; got {options.top}.")

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
        print_profile(profile, options.top)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
