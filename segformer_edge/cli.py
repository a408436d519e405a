"""What every command shares: exit codes, error lines, option parsing. Imports neither torch nor a runtime.

A command is a function ``main(argv) -> int`` and a two-line module end::

    if __name__ == "__main__":
        sys.exit(run(main))
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import itertools
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from segformer_edge.errors import SegformerEdgeError, UsageError
from segformer_edge.model.config import STRIDE
from segformer_edge.suggestions import nearest
from segformer_edge.verbosity import Verbosity, is_quiet, set_verbosity

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_OVER_BUDGET, EXIT_BELOW_ACCURACY = 0, 1, 2, 3, 4
#: What a shell reports for a process ended by SIGINT and SIGPIPE: 128 + the signal's number.
EXIT_INTERRUPTED, EXIT_BROKEN_PIPE = 130, 141

#: What to put for placeholders of a printed command.
FILL_DATASET, FILL_DIR = (
    "with your labelled images for DATASET, like folder:DIR",
    "with a folder of your images for DIR",
)

#: Longest side a ``--size`` may name; far above any network input, it only catches slips of the keyboard.
MAX_SIDE = 8192

_DISK_FULL_NUMBERS = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
#: Native writers (OpenVINO, safetensors) raise their own types, with the system's words in the text.
_DISK_FULL_WORDS = tuple(os.strerror(number).lower() for number in sorted(_DISK_FULL_NUMBERS))


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived; like KeyboardInterrupt it passes every ``except Exception``, so cleaning up runs."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


class DiskFullError(SegformerEdgeError):
    """The disk, a quota or the process's file size limit is full (exit code 1)."""


class Parser(argparse.ArgumentParser):
    """argparse with exact option names only, whose errors are UsageErrors with a suggestion.

    Every command has ``--quiet`` and ``--verbose``; parsing them is what sets ``segformer_edge.verbosity``.
    """

    def __init__(self, prog: str, description: str, epilog: str | None = None) -> None:
        super().__init__(prog=prog, description=description, epilog=epilog, allow_abbrev=False)
        amount = self.add_mutually_exclusive_group()
        for letter, level, about in (
            ("-q", Verbosity.QUIET, "only the result, and errors"),
            ("-v", Verbosity.VERBOSE, "also the steps with their times, tools' messages and child processes' output"),
        ):
            amount.add_argument(
                letter, f"--{level.value}", dest="verbosity", action="store_const", const=level, help=about,
                default=Verbosity.NORMAL,
            )  # fmt: skip

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As argparse; from here on the process says as much as the options ask for."""
        options, rest = super().parse_known_args(args, namespace)
        set_verbosity(options.verbosity)
        return options, rest

    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: (--[\w-]+)", message)
        wrong = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)
        hint = ""
        if unknown:
            names = [option for action in self._actions for option in action.option_strings]
            near = nearest(unknown.group(1), [name for name in names if name.startswith("--")])
            hint = f"Did you mean '{near}'?" if near else ""
        elif wrong:
            # argparse's own words end with the list of choices.
            near = nearest(wrong.group(1), [choice.strip("'") for choice in wrong.group(2).split(", ")])
            hint = f"Did you mean '{near}'?" if near else ""
        raise UsageError(f"{message}.", hint=f"{hint} See: {self.prog} --help".strip())


def run(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Call ``main(argv)`` and return the process's exit code; errors a user can act on become one message on stderr.

    A SegformerEdgeError gives its own ``exit_code``, Ctrl-C 130, SIGTERM 143, SIGHUP 129, a closed pipe 141 (silently),
    a full disk or too little memory 1. Anything else is a defect of this program and keeps its traceback.
    """
    open_closed_streams()
    try:
        with _signals_raise():
            code = main(argv)
            sys.stdout.flush()
            return code
    except SegformerEdgeError as error:
        return fail(error)
    except KeyboardInterrupt:
        return _last_words("interrupted", EXIT_INTERRUPTED)
    except Terminated as terminated:
        return _last_words("terminated", terminated.exit_code)
    except BrokenPipeError:
        # The reader went away (`| head`). Python flushes stdout once more at exit, so give it somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except MemoryError:
        return fail(SegformerEdgeError("Out of memory.", hint="Try a smaller --size or fewer --targets at a time."))
    except Exception as error:
        if is_disk_full(error):
            return fail(disk_full(error))
        if isinstance(error, PermissionError) and error.filename:
            return fail(UsageError(f"No permission for '{error.filename}'."))
        raise


def open_closed_streams() -> None:
    """Give stdout and stderr somewhere to go where the caller closed them (``>&-``): Python then has None for them.

    Left closed, their descriptors would go to the next files that are opened, and prints for one end in the other.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_WRONLY)
            os.set_inheritable(descriptor, True)  # child processes have it as their own stream
            setattr(sys, name, os.fdopen(descriptor, "w"))


def fail(error: SegformerEdgeError) -> int:
    """Print ``error`` on stderr as "error: ..." and return its exit code."""
    return _last_words(f"error: {error}", error.exit_code)


def is_disk_full(error: BaseException | None) -> bool:
    """Whether ``error``, or an error it came from, says that no more bytes could be written."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, DiskFullError):
            return True
        if isinstance(error, OSError) and error.errno in _DISK_FULL_NUMBERS:
            return True
        if isinstance(error, Exception) and any(words in str(error).lower() for words in _DISK_FULL_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


def disk_full(error: BaseException, path: str | os.PathLike[str] | None = None) -> DiskFullError:
    """The message for a full disk; ``path`` is what was being written (else taken from ``error``)."""
    where = path or getattr(error, "filename", None)
    what = f"No space left while writing '{os.fspath(where)}'." if where else "No space left while writing."
    return DiskFullError(what, hint="Free some space or raise the quota (df -h, ulimit -f), then run it again.")


def parse_size(text: str) -> tuple[int, int]:
    """``"512"`` or ``"384x512"`` -> (height, width), both positive multiples of 32. Raises UsageError."""
    match = re.fullmatch(r"\s*(\d{1,9})(?:\s*[xX]\s*(\d{1,9}))?\s*", text, flags=re.ASCII)
    if match is None:
        raise UsageError(f"Size '{text}' is not a number or HEIGHTxWIDTH.", hint="For example: --size 512 or 384x512")
    height = int(match.group(1))
    width = int(match.group(2)) if match.group(2) else height
    nearest = [min(max(STRIDE, round(side / STRIDE) * STRIDE), MAX_SIDE) for side in (height, width)]
    if max(height, width) > MAX_SIDE:
        raise UsageError(f"Size {height}x{width} is larger than {MAX_SIDE}.", hint=_try_size(nearest))
    if height % STRIDE or width % STRIDE or not height or not width:
        raise UsageError(
            f"Size {height}x{width} does not work: SegFormer needs sides divisible by {STRIDE}.",
            hint=_try_size(nearest),
        )
    return height, width


def parse_bytes(text: str) -> int:
    """``"2M"``, ``"384K"``, ``"1.5 MiB"``, ``"100000"`` -> bytes; K, M, G are powers of 1024. Raises UsageError."""
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,6})?)\s*([kmg]?)(?:i?b)?\s*", text, flags=re.ASCII | re.IGNORECASE)
    count = int(float(match.group(1)) * 1024 ** " kmg".index(match.group(2).lower() or " ")) if match else 0
    if not count:
        raise UsageError(
            f"'{text}' is not an amount of memory.", hint="For example: --memory-budget 2M, 384K or 100000"
        )
    return count


def on_terminal() -> bool:
    """Whether stderr is a terminal, where a progress bar helps; in a pipe or a log it would only be noise."""
    return not is_quiet() and sys.stderr is not None and sys.stderr.isatty()


def print_next(*command: object, fill: str = "") -> None:
    """The command that a user would run next, as the last line of the result; not with ``--quiet``.

    ``fill`` says what to put for a placeholder in it, as a comment of the shell.
    """
    if not is_quiet():
        print(f"next: {shlex.join(map(str, command))}" + (f"  # {fill}" if fill else ""))


def unused_folder(wanted: str) -> str:
    """``wanted``, or with a number behind it the first that nothing lies in: for an ``--out`` that will work."""
    names = itertools.chain([wanted], (f"{wanted}-{number}" for number in itertools.count(2)))
    return next(name for name in names if not Path(name).exists() or _is_empty_folder(Path(name)))


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _try_size(sides: Sequence[int]) -> str:
    height, width = sides
    return f"Try: --size {height}" if height == width else f"Try: --size {height}x{width}"


def _last_words(text: str, code: int) -> int:
    with contextlib.suppress(OSError):  # stderr is closed or full; the exit code still tells
        print(text, file=sys.stderr, flush=True)
    return code


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """SIGTERM and SIGHUP as exceptions, so that ``finally`` and ``with`` clean up. Only the main thread may do this."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def raise_terminated(signum: int, frame: FrameType | None) -> None:
        raise Terminated(signum)

    before = {}
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            before[number] = signal.signal(number, raise_terminated)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
