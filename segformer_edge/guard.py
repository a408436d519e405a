"""A second process that stays behind and says how the first one ended.

Native runtimes can crash on a file that looks sound. A signal then ends the process before Python can say anything;
its parent still can.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from segformer_edge.cli import EXIT_FAILED, fail, open_closed_streams
from segformer_edge.errors import SegformerEdgeError

#: Signals that say: this process did something that it must not.
CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS)
#: What a terminal, a shell or a service manager ends a program with.
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Seconds in which the child tells that it got a signal as well, as it does after Ctrl-C.
_HEARD_WITHIN = 0.1
_PR_SET_PDEATHSIG = 1


class CrashError(SegformerEdgeError):
    """The process that ran native code was ended by a signal."""


def crash(number: int) -> CrashError:
    """What to say of a process that signal ``number`` has ended."""
    name = signal.Signals(number).name
    if number == signal.SIGKILL:
        return CrashError(
            f"The process was killed (signal {name}).", hint="Where nobody did that, memory ran out: see dmesg."
        )
    return CrashError(
        f"The runtime crashed on this file (signal {name}).",
        hint="The file may be damaged: export it again. If it goes on, the installed runtime cannot run it.",
    )


def stand_guard() -> None:
    """Go on in a child process. The parent waits here, ends as the child ends, and reports a crash as an error.

    Call it before there are threads and before native libraries are loaded. The child ends with its parent. SIGINT,
    SIGTERM and SIGHUP are passed on where the child did not get them itself.
    """
    parent = os.getpid()
    open_closed_streams()
    sys.stdout.flush()
    hears, tells = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    watched = {signal.SIGCHLD, *_ENDING}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    child = os.fork()
    if child == 0:
        os.close(hears)
        signal.set_wakeup_fd(tells, warn_on_full_buffer=False)  # writes the number of each signal that arrives
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        with suppress(AttributeError):  # Linux alone has it
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(EXIT_FAILED)
        return
    os.close(tells)
    while True:
        number = signal.sigwait(watched)
        if number == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                os._exit(_exit_code(os.waitstatus_to_exitcode(status)))
        else:
            time.sleep(_HEARD_WITHIN)
            # In this order: what is no longer pending has been heard.
            if not _pending(child, number) and number not in _read(hears):
                os.kill(child, number)  # not yet waited for, so the number is still the child's


def _pending(process: int, number: int) -> bool:
    """Whether a signal is under way to a process that the system has not let run since."""
    with suppress(OSError, ValueError):
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace").splitlines()
        masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd:", "ShdPnd:"))]
        return any(mask >> (number - 1) & 1 for mask in masks)
    return False


def _read(descriptor: int) -> bytes:
    with suppress(BlockingIOError):
        return os.read(descriptor, 1024)
    return b""


def _exit_code(code: int) -> int:
    """For what a child ended with; says on stderr what a signal did."""
    if code >= 0:
        return code
    if -code in (*CRASHES, signal.SIGKILL):
        return fail(crash(-code))
    return 128 - code
