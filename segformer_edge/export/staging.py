"""The folder in which an output is built: beside its final place, locked by the run that builds it.

The lock is the kernel's (flock) on the folder itself, so it ends with its process, however that ends. A folder that is
there without a lock was left by a run that was killed; the next run takes it over.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from segformer_edge.errors import UsageError

#: linux/fs.h, fcntl.h: exchange two names in one step; paths are relative to the current folder.
_RENAME_EXCHANGE, _AT_FDCWD = 2, -100
#: In a staging folder whose files are complete and are being moved into an output folder that stays.
MOVING = ".moving"
#: Exporters of a killed run notice within a second, and may write until then.
_ORPHANS_END = 3.0


class Staging:
    """``.<name>.partial`` in ``place``, empty and locked for this process until ``release``.

    Raises UsageError where another run holds it, OSError where it cannot be made or locked.
    """

    def __init__(self, place: Path, name: str) -> None:
        self.path = staging_path(place, name)
        self._lock = _locked(self.path, place / name, make=True)
        try:
            _empty(self.path)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give up the lock. What is left of the folder is the next run's to remove."""
        os.close(self._lock)


def staging_path(place: Path, name: str) -> Path:
    """Where an output called ``name`` is built."""
    return place / f".{name}.partial"


def unfinished(out: Path) -> bool:
    """Whether a run was killed, or is at work, while it moved files into ``out``: new and old ones lie there."""
    return any((staging_path(place, out.name) / MOVING).is_file() for place in (out.parent, out))


def finish_moving(staged: Path, out: Path) -> bool:
    """Move what a killed run left complete in ``staged`` into ``out``; returns whether there was anything to finish.

    Raises UsageError where another run is at it, OSError where a file cannot be moved.
    """
    if not (staged / MOVING).is_file():
        return False
    try:
        lock = _locked(staged, out, make=False)
    except FileNotFoundError:  # its run has just ended well
        return False
    try:
        move_files(staged, out)
    finally:
        os.close(lock)
    return True


def move_files(staged: Path, out: Path) -> None:
    """Every step may be the last one of this process: the next run goes on from there.

    The list ``.moving`` says what of an earlier run is to be removed; all other files in ``staged`` are moved.
    """
    for name in (staged / MOVING).read_text(encoding="utf-8").split("\0"):
        if name and Path(name).name == name:
            (out / name).unlink(missing_ok=True)
    for file in sorted(staged.iterdir()):
        if file.name != MOVING:
            file.replace(out / file.name)
    sync(out)
    (staged / MOVING).unlink()
    staged.rmdir()


def exchange(first: Path, second: Path) -> bool:
    """Let two folders change their names in one step; False where the system or file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # glibc before 2.28
        return False
    done: int = renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)
    return done == 0


def sync(path: Path) -> None:
    """Have the disk hold a file, or the names in a folder, before anything after this call. A power cut obeys."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _locked(path: Path, out: Path, make: bool) -> int:
    """A descriptor that holds the lock on the folder ``path``."""
    while True:
        if make:
            with suppress(FileExistsError):
                path.mkdir()
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            if make:
                continue  # its run has ended meanwhile
            raise
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between opening and locking, its run may have renamed or removed it.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
                    return descriptor
        except BlockingIOError as error:
            os.close(descriptor)
            raise UsageError(
                f"Another run is writing the output folder '{out}'.",
                hint="Wait for it, or name another folder with --out.",
            ) from error
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _empty(path: Path) -> None:
    """Remove what a killed run left. Its exporters may still be writing for a moment."""
    deadline = time.monotonic() + _ORPHANS_END
    while entries := list(path.iterdir()):
        for entry in entries:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
        if time.monotonic() > deadline and any(path.iterdir()):
            raise OSError(f"'{path}' cannot be emptied")
