"""The output folder: built beside its final place and moved there whole, or not there at all."""

from __future__ import annotations

import fnmatch
import os
import resource
import shutil
import signal
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from segformer_edge.cli import DiskFullError, disk_full, is_disk_full
from segformer_edge.errors import UsageError
from segformer_edge.export.staging import MOVING, Staging, exchange, finish_moving, move_files, staging_path, sync
from segformer_edge.jsonfile import write_bytes
from segformer_edge.paths import user_path

#: Names this tool writes. ``--force`` replaces or removes these and nothing else.
OUR_NAMES = (
    "model*.pte", "model*.tflite", "model*.xml", "model*.bin", "model*.onnx", "model*.onnx.data",
    "model*.json", "encodings.json", "report.json", "report.html",
    "sensitivity.json", "sensitivity.png",
)  # fmt: skip
#: Less than this left on the disk counts as full: native writers may fail without saying why.
_FULL_BELOW = 1 << 20


class OutputFolder:
    """``with OutputFolder(out, force=...) as folder:`` write into ``folder.path``; it becomes ``out`` on leaving.

    On any exception, Ctrl-C, SIGTERM or SIGHUP (``cli.run`` raises them) everything written is removed, ``out`` stays
    what it was, a full disk is a DiskFullError. SIGKILL and power cuts may leave a ``.<name>.partial`` folder beside
    ``out``, which the next run removes, and never a half-written ``out``: it is new, or exchanged with the old folder
    in one step. Only where that cannot be (the folder holds files of others, is mounted or the current one, or its
    file system has no such step) are files moved one by one; the next run finishes that if this one is killed.

    Making it raises UsageError if ``out`` is a file, holds something and ``force`` is off, or cannot be written to;
    entering it where another run is writing the same ``out``.
    """

    def __init__(self, out: str | os.PathLike[str], force: bool = False, ours: Sequence[str] = OUR_NAMES) -> None:
        if not os.fspath(out):
            raise UsageError("The output folder has no name.", hint="For example: --out out")
        self.out = user_path(out).resolve()
        self._ours = tuple(ours)
        self._made_parents: list[Path] = []
        self._force = force
        self._finish_earlier()
        self._check()
        self.path = self.out
        self._staging: Staging | None = None

    def __enter__(self) -> OutputFolder:
        self._make_parents()
        try:
            self._staging = self._stage()
            self.path = self._staging.path
            self._check()  # another run may have ended since this was made
        except BaseException:
            self._discard()
            raise
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

    def _finish_earlier(self) -> None:
        for place in (self.out.parent, self.out):
            try:
                finish_moving(staging_path(place, self.out.name), self.out)
            except OSError as error:
                raise self._cannot_write(error) from error

    def _check(self) -> None:
        if not self.out.exists():
            return
        if not self.out.is_dir():
            raise UsageError(f"The output folder '{self.out}' is a file.", hint="Name another folder with --out.")
        try:
            entries = sorted(entry for entry in self.out.iterdir() if entry != staging_path(self.out, self.out.name))
        except OSError as error:
            raise UsageError(f"Cannot look into the output folder '{self.out}': {error.strerror}.") from error
        if entries and not self._force:
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

    def _stage(self) -> Staging:
        """A new empty folder on the file system of ``out``: a sibling, or inside ``out`` where it is a mount."""
        places = [self.out.parent]
        if self.out.exists():
            # Renaming does not cross file systems, and a container's /out may be the only writable place.
            crosses = self.out.stat().st_dev != self.out.parent.stat().st_dev
            places = [self.out] if crosses else [self.out.parent, self.out]
        failure: OSError | None = None
        for place in places:
            try:
                return Staging(place, self.out.name)
            except OSError as error:
                failure = error
        assert failure is not None
        raise self._cannot_write(failure) from failure

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
            sync(file)
        sync(self.path)
        with _signals_held():
            if not self.out.exists():
                self.path.rename(self.out)
                sync(self.out.parent)
            elif self._may_change_places() and exchange(self.path, self.out):
                self._take_back_others()
            else:
                self._move_into()
        self._release()

    def _may_change_places(self) -> bool:
        """Whether the old folder may go: nothing in it is anybody else's, and it is like the one we made."""
        new, old = self.path.stat(), self.out.stat()
        if (new.st_uid, new.st_gid, new.st_dev) != (old.st_uid, old.st_gid, old.st_dev) or self.path.parent == self.out:
            return False
        # Whoever started us with this as the current folder goes on standing in it.
        with suppress(FileNotFoundError):
            if os.path.samestat(old, Path.cwd().stat()):
                return False
        if not all(self._is_ours(file.name) for file in self.out.iterdir()):
            return False
        self.path.chmod(stat.S_IMODE(old.st_mode))
        return True

    def _take_back_others(self) -> None:
        """The old folder has our temporary name now. What somebody put into it meanwhile is not ours to remove."""
        for file in self.path.iterdir():
            if not self._is_ours(file.name):
                file.rename(self.out / file.name)
        shutil.rmtree(self.path, ignore_errors=True)

    def _move_into(self) -> None:
        """Move the new files into an existing folder, and take away what an earlier run left. Others' files stay."""
        new = {file.name for file in self.path.iterdir()}
        old = [file.name for file in self.out.iterdir() if self._is_ours(file.name) and file.name not in new]
        write_bytes(self.path / MOVING, "\0".join(old).encode())
        sync(self.path)
        move_files(self.path, self.out)

    def _discard(self) -> None:
        # Once files are on their way into the output folder, the next run finishes that.
        if self._staging is not None and not (self.path / MOVING).exists():
            shutil.rmtree(self.path, ignore_errors=True)
        self._release()
        self._remove_parents()

    def _release(self) -> None:
        if self._staging is not None:
            self._staging.release()
            self._staging = None


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
