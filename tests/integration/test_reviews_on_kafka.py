"""On Kafka and Redis, with processes that end and come back: what people say becomes labels, each once."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import Any

import msgspec
from tests.services.clinic import answer, clinic, flag, review, sent

from penstock.log import LogError
from penstock.log.kafka import KafkaLog
from penstock.reviewing.panel import Panel
from penstock.services.monitoring.service import lanes
from penstock.store.redis import RedisStore

DEADLINE = 90.0


def test_what_reviewers_decide_is_published_once_though_the_process_ends_again_and_again(
    kafka_bootstrap: str, redis_url: str
) -> None:
    topics, rng = clinic(2, pairs=0.5), random.Random(1)
    asked = [answer(f"o{i}", 0.5, i / 10) for i in range(120)]
    flagged = [answer(f"f{i}", 0.95, i / 10) for i in range(30)]
    words = [*(flag(a.id, "ann") for a in flagged)]
    said = [review(a.id, by, rng.random() < 0.5) for a in [*asked[:100], *flagged] for by in ("ada", "bob", "cyd")]

    async def lives(seconds: float) -> None:
        """A process for so long."""
        log, store = KafkaLog(kafka_bootstrap, "penstock-monitoring"), RedisStore(redis_url, "clinic")
        (lane,) = [each for each in lanes(topics.project, topics, log, store) if each.name == "review"]
        task = asyncio.create_task(lane.run())
        try:
            await asyncio.sleep(seconds)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await lane.close()
            await store.close()
            await log.close()

    async def work() -> tuple[dict[str, list[bool]], Panel]:
        log = KafkaLog(kafka_bootstrap, "test-reviews")
        await log.create(topics.all())
        rest: list[Any] = [*asked, *flagged, *words, *said]
        while rest:
            part, rest = rest[:150], rest[150:]
            await log.send([sent(topics, each) for each in part])
            await lives(rng.uniform(0.3, 1.5))
        running = asyncio.create_task(lives(DEADLINE))
        panel, found = Panel(topics), dict[str, list[bool]]()
        reader = await log.reader(await log.begins(["returns"]))
        async with asyncio.timeout(DEADLINE):
            while len(found) < 130 or panel.ends["readmission"]["labelled"] < 130 or len(panel.waiting()) != 20:
                for batch in await reader.read(500, 0.2):
                    for value in batch.values:
                        label = msgspec.json.decode(value or b"")
                        found.setdefault(label["stay_id"], []).append(label["returned"])
                with suppress(LogError):
                    await panel.watch(log)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await panel.close()
        await reader.close()
        await log.close()
        return found, panel

    found, panel = asyncio.run(work())
    assert set(found) == {a.id for a in [*asked[:100], *flagged]}
    assert [name for name, labels in found.items() if len(labels) > 1] == []
    agreed = panel.agreement("readmission")
    assert agreed.metric == "nominal" and agreed.reviewers >= 2
    assert agreed.answers > 40 and agreed.low is not None and agreed.low < 0 < (agreed.high or 0), "they guess"
