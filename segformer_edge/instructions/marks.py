"""What the counted program and ``counter.c`` agree on, and the file that the plugin writes."""

from __future__ import annotations

from segformer_edge.emulation.errors import EmulationError

#: As MARK in counter.c: a system call that Linux does not have.
SYSTEM_CALL = 24304
#: Its argument before and after the counted part.
BEGIN, END = 1, 2


def between(text: str) -> int:
    """Instructions between the two marks in what the plugin wrote. Raises EmulationError where it is anything else."""
    marks = [line.split() for line in text.splitlines()]
    if [mark[:1] for mark in marks] != [[str(BEGIN)], [str(END)]] or not all(
        len(mark) == 2 and mark[1].isdecimal() for mark in marks
    ):
        raise EmulationError(
            f"The emulator counted nothing between the marks; it wrote {text[:80]!r}.",
            hint="python -m segformer_edge.emulation prepare aarch64 --force",
        )
    begin, end = (int(mark[1]) for mark in marks)
    if end <= begin:
        raise EmulationError(f"The emulator's count goes from {begin} to {end}.")
    return end - begin
