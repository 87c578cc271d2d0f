"""The picture is a fold of topics: the same records give the same picture, in bounded memory, whatever stands in them."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from tests.services.cars import CARS, DAY, START

from penstock import picture as pictures
from penstock.evidence import summary
from penstock.log import Partition, Send
from penstock.log.memory import MemoryLog
from penstock.picture import Picture
from penstock.records import Alarm, Decision, Quality, Run, Statistic

TOPICS = CARS


def alarm(day: int, state: str, **evidence: Any) -> Send:
    said = Alarm(id=f"late/drift/{day}", model="late", signal="drift", state=state, at=START + day * DAY, evidence=evidence)
    return Send(TOPICS.alarms, b"late", msgspec.json.encode(said))


def window(day: int, bins: int = 0) -> Send:
    quality = Quality(n=10, positives=3, loss=5.0, squares=2.0, bins_true=[1] * bins, bins_false=[1] * bins)
    said = Statistic(
        id=f"late/{day}", model="late", start=START + day * DAY, end=START + (day + 1) * DAY, quality={"served": quality},
        paired={}, log_loss={"served": 0.5}, auc={"served": 0.7}, prior=0.3, prior_loss=0.6, skill=0.1, drift={}, counts={},
        reference="v1",
    )  # fmt: skip
    return Send(TOPICS.statistics("late"), b"w", msgspec.json.encode(said))


def decision(alias: str, kind: str, version: str, day: int, expected: str = "", reason: str = "", **evidence: Any) -> Send:
    said = Decision(
        id=f"{kind}/{version}/{day}", model="late", kind=kind, version=version, at=START + day * DAY, actor="registry",
        reason=reason, share=0.0, expected=expected, evidence=evidence,
    )  # fmt: skip
    return Send(TOPICS.models, f"late/{alias}".encode(), msgspec.json.encode(said))


async def watched(*records: Send) -> Picture:
    log = MemoryLog()
    await log.create(TOPICS.all())
    await log.send(records)
    picture = Picture(TOPICS)
    await picture.watch(log)
    return picture


def test_a_record_that_is_told_twice_counts_once() -> None:
    picture = asyncio.run(watched(alarm(1, "raised"), alarm(1, "raised"), window(1), window(1)))
    assert (picture.alarms, picture.heard, len(picture.statistics["late"])) == (1, 1, 1)


def test_an_open_alarm_has_the_newest_evidence_and_is_gone_when_cleared() -> None:
    held = asyncio.run(watched(alarm(1, "raised", shifted=3), alarm(2, "held", shifted=9)))
    assert held.open_alarms["late", "drift"].evidence == {"shifted": 9}
    assert [h.state for h in held.happenings] == ["raised"]
    cleared = asyncio.run(watched(alarm(1, "raised"), alarm(3, "cleared")))
    assert not cleared.open_alarms


def test_an_alarm_says_what_moved_before_how_much() -> None:
    said = asyncio.run(watched(alarm(1, "raised", since="long", tested=21, inputs=[{"input": "Trip.distance", "ks": 0.5}])))
    assert said.happenings[0].text == "drift raised: Trip.distance moved by 0.5; tested 21"


def test_the_place_of_the_challenger_is_what_its_key_says() -> None:
    running = [decision("champion", "champion", "v1", 1), decision("challenger", "shadow", "v2", 2, "v1")]
    picture = asyncio.run(watched(*running, decision("v0", "retired", "v0", 3)))
    assert (picture.champions["late"].version, picture.challengers["late"] and picture.challengers["late"].version) == (
        "v1",
        "v2",
    )
    over = asyncio.run(watched(*running, Send(TOPICS.models, b"late/challenger", None)))
    assert over.challengers["late"] is None


def test_a_way_back_is_told_apart_from_a_promotion() -> None:
    picture = asyncio.run(
        watched(
            decision("champion", "champion", "v2", 1, "v1"),
            decision("champion", "champion", "v1", 2, "v2", rolled_back="v2"),
        )
    )
    assert [h.state for h in picture.happenings] == ["promoted", "rolled back"]


def test_a_fit_that_offered_nothing_says_why() -> None:
    run = Run(
        id="r", model="late", kind="full", cause="alarm:late/skill/2013-01-14T00:00:00+00:00/raised", at=START,
        parameters={}, seed=0, data={"rows": 7, "refused": "one class"}, code="", environment={}, metrics={}, seconds=0.0,
    )  # fmt: skip
    picture = asyncio.run(watched(Send(TOPICS.runs, b"r", msgspec.json.encode(run))))
    assert (
        picture.happenings[0].text == "fitted on 7 outcomes because of the skill alarm of 2013-01-14, offered nothing: one class"
    )


def test_an_online_learner_that_is_refused_says_why_once() -> None:
    def increment(day: int, **data: Any) -> Send:
        run = Run(
            id=f"i{day}", model="late", kind="incremental", cause=f"increment:late/{day}", at=START + day * DAY,
            parameters={}, seed=0, data=data, code="", environment={}, metrics={}, seconds=0.0,
        )  # fmt: skip
        return Send(TOPICS.runs, b"r", msgspec.json.encode(run))

    first = increment(0, rows=0, refused="no outcome is known yet")
    picture = asyncio.run(watched(first, *(increment(day, refused="it is a classifier") for day in (1, 2, 3))))
    assert [(h.kind, h.text) for h in picture.happenings] == [("fit", "the online learner offered nothing: it is a classifier")]


def test_a_record_that_cannot_be_read_is_counted_and_the_rest_goes_on() -> None:
    picture = asyncio.run(watched(Send(TOPICS.alarms, b"late", b"{"), alarm(1, "raised")))
    assert (picture.unreadable, picture.alarms) == (1, 1)
    assert picture.flaw.startswith("cars.alarms/0 record 0: ")


def test_it_starts_with_what_the_topics_still_hold() -> None:
    async def run() -> Picture:
        log = MemoryLog()
        await log.create(TOPICS.all())
        await log.send([alarm(1, "raised"), alarm(2, "raised")])
        log.trim(Partition(TOPICS.alarms, 0), 1)
        picture = Picture(TOPICS)
        await picture.watch(log)
        assert picture.behind == 0
        return picture

    assert asyncio.run(run()).alarms == 1


def test_its_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, most in (("WINDOWS", 5), ("NEWEST", 4), ("KNOWN", 6), ("LINE", 80)):
        monkeypatch.setattr(pictures, name, most)
    records = [window(day, bins=200) for day in range(50)] + [alarm(day, "raised", why="x" * 9999) for day in range(50)]
    picture = asyncio.run(watched(*records))
    assert [s.id for s in picture.statistics["late"]] == [f"late/{day}" for day in range(45, 50)]
    assert all(s.quality["served"].bins_true == [] for s in picture.statistics["late"])
    assert (len(picture.happenings), len(picture._seen), max(len(h.text) for h in picture.happenings)) == (4, 6, 80)
    assert (picture.heard, picture.alarms) == (50, 50)


def test_a_gap_between_groups_is_told_in_words() -> None:
    gap = {"group": "f", "measure": "precision", "value": 0.31, "other": 0.55, "n": 90, "gap": {"low": -0.3, "high": -0.18}}
    assert summary({"gaps": [gap], "segment": "Applicant.sex"}).startswith("precision of f is 0.310, of all others 0.550 (")
