"""The archive: every record in its table once, whatever happens to those who write it."""

from __future__ import annotations

import asyncio
import random
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from tests.services.crew import ROWS, Arrival, Harbour, arrival, places, played, row, settle, there

import penstock as ps
from penstock.errors import PenstockError, Refused
from penstock.log import Send
from penstock.records import Charge, Commit
from penstock.runtime.deadletter import dead_letter
from penstock.runtime.lane import FROM, SEQUENCE
from penstock.services.feature_store import archive as module
from penstock.services.feature_store.archive import Archive
from penstock.services.feature_store.writer import Away, TableWriter
from penstock.topics import Topics


def test_a_table_has_the_declared_types_even_where_every_value_is_missing(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = Harbour(tmp_path)
        await harbour.open()
        await harbour.kept([arrival(n) for n in range(20)])
        table = harbour.tables.table("arrivals")
        moment = pa.timestamp("us", tz="UTC")
        assert dict(zip(table.schema.names, table.schema.types, strict=True)) == {
            "topic_id": pa.string(), "partition": pa.int32(), "offset": pa.int64(), "arrival_id": pa.string(),
            "boat": pa.string(), "Arrival.offset": pa.int64(), "berth": pa.int64(), "captain": pa.string(),
            "depth": pa.float64(), "towed": pa.bool_(), "due": moment, "at": moment,
        }  # fmt: skip
        rows = {r["arrival_id"]: r for r in table.arrow().to_pylist()}
        assert len(rows) == 20 and rows["a7"]["at"] == arrival_time(7) and rows["a7"]["depth"] == 1.75
        assert {r["captain"] for r in rows.values()} == {r["due"] for r in rows.values()} == {None}
        assert rows["a7"]["Arrival.offset"] == 7, "a user's column keeps its values beside the record's own offset"

    played(story())


def arrival_time(number: int) -> datetime:
    at: str = msgspec.json.decode(arrival(number).value or b"")["at"]
    return datetime.fromisoformat(at)


def test_a_record_that_fits_no_column_leaves_the_others_alone(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = Harbour(tmp_path, partitions=1)
        await harbour.open()
        bad = [Send("arrivals", b"x", b"{"), Send("arrivals", b"x", None), arrival(3, depth="deep")]
        await harbour.kept([arrival(0), *bad, arrival(4), bad[0]])
        table = harbour.tables.table("arrivals")
        assert [offset for *_, offset in places(table)] == [0, 4]
        assert table.positions() == {0: 6}, "what was refused is behind us, too"
        await harbour.kept([arrival(6)])
        assert [offset for *_, offset in places(harbour.tables.table("arrivals"))] == [0, 4, 6]

    played(story())


def test_what_the_stream_refused_is_told_by_the_dead_letters(tmp_path: Path) -> None:
    """A repeated id decodes, so its event is in the table; the dead letters say that it never became a row."""

    async def story() -> None:
        harbour = Harbour(tmp_path, partitions=1)
        await harbour.open()
        again, far = arrival(2), arrival(5, at="9999-01-01T00:00:00Z")
        [place] = await harbour.log.ends(["arrivals"])
        letters = [
            dead_letter(place, offset, sent.key, sent.value, (), Refused(reason, "no"), service)
            for offset, sent, reason, service in (
                (3, again, "duplicate", "feature_store"),
                (4, far, "future", "feature_store"),
                (4, far, "future", "feature_store"),  # sent again by one that was killed
                (0, arrival(0), "unknown", "monitoring"),  # who reads a label says nothing about the event
            )
        ]
        await harbour.kept([*(arrival(n) for n in range(3)), again, far, arrival(6), *letters])
        dead = harbour.tables.table("arrivals.dlq").arrow().sort_by("offset")
        assert dead["of_offset"].to_pylist() == [3, 4, 4, 0] and dead["value"][0].as_py() == again.value
        assert dead["reason"].to_pylist() == ["duplicate", "future", "future", "unknown"]
        assert harbour.tables.table("arrivals").rows == 6
        taken = harbour.tables.taken("arrivals", columns=["arrival_id", "depth"])
        assert sorted(taken["arrival_id"].to_pylist()) == ["a0", "a1", "a2", "a6"]
        assert taken.column_names == ["arrival_id", "depth"]
        assert harbour.tables.taken("arrivals", filter=[("offset", ">", 2)])["arrival_id"].to_pylist() == ["a6"]

    played(story())


def test_rows_keep_their_features_as_numbers_and_missing_ones_as_null(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = Harbour(tmp_path)
        await harbour.open()
        await harbour.kept([row(n) for n in range(30)])
        found = harbour.tables.table(ROWS).arrow().sort_by("time")
        assert found["id"].to_pylist() == [f"a{n}" for n in range(30)]
        assert found["Boat.visits_1d"].to_pylist() == [float(n) for n in range(30)]
        assert found["Boat.depth_7d"].null_count == 30 and found.schema.field("Boat.depth_7d").type == pa.float64()
        assert found["cursor"][3].as_py() == '{"source":[0,3]}'

    played(story())


def test_only_the_archive_of_the_generation_in_charge_works(tmp_path: Path) -> None:
    """Another project file names other columns: its rows are for its own archive, which goes on where the tables end."""

    async def story() -> None:
        harbour = Harbour(tmp_path)
        await harbour.open()

        async def put_in_charge(number: int, generation: str, previous: str = "") -> None:
            said = Charge(number=number, generation=generation, previous=previous)
            await harbour.log.send([Send(harbour.topics.generations, None, msgspec.json.encode(said))])

        archive, own = harbour.archive(), harbour.topics.generation
        await put_in_charge(1, own)
        await harbour.log.send([row(n) for n in range(10)])
        await archive.turn()
        await put_in_charge(2, "another", own)
        await harbour.log.send([row(n) for n in range(10, 20)])
        for _ in range(3):
            assert not await archive.turn()
        assert archive.missing() == ""
        assert harbour.tables.table(ROWS).rows == 10, "what came before is kept"
        late = harbour.archive()
        assert not await late.turn() and late.missing() == "", "a shadow's has nothing to wait for"
        await put_in_charge(3, own, "another")
        for each in (late, archive):
            while await each.turn():
                pass
            await each.flush()
        ids = harbour.tables.table(ROWS).arrow(columns=["id"])["id"].to_pylist()
        assert sorted(ids) == sorted(f"a{n}" for n in range(20))
        for each in (late, archive):
            await each.close()

    played(story())


def test_what_a_killed_service_sends_again_is_archived_once(tmp_path: Path) -> None:
    """Also when the repeat comes long after, to another archive process; what users publish twice is theirs to explain."""

    async def story() -> None:
        harbour = Harbour(tmp_path, partitions=1)
        await harbour.open()
        first = [row(n) for n in range(10)]
        await harbour.kept([*first, *first[6:], row(10)])
        await harbour.kept([*first[8:], row(10), row(11), row(0, source="feature_store.1")])
        ids = harbour.tables.table(ROWS).arrow(columns=["id"])["id"].to_pylist()
        assert sorted(ids) == sorted([*(f"a{n}" for n in range(12)), "a0"])
        headers = ((FROM, b"till"), (SEQUENCE, b"1"))
        await harbour.kept([arrival(1)._replace(headers=headers), arrival(1)._replace(headers=headers)])
        assert harbour.tables.table("arrivals").rows == 2

    played(story())


@pytest.mark.parametrize("seed", range(6))
def test_writers_that_come_go_and_overlap_leave_each_record_once(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Members join and leave at random; some are dropped without a word, and go on writing as zombies."""
    fate = random.Random(seed)
    monkeypatch.setattr(module, "FLUSH_ROWS", 40)

    async def story() -> None:
        harbour = Harbour(tmp_path, partitions=4)
        await harbour.open()
        crew: list[Archive] = [harbour.archive()]
        sent = 0
        for _ in range(30):
            more = fate.randrange(60)
            await harbour.log.send([make(n) for n in range(sent, sent + more) for make in (arrival, row)])
            sent += more
            deed = fate.random()
            if deed < 0.25:
                crew.append(harbour.archive())
            elif deed < 0.45 and len(crew) > 1:
                crew.pop(fate.randrange(len(crew)))  # killed: what it gathered is lost with it
                harbour.log._groups.clear()  # and all others are zombies of a group that is gone, until they write
                crew.append(harbour.archive())
            for member in fate.sample(crew, len(crew)):
                await member.turn()
                if fate.random() < 0.3:
                    await member.flush()
        for member in crew:
            await member.flush()
        harbour.log._groups.clear()
        await settle(harbour.archive())
        for topic in ("arrivals", ROWS):
            assert places(harbour.tables.table(topic)) == await there(harbour.log, topic)
            ends = {partition.number: end for partition, end in (await harbour.log.ends([topic])).items()}
            assert harbour.tables.table(topic).positions() == {number: end for number, end in ends.items() if end}

    played(story())


def test_replicas_share_the_partitions_out(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = Harbour(tmp_path, partitions=4)
        await harbour.open()
        one, two = harbour.archive(), harbour.archive()
        await one.turn()
        await two.turn()
        await one.turn()
        await harbour.log.send([arrival(n) for n in range(100)])
        assert await one.turn() and await two.turn()
        held = [{b.partition.number for p in a._pending.values() for b in p.batches} for a in (one, two)]
        assert held[0] | held[1] == {0, 1, 2, 3} and not held[0] & held[1]
        await one.flush()
        await two.flush()
        assert places(harbour.tables.table("arrivals")) == await there(harbour.log, "arrivals")

    played(story())


def test_a_topic_that_is_made_again_is_archived_from_its_start(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = Harbour(tmp_path)
        await harbour.open()
        await harbour.kept([arrival(n) for n in range(50)])
        before = await there(harbour.log, "arrivals")
        await harbour.log.delete(["arrivals"])
        await harbour.log.create(harbour.topics.all())
        await harbour.kept([arrival(n) for n in range(30)])
        table = harbour.tables.table("arrivals")
        assert places(table) == sorted([*before, *await there(harbour.log, "arrivals")])
        assert sum(table.positions().values()) == 30, "positions are those of the topic that is there now"

    played(story())


def test_a_topic_that_is_made_again_under_a_running_archive_is_noticed_before_it_writes(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = Harbour(tmp_path, partitions=1)
        await harbour.open()
        archive = harbour.archive()
        await harbour.log.send([arrival(n) for n in range(3)])
        await archive.turn()
        await archive.flush()
        old = await there(harbour.log, "arrivals")
        await harbour.log.delete(["arrivals"])
        await harbour.log.create(harbour.topics.all())
        await harbour.log.send([arrival(n) for n in range(10)])  # position 3 is there again, and means another record
        await archive.turn()
        await archive.flush()
        assert places(harbour.tables.table("arrivals")) == old
        await settle(archive)
        assert places(harbour.tables.table("arrivals")) == sorted([*old, *await there(harbour.log, "arrivals")])

    played(story())


def test_a_new_feature_becomes_a_column_and_an_old_one_stays(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = Harbour(tmp_path)
        await harbour.open()
        await harbour.kept([row(n) for n in range(5)])

        @ps.features(by=Arrival.boat)
        class Berths:
            deepest_1d = ps.max(Arrival.depth, over="1d")

        newer = ps.Project("harbour", rows={Arrival: [Berths]})
        said: dict[str, Any] = msgspec.json.decode(row(5).value or b"")
        said["features"] = {"Berths.deepest_1d": 4.5}
        await harbour.log.send([row(5)._replace(value=msgspec.json.encode(said))])
        await settle(Archive(Topics(newer, 2), harbour.log, tmp_path))
        found = harbour.tables.table(ROWS).arrow().sort_by("time")
        assert found["Berths.deepest_1d"].to_pylist() == [None] * 5 + [4.5]
        assert found["Boat.visits_1d"].to_pylist() == [0.0, 1.0, 2.0, 3.0, 4.0, None]

    played(story())


def test_rows_of_before_a_swap_keep_features_that_the_new_file_has_dropped(tmp_path: Path) -> None:
    """The old file's archive may end before it has committed them."""

    async def story() -> None:
        harbour = Harbour(tmp_path)
        await harbour.open()
        await harbour.kept([row(n) for n in range(5)])

        @ps.features(by=Arrival.boat)
        class Berths:
            deepest_1d = ps.max(Arrival.depth, over="1d")

        await harbour.log.send([row(5)])
        await settle(Archive(Topics(ps.Project("harbour", rows={Arrival: [Berths]}), 2), harbour.log, tmp_path))
        found = harbour.tables.table(ROWS).arrow().sort_by("time")
        assert found["Boat.visits_1d"].to_pylist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]

    played(story())


def test_a_column_that_changed_its_type_is_refused_in_words(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = Harbour(tmp_path)
        await harbour.open()
        await harbour.kept([arrival(1)])

        @ps.event("arrivals")
        class Arrived:
            arrival_id: ps.Id[str]
            boat: ps.Key[str]
            berth: str | None
            at: ps.EventTime

        @ps.features(by=Arrived.boat)
        class Boat:
            visits_1d = ps.count(Arrived, over="1d")

        changed = Topics(ps.Project("harbour", rows={Arrived: [Boat]}), 2)
        with pytest.raises(PenstockError, match=r"column berth of the table .* holds int64, .* declares string"):
            await settle(Archive(changed, harbour.log, tmp_path))

    played(story())


def test_storage_that_is_away_is_waited_for_and_nothing_is_lost_or_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every third write fails before it began, every fifth after it was done: its answer was lost."""
    monkeypatch.setattr("penstock.runtime.patience.RETRY_SECONDS", (0.0,))
    monkeypatch.setattr(module, "FLUSH_ROWS", 10)
    calls, real = 0, TableWriter.append

    def flaky(self: TableWriter, *given: Any) -> int:
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            raise Away("no space left on device")
        version = real(self, *given)
        if calls % 5 == 0:
            self._positions |= dict.fromkeys(self._positions, 0)  # it does not know that it wrote
            raise Away("connection reset")
        return version

    monkeypatch.setattr(TableWriter, "append", flaky)

    async def story() -> None:
        harbour = Harbour(tmp_path)
        await harbour.open()
        archive = harbour.archive()
        for first in range(0, 300, 15):
            await harbour.log.send([arrival(n) for n in range(first, first + 15)])
            await archive.turn()
        await settle(archive)
        await settle(harbour.archive())
        assert places(harbour.tables.table("arrivals")) == await there(harbour.log, "arrivals")

    played(story())


def test_an_archive_says_what_it_waits_for_until_its_tables_were_opened_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, away = TableWriter.open, True

    def failing(self: TableWriter, *given: Any) -> None:
        if away:
            raise Away("table arrivals: permission denied")
        real(self, *given)

    monkeypatch.setattr(TableWriter, "open", failing)

    async def story() -> None:
        nonlocal away
        harbour = Harbour(tmp_path)
        await harbour.open()
        archive = harbour.archive()
        assert archive.missing() == "the archive has not opened its tables yet"
        turning = asyncio.create_task(archive.turn())
        while "permission denied" not in archive.missing():
            await asyncio.sleep(0)
        assert archive.missing() == "the archive waits: table arrivals: permission denied"
        away = False
        await turning
        assert archive.missing() == ""

    played(story())


def test_each_commit_is_announced_with_the_positions_that_it_includes(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = Harbour(tmp_path, partitions=1)
        await harbour.open()
        await harbour.kept([arrival(n) for n in range(7)])
        [partition] = await harbour.log.ends([harbour.topics.archive])
        [said] = [msgspec.json.decode(value or b"", type=Commit) for value in harbour.log._stores[partition].values]
        assert said == Commit(table="arrivals", version=1, positions={0: 7}, rows=7)
        assert harbour.tables.table("arrivals").at(version=1).positions() == said.positions

    played(story())


def test_records_that_were_deleted_before_the_archive_first_ran_are_passed(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = Harbour(tmp_path, partitions=1)
        await harbour.open()
        [place] = await harbour.log.ends(["arrivals"])
        await harbour.log.send([arrival(n) for n in range(9)])
        harbour.log.trim(place, 4)
        await settle(harbour.archive())
        assert [offset for *_, offset in places(harbour.tables.table("arrivals"))] == [4, 5, 6, 7, 8]

    played(story())


def test_a_running_archive_commits_what_is_old_enough_however_little_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FLUSH_SECONDS", 0.0)

    async def story() -> None:
        harbour = Harbour(tmp_path)
        await harbour.open()
        await harbour.log.send([arrival(1)])
        [notices] = await harbour.log.ends([harbour.topics.archive])
        running = asyncio.create_task(harbour.archive().run())
        while not (await harbour.log.ends([harbour.topics.archive]))[notices]:
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert harbour.tables.table("arrivals").rows == 1

    played(story())


def test_large_records_are_committed_before_they_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_BYTES", 100_000)

    async def story() -> None:
        harbour = Harbour(tmp_path, partitions=1)
        await harbour.open()
        archive = harbour.archive()
        await harbour.log.send([arrival(n, captain="x" * 60_000) for n in range(2)])
        await archive.turn()
        assert harbour.tables.table("arrivals").rows == 2, "without a flush"
        await archive.close()

    played(story())
