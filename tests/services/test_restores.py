"""Tables that are put back: what came since is written anew, once."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.services.crew import ROWS, Harbour, arrival, grown, places, played, row, settle, there

from penstock.errors import PenstockError
from penstock.offline.upkeep import restore


def test_after_a_restore_the_archive_writes_anew_what_came_since(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = await grown(tmp_path, 3)
        await harbour.kept([row(n) for n in range(10)])
        await harbour.kept([row(n) for n in range(8, 20)])
        for name, version in (("arrivals", 1), (ROWS, 1)):
            harbour.tables.table(name).delta.delete("partition = 0")  # somebody's mistake, with another tool
            assert harbour.tables.table(name).rows == 0
            again = restore(harbour.tables, name, version)
            assert again.rows == 10 and again.positions() == {0: 10}
        await settle(harbour.archive())
        assert places(harbour.tables.table("arrivals")) == await there(harbour.log, "arrivals")
        ids = harbour.tables.table(ROWS).arrow(columns=["id"])["id"].to_pylist()
        assert sorted(ids) == sorted(f"a{n}" for n in range(20)), "what was sent twice is still known"

    played(story())


def test_a_running_archive_notices_a_restore(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = await grown(tmp_path, 2)
        archive = harbour.archive()
        await archive.turn()
        await harbour.log.send([arrival(n) for n in range(20, 30)])
        await archive.turn()
        restore(harbour.tables, "arrivals", 1)
        await settle(archive)
        await settle(harbour.archive())
        assert places(harbour.tables.table("arrivals")) == await there(harbour.log, "arrivals")

    played(story())


def test_a_running_archive_fills_restored_tables_of_topics_that_have_gone_quiet(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = await grown(tmp_path, 3)
        await harbour.kept([row(n) for n in range(10)])
        await harbour.kept([row(n) for n in range(8, 20)])
        archive = harbour.archive()
        await archive.turn()
        await archive.look()
        assert not await archive.turn()
        for name in ("arrivals", ROWS):
            restore(harbour.tables, name, 1)
        await archive.look()
        await settle(archive)
        assert places(harbour.tables.table("arrivals")) == await there(harbour.log, "arrivals")
        ids = harbour.tables.table(ROWS).arrow(columns=["id"])["id"].to_pylist()
        assert sorted(ids) == sorted(f"a{n}" for n in range(20))

    played(story())


def test_a_restored_partition_is_filled_when_only_another_one_has_news(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = Harbour(tmp_path, partitions=2)
        await harbour.open()
        await harbour.kept([arrival(n)._replace(partition=n % 2) for n in range(10)])
        await harbour.kept([arrival(n)._replace(partition=0) for n in range(10, 20)])
        archive = harbour.archive()
        await archive.turn()
        restore(harbour.tables, "arrivals", 1)
        await harbour.log.send([arrival(99)._replace(partition=1)])
        await archive.turn()
        await archive.flush()
        await settle(archive)
        assert places(harbour.tables.table("arrivals")) == await there(harbour.log, "arrivals")

    played(story())


def test_two_archives_go_on_when_the_table_of_both_is_restored_beneath_them(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = await grown(tmp_path, 3, partitions=2)
        pair = [harbour.archive(), harbour.archive()]
        for n in range(3):
            for archive in pair:
                while await archive.turn():
                    pass
                await archive.flush()
                await archive.look()
            if n < 2:
                restore(harbour.tables, "arrivals", 1 + n)
                await harbour.log.send([arrival(30 + 5 * n + i) for i in range(5)])
        for archive in pair:
            await settle(archive)
        await settle(harbour.archive())
        assert places(harbour.tables.table("arrivals")) == await there(harbour.log, "arrivals")

    played(story())


def test_a_restore_that_would_lose_records_is_refused(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = await grown(tmp_path, 3)
        [place] = await harbour.log.ends(["arrivals"])
        harbour.log.trim(place, 15)
        with pytest.raises(PenstockError, match="ends at offset 10 of partition 0, and the topic begins at 15"):
            restore(harbour.tables, "arrivals", 1, {0: 15})
        restore(harbour.tables, "arrivals", 2, {0: 15})
        await settle(harbour.archive())
        assert harbour.tables.table("arrivals").rows == 30

    played(story())
