"""The output folder: built beside its final place and moved there whole, or not there at all."""

from __future__ import annotations

import fnmatch
import os
import resource
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from segformer_edge.cli import DiskFullError, disk_full, is_disk_full
from segformer_edge.errors import UsageError

#: Names this tool writes. ``--force`` replaces or removes these and nothing else.
OUR_NAMES = (
    "model*.pte", "model*.tflite", "model*.xml", "model*.bin", "model*.onnx", "model*.onnx.data",
    "model*.json", "encodings.json", "report.json", "report.html",
    "sensitivity.json", "sensitivity.png",
)  # fmt: skip
#: Put in place last and taken away first, so that a folder with a report is always complete.
_SEAL = "report.json"
#: Less than this left on the disk counts as full: native writers may fail without saying why.
_FULL_BELOW = 1 << 20


class OutputFolder:
    """``with OutputFolder(out, force=...) as folder:`` write into ``folder.path``; it becomes ``out`` on leaving.

    On any exception, Ctrl-C, SIGTERM or SIGHUP (``cli.run`` raises them) everything written is removed, ``out`` stays
    what it was, a full disk is a DiskFullError. SIGKILL and power cuts may leave a ``.<name>.partial-<pid>``
    folder beside ``out``, never a half-written ``out``.

    Making it raises UsageError if ``out`` is a file, holds something and ``force`` is off, or cannot be written to.
    """

    def __init__(self, out: str | os.PathLike[str], force: bool = False, ours: Sequence[str] = OUR_NAMES) -> None:
        if not os.fspath(out):
            raise UsageError("The output folder has no name.", hint="For example: --out out")
        self.out = Path(out).resolve()
        self._ours = tuple(ours)
        self._made_parents: list[Path] = []
        self._check(force)
        self.path = self.out
        self._staged = False

    def __enter__(self) -> OutputFolder:
        self._make_parents()
        try:
            self.path = self._stage()
        except BaseException:
            self._remove_parents()
            raise
        self._staged = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            try:
                self._publish()
                return
            except BaseException as failed:
                self._discard()
                if is_disk_full(failed):
                    raise disk_full(failed, self.out) from failed
                raise
        full = isinstance(error, Exception) and (is_disk_full(error) or self.out_of_space())
        self._discard()
        if full and not isinstance(error, DiskFullError):
            raise disk_full(error, self.out) from error

    def out_of_space(self, needed: int = _FULL_BELOW) -> bool:
        """Whether fewer than ``needed`` bytes are free, or a file has reached the process's limit (``ulimit -f``).

        Native writers truncate silently or raise errors of their own; ask this when one of them fails.
        """
        if shutil.disk_usage(self.path).free < max(needed, _FULL_BELOW):
            return True
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        if limit == resource.RLIM_INFINITY:
            return False
        return any(file.is_file() and file.stat().st_size >= limit for file in self.path.rglob("*"))

    def _check(self, force: bool) -> None:
        if not self.out.exists():
            return
        if not self.out.is_dir():
            raise UsageError(f"The output folder '{self.out}' is a file.", hint="Name another folder with --out.")
        try:
            entries = sorted(self.out.iterdir())
        except OSError as error:
            raise UsageError(f"Cannot look into the output folder '{self.out}': {error.strerror}.") from error
        if entries and not force:
            some = ", ".join(entry.name for entry in entries[:3]) + (", ..." if len(entries) > 3 else "")
            raise UsageError(
                f"The output folder '{self.out}' is not empty (it holds {some}).",
                hint="Name another folder with --out, or replace what an earlier run wrote there with --force.",
            )
        for entry in entries:
            if self._is_ours(entry.name) and entry.is_dir() and not entry.is_symlink():
                raise UsageError(
                    f"'{entry}' is a folder where a file would be written.", hint="Move it away, or use another --out."
                )

    def _is_ours(self, name: str) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self._ours)

    def _make_parents(self) -> None:
        missing = [folder for folder in self.out.parents if not folder.exists()]
        try:
            for folder in reversed(missing):
                folder.mkdir()
                self._made_parents.append(folder)
        except OSError as error:
            self._remove_parents()
            raise self._cannot_write(error) from error

    def _remove_parents(self) -> None:
        while self._made_parents:
            try:
                self._made_parents.pop().rmdir()
            except OSError:
                return  # somebody else put something there

    def _stage(self) -> Path:
        """A new empty folder on the file system of ``out``: a sibling, or inside ``out`` where it is a mount."""
        places = [self.out.parent]
        if self.out.exists():
            # Renaming does not cross file systems, and a container's /out may be the only writable place.
            crosses = self.out.stat().st_dev != self.out.parent.stat().st_dev
            places = [self.out] if crosses else [self.out.parent, self.out]
        failure: OSError | None = None
        for place in places:
            for attempt in range(100):
                suffix = f"-{attempt}" if attempt else ""
                staged = place / f".{self.out.name}.partial-{os.getpid()}{suffix}"
                try:
                    staged.mkdir()
                    return staged
                except FileExistsError:
                    continue
                except OSError as error:
                    failure = error
                    break
        raise self._cannot_write(failure or FileExistsError("too many left-over partial folders")) from failure

    def _cannot_write(self, error: OSError) -> UsageError | DiskFullError:
        if is_disk_full(error):
            return disk_full(error, self.out)
        return UsageError(
            f"Cannot write beside the output folder '{self.out}': {error.strerror or error}.",
            hint="The files are built in a temporary folder next to it; choose an --out whose parent is writable.",
        )

    def _publish(self) -> None:
        written = sorted(self.path.iterdir())
        for file in written:
            if not file.is_file() or not self._is_ours(file.name):
                raise ValueError(f"'{file.name}' is none of the files an output folder holds: {self._ours}")
        with _signals_held():
            if not self.out.exists():
                self.path.rename(self.out)
            else:
                self._replace(written)
        self._staged = False

    def _replace(self, written: Sequence[Path]) -> None:
        """Move the new files into an existing folder, and take away what an earlier run left. Others' files stay."""
        new = {file.name for file in written}
        old = [file for file in self.out.iterdir() if self._is_ours(file.name) and file != self.path]
        if self._is_ours(_SEAL):
            (self.out / _SEAL).unlink(missing_ok=True)
        for file in old:
            if file.name not in new:
                file.unlink(missing_ok=True)
        for file in sorted(written, key=lambda file: file.name == _SEAL):
            file.replace(self.out / file.name)
        self.path.rmdir()

    def _discard(self) -> None:
        if self._staged:
            shutil.rmtree(self.path, ignore_errors=True)
            self._staged = False
        self._remove_parents()


@contextmanager
def _signals_held() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait: the renames take microseconds and must not be split."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
