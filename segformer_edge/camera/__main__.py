"""``python -m segformer_edge.camera FILE --source 0|picamera|VIDEO|IMAGE|DIR``."""

from __future__ import annotations

import sys

from segformer_edge.camera.command import main
from segformer_edge.cli import run
from segformer_edge.guard import stand_guard

if __name__ == "__main__":
    stand_guard()
    sys.exit(run(main))
