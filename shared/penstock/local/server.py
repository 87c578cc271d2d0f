"""A server process with a folder of its own on this machine: start and wait until it answers, stop, kill."""

import atexit
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Self

from . import port as ports
from .process import POLL, LocalError, end_group, launch, read_mark, write_mark

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
        self._child: subprocess.Popen[bytes] | None = None
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
        other = read_mark(self._pid_file)
        if other is not None:
            raise LocalError(
                f"{self.name} already runs on {self.folder} (process {other.pid})",
                f"end it:  penstock down   or   kill {other.pid}",
            )
        self._prepare(deadline)
        for attempt in range(1, ATTEMPTS + 1):
            self.port = self._choose_port()
            seen = self.log.stat().st_size if self.log.exists() else 0
            self._child = launch(self._command(), log=self.log)
            write_mark(self._pid_file, self._child.pid)
            atexit.register(self.stop)  # a clean exit ends it cleanly; any other exit, the kernel does (process.py)
            try:
                if self._stopped:  # by another thread, while we prepared
                    raise LocalError(f"{self.name} was stopped while it started", "start it again")
                self._wait(deadline)
                return self
            except BaseException as error:
                self.kill()
                taken = "address already in use" in self._log_since(seen).lower()
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

    @property
    def _pid_file(self) -> Path:
        return self.folder / f"{self.name}.pid"

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
        child = self._child
        assert child is not None
        while time.monotonic() < deadline:
            if child.poll() is not None:
                raise LocalError(
                    f"{self.name} ended with code {child.returncode} while starting: {self._last_words()}",
                    f"read its log:  tail -50 {self.log}",
                )
            try:
                if self._answers():
                    return
            except OSError:  # nothing listens yet
                pass
            time.sleep(POLL)
        raise LocalError(
            f"{self.name} did not answer on port {self.port} within {self.start_seconds:.0f} s: {self._last_words()}",
            f"read its log:  tail -50 {self.log}",
        )

    def _end(self, grace: float) -> None:
        child = self._child
        if child is None:
            return
        end_group(child.pid, grace)
        child.wait(timeout=10)  # already ended: collects it
        self._pid_file.unlink(missing_ok=True)
        self._child = None
        atexit.unregister(self.stop)

    def _log_since(self, offset: int) -> str:
        with self.log.open("rb") as file:
            file.seek(offset)
            return file.read().decode("utf-8", "replace")

    def _last_words(self) -> str:
        """The line of the log that most likely names the cause."""
        lines = [line.strip() for line in self._log_since(0).splitlines()[-60:] if line.strip()]
        causes = [line for line in lines if "ERROR" in line or "FATAL" in line or "cannot start" in line.lower()]
        return (causes or lines or ["its log is empty"])[-1]
