"""Taxis: a project as a file, its events, and a feature store over them in a process of its own, which is stopped or killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import numpy as np

from penstock.local import port
from penstock.log import Partition
from penstock.log.kafka import KafkaLog
from penstock.project import Project, load
from penstock.proof.audit import Record, read_all
from penstock.publish import FOREVER, Publisher
from penstock.topics import Topics

PROJECT = """
import penstock as ps

@ps.event("{name}-trips")
class Trip:
    trip_id: ps.Id[str]
    zone: ps.Key[str]
    car: str
    fare: float
    at: ps.EventTime

@ps.features(by=Trip.zone)
class Zone:
    trips_1h = ps.count(Trip, over="1h")
    fares_24h = ps.sum(Trip.fare, over="24h")

@ps.features(by=Trip.car)
class Car:
    trips_3h = ps.count(Trip, over="3h")
    idle = ps.since_last(Trip)

project = ps.Project("{name}", rows={{Trip: [Zone, Car]}})
"""

SECOND = 1_000_000
PATIENCE = 120.0
"""Seconds after which what a test waits for will not come."""


def trips(n: int, first: int = 0) -> Iterator[tuple[bytes, bytes, int]]:
    """Key, value and time of trips in order of time, two a second, some at the same one."""
    chance = np.random.default_rng(first)
    for i in range(first, first + n):
        time, zone, car = i // 2 * 30 * SECOND, f"z{chance.integers(7)}", f"c{chance.integers(50)}"
        at = np.datetime_as_string(np.datetime64(time, "us"), "s") + "Z"
        fare = round(float(chance.normal(20, 5)), 2)
        text = f'{{"trip_id":"t{i}","zone":"{zone}","car":"{car}","fare":{fare},"at":"{at}"}}'
        yield zone.encode(), text.encode(), time


class Taxis:
    """A company: its topics on a broker, and the processes that compute its features."""

    def __init__(self, name: str, folder: Path, bootstrap: str, redis: str, partitions: int, text: str = PROJECT) -> None:
        self.folder, self.file = folder, folder / "project.py"
        self.file.write_text(text.format(name=name))
        self.project: Project = load(str(self.file))
        self.topics, self.log = Topics(self.project, partitions), KafkaLog(bootstrap)
        self.publisher = Publisher(self.log, self.topics)
        [self.event] = self.project.events
        self.port = port.free()
        self.env = {
            "PENSTOCK_PROJECT": str(self.file),
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
            "REDIS_URL": redis,
            "PENSTOCK_DATA": str(folder / "data"),
            "PENSTOCK_HTTP_PORT": str(self.port),
            "PENSTOCK_INSTANCE": "0",
        }
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self, ready: bool = True) -> None:
        """Start the feature store; wait until it is `ready`, which is later than its first rows."""
        with (self.folder / "said.log").open("ab") as said:
            argv = [sys.executable, "-m", "penstock.services", "feature_store"]
            self.process = subprocess.Popen(argv, env={**os.environ, **self.env}, stdout=said, stderr=subprocess.STDOUT)
        if ready:
            await self.until(self._ready)

    async def _ready(self) -> bool:
        try:
            async with httpx.AsyncClient() as client:
                return (await client.get(f"http://127.0.0.1:{self.port}/readyz")).status_code == 200
        except httpx.HTTPError:
            return False

    def end(self, number: int = signal.SIGTERM, seconds: float = 8.0) -> int:
        """Send a signal and wait for the end; the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(seconds)

    async def publish(self, n: int, first: int = 0) -> None:
        """Publish trips and close the time before the last of them."""
        made = list(trips(n, first))
        await self.publisher.send(self.event.topic, made)
        await self.publisher.close(made[-1][2])

    async def finish(self) -> None:
        await self.publisher.close(FOREVER)

    async def rows(self) -> list[Record]:
        return await read_all(self.log, self.topics.rows(self.event))

    async def until_rows(self, least: int) -> list[Record]:
        """The records of rows when there are at least so many."""
        await self.until_count(least)
        return await self.rows()

    async def until_count(self, least: int) -> None:
        async def there() -> bool:
            ends: dict[Partition, int] = await self.log.ends([self.topics.rows(self.event)])
            return sum(ends.values()) >= least

        await self.until(there)

    async def until(self, holds: Callable[[], object]) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while not await holds():  # type: ignore[misc]
                    assert self.process is None or self.process.poll() is None, "the feature store has ended"
                    await asyncio.sleep(0.05)
        except (TimeoutError, AssertionError) as error:
            raise AssertionError(f"{str(error) or 'in vain'}\n{(self.folder / 'said.log').read_text()[-3000:]}") from None


@asynccontextmanager
async def taxis(
    name: str, folder: Path, bootstrap: str, redis: str, partitions: int = 2, text: str = PROJECT
) -> AsyncIterator[Taxis]:
    """A company with topics of its own; nothing of it runs afterwards."""
    made = Taxis(name, folder, bootstrap, redis, partitions, text)
    try:
        await made.log.create(made.topics.all())
        yield made
    finally:
        if made.process is not None and made.process.poll() is None:
            made.process.kill()
            made.process.wait()
        await made.log.close()
