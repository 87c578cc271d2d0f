"""The archive in a process of its own, which the feature store starts, listens to, and ends.

Archiving an event and its row costs about two thirds of what computing the row does (10 and 15 microseconds of CPU, twenty
features), most of it in Python: in one process a row would wait for it. So the feature store runs `python -m penstock.services
archive` beside itself. That process ends when its standard input does, so it never outlives its parent, however that ends; and on
its standard output it says how far it is, a line of JSON at a time.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Final

import msgspec
import structlog
from prometheus_client import REGISTRY, Counter, Gauge

from penstock.errors import PenstockError
from penstock.log import Partition
from penstock.runtime.telemetry import Meters

from .archive import Archive

__all__ = ["Archivist", "serve"]

TELL_SECONDS: Final = 2.0
"""Between what it says of itself."""
AGAIN_SECONDS: Final = 1.0
"""Before it is started again after a signal has ended it."""


_ALL: Final = Partition(Archive.name, 0)
"""All that it reads, as one."""
_STARTS: Final = "the archive has not started yet"


class Told(msgspec.Struct, frozen=True):
    """How far the archive is: what is missing until it is ready, and of its partitions the records read and written since it
    started, and those that the log has and its tables have not; and what it costs."""

    missing: str
    read: int
    written: int
    behind: int
    cpu: float = 0.0
    """Seconds of CPU since it started."""
    memory: int = 0
    """Bytes that it holds."""


@cache
def _costs() -> tuple[Counter, Gauge]:
    """Made when first used: a process has each name once."""
    return (
        Counter("penstock_part_cpu_seconds_total", "CPU seconds of a part that has a process of its own.", ["part"]),
        Gauge("penstock_part_memory_bytes", "Resident memory of such a part.", ["part"]),
    )


class Archivist:
    """The feature store's end. `command` is what it runs."""

    def __init__(self, command: Sequence[str] = (sys.executable, "-m", "penstock.services", Archive.name)) -> None:
        self._command = command
        self._told = Told(_STARTS, 0, 0, 0)
        self._meters = Meters(Archive.name)
        cpu, memory = _costs()
        self._cpu, self._memory = cpu.labels(Archive.name), memory.labels(Archive.name)
        self._logger = structlog.get_logger(service="feature_store", part=Archive.name)

    def missing(self) -> str:
        """What is missing until it is ready."""
        return self._told.missing

    async def run(self, stop: asyncio.Event) -> None:
        """Keep it running until `stop` is set, and then until it has committed what it gathered. PenstockError when it ends by
        itself; its own words are in the log."""
        while not stop.is_set():
            code = await self._once(stop)
            if stop.is_set():
                return
            if code >= 0:
                raise PenstockError(
                    f"the process of the {Archive.name} ended (exit code {code})", "see its last lines in the log"
                )
            self._logger.warning("killed", signal=-code, meaning="it is started again, and reads on where the tables end")
            await _within(stop, AGAIN_SECONDS)

    async def _once(self, stop: asyncio.Event) -> int:
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe)
        assert child.stdin is not None and child.stdout is not None
        try:
            heard = asyncio.ensure_future(self._listen(child.stdout))
            await asyncio.wait([heard, stopping := asyncio.ensure_future(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            child.stdin.close()
            await heard
            code = await child.wait()
            await _within(stop, AGAIN_SECONDS if code == 0 else 0.0)  # a signal to the group may have reached it first
            return code
        finally:
            self._told = Told(_STARTS, 0, 0, 0)
            if child.returncode is None:
                child.kill()

    async def _listen(self, lines: asyncio.StreamReader) -> None:
        async for line in lines:
            try:
                told = msgspec.json.decode(line, type=Told)
            except msgspec.MsgspecError:  # some library's words
                self._logger.warning("archive", said=line.decode("utf-8", "replace").rstrip())
                continue
            self._meters.records_in.inc(told.read - self._told.read)
            self._meters.records_out.inc(told.written - self._told.written)
            self._meters.stands(time.monotonic(), {_ALL: told.read + told.behind}, {_ALL: told.read})
            self._cpu.inc(max(told.cpu - self._told.cpu, 0.0))
            self._memory.set(told.memory)
            self._told = told


async def serve(archives: Sequence[Archive], stop: asyncio.Event) -> None:
    """The archive's end: say how far it is until `stop` is set, and set it when the parent has closed our standard input."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    orphaned = asyncio.ensure_future(reader.read())
    orphaned.add_done_callback(lambda _: stop.set())
    while not stop.is_set():
        cpu, memory = (
            REGISTRY.get_sample_value(f"process_{name}") or 0.0 for name in ("cpu_seconds_total", "resident_memory_bytes")
        )
        missing = next(filter(None, (each.missing() for each in archives)), "")
        read, written = sum(each.read for each in archives), sum(each.written for each in archives)
        behind = sum([await each.behind() for each in archives])
        told = Told(missing, read, written, behind, cpu, int(memory))
        with suppress(BrokenPipeError):
            print(msgspec.json.encode(told).decode(), flush=True)
        await _within(stop, TELL_SECONDS)
    orphaned.cancel()


async def _within(stop: asyncio.Event, seconds: float) -> None:
    """Wait for `stop`, so long at most."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
