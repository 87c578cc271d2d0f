"""Alarms on Kafka and Redis reach a real web server once, though the process that carries them ends again and again."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from tests.services.letterbox import Answer, web_server
from tests.services.shop import declared

from penstock.alerts.routes import routes_of
from penstock.log import Send
from penstock.log.kafka import KafkaLog
from penstock.records import Alarm
from penstock.services.monitoring import courier as courier_module
from penstock.services.monitoring.courier import Courier
from penstock.services.monitoring.service import lanes
from penstock.settings import load as settings
from penstock.store.redis import RedisStore
from penstock.topics import Topics

START = datetime(2026, 3, 1, tzinfo=UTC)
DEADLINE = 90.0


def test_each_message_arrives_though_processes_end_and_a_server_is_down(
    kafka_bootstrap: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier_module, "GATHER", 0.1)
    monkeypatch.setattr(courier_module, "LOOK", 0.05)
    project = declared(False)
    topics = Topics(project)

    def alarm(hour: int, state: str) -> Send:
        at = START + timedelta(hours=hour)
        said = Alarm(id=f"late/drift/{hour}", model="late", signal="drift", state=state, at=at, evidence={})
        return Send(topics.alarms, b"late", msgspec.json.encode(said))

    async def life(url: str, until: int) -> None:
        """A process, until the server has had so many posts."""
        log, store = KafkaLog(kafka_bootstrap, "penstock-monitoring"), RedisStore(redis_url, "alerts")
        notifier, stop = lanes(project, topics, log, store)[-1], asyncio.Event()
        (route,) = routes_of(settings(alert_webhook=url))
        courier = Courier(route, topics, log, store, lambda: bool(notifier.holds))
        tasks = [asyncio.create_task(work(stop)) for work in (notifier.run, notifier.watch, courier.run)]
        try:
            async with asyncio.timeout(DEADLINE):
                while len(web.posts) < until or (until == 0 and courier._progress is None):
                    await asyncio.sleep(0.05)
        finally:
            stop.set()
            await asyncio.gather(*tasks)
            await notifier.close()
            await store.close()
            await log.close()

    async def story() -> None:
        log = KafkaLog(kafka_bootstrap, "test-alerts")
        await log.create([t for t in topics.all() if t.name in (topics.alarms, topics.notices, topics.silences)])
        await life(web.url, 0)
        for hour, state in enumerate(("raised", "cleared", "raised")):
            await log.send([alarm(3 * hour, state)])
            await life(web.url, hour + 2)
        await log.close()

    with web_server([Answer(503)]) as web:
        asyncio.run(story())
    said = [json.loads(post.body)["data"] for post in web.posts]
    assert [(s["at"][11:13], s["state"]) for s in said] == [
        ("00", "raised"), ("00", "raised"), ("03", "cleared"), ("06", "raised"),
    ]  # fmt: skip
    ids = [post.headers["webhook-id"] for post in web.posts]
    assert ids[0] == ids[1] and len(set(ids)) == 3, "the attempt that failed bore the id of the one that went through"
