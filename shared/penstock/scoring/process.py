"""A function at work: plain Python before or after a model, in a process of its own that may fail, hang or die without harm.

    arrays by name --wire--> worker (another process): the function --wire--> arrays by name

A process that died is started again, and the call that it died of is tried once more: whatever killed it from outside, nobody
notices; a call that kills it twice fails alone. A call that takes too long ends the process, and fails.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from ..errors import PenstockError, Refused, Unreachable
from ..runtime.refusals import Failed
from .signature import Array, Signature, Tensor
from .wire import Call, Fault, Gave, Message, Ready, Refusal, Source, packed, receive, send, unpacked

__all__ = ["Bounds", "Function", "FunctionFailed"]

_PASSED: Final = ("PATH", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "LANG", "LC_ALL", "TZ", "TMPDIR")
"""What a function's process sees of our environment: where Python packages are, and how to write. No passwords."""
LOOK: Final = 0.2
"""Seconds between two looks whether opening is still wanted."""
SILENT: Final = 10.0
"""Seconds in which the same failure is logged once."""
_ONE_THREAD: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""As models run: small arrays gain nothing from more, and each thread takes address space."""


class FunctionFailed(Failed):
    """A function failed on values that it had declared to take: a fault of ours, not of who asked. `why` is for the owner of the
    function alone, as it may tell what the function knows: what it raised, and where."""

    def __init__(self, what: str, why: str = "") -> None:
        super().__init__(500, what)
        self.why = why or what


class Bounds(NamedTuple):
    """What a function may take."""

    seconds: float = 5.0
    """For a call."""
    memory: int = 2 << 30
    """Bytes of address space of its process; Python with numpy has some 300 MiB."""
    opening: float = 60.0
    """Seconds to import what it needs."""


class Function:
    """A function of a Python file, open. `run` may be called from several threads: calls take turns. Opening it is given up when
    `ending` says so: an import that hangs must not hold up the end of a server."""

    def __init__(
        self, file: Path, name: str, bounds: Bounds = Bounds(), module: str = "", ending: Callable[[], bool] = lambda: False
    ) -> None:
        """PenstockError, in words, when it cannot be served; Unreachable when the file cannot be read."""
        try:
            text = file.read_bytes()
        except OSError as error:
            raise Unreachable(f"it cannot be read: {error.strerror or error}", "name a Python file that is there") from None
        self.sha256 = hashlib.sha256(text + b"\0" + name.encode()).hexdigest()  # a file has many functions, and no NUL
        self.size = len(text)
        self.name, self._bounds = name, bounds
        path = [os.path.abspath(place) for place in sys.path]
        self._source = Source(str(file.absolute()), module or file.stem, path, name, text, bounds.memory, bounds.seconds)
        self._turn, self._logger = threading.Lock(), structlog.get_logger()
        self._told = "", -SILENT
        self._worker: _Worker | None = _Worker(self._source, bounds, ending)
        self.signature, self.code = self._worker.signature, self._worker.code

    def run(self, wanted: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """The outputs wanted, in that order. Refused (schema) in the function's own words; FunctionFailed."""
        signature = self.signature
        call = Call(packed({name: feeds[name] for name in signature.takes}, signature.takes))
        with self._turn:
            answer = self._answer(call)
        if isinstance(answer, Refusal):
            raise Refused("schema", answer.what)
        if not isinstance(answer, Gave):
            raise self._failed(answer)
        try:
            found = unpacked(answer.arrays)
            given = {len(found[name]) for name in signature.names}
        except (ValueError, KeyError):
            raise FunctionFailed(f"{self.name} gave what it had not declared") from None
        if signature.batched and given != {rows := len(next(iter(feeds.values())))}:
            many = " and ".join(map(str, sorted(given)))
            raise FunctionFailed(f"{self.name} gave {many} rows for {rows}, where * of both says as many")
        return [found[name] for name in wanted]

    def close(self) -> None:
        """End its process, which happens by itself when nobody holds this object any more."""
        with self._turn:
            self._end()

    @property
    def pid(self) -> int | None:
        """Of its process, where one runs."""
        worker = self._worker
        return None if worker is None else worker.pid

    def _answer(self, call: Call) -> Message:
        for last in (False, True):
            worker = self._worker or self._again()
            try:
                return worker.ask(call, self._bounds.seconds)
            except ValueError as error:
                raise self._failed(Fault(f"{self.name} cannot be given these values: {error}")) from None
            except TimeoutError:
                self._end()
                raise self._failed(Fault(f"{self.name} did not answer within {self._bounds.seconds:g} s")) from None
            except (EOFError, OSError):
                ended = self._end()
                self._logger.warning("function died", function=self.name, cause=ended)
                if last:
                    raise self._failed(Fault(f"{self.name} died of these values: its process {ended}")) from None
        raise AssertionError

    def _again(self) -> _Worker:
        try:
            worker = self._worker = _Worker(self._source, self._bounds)
        except (PenstockError, OSError) as error:
            raise self._failed(Fault(f"{self.name} cannot be started again; the server's log says why", str(error))) from None
        if worker.code != self.code:  # a module beside its file has changed
            self._end()
            raise self._failed(Fault(f"the code of {self.name} has changed since it was opened; start the server again"))
        self._logger.info("function started again", function=self.name, pid=worker.pid)
        return worker

    def _failed(self, fault: Message) -> FunctionFailed:
        assert isinstance(fault, Fault), fault
        cause, at = self._told
        if fault.what != cause or time.monotonic() > at + SILENT:  # a function that fails does so for every row
            self._logger.error("function failed", function=self.name, cause=fault.why or fault.what, traceback=fault.traceback)
            self._told = fault.what, time.monotonic()
        return FunctionFailed(fault.what, fault.why)

    def _end(self) -> str:
        worker, self._worker = self._worker, None
        return "" if worker is None else worker.end()


class _Worker:
    """One life of the process of a function."""

    def __init__(self, source: Source, bounds: Bounds, ending: Callable[[], bool] = lambda: False) -> None:
        ours, theirs = socket.socketpair()
        kept = {name: os.environ[name] for name in _PASSED if name in os.environ}
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "penstock.scoring.worker", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, stdout=2, env={**kept, **_ONE_THREAD},
                start_new_session=True,  # Ctrl-C in a terminal is for the server, which ends it in its own time
            )  # fmt: skip
        self.pid, self._process, self._socket = process.pid, process, ours
        self._ended = weakref.finalize(self, _end, process, ours)
        until = time.monotonic() + bounds.opening
        try:
            send(ours, source, until)
            while not wait([ours], LOOK) and time.monotonic() < until:
                if ending():
                    self.end()
                    raise PenstockError(f"{source.name} is opened no more, as the server ends", "start the server again")
            said = receive(ours, until)
        except TimeoutError:
            self.end()
            raise PenstockError(f"{source.name} was not open after {bounds.opening:g} s", "raise --load-timeout") from None
        except (EOFError, OSError):
            how = self.end()
            raise PenstockError(f"{source.name} died while it was opened: its process {how}", "run the file in Python") from None
        if not isinstance(said, Ready):
            self.end()
            raise PenstockError(getattr(said, "what", "it does not answer"), "run the file in Python to see more")
        self.signature, self.code = Signature(_tensors(said.takes), _tensors(said.gives), said.batched), said.code

    def ask(self, call: Call, seconds: float) -> Message:
        """TimeoutError; EOFError or OSError where the process is gone."""
        until = time.monotonic() + seconds
        send(self._socket, call, until)
        return receive(self._socket, until)

    def end(self) -> str:
        """End the process; how it ended, in words."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.1)  # one that died by itself says of what
        code = self._process.poll()
        self._ended()
        if code is None:
            return "was ended"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _end(process: subprocess.Popen[bytes], ours: socket.socket) -> None:
    ours.close()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # it leads its session: what it started goes with it
    process.wait()


def _tensors(of: Mapping[str, tuple[str, list[int]]]) -> tuple[Tensor, ...]:
    return tuple(Tensor(name, datatype, shape) for name, (datatype, shape) in of.items())
