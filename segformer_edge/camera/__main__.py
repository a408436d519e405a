"""``python -m segformer_edge.camera FILE --source 0|picamera|VIDEO|IMAGE|DIR``."""

from __future__ import annotations

import sys

from segformer_edge.camera.command import main
from segformer_edge.cli import run

if __name__ == "__main__":
    sys.exit(run(main))
