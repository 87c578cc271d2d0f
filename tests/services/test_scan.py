"""Tables read back in the order of their topics, from any place, however their files lie, as the events that they were."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import WriterProperties
from tests.services.crew import START, Harbour, arrival, played, project, settle

from penstock.codec import EventDecoder
from penstock.errors import Refused
from penstock.log import Partition
from penstock.offline import Location, Tables, scan
from penstock.offline.columns import columns_of
from penstock.offline.scan import Scan
from penstock.runtime.deadletter import dead_letter
from penstock.services.feature_store.rebuild import EventTables
from penstock.services.feature_store.writer import TableWriter
from penstock.topics import Topics

PARTITIONS = 3


def scattered(folder: Path, fate: random.Random) -> Tables:
    """A table of arrivals in commits of any size, some offsets missing, partitions of unequal pace; compacted now and then into
    files of several row groups, of which commits lie in any order."""
    topics = Topics(project, PARTITIONS)
    columns, tables = columns_of(topics)["arrivals"], Tables(folder)
    writer = TableWriter(Location(folder), "arrivals", columns)
    writer.open("t", PARTITIONS)
    position = dict.fromkeys(range(PARTITIONS), 0)
    for _ in range(fate.randrange(1, 25)):
        parts = []
        for number in fate.sample(range(PARTITIONS), PARTITIONS):
            here = range(position[number], position[number] + fate.choice([0, 1, 7, 60]) * (number + 1))
            position[number] = here.stop
            kept = np.array([offset for offset in here if fate.random() < 0.9], np.int64)
            place = {"partition": pa.array(np.full(len(kept), number, np.int32)), "offset": pa.array(kept)}
            values = [arrival(1000 * number + int(offset)).value for offset in kept]
            parts.append(pa.table({**place, **columns.decode(values).columns}))
        writer.append(pa.concat_tables(parts), {number: end for number, end in position.items() if end}, {})
        if fate.random() < 0.2:
            delta = tables.table("arrivals").delta
            delta.optimize.compact(
                target_size=fate.choice([4_000, 100_000_000]), writer_properties=WriterProperties(max_row_group_size=64)
            )
            writer.open("t", PARTITIONS)
    return tables


@pytest.mark.parametrize("seed", range(25))
def test_every_partition_is_read_in_order_from_any_place(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fate = random.Random(seed)
    monkeypatch.setattr(scan, "HELD", fate.choice([1, 10_000, 1 << 20]))
    table = scattered(tmp_path, fate).table("arrivals")
    naive = table.arrow().drop_columns(["topic_id"]).sort_by([("partition", "ascending"), ("offset", "ascending")]).to_pylist()
    found = Scan(table)
    at = dict.fromkeys(range(PARTITIONS), 0)
    for _ in range(60):
        number, most = fate.randrange(PARTITIONS), fate.choice([1, 5, 50, 10_000])
        first = at[number] if fate.random() < 0.8 else fate.randrange(0, 2_000)
        expected = [row for row in naive if row["partition"] == number and row["offset"] >= first][:most]
        rows = found.read(number, first, most)
        assert (rows.to_pylist() if rows is not None else []) == expected
        at[number] = expected[-1]["offset"] + 1 if expected else 0


def test_runs_that_interleave_are_merged(tmp_path: Path) -> None:
    tables, columns = Tables(tmp_path), columns_of(Topics(project, 1))["arrivals"]
    writer = TableWriter(Location(tmp_path), "arrivals", columns)
    writer.open("t", 1)
    for commit in ([1, 3, 9, 11], [0, 2, 4, 10], [5, 6, 7, 8]):
        place = {"partition": pa.array([0] * 4, pa.int32()), "offset": pa.array(commit)}
        data = pa.table({**place, **columns.decode([arrival(n).value for n in commit]).columns})
        writer.append(data, {0: max(commit) + 1}, {})
        tables.table("arrivals").delta.optimize.compact()
        writer.open("t", 1)
    for first in range(13):
        rows = Scan(tables.table("arrivals")).read(0, first, 100)
        assert (rows["offset"].to_pylist() if rows is not None else []) == list(range(first, 12))


def test_events_come_back_as_they_were_but_for_what_the_stream_refused(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = Harbour(tmp_path, PARTITIONS)
        await harbour.open()
        event = project.events[0]
        sends = [
            arrival(n, berth=n or None, captain=None if n % 2 else 'Å "q" \\ \n', depth=None if n % 3 else 0.1 * n, due=due)
            for n, due in enumerate([None, START - timedelta(microseconds=1), START + timedelta(days=9999)] * 30)
        ]
        archive = harbour.archive()
        while await archive.turn():
            pass
        for first in range(0, len(sends), 10):
            await harbour.log.send(sends[first : first + 10])
            while await archive.turn():
                pass
            await archive.flush()
        await settle(archive)
        member = await harbour.log.join("test", ["arrivals"])
        published = [batch for batch in await member.read(1000, 0) if len(batch)]
        gone = {batch.partition: set(random.Random(1).sample(list(batch.offsets), 3)) for batch in published}
        letters = [
            dead_letter(batch.partition, offset, None, batch.values[at], (), Refused("future", "it lies ahead"), "feature_store")
            for batch in published
            for at, offset in enumerate(batch.offsets)
            if offset in gone[batch.partition]
        ]
        await harbour.kept(letters)
        decode, past = EventDecoder(event).decode, EventTables(harbour.tables)
        for batch in published:
            at, offsets, values = 0, list[int](), list[bytes | None]()
            while (found := past.read(batch.partition, at, 7)) is not None:
                offsets, values, at = [*offsets, *found.offsets], [*values, *found.values], found.next
            kept = [i for i, offset in enumerate(batch.offsets) if offset not in gone[batch.partition]]
            assert offsets == [batch.offsets[i] for i in kept]
            assert [decode(value, 1e12) for value in values] == [decode(batch.values[i], 1e12) for i in kept]
            assert past.end(batch.partition) == batch.next

    played(story())


def test_a_reading_that_begins_sees_what_the_table_holds_by_then(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = Harbour(tmp_path, 1)
        await harbour.open()
        past, here = EventTables(harbour.tables), Partition("arrivals", 0)
        assert (past.end(here), past.read(here, 0, 10)) == (0, None)
        for n in range(3):
            await harbour.kept([arrival(i) for i in range(10 * n, 10 * n + 10)])
            batch = past.read(here, 0, 100)
            assert batch is not None and list(batch.offsets) == list(range(10 * n + 10))
            assert past.read(here, batch.next, 100) is None
            assert past.end(here) == batch.next

    played(story())
