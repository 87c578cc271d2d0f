"""A child process that cannot outlive its parent, and a sure way to end it with everything it started.

Every child leads a session and process group of its own (Ctrl-C in the terminal reaches only the parent, which then
ends its children in order) and asks the kernel for SIGKILL when the parent dies, however it dies.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from ..errors import Unreachable

__all__ = ["LocalError", "Mark", "end_group", "group", "launch", "mark", "read_mark", "wait_until", "write_mark"]

LINUX: Final = sys.platform == "linux"
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


_Child = subprocess.Popen[bytes]


class LocalError(Unreachable):
    """A local process could not be started, reached or ended."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One process for certain: its id, which the system uses again later, and when it started, which it does not."""

    pid: int
    started: str

    @property
    def alive(self) -> bool:
        """Whether exactly this process still runs."""
        return _started(self.pid) == self.started


def launch(argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> _Child:
    """Start a program in its own process group, tied to this process; its output is appended to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    command = list(argv)
    if LINUX:
        command = [sys.executable, "-I", "-S", "-c", _TIE_TO_PARENT, str(os.getpid()), *command]

    def start() -> _Child:
        with log.open("ab") as output:
            return subprocess.Popen(
                command,
                env=None if env is None else dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    try:
        return _launcher.call(start)
    except OSError as error:
        raise LocalError(f"cannot start {argv[0]}: {error}", f"see whether it is installed:  command -v {argv[0]}") from error


class _Launcher:
    """The one thread that starts children: to the kernel, "the parent died" means the *thread* that forked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0  # the process that has the thread; a fork does not inherit it
        self._jobs: SimpleQueue[tuple[Callable[[], _Child], Future[_Child]]] = SimpleQueue()

    def call(self, job: Callable[[], "_Child"]) -> "_Child":
        with self._lock:
            if self._owner != os.getpid():
                self._owner = os.getpid()
                self._jobs = SimpleQueue()
                threading.Thread(target=self._serve, args=(self._jobs,), name="penstock-launcher", daemon=True).start()
        answer: Future[_Child] = Future()
        self._jobs.put((job, answer))
        return answer.result()

    @staticmethod
    def _serve(jobs: "SimpleQueue[tuple[Callable[[], _Child], Future[_Child]]]") -> None:
        while True:
            job, answer = jobs.get()
            try:
                answer.set_result(job())
            except BaseException as error:  # handed to the caller, who is waiting for it
                answer.set_exception(error)


_launcher = _Launcher()


def mark(pid: int) -> Mark | None:
    """The process that has this id now, or None."""
    started = _started(pid)
    return None if started is None else Mark(pid, started)


def write_mark(path: Path, pid: int) -> None:
    """Keep a process's identity in a file, so that another process can find it."""
    path.write_text(json.dumps({"pid": pid, "started": _started(pid)}), encoding="utf-8")


def read_mark(path: Path) -> Mark | None:
    """The process named by the file, if it still runs."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        found = Mark(int(kept["pid"]), str(kept["started"]))
    except (OSError, ValueError, KeyError, TypeError):  # no file, or one cut short by a crash: nothing to find
        return None
    return found if found.alive else None


def group(leader: int) -> list[int]:
    """The processes of a group that still run; ended ones that nobody has collected do not count."""
    return [pid for pid, pgid in _processes() if pgid == leader]


def end_group(leader: int, grace: float) -> None:
    """End a process group: SIGTERM, `grace` seconds, SIGKILL; returns when nothing of it is left."""
    _signal_group(leader, signal.SIGTERM)
    if wait_until(lambda: not group(leader), grace):
        return
    _signal_group(leader, signal.SIGKILL)
    if not wait_until(lambda: not group(leader), 10.0):  # only a process stuck in the kernel (dead disk) gets here
        raise LocalError(
            f"process group {leader} survived SIGKILL: {group(leader)}",
            f"look at it:  ps -o pid,stat,wchan,args -g {leader}",
        )


def wait_until(holds: Callable[[], bool], seconds: float) -> bool:
    """Look until it holds or the time is over; says which."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL)
    return True


def _signal_group(leader: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # gone; macOS says "permission" of ended processes
        os.killpg(leader, number)


def _started(pid: int) -> str | None:
    """When a running process started, in whatever unit the system has; None for none and for an ended one."""
    if LINUX:
        fields = _stat(pid)
        return None if fields is None or fields[0] in "ZX" else fields[19]
    answer = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, started = answer.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else started.strip()


def _processes() -> list[tuple[int, int]]:
    """Every running process with its group."""
    if LINUX:
        found = []
        for entry in os.listdir("/proc"):
            fields = _stat(int(entry)) if entry.isdigit() else None
            if fields is not None and fields[0] not in "ZX":
                found.append((int(entry), int(fields[2])))
        return found
    answer = subprocess.run(["ps", "-axo", "pid=,pgid=,stat="], capture_output=True, text=True, check=False)
    rows = (line.split() for line in answer.stdout.splitlines())
    return [(int(row[0]), int(row[1])) for row in rows if len(row) == 3 and not row[2].startswith("Z")]


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat from the state on (proc(5) numbers them from 3)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()  # the name before it may hold spaces and parentheses
