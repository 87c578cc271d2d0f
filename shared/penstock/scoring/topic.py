"""The models topic on Kafka, for programs that have no event loop to spare: read once, or followed by a thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from penstock.errors import Unreachable
from penstock.log import Log, LogError, Partition
from penstock.log.security import PLAIN, Security
from penstock.settings import Settings

from .decisions import held

__all__ = ["Following", "Hear", "ModelsTopic"]

PATIENCE: Final = 10.0
"""Seconds in which a broker has to have told all decisions."""
AGAIN: Final = 2.0
"""Seconds between two tries at what is away."""

Hear = Callable[[Sequence[tuple[bytes | None, bytes | None]]], None]
"""Takes keys and values of new records; none: time has passed."""


class ModelsTopic:
    """The topic on a broker."""

    def __init__(self, bootstrap: str, security: Security, name: str) -> None:
        self.bootstrap, self.name, self._security = bootstrap, name, security

    @classmethod
    def found(cls, settings: Settings, name: str) -> ModelsTopic | None:
        """On the broker that is set, else on the one that `penstock up` runs in the data folder; None where there is neither."""
        if settings.kafka_bootstrap_servers:
            return cls(settings.kafka_bootstrap_servers, settings.security, name)
        from penstock.local import status

        here = [entry.url for entry in status(settings.data) if entry.running and entry.name == "kafka"]
        return cls(here[0].removeprefix("kafka://"), PLAIN, name) if here else None

    def now(self) -> tuple[dict[bytes, bytes], int]:
        """The newest record by key, and the position after all of them. Unreachable where no broker tells in time."""

        async def ask() -> tuple[dict[bytes, bytes], int]:
            found: tuple[dict[bytes, bytes], int] = await self.using(lambda log: asyncio.wait_for(held(log, self.name), PATIENCE))
            return found

        with ThreadPoolExecutor(1) as thread:  # the caller may be inside an event loop
            try:
                return thread.submit(asyncio.run, ask()).result()
            except (TimeoutError, LogError) as error:
                said = str(error) or f"not all was told within {PATIENCE:.0f} s"
                raise Unreachable(f"the models of {self.name} on {self.bootstrap}: {said}", "penstock doctor") from None

    async def using(self, work: Callable[[Log], Awaitable[Any]]) -> Any:
        """Something done with the log."""
        from penstock.log.kafka import KafkaLog

        log = KafkaLog(self.bootstrap, "penstock-model", security=self._security)
        try:
            return await work(log)
        finally:
            await log.close()


class Following:
    """A thread that reads the topic from a position on, until it is closed."""

    def __init__(self, topic: ModelsTopic, position: int, hear: Hear) -> None:
        self.trouble = ""
        """Why nothing can be heard now."""
        self._topic, self._position, self._hear = topic, position, hear
        self._begun = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._task: asyncio.Task[Any]
        self._thread = threading.Thread(target=self._run, name="penstock-models", daemon=True)
        self._thread.start()
        self._begun.wait()

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()

    def _run(self) -> None:
        async def whole() -> None:
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()  # type: ignore[assignment]
            self._begun.set()
            await self._topic.using(self._follow)

        try:
            asyncio.run(whole())
        except asyncio.CancelledError:
            pass
        except Exception as error:  # whatever it is: nobody else would hear of it
            self.trouble = f"{type(error).__name__}: {error}; decisions are heard no longer"

    async def _follow(self, log: Log) -> None:
        while not self._task.cancelling():  # a client below may drop the cancellation, see Lane.run
            try:
                reader = await log.reader({Partition(self._topic.name, 0): self._position})
                try:
                    await self._read(reader)
                finally:
                    await reader.close()
            except LogError as error:
                self.trouble = str(error)
                await asyncio.sleep(AGAIN)

    async def _read(self, reader: Any) -> None:
        told = time.monotonic()
        while not self._task.cancelling():
            batches = await reader.read(1000, 0.25)
            self.trouble = ""
            for batch in batches:
                self._position = batch.next
                self._hear(list(zip(batch.keys, batch.values, strict=True)))
            if not batches and time.monotonic() > told + AGAIN:
                self._hear([])
                told = time.monotonic()
