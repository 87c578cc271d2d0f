"""Boats that come and go: a project with events of every column type, and records of it, for tests of the offline tables."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

import penstock as ps
from penstock.log import Headers, Send
from penstock.log.memory import MemoryLog
from penstock.offline import Table, Tables
from penstock.runtime.lane import FROM, SEQUENCE
from penstock.services.feature_store.archive import Archive
from penstock.topics import Topics


@ps.event("arrivals")
class Arrival:
    arrival_id: ps.Id[str]
    boat: ps.Key[str]
    offset: int
    berth: int | None
    captain: str | None
    depth: float | None
    towed: bool | None
    due: datetime | None
    at: ps.EventTime


@ps.features(by=Arrival.boat)
class Boat:
    visits_1d = ps.count(Arrival, over="1d")
    depth_7d = ps.mean(Arrival.depth, over="7d")


project = ps.Project("harbour", rows={Arrival: [Boat]})
START = datetime(2026, 2, 1, tzinfo=UTC)
ROWS, PASSED = "harbour.rows.arrivals", "harbour.passed"


def arrival(number: int, **more: Any) -> Send:
    """The arrival of a number; ten boats in turn."""
    boat = f"boat {number % 10}"
    said = {
        "arrival_id": f"a{number}",
        "boat": boat,
        "offset": number,
        "berth": None,
        "captain": None,
        "depth": number / 4,
        "towed": number % 3 == 0,
        "due": None,
        "at": START + timedelta(minutes=number),
    }
    return Send("arrivals", boat.encode(), msgspec.json.encode({**said, **more}))


def row(number: int, source: str = "feature_store.0", count: int | None = None) -> Send:
    """The row of an arrival, numbered as lanes do."""
    said = {
        "id": f"a{number}",
        "time": START + timedelta(minutes=number),
        "event": {},
        "features": {"Boat.visits_1d": float(number), "Boat.depth_7d": None},
        "cursor": {"source": [0, number]},
    }
    headers: Headers = ((FROM, source.encode()), (SEQUENCE, b"%d" % (number if count is None else count)))
    return Send(ROWS, f"boat {number % 10}".encode(), msgspec.json.encode(said), headers)


class Harbour:
    """A log in memory with the harbour's topics, and a place for its tables."""

    def __init__(self, folder: Path | str, partitions: int = 2, log: MemoryLog | None = None) -> None:
        self.topics, self.log = Topics(project, partitions), log or MemoryLog()
        self.folder = Path(folder)
        self.tables = Tables(folder)

    async def open(self) -> None:
        await self.log.create(self.topics.all())

    def archive(self) -> Archive:
        return Archive(self.topics, self.log, self.tables.location)

    async def kept(self, sends: Sequence[Send]) -> None:
        """Publish records, and archive them."""
        await self.log.send(sends)
        await settle(self.archive())


async def settle(archive: Archive) -> None:
    """Archive everything, and close."""
    while await archive.turn():
        pass
    await archive.close()


def played(story: Any) -> None:
    """Run a story, with a deadline that only a story that hangs meets."""
    asyncio.run(asyncio.wait_for(story, 60))


def places(table: Table) -> list[tuple[str, int, int]]:
    """Where its rows were, sorted; a repeated row shows twice."""
    found: pa.Table = table.arrow(columns=["topic_id", "partition", "offset"])
    return sorted(zip(*(found[name].to_pylist() for name in found.column_names), strict=True))


async def there(log: MemoryLog, topic: str) -> list[tuple[str, int, int]]:
    """Where the records of a topic are."""
    identity = (await log.identities([topic]))[topic]
    ends = await log.ends([topic])
    return sorted((identity, partition.number, offset) for partition, end in ends.items() for offset in range(end))


def pinned(harbour: Harbour, dataset: str, version: int, with_files: bool = True) -> list[str]:
    """Leave the manifest of a training set that needs a version of the arrivals; the files of that version."""
    files = harbour.tables.table("arrivals").at(version=version).files
    said = {"name": dataset, "tables": [{"name": "arrivals", "version": version, "files": files if with_files else []}]}
    folder = harbour.folder / "datasets"
    folder.mkdir(exist_ok=True)
    (folder / f"{dataset}.json").write_text(json.dumps(said))
    return files


async def grown(folder: Path, commits: int, partitions: int = 1) -> Harbour:
    """A harbour whose arrivals came in so many commits of ten; version n has 10 n rows."""
    harbour = Harbour(folder, partitions)
    await harbour.open()
    archive = harbour.archive()
    for first in range(0, 10 * commits, 10):
        await harbour.log.send([arrival(n) for n in range(first, first + 10)])
        while await archive.turn():
            pass
        await archive.flush()
    await archive.close()
    return harbour
