"""An ordinary stop and start of a service, on a real broker and a real Redis, repeats nothing; a second signal ends at once."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import msgspec
import pytest
from tests.faults.taxis import taxis

from penstock.local.redis import LocalRedis
from penstock.runtime.lane import numbered

MANY = 40_000
"""Events that keep a feature store busy for longer than it takes to see its first row and to stop it."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_feature_store_that_is_stopped_at_rest_and_started_again_publishes_nothing_twice(
    kafka_bootstrap: str, redis_url: str, tmp_path: Path, number: int
) -> None:
    async def scenario() -> None:
        async with taxis(f"rest{number}", tmp_path, kafka_bootstrap, redis_url) as company:
            for day in range(2):
                await company.start()
                await company.publish(400, first=400 * day)
                await company.until_rows(400 * day + 390)
                assert company.end(number) == 0
            await company.start()
            await company.finish()
            rows = await company.until_rows(800)
            assert len({numbered(headers) for *_, headers in rows}) == len(rows) == 800

    asyncio.run(scenario())


def test_a_feature_store_that_is_stopped_in_the_middle_of_its_work_repeats_and_loses_nothing(
    kafka_bootstrap: str, redis_url: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with taxis("busy", tmp_path, kafka_bootstrap, redis_url) as company:
            found = 0
            for part in range(3):
                await company.publish(MANY, first=MANY * part)
                await company.start(ready=False)
                await company.until_count(found + 1)
                assert company.end() == 0
                found = len(await company.rows())
                assert found < MANY * (part + 1) - 2, "it was not busy any more"  # the last instant waits for the next
            await company.finish()
            await company.start()
            rows = await company.until_rows(3 * MANY)
            names = {msgspec.json.decode(value or b"")["id"] for _, _, _, value, _ in rows}
            assert len(rows) == len(names) == 3 * MANY

    asyncio.run(scenario())


@pytest.mark.slow
def test_a_feature_store_whose_redis_does_not_answer_ends_in_the_time_it_is_given_and_at_once_when_told_twice(
    servers_here: None, kafka_bootstrap: str, tmp_path: Path
) -> None:
    redis = LocalRedis(tmp_path / "redis")
    redis.start()

    async def scenario() -> None:
        async with taxis("frozen", tmp_path, kafka_bootstrap, redis.url) as company:
            for signals in (1, 2):
                await company.start()
                os.kill(redis.pid, signal.SIGSTOP)
                try:
                    await company.publish(100, first=100 * signals)
                    with pytest.raises(subprocess.TimeoutExpired):
                        company.end(seconds=1.0)
                    if signals == 2:
                        assert company.end(seconds=0.5) == -signal.SIGTERM
                    else:
                        assert company.process is not None
                        assert company.process.wait(7.0) == 0
                finally:
                    os.kill(redis.pid, signal.SIGCONT)

    try:
        asyncio.run(scenario())
    finally:
        redis.kill()
