"""The archive: events, rows, predictions, inferences and outcomes into the offline tables, each record once.

reads    every data topic    partitions shared among the replicas (a group of its own)
writes   <p>.archive         a notice of each commit
state    the tables: a commit holds the data and the positions that it includes (see writer)

There is no other position: whoever is given a partition reads on where its tables end. Two replicas that hold it both for a
moment do no harm, and a table that was restored to an older version is filled again from the log.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from penstock.log import Batch, Log, Member, Partition, Send
from penstock.offline import Location
from penstock.offline.columns import columns_of, whole_of
from penstock.offline.upkeep import KEEP
from penstock.records import Commit
from penstock.runtime.lane import numbered
from penstock.runtime.patience import patiently
from penstock.runtime.swaps import Swaps
from penstock.runtime.telemetry import Meters
from penstock.topics import Topics

from .writer import Moved, TableWriter

__all__ = ["Archive"]

FLUSH_ROWS: Final = 20_000
"""A commit costs 10 to 20 ms whatever it holds, so rows are gathered; large ones also make good files."""
FLUSH_BYTES: Final = 64 << 20
"""Of one table, so that large records do not fill the memory."""
FLUSH_SECONDS: Final = 30.0
"""How old the offline tables may be. A commit is a file, so shorter means more of them. As often it is looked whether a table was
restored."""
READ_RECORDS: Final = 20_000
TIDY_EVERY: Final = 100
"""Versions between compactions, each followed by a vacuum: appending slows down with the number of files (15 to 85 ms after 600
commits)."""


@dataclass(slots=True)
class Pending:
    """Records of one table that were read and are not committed."""

    since: float
    batches: list[Batch] = field(default_factory=list)
    records: int = 0
    size: int = 0

    def add(self, batch: Batch) -> None:
        self.batches.append(batch)
        self.records += len(batch)
        self.size += sum(len(value) for value in batch.values if value)


class Archive:
    """The share of the archive that this process holds. `turn` drives it as a lane's does; `run` also commits by age, compacts,
    and deletes what no version younger than `keep` and no training set needs (None: nothing). `whole`: of the topics of one
    partition, of what is counted, decided and said (`whole_of`), else of all others: members of a group share equal partitions.
    """

    name = "archive"

    def __init__(
        self, topics: Topics, log: Log, location: Location | Path | str, keep: timedelta | None = KEEP, whole: bool = False
    ) -> None:
        self._topics, self._log, self._keep = topics, log, keep
        self._location = location if isinstance(location, Location) else Location(location)
        self._columns, self._partitions = (whole_of(topics), 1) if whole else (columns_of(topics), topics.partitions)
        self._group = f"{topics.prefix}.{self.name}" + (".whole" if whole else "")
        self._writers = {topic: TableWriter(self._location, topic, columns) for topic, columns in self._columns.items()}
        self._identities: dict[str, str] = {}
        self._pending: dict[str, Pending] = {}
        self._member: Member | None = None
        self._generation = 0
        self._cause, self._opened, self._looked = "", False, time.monotonic()
        self._swaps = Swaps(log, topics.generations)
        self.read = self.written = 0
        """Records so far: committed as read, and rows in the tables."""
        self._tidying: dict[str, asyncio.Task[None]] = {}
        self._tidies = False
        self._one_at_a_time = asyncio.Lock()
        self._meters = Meters(self.name)
        self._logger = structlog.get_logger(service="feature_store", part=self.name)

    @property
    def reads(self) -> frozenset[str]:
        """The topics that it keeps, each in a table of its name."""
        return frozenset(self._columns)

    async def turn(self, wait: float = 0.0) -> bool:
        """Take what is new, and commit the tables that have gathered enough; whether there was anything."""
        if self._member is None:
            if not await self._leads():
                await asyncio.sleep(wait)
                return False
            self._member = await self._patient(lambda: self._log.join(self._group, sorted(self._columns)))
        if self._member.generation != self._generation:
            await self._open(self._member)
        batches = await self._patient(lambda: self._member.read(READ_RECORDS, wait))  # type: ignore[union-attr]
        if self._member.generation != self._generation:
            return True
        if batches and not await self._leads():  # asked after they were read: rows of others come after the swap to them
            await self._leave()
            return False
        for batch in batches:
            self._pending.setdefault(batch.partition.topic, Pending(time.monotonic())).add(batch)
        await self._commit_all(lambda pending: pending.records >= FLUSH_ROWS or pending.size >= FLUSH_BYTES)
        return bool(batches)

    async def _leads(self) -> bool:
        """Whether its generation of the views is in charge, or none is yet. Only then does it work: a project file names
        the columns of its own rows; whoever takes over goes on where the tables end."""
        counted = await self._patient(self._swaps.counted)
        leads = not counted or counted[-1].generation == self._topics.generation
        self._opened |= not leads
        return leads

    async def _leave(self) -> None:
        """Commit what was gathered, and leave the partitions to the archive of who is in charge."""
        await self.flush()
        self._logger.info("leaves", meaning="another generation of the views is in charge, whose archive goes on")
        if self._member is not None:
            await self._member.close()
        self._member, self._generation = None, 0

    async def run(self, stop: asyncio.Event | None = None) -> None:
        """Turn until `stop` is set, then commit what was gathered; or until cancelled (asked as in `Lane.run`), which loses
        nothing either: it is read again. Storage or a log that is away is waited for."""
        self._tidies, me = True, asyncio.current_task()
        while me is None or not me.cancelling():
            if stop is not None and stop.is_set():
                return await self.flush()
            await self.turn(0.5)
            due = time.monotonic() - FLUSH_SECONDS
            await self._commit_all(lambda pending, due=due: pending.since < due)  # type: ignore[misc]
            if self._looked < due:
                await self.look()
        raise asyncio.CancelledError

    async def look(self) -> None:
        """Look whether somebody restored a table: quiet topics commit nothing that would notice."""
        self._looked = time.monotonic()
        for writer in [writer for topic, writer in self._writers.items() if topic in self._identities]:
            try:
                await self._patient(lambda writer=writer: asyncio.to_thread(writer.look))  # type: ignore[misc]
            except Moved as error:
                self._moved(writer.name, error)
                return

    async def behind(self) -> int:
        """Records of the partitions held here that the log has, and the tables not yet."""
        if self._member is None or not self._identities:
            return 0
        topics, held = sorted(self._columns), self._member.assigned
        begins, ends = [await self._patient(partial(ask, topics)) for ask in (self._log.begins, self._log.ends)]
        found = 0
        for partition, end in ends.items():
            if partition.number in held:
                position = self._writers[partition.topic].position(partition.number) or 0
                found += max(end - max(position, begins[partition]), 0)
        return found

    async def flush(self) -> None:
        """Commit everything gathered."""
        await self._commit_all(lambda pending: True)

    async def close(self) -> None:
        await self.flush()
        for task in self._tidying.values():
            task.cancel()
        await asyncio.gather(*self._tidying.values(), return_exceptions=True)
        if self._member is not None:
            await self._member.close()
            self._member = None
        await self._swaps.close()

    async def _open(self, member: Member) -> None:
        """Read on, in the partitions held now, where the tables end."""
        self._generation, self._pending = member.generation, {}
        topics = sorted(self._columns)
        while True:
            try:
                identities = await self._patient(lambda: self._log.identities(topics))
                for topic in topics:
                    opened = partial(self._writers[topic].open, identities[topic], self._partitions)
                    await self._patient(lambda opened=opened: asyncio.to_thread(opened))  # type: ignore[misc]
                self._identities = identities  # from here on there are positions to look at
                break
            except Moved:  # another replica makes the same tables
                self._meters.fenced.inc()
        begins = await self._patient(lambda: self._log.begins(topics))
        for partition, begin in begins.items():
            if partition.number in member.assigned:
                position = self._writers[partition.topic].position(partition.number)
                if position is None and begin:
                    self._logger.warning("begins late", topic=partition.topic, partition=partition.number, offset=begin,
                                         meaning="older records were deleted before the archive first ran")  # fmt: skip
                member.seek(partition, begin if position is None else position)
        self._opened = True

    async def _commit_all(self, due: Callable[[Pending], bool]) -> None:
        for topic in [topic for topic, pending in self._pending.items() if due(pending)]:
            try:
                await self._commit(topic, self._pending.pop(topic))
            except Moved as error:
                self._moved(topic, error)
                return

    def _moved(self, table: str, error: Moved) -> None:
        self._logger.warning("moved", table=table, cause=str(error), meaning="reading on where the tables are")
        self._meters.fenced.inc()
        self._generation = -1

    async def _commit(self, topic: str, pending: Pending) -> None:
        began = time.monotonic()
        writer = self._writers[topic]
        # Asked after the records were read: the same identity as before then proves that all are of this one topic.
        if await self._patient(lambda: self._log.identities([topic])) != {topic: self._identities[topic]}:
            raise Moved(f"the topic {topic} was made again")
        harvest = await asyncio.to_thread(_harvest, writer, pending.batches)
        if harvest.refused:
            self._logger.warning(
                "left out", topic=topic, records=harvest.refused, meaning="they fit no column; see the .dlq topic"
            )
        if harvest.rows:
            write = partial(writer.append, harvest.data, harvest.positions, harvest.seen)
            version = await self._patient(lambda: asyncio.to_thread(write))
            said = Commit(table=topic, version=version, positions=harvest.positions, rows=harvest.rows)
            await self._patient(lambda: self._log.send([Send(self._topics.archive, topic.encode(), msgspec.json.encode(said))]))
            if self._tidies and version % TIDY_EVERY == 0 and topic not in self._tidying:
                task = self._tidying[topic] = asyncio.create_task(self._tidy(topic))
                task.add_done_callback(lambda _: self._tidying.pop(topic, None))
        if self._member is not None:
            done = {Partition(topic, number): position for number, position in harvest.positions.items()}
            await self._patient(lambda: self._member.commit(done))  # type: ignore[union-attr]
        self.read, self.written = self.read + pending.records, self.written + harvest.rows
        self._meters.records_in.inc(pending.records)
        self._meters.records_out.inc(harvest.rows)
        self._meters.seconds.observe(time.monotonic() - began)
        self._meters.newest.set(time.time())

    async def _tidy(self, table: str) -> None:
        """In a process of its own, one at a time: memory that a compaction takes (gigabytes have been seen) is given back,
        and the event loop goes on. It may fail against a writer or another compaction; the next one repairs that."""
        async with self._one_at_a_time:
            hours = [] if self._keep is None else [str(self._keep / timedelta(hours=1))]
            command = (sys.executable, "-m", "penstock.offline.upkeep", self._location.root, table, *hours)
            null = asyncio.subprocess.DEVNULL  # who listens to our standard output must see its end when we end
            child = await asyncio.create_subprocess_exec(*command, stdin=null, stdout=null)
            try:
                code = await child.wait()
            finally:
                if child.returncode is None:
                    child.kill()
            if code:
                self._logger.warning("upkeep failed", table=table, code=code, meaning="it is tried again later")

    async def _patient(self, attempt: Callable[[], Any]) -> Any:
        async def heard() -> Any:
            try:
                found = await attempt()
            except OSError as error:
                self._cause = str(error)
                raise
            self._cause = ""
            return found

        return await patiently(heard, self._logger, self._meters.waits.inc)

    @property
    def ready(self) -> bool:
        """Whether it has joined its group."""
        return self._member is not None and self._generation == self._member.generation

    def missing(self) -> str:
        """What keeps it from its first work, in words; empty: nothing. Storage that goes away later is waited for, and told by a
        metric, but takes nothing from those who read features online."""
        if self._opened:
            return ""
        return f"the archive waits: {self._cause}" if self._cause else "the archive has not opened its tables yet"


@dataclass(frozen=True, slots=True)
class Harvest:
    """Records as rows, and what is recorded with them. Nothing is recorded where there are no rows."""

    data: Any
    rows: int
    refused: int
    positions: dict[int, int]
    seen: dict[tuple[int, str], int]


def _harvest(writer: TableWriter, batches: list[Batch]) -> Harvest:
    """The rows of batches: without what was sent twice by services that number what they send, and what fits no column."""
    import numpy as np
    import pyarrow as pa

    columns, parts, refused = writer.columns, list[Any](), 0
    positions: dict[int, int] = {}
    seen: dict[tuple[int, str], int] = {}
    for batch in sorted(batches, key=lambda batch: batch.partition.number):  # long runs: see `penstock.offline.scan`
        number = batch.partition.number
        positions[number] = batch.next
        wanted = range(len(batch))
        if columns.numbered and batch.headers:
            wanted = [i for i in wanted if _new(batch, i, number, writer, seen)]  # type: ignore[assignment]
        values, headers, keys = batch.values, batch.headers, batch.keys
        if len(wanted) < len(batch):
            values, headers, keys = ([of[i] for i in wanted] for of in (values, headers, keys))  # type: ignore[assignment]
        decoded = columns.decode(values, headers, keys)
        refused += len(values) - len(decoded.kept)
        places = np.asarray(batch.offsets, np.int64)[np.asarray(wanted, np.int64)[decoded.kept]]
        place = {"partition": pa.array(np.full(len(places), number, np.int32)), "offset": pa.array(places)}
        parts.append(pa.table({**place, **decoded.columns}))
    data = pa.concat_tables(parts)
    return Harvest(data, len(data), refused, positions, seen)


def _new(batch: Batch, at: int, number: int, writer: TableWriter, seen: dict[tuple[int, str], int]) -> bool:
    """Whether a record is not a repeat; see `lane.Redelivered`, whose memory here is the table."""
    said = numbered(batch.headers[at])
    if said is None:
        return True
    source, count = said
    if count <= seen.get((number, source), writer.seen(number, source)):
        return False
    seen[number, source] = count
    return True
