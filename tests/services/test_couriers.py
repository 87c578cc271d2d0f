"""From alarms to people: the notifier's lane and the couriers, through outages, crashes and takeovers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from tests.services.letterbox import Answer, web_server
from tests.services.shop import declared

from penstock.alerts.message import Message
from penstock.alerts.routes import Delayed, Undeliverable, routes_of
from penstock.log import Log, Partition, Send
from penstock.log.memory import MemoryLog
from penstock.records import Alarm, Notice, Silence
from penstock.runtime.deadletter import cause_of, revived
from penstock.services.monitoring import courier as module
from penstock.services.monitoring.courier import ASKED, GATHER, PATIENCE, Courier
from penstock.services.monitoring.service import lanes
from penstock.settings import load as settings
from penstock.store import Change, Fenced
from penstock.store.memory import MemoryStore
from penstock.topics import Topics

TOPICS = Topics(declared(False))
START = datetime(2026, 3, 1, tzinfo=UTC)


def alarm(hour: float, state: str = "raised", signal: str = "drift", model: str = "late") -> Send:
    at = START + timedelta(hours=hour)
    said = Alarm(id=f"{model}/{signal}/{at.isoformat()}/{state}", model=model, signal=signal, state=state, at=at, evidence={})
    return Send(TOPICS.alarms, model.encode(), msgspec.json.encode(said))


def silence(since: float, until: float, subject: str = "late") -> Send:
    first, last = START + timedelta(hours=since), START + timedelta(hours=until)
    said = Silence(subject=subject, since=first, until=last, actor="ada", reason="new shop")
    return Send(TOPICS.silences, f"{subject}/".encode(), msgspec.json.encode(said))


class Told:
    """A route whose `mishaps` come first, one an attempt."""

    def __init__(self, *mishaps: Exception, name: str = "told") -> None:
        self.name, self.place = name, "here"
        self.mishaps, self.said, self.attempts = list(mishaps), list[Message](), 0

    async def send(self, message: Message) -> str:
        self.attempts += 1
        if self.mishaps:
            raise self.mishaps.pop(0)
        self.said.append(message)
        return "yes"


class Scene:
    """A log with the notifier at work, and the wall clock."""

    def __init__(self) -> None:
        self.log, self.store, self.now, self.waits = MemoryLog(), MemoryStore(), 0.0, list[float]()
        self.notifier = lanes(TOPICS.project, TOPICS, self.log, self.store)[-1]

    async def pause(self, seconds: float) -> None:
        self.now += seconds
        self.waits.append(seconds)

    def courier(self, route: Any, holds: Callable[[], bool] = lambda: True) -> Courier:
        return Courier(route, TOPICS, self.log, self.store, holds, lambda: self.now, self.pause)

    async def say(self, *sends: Send) -> None:
        """Publish, and let the notifier decide."""
        for send in sends:
            await self.log.send([send])
            while await self.notifier.turn(0):
                pass


def played(story: Callable[[Scene], Awaitable[Any]]) -> Any:
    async def go() -> Any:
        scene = Scene()
        await scene.log.create(TOPICS.all())
        return await story(scene)

    return asyncio.run(go())


async def held(log: Log, topic: str) -> list[tuple[int, bytes | None, bytes | None, Any]]:
    place = Partition(topic, 0)
    ends, reader = await log.ends([topic]), await log.reader({place: 0})
    found: list[Any] = []
    while len(found) < ends[place]:
        for batch in await reader.read(100, 0):
            found += [batch.record(row) for row in range(len(batch))]
    return found


def test_a_storm_of_alarms_is_one_message_for_each_cause() -> None:
    async def story(scene: Scene) -> None:
        with web_server() as web:
            (route,) = routes_of(settings(alert_webhook=web.url))
            courier = scene.courier(route)
            assert not await courier.turn()
            rules = [alarm(1, signal=f"quality/trips/rule {n}", model="") for n in range(30)]
            await scene.say(*rules, alarm(1), alarm(1, signal="skill"), alarm(1, model="fares"))
            assert await courier.turn() and not await courier.turn()
            said = [json.loads(post.body)["data"] for post in web.posts]
            assert [(s["subject"], s["cause"], len(s["alarms"])) for s in said] == [
                ("trips", "quality", 20), ("late", "drift", 1), ("late", "skill", 1), ("fares", "drift", 1),
            ]  # fmt: skip
        assert scene.waits == [GATHER]

    played(story)


def test_nothing_is_told_in_a_silence_and_a_silence_ends_by_itself() -> None:
    async def story(scene: Scene) -> list[str]:
        courier = scene.courier(route := Told())
        await courier.turn()
        await scene.say(silence(0, 3), alarm(1), alarm(2, "held"), alarm(1, model="fares"))
        await courier.turn()
        await scene.say(alarm(3, "held"))
        await courier.turn()
        return [message.title for message in route.said]

    assert played(story) == ["[shop] fares: drift alarm", "[shop] late: drift alarm"]


def test_a_route_that_is_down_is_tried_again_ever_more_seldom_and_then_gets_one_message_for_all_of_it() -> None:
    async def story(scene: Scene) -> None:
        route = Told(*[Delayed("down")] * 4, Delayed("busy", 60.0), Delayed("busy", 10 * ASKED))
        courier = scene.courier(route)
        await courier.turn()
        await scene.say(alarm(1))
        await courier.turn()
        assert scene.waits == [GATHER, 1.0, 2.0, 4.0, 8.0, 60.0, ASKED]
        assert len(route.said) == 1
        await scene.say(alarm(2, "cleared"), alarm(3), alarm(4, "cleared"), alarm(5))  # while it was waited
        await courier.turn()
        assert [message.title for message in route.said[1:]] == ["[shop] late: drift alarm"]

    played(story)


def test_an_alarm_that_is_over_before_its_message_goes_out_is_told_as_one_that_came_and_went() -> None:
    async def story(scene: Scene) -> list[str]:
        courier = scene.courier(route := Told())
        await courier.turn()
        await scene.say(alarm(1), alarm(2, "cleared"))
        await courier.turn()
        await scene.say(alarm(4))
        await courier.turn()
        await scene.say(alarm(5, "cleared"))
        await courier.turn()
        return [message.title.removeprefix("[shop] late: drift ") for message in route.said]

    assert played(story) == ["came and went", "alarm", "is over"]


def test_what_does_not_get_through_for_a_day_is_dead_lettered_and_can_be_sent_again_by_that_route() -> None:
    async def story(scene: Scene) -> None:
        down, up = Told(*[Delayed("down")] * 1_000, name="email"), Told(name="slack")
        mail, slack = scene.courier(down), scene.courier(up)
        for courier in (mail, slack):
            await courier.turn()
        await scene.say(alarm(1), alarm(1, signal="skill"))
        await mail.turn()
        await slack.turn()
        assert 2 * PATIENCE * 0.9 < scene.now < 2 * PATIENCE + 2 * ASKED
        letters = await held(scene.log, TOPICS.dead_letters(TOPICS.notices))
        assert [cause_of(headers)["dlq.error"] for *_, headers in letters] == ["email: down"] * 2
        assert [msgspec.json.decode(value or b"", type=Notice).cause for _, _, value, _ in letters] == ["drift", "skill"]
        down.mishaps.clear()
        place = Partition(TOPICS.dead_letters(TOPICS.notices), 0)
        await scene.log.send([revived(place, *letter) for letter in letters])
        await mail.turn()
        await slack.turn()
        assert [m.cause for m in down.said] == ["drift", "skill"] == [m.cause for m in up.said]

    played(story)


@pytest.mark.parametrize("status", [401, 404])
def test_what_will_never_get_through_is_dead_lettered_at_once_and_holds_up_nothing(status: int) -> None:
    async def story(scene: Scene) -> int:
        with web_server([Answer(status)]) as web:
            (route,) = routes_of(settings(alert_slack=web.url))
            courier = scene.courier(route)
            await courier.turn()
            await scene.say(alarm(1), alarm(1, signal="skill"))
            await courier.turn()
            assert scene.waits == [GATHER]
            assert [len(await held(scene.log, TOPICS.dead_letters(TOPICS.notices)))] == [1]
            return len(web.posts)

    assert played(story) == 2


def test_a_library_that_raises_what_nobody_expected_costs_one_message_and_not_the_service() -> None:
    async def story(scene: Scene) -> list[str]:
        courier = scene.courier(route := Told(UnicodeError("surrogates not allowed")))
        await courier.turn()
        await scene.say(alarm(1), alarm(1, signal="skill"))
        await courier.turn()
        ((*_, headers),) = await held(scene.log, TOPICS.dead_letters(TOPICS.notices))
        assert cause_of(headers)["dlq.error"] == "told: UnicodeError: surrogates not allowed"
        return [message.cause for message in route.said]

    assert played(story) == ["skill"]


class Killed(BaseException):
    pass


class Mortal(MemoryStore):
    """Dies at the write of that number."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    async def write(self, shard: str, seen: int, change: Change) -> int:
        if shard.startswith("courier"):
            self.left -= 1
            if self.left == 0:
                raise Killed
        return await super().write(shard, seen, change)


@pytest.mark.parametrize("at", range(2, 14))
def test_killed_anywhere_it_loses_nothing_and_repeats_one_message_at_most_under_its_id(at: int) -> None:
    async def story(scene: Scene) -> None:
        scene.store = Mortal(at)
        route, deaths = Told(), 0
        courier = scene.courier(route)
        await courier.turn()
        await scene.say(alarm(1), alarm(1, signal="skill"), alarm(1, model="fares"))
        for _ in range(3):
            try:
                while await courier.turn():
                    pass
            except Killed:
                deaths += 1
                courier = scene.courier(route)
            await scene.say(alarm(2, "cleared"), alarm(2, "cleared", "skill"))
        ids = [message.id for message in route.said]
        assert {(message.subject, message.cause): message.state for message in route.said} == {
            ("late", "drift"): "cleared", ("late", "skill"): "cleared", ("fares", "drift"): "raised",
        }  # fmt: skip
        assert len(ids) - len(set(ids)) <= deaths == 1

    played(story)


def test_a_restart_repeats_nothing_and_a_new_route_tells_nothing_old() -> None:
    async def story(scene: Scene) -> None:
        route = Told()
        courier = scene.courier(route)
        await courier.turn()
        await scene.say(alarm(1))
        await courier.turn()
        await scene.say(alarm(2, "cleared"))  # while it was away
        again, new = scene.courier(route), scene.courier(fresh := Told(name="new"))
        for each in (again, new):
            while await each.turn():
                pass
        assert [m.state for m in route.said] == ["raised", "cleared"] and fresh.said == []
        await scene.say(alarm(9))
        await new.turn()
        assert [m.state for m in fresh.said] == ["raised"]

    played(story)


def test_of_two_processes_one_carries_and_a_zombie_is_fenced_before_it_says_anything() -> None:
    async def story(scene: Scene) -> None:
        old, young = scene.courier(first := Told()), scene.courier(second := Told())
        await old.turn()
        await young.turn()
        await scene.say(alarm(1))
        with pytest.raises(Fenced):
            await old.turn()
        await young.turn()
        assert (len(first.said), len(second.said)) == (0, 1)

    played(story)


def test_who_loses_the_notifier_s_partition_while_a_route_is_down_leaves_the_rest_to_the_other() -> None:
    async def story(scene: Scene) -> None:
        mine = True

        class Losing(Told):
            async def send(self, message: Message) -> str:
                nonlocal mine
                mine = False
                raise Delayed("down")

        old = scene.courier(losing := Losing(), lambda: mine)
        await old.turn()
        await scene.say(alarm(1))
        await old.turn()
        young = scene.courier(route := Told())
        await young.turn()
        assert losing.said == [] and [m.subject for m in route.said] == ["late"]

    played(story)


def test_it_ends_when_it_is_to_stop_while_a_route_is_down() -> None:
    async def story(scene: Scene) -> int:
        stop = asyncio.Event()

        class Stopping(Told):
            async def send(self, message: Message) -> str:
                self.attempts += 1
                stop.set()
                raise Delayed("down", ASKED)

        courier = scene.courier(route := Stopping())
        await courier.turn()
        await scene.say(alarm(1))
        courier._progress = msgspec.structs.replace(courier._progress, until=1)
        async with asyncio.timeout(10):
            await courier.run(stop)
        return route.attempts

    assert played(story) == 1


def test_an_undeliverable_message_says_so_where_metrics_are_read() -> None:
    from prometheus_client import generate_latest

    async def story(scene: Scene) -> None:
        courier = scene.courier(Told(Undeliverable("no"), name="lost"))
        await courier.turn()
        await scene.say(alarm(1))
        await courier.turn()

    played(story)
    assert 'penstock_alerts_undelivered_total{route="lost"} 1.0' in generate_latest().decode()


def test_alarms_whose_evidence_is_too_large_for_one_notice_are_told_without_it() -> None:
    def monstrous(hour: float, signal: str) -> Send:
        known = alarm(hour, signal=f"drift/{signal}")
        return known._replace(value=msgspec.json.encode(
            msgspec.structs.replace(msgspec.json.decode(known.value or b"", type=Alarm), evidence={"example": "x" * 900_000})
        ))  # fmt: skip

    async def story(scene: Scene) -> list[Notice]:
        await scene.say(
            silence(0, 10), *(monstrous(n, str(n)) for n in range(1, 7)), monstrous(11, "1"), alarm(12, model="fares")
        )
        return [msgspec.json.decode(value or b"", type=Notice) for _, _, value, _ in await held(scene.log, TOPICS.notices)]

    large, after = played(story)
    assert [each.signal for each in large.alarms] == [f"drift/{n}" for n in range(1, 7)]
    assert "example" not in large.alarms[0].evidence
    assert after.subject == "fares"


def test_notices_that_were_deleted_before_they_were_carried_do_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK", 0.01)
    monkeypatch.setattr(module, "GATHER", 0.0)

    async def story(scene: Scene) -> list[str]:
        stop = asyncio.Event()

        class Last(Told):
            async def send(self, message: Message) -> str:
                stop.set()
                return await super().send(message)

        courier = scene.courier(way := Last())
        await courier.turn()
        await scene.say(alarm(1), alarm(30, signal="skill"))
        scene.log.trim(Partition(TOPICS.notices, 0), 1)
        async with asyncio.timeout(10):
            await courier.run(stop)
        return [message.cause for message in way.said]

    assert played(story) == ["skill"]
