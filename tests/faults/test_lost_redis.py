"""A real Redis that comes back empty, or as it was some time ago, under a feature store that works on a real broker."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import redis
from tests.faults.taxis import Taxis, taxis

from penstock.local.redis import LocalRedis
from penstock.proof.audit import audit
from penstock.store import LIVE, REBUILDING, STATUS

TRIPS, PART = 12_000, 3_000


@pytest.fixture
def server(servers_here: None, tmp_path: Path) -> Iterator[LocalRedis]:
    made = LocalRedis(tmp_path / "redis")
    made.start()
    yield made
    made.kill()


def statuses(server: LocalRedis, company: Taxis) -> set[bytes | None]:
    with redis.Redis.from_url(server.url) as client:
        names = [f"penstock:{company.project.name}:{{{company.topics.shard(n)}}}:h:" for n in range(company.topics.partitions)]
        return {client.get(name.encode() + STATUS) for name in names}


@pytest.mark.parametrize("loses", ["everything", pytest.param("its last moments", marks=pytest.mark.slow)])
def test_redis_that_loses_what_it_had_costs_no_row_and_counts_no_event_twice(
    kafka_bootstrap: str, server: LocalRedis, tmp_path: Path, loses: str
) -> None:
    async def scenario() -> None:
        name = loses.replace(" ", "-")
        async with taxis(name, tmp_path, kafka_bootstrap, server.url) as company:
            await company.start()
            await company.publish(PART)
            await company.until_rows(PART // 2)
            shutil.copytree(server.folder, tmp_path / "copy")  # as fsync left it, once a second
            for part in range(1, 3):
                await company.publish(PART, first=PART * part)
            await company.until_rows(2 * PART)
            server.kill()
            shutil.rmtree(server.folder)
            if loses == "its last moments":
                shutil.copytree(tmp_path / "copy", server.folder)
            server.start()

            async def live() -> bool:
                return statuses(server, company) == {LIVE}

            if loses == "everything":  # nothing is published meanwhile: the feature store looks by itself
                assert statuses(server, company) <= {None, REBUILDING}
                await company.until(live)
            await company.publish(PART, first=3 * PART)
            await company.finish()
            rows = await company.until_rows(TRIPS)
            await company.until(live)
            assert company.end() == 0
            names = [msgspec.json.decode(value or b"")["id"] for _, _, _, value, _ in rows]
            assert len(names) == len(set(names)) == TRIPS
            found = await audit(company.log, company.topics)
            assert (found.lost, found.counted_twice, found.redelivered) == (0, 0, 0), found.complaints

    asyncio.run(scenario())
