"""A child process that cannot outlive its parent, and a sure way to end it with everything it started. Linux only.

Every child leads a session and process group of its own (Ctrl-C in the terminal reaches only the parent, which then
ends its children in order) and asks the kernel for SIGKILL when the parent dies, however it dies.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from subprocess import DEVNULL, STDOUT, Popen
from typing import Final

from ..errors import Unreachable

__all__ = ["LocalError", "Mark", "end_group", "group", "last_words", "launch", "mark", "wait_until"]

POLL: Final = 0.05  # seconds between looks; a process ends or a port opens no faster than a person notices

# Runs in the child before the real program and becomes it: the process id stays. Not a preexec_fn, which runs Python
# between fork and exec and can deadlock in a parent with threads (ours has numba, onnxruntime and Kafka clients).
# The parent may die before prctl is called; then the child's parent is already another one and nobody would tell it.
_TIE_TO_PARENT: Final = """
import ctypes, os, sys
ctypes.CDLL(None, use_errno=True).prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"cannot start {sys.argv[2]}: {error}")
"""

Child = Popen[bytes]
_Job = tuple[Callable[[], Child], Future[Child]]


class LocalError(Unreachable):
    """A local process could not be started, reached or ended."""

    @classmethod
    def of(cls, reason: str) -> "LocalError":
        """A reason as `available` gives it: what is missing -> what to type."""
        what, _, fix = reason.partition(" -> ")
        return cls(what, fix)


@dataclass(frozen=True, slots=True)
class Mark:
    """One process for certain: its id, which the system uses again later, and when it started, which it does not."""

    pid: int
    started: str

    @property
    def alive(self) -> bool:
        """Whether exactly this process still runs."""
        return mark(self.pid) == self


def mark(pid: int) -> Mark | None:
    """The process that has this id now, or None."""
    fields = _stat(pid)
    return Mark(pid, fields[19]) if fields else None


def launch(argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> Child:
    """Start a program in its own process group, tied to this process; its output is appended to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-I", "-S", "-c", _TIE_TO_PARENT, str(os.getpid()), *argv]

    def start() -> Child:
        with log.open("ab") as output:
            return Popen(command, env=env, stdin=DEVNULL, stdout=output, stderr=STDOUT, start_new_session=True)

    answer: Future[Child] = Future()
    _launcher().put((start, answer))
    return answer.result()


@cache
def _launcher() -> SimpleQueue[_Job]:
    """Jobs of a thread that lives as long as this process: to the kernel, "the parent died" means the *thread* that forked."""
    jobs: SimpleQueue[_Job] = SimpleQueue()

    def serve() -> None:
        while True:
            start, answer = jobs.get()
            try:
                answer.set_result(start())
            except BaseException as error:  # handed to the caller, who is waiting for it
                answer.set_exception(error)

    threading.Thread(target=serve, name="penstock-launcher", daemon=True).start()
    return jobs


def group(leader: int) -> list[int]:
    """The processes of a group that still run; ended ones that nobody has collected do not count."""
    everybody = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    return [pid for pid in everybody if (fields := _stat(pid)) and int(fields[2]) == leader]


def end_group(leader: int, grace: float) -> None:
    """End a process group: SIGTERM, `grace` seconds, SIGKILL; returns when nothing of it is left."""
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
        with suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(leader, number)
        if wait_until(lambda: not group(leader), seconds):
            return
    raise LocalError(  # only a process stuck in the kernel (dead disk) gets here
        f"process group {leader} survived SIGKILL: {group(leader)}", f"look at it:  ps -o pid,stat,wchan,args -g {leader}"
    )


def wait_until(holds: Callable[[], bool], seconds: float) -> bool:
    """Look until it holds or the time is over; says which."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL)
    return True


def last_words(text: str) -> str:
    """The line of what a program wrote that most likely says why it ended."""
    lines = [line.strip() for line in text.splitlines()[-60:] if line.strip()]
    causes = [line for line in lines if "ERROR" in line or "FATAL" in line or "cannot start" in line.lower()]
    return (causes or lines or ["it said nothing"])[-1]


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat from the state on (proc(5) numbers them from 3); None of what does not run."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold spaces and parentheses
    return None if fields[0] in "ZX" else fields
