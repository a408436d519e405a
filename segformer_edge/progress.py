"""What long work tells the user on stderr: steps and bars on a terminal, warnings; ``--verbose`` steps anywhere."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from segformer_edge.cli import on_terminal
from segformer_edge.verbosity import detail, is_verbose, warn


class Progress:
    """Silent, but for warnings: for pipes, and for callers of the library who show their own."""

    #: Whether the steps themselves may show bars of their own.
    bars = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def step(self, text: str) -> None:
        """A new step begins."""
        detail(text)

    def bar(self, text: str, total: int) -> Callable[[], None]:
        """A step of ``total`` parts begins; call the result after each part."""
        detail(f"{text}: {total}")
        return lambda: None

    def warn(self, text: str) -> None:
        """Something the user should know, though the work goes on."""
        warn(text)


class TerminalProgress(Progress):
    """Bars with elapsed time on a terminal."""

    bars = True

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        self._console = Console(stderr=True)
        columns = (
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        )  # fmt: skip
        self._make = lambda: Bars(*columns, console=self._console)
        self._live: Bars | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def step(self, text: str) -> None:
        self._stop()
        self._console.print(text, style="dim")

    def bar(self, text: str, total: int) -> Callable[[], None]:
        self._stop()
        live = self._live = self._make()
        live.start()
        task = live.add_task(text, total=total)

        def advance() -> None:
            live.advance(task)
            if live.finished:
                self._stop()

        return advance

    def warn(self, text: str) -> None:
        self._stop()
        super().warn(text)

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def progress_for_terminal() -> Progress:
    """Bars where stderr is a terminal, else silence; with ``--verbose`` lines, since tools' messages tear bars."""
    return TerminalProgress() if on_terminal() and not is_verbose() else Progress()
