"""Is every record of a topic in its table, and there once? The answer is right where it is said."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc
from tests.services.crew import ROWS, Harbour, arrival, grown, played, row

from penstock.log import Send
from penstock.offline.columns import columns_of
from penstock.offline.verify import Checked, verify


async def checked(harbour: Harbour, name: str = "arrivals", asked: bool = True) -> list[Checked]:
    columns = columns_of(harbour.topics)[name]
    return await verify(harbour.tables.table(name), columns, harbour.log if asked else None)


def test_verify_explains_every_offset_that_has_no_row(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = Harbour(tmp_path, partitions=1)
        await harbour.open()
        bad = Send("arrivals", b"boat 1", b"{")
        await harbour.kept([bad, arrival(0), bad, arrival(1), bad])
        await harbour.kept([arrival(2), row(0), row(1), row(1), row(2)])
        await harbour.log.send([arrival(3)])
        [events], [rows] = await checked(harbour), await checked(harbour, ROWS)
        assert events.right and (events.rows, events.refused, events.behind, events.unknown) == (3, 3, 1, 0)
        assert rows.right and (rows.rows, rows.repeated, rows.next) == (3, 1, 4)
        [blind] = await checked(harbour, asked=False)
        assert blind.right and blind.unknown == 2, "without the log, a gap has no reason"

    played(story())


def test_verify_finds_what_is_lost_and_what_is_doubled(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = await grown(tmp_path, 3)
        delta = harbour.tables.table("arrivals").delta
        delta.delete("offset = 7 or offset = 21")
        [one] = await checked(harbour)
        assert not one.right and (one.lost, one.doubled, one.examples) == (2, 0, [7, 21])
        from deltalake import write_deltalake

        write_deltalake(delta, harbour.tables.table("arrivals").arrow(filter=pc.field("offset") == 3), mode="append")
        [one] = await checked(harbour)
        assert (one.lost, one.doubled, one.examples) == (2, 1, [3, 7, 21])

    played(story())


def test_verify_does_not_call_lost_what_retention_took(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = await grown(tmp_path, 3)
        [place] = await harbour.log.ends(["arrivals"])
        harbour.tables.table("arrivals").delta.delete("offset = 7 or offset = 21")
        harbour.log.trim(place, 15)
        [one] = await checked(harbour)
        assert (one.lost, one.unknown) == (1, 1)

    played(story())


def test_verify_looks_at_a_topic_that_was_made_again_apart_from_the_first(tmp_path: Path) -> None:
    async def story() -> None:
        harbour = await grown(tmp_path, 2)
        await harbour.log.delete(["arrivals"])
        await harbour.log.create(harbour.topics.all())
        await harbour.kept([arrival(n) for n in range(5)])
        found = await checked(harbour)
        assert sorted(one.rows for one in found) == [5, 20] and all(one.right and not one.unknown for one in found)

    played(story())
