"""Runs on the emulated CPU: images come in on stdin, label maps or logits go out on stdout.

    python -m segformer_edge.emulation.worker FILE THREADS labels|logits

Imports what a device has, and no more.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence

from segformer_edge.cli import run
from segformer_edge.emulation.frames import pack, read_frame, unpack, write_frame
from segformer_edge.runtime.segmenter import Segmenter


def main(argv: Sequence[str] | None = None) -> int:
    """Answer each image until stdin is closed. The first frame out says what runs here, as JSON."""
    file, threads, what = argv if argv is not None else sys.argv[1:]
    # Native libraries may print to descriptor 1; the answers go out on a copy of it, and the prints to stderr.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    segmenter = Segmenter.load(file, threads=int(threads), verify=False)  # the host has compared the hashes
    answer = segmenter.logits if what == "logits" else segmenter
    about = {"machine": platform.machine(), "versions": segmenter.runtime.versions}
    write_frame(answers, json.dumps(about).encode())
    while (frame := read_frame(sys.stdin.buffer)) is not None:
        write_frame(answers, pack(answer(unpack(frame))))
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
