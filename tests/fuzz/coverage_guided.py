"""Feeds one reader with inputs that atheris makes from the corpus, guided by the lines they reach.

    python -m tests.fuzz.coverage_guided READER SECONDS FOUND

Inputs that reach new lines go to FOUND/READER, one on which the reader fails to FOUND/READER-crash-...; exit code 77.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["segformer_edge", "quantization"]):
    from tests.fuzz.readers import CORPUS, JSON, READERS

from tests.fuzz.mutations import mutated_json

_LONGEST = 16384
#: Seconds an input may take, and megabytes.
_PATIENCE, _MEMORY = 60, 4096


def main() -> None:
    """Ends the process."""
    name, seconds, found = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    kept = found / name
    kept.mkdir(parents=True, exist_ok=True)
    arguments = [
        sys.argv[0], f"-max_total_time={seconds}", f"-max_len={_LONGEST}", f"-timeout={_PATIENCE}",
        f"-rss_limit_mb={_MEMORY}", f"-artifact_prefix={found}/{name}-", "-print_final_stats=1", "-verbosity=0",
        str(kept), str(CORPUS / name),
    ]  # fmt: skip
    more = {"custom_mutator": _json} if name in JSON else {}
    atheris.Setup(arguments, READERS[name], **more)
    atheris.Fuzz()


def _json(content: bytes, longest: int, seed: int) -> bytes:
    """Half of the time a change of a value, which byte by byte hardly ever gets past the JSON parser."""
    chance = random.Random(seed)
    changed = mutated_json(content, chance) if chance.random() < 0.5 else None
    return changed if changed and len(changed) <= longest else atheris.Mutate(content, longest)


if __name__ == "__main__":
    main()
