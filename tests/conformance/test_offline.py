"""What offline tables must do, in a folder and in a bucket of an S3 server alike."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from tests.faults.archivist import PARTITIONS, filled
from tests.services.crew import PASSED, ROWS, Harbour, arrival, places, played, row, settle, there

from penstock.errors import PenstockError
from penstock.offline import Location, Tables, pins
from penstock.offline.columns import columns_of
from penstock.offline.upkeep import compact, restore, vacuum
from penstock.offline.verify import verify


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the tables of a test are."""
    return str(tmp_path) if request.param == "folder" else str(request.getfixturevalue("s3"))


def write(location: Location, path: str, text: str) -> None:
    location.files.create_dir(path.rpartition("/")[0])
    with location.files.open_output_stream(path) as stream:
        stream.write(text.encode())


def test_tables_are_written_read_kept_and_verified(place: str) -> None:
    async def story() -> None:
        harbour = Harbour(place)
        assert harbour.tables.names() == []
        await harbour.open()
        await harbour.kept([arrival(n) for n in range(20)])
        await harbour.kept([arrival(n) for n in range(20, 40)] + [row(n) for n in range(5)])
        assert harbour.tables.names() == ["arrivals", "arrivals.dlq", PASSED, ROWS]
        table = harbour.tables.table("arrivals")
        assert (table.version, table.rows, table.at(version=1).rows) == (2, 40, 20)
        assert table.at(as_of=table.at(version=1).committed).version == 1
        assert [v.rows for v in table.history()] == [20, 20, None]
        assert places(table) == await there(harbour.log, "arrivals")
        found = await verify(table, columns_of(harbour.topics)["arrivals"], harbour.log)
        assert all(one.right and not one.unknown for one in found)

        files = table.at(version=1).files
        said = '{"tables": [{"name": "arrivals", "version": 1, "files": []}]}'
        write(harbour.tables.location, "datasets/spring.json", said)
        assert [(pin.dataset, pin.version) for pin in pins(harbour.tables.location)] == [("spring", 1)]
        assert harbour.tables.names() == ["arrivals", "arrivals.dlq", PASSED, ROWS]
        assert compact(harbour.tables, "arrivals").files_after == 1
        done = vacuum(harbour.tables, "arrivals", timedelta(0))
        assert list(done.pinned) == files and len(done.deleted) == 1 and table.at(version=1).arrow().num_rows == 20
        with pytest.raises(PenstockError, match="version 2 of arrivals has been vacuumed"):
            table.arrow()

        restore(harbour.tables, "arrivals", 1)
        await settle(harbour.archive())
        assert places(harbour.tables.table("arrivals")) == await there(harbour.log, "arrivals")

    played(story())


def test_commits_that_race_are_all_kept(place: str) -> None:
    """What everything rests on: of two commits of one version, the store takes one, and the other becomes the next."""
    location = Location(place)
    uri, options = location.uri("raced"), location.options
    write_deltalake(uri, pa.table({"writer": [-1], "turn": [0]}), storage_options=options)

    def write(writer: int) -> None:
        for turn in range(8):
            write_deltalake(uri, pa.table({"writer": [writer], "turn": [turn]}), mode="append", storage_options=options)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    table = Tables(place).table("raced")
    assert table.version == 32
    found = table.arrow()
    assert sorted(zip(found["writer"].to_pylist(), found["turn"].to_pylist(), strict=True)) == sorted(
        [(-1, 0), *((writer, turn) for writer in range(4) for turn in range(8))]
    )


def test_writers_that_hold_the_same_partitions_leave_each_record_once(place: str) -> None:
    """Two processes at once: on S3 this also proves that the store keeps the condition of a PUT."""
    records = 400
    command = [sys.executable, "-m", "tests.faults.archivist", place, "memory", str(records)]
    hands = [subprocess.Popen([*command, str(seed)], stdout=subprocess.PIPE, text=True) for seed in range(2)]
    try:
        for hand in hands:
            hand.communicate(timeout=120)
        assert [hand.returncode for hand in hands] == [0, 0]
    finally:
        for hand in hands:
            hand.kill()
            hand.wait()

    async def story() -> None:
        harbour = Harbour(place, PARTITIONS)
        await filled(harbour, records)
        assert places(harbour.tables.table("arrivals")) == await there(harbour.log, "arrivals")
        ids = harbour.tables.table(ROWS).arrow(columns=["id"])["id"].to_pylist()
        assert sorted(ids) == sorted(f"a{n}" for n in range(records))

    played(story())


def test_a_place_is_the_same_with_and_without_a_slash_at_its_end(place: str) -> None:
    async def story() -> None:
        harbour = Harbour(f"{place}/")
        await harbour.open()
        await harbour.kept([arrival(1)])
        assert Tables(place).names() == ["arrivals", "arrivals.dlq", PASSED, ROWS]

    played(story())
