"""One thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """How it is; NOTE is neither good nor bad, OTHER_VERSION works but was not tried together."""

    OK = "ok"
    NOTE = "note"
    OTHER_VERSION = "other version"
    MISSING = "missing"
    BROKEN = "broken"


@dataclass(frozen=True)
class Finding:
    """What was found of ``name``; ``fix`` is the command that mends it. Raises ValueError for a fault without one."""

    area: str
    name: str
    state: State
    detail: str
    fix: str = ""

    def __post_init__(self) -> None:
        if self.state in (State.OTHER_VERSION, State.MISSING, State.BROKEN) and not self.fix:
            raise ValueError(f"{self.name} is {self.state.value}, and no command mends it")

    @property
    def works(self) -> bool:
        """Whether it can be used."""
        return self.state not in (State.MISSING, State.BROKEN)
