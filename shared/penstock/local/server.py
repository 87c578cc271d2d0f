"""A server process with a folder of its own on this machine: start and wait until it answers, stop, kill."""

import atexit
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Self

from . import port as ports
from .process import POLL, Child, LocalError, Mark, end_group, last_words, launch, mark

__all__ = ["LocalServer"]

ATTEMPTS: Final = 3  # a free port can be taken between our look and the server's; thrice in a row is something else


class LocalServer(ABC):
    """One child process on the loopback interface; its data, log and process id live in `folder`.

    Starting again on the same folder finds the data and, if it is still free, the port.
    """

    name: ClassVar[str]
    start_seconds: ClassVar[float]
    stop_seconds: ClassVar[float]

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder = folder.absolute()
        self.log = self.folder / f"{self.name}.log"
        self.port = port
        self._wanted_port = port
        self._owner = self.folder / f"{self.name}.pid"
        self._child: Child | None = None
        self._stopped = False

    @property
    def pid(self) -> int:
        """The process id of the server."""
        if self._child is None:
            raise LocalError(f"{self.name} in {self.folder} has not been started", "call .start() first")
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether the server this object started still runs."""
        return self._child is not None and self._child.poll() is None

    def collect(self) -> int:
        """The exit code of a server that ended by itself, after ending what it may have left."""
        code = -1 if self._child is None else self._child.wait()
        self.kill()
        return code

    def start(self) -> Self:
        """Start the server and return when it answers; a LocalError says what went wrong and what to type."""
        if self.running:
            return self
        deadline = time.monotonic() + self.start_seconds
        self._stopped = False
        self.folder.mkdir(parents=True, exist_ok=True)
        self._refuse_twice()
        self._prepare(deadline)
        for attempt in range(1, ATTEMPTS + 1):
            self.port = self._choose_port()
            said = self.log.stat().st_size if self.log.exists() else 0
            self._child = launch(self._command(), log=self.log)
            found = mark(self._child.pid)
            self._owner.write_text(f"{found.pid} {found.started}" if found else "")
            atexit.register(self.stop)  # a clean exit ends it cleanly; any other exit, the kernel does (process.py)
            try:
                self._wait(deadline)
                return self
            except BaseException as error:
                self.kill()
                taken = b"address already in use" in self.log.read_bytes()[said:].lower()
                if not (isinstance(error, LocalError) and taken and self._wanted_port == 0 and attempt < ATTEMPTS):
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    def stop(self) -> None:
        """End the server: SIGTERM, a deadline, SIGKILL, its whole process group. Does nothing when it has ended."""
        self._stopped = True
        self._end(self.stop_seconds)

    def kill(self) -> None:
        """End the server as a power cut would."""
        self._end(0.0)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @abstractmethod
    def _prepare(self, deadline: float) -> None:
        """Whatever must be there before the first start."""

    @abstractmethod
    def _command(self) -> list[str]:
        """The program and its arguments, for the port chosen."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether the server serves; raises OSError while nothing listens."""

    def _refuse_twice(self) -> None:
        words = self._owner.read_text().split() if self._owner.exists() else []
        if len(words) == 2 and Mark(int(words[0]), words[1]).alive:
            raise LocalError(
                f"{self.name} already runs on {self.folder} (process {words[0]})",
                f"end it:  penstock down   or   kill {words[0]}",
            )

    def _choose_port(self) -> int:
        if self._wanted_port:
            if not ports.is_free(self._wanted_port):
                raise LocalError(
                    f"port {self._wanted_port} for {self.name} is taken",
                    f"see by whom:  ss -ltnp 'sport = :{self._wanted_port}'   or let Penstock choose: port 0",
                )
            return self._wanted_port
        return self.port if self.port and ports.is_free(self.port) else ports.free()

    def _wait(self, deadline: float) -> None:
        fix = f"read its log:  tail -50 {self.log}"
        while time.monotonic() < deadline:
            if self._stopped:  # by another thread, while we prepare or wait
                raise LocalError(f"{self.name} was stopped while it started", "start it again")
            if not self.running:
                code = self.collect()
                raise LocalError(f"{self.name} ended with code {code} while starting: {self._last_words()}", fix)
            try:
                if self._answers():
                    return
            except OSError:  # nothing listens yet
                pass
            time.sleep(POLL)
        waited = f"{self.name} did not answer on port {self.port} within {self.start_seconds:.0f} s"
        raise LocalError(f"{waited}: {self._last_words()}", fix)

    def _last_words(self) -> str:
        return last_words(self.log.read_text(encoding="utf-8", errors="replace"))

    def _end(self, grace: float) -> None:
        child = self._child
        if child is None:
            return
        end_group(child.pid, grace)
        child.wait(timeout=10)  # already ended: collects it
        self._owner.unlink(missing_ok=True)
        self._child = None
        atexit.unregister(self.stop)
