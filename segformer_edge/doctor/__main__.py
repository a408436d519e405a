"""``python -m segformer_edge.doctor [--json]``."""

from __future__ import annotations

import sys

from segformer_edge.cli import run
from segformer_edge.doctor.command import main

if __name__ == "__main__":
    sys.exit(run(main))
