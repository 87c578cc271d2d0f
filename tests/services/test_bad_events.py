"""Whatever arrives on an event topic becomes a row or a dead letter with its cause, its bytes untouched; the rest goes on."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

import penstock as ps
from penstock.log import Batch, Partition, Send
from penstock.log.memory import MemoryLog
from penstock.records import Clock
from penstock.runtime.deadletter import cause_of
from penstock.services.feature_store.service import lanes
from penstock.services.feature_store.shard import FeatureShard
from penstock.services.feature_store.succession import Succession
from penstock.store import Saved
from penstock.store.memory import MemoryStore
from penstock.topics import Topics


@ps.event("taps")
class Tap:
    tap_id: ps.Id[str]
    card: ps.Key[str]
    amount: float
    times: int
    note: str | None
    at: ps.EventTime


@ps.features(by=Tap.card)
class Card:
    taps_1h = ps.count(Tap, over="1h")
    spend_1h = ps.sum(Tap.amount, over="1h")


project = ps.Project("metro", rows={Tap: [Card]})
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def good(name: str = "t", **changes: object) -> bytes:
    said = {"tap_id": name, "card": "c", "amount": 2.5, "times": 1, "at": NOW} | changes
    return msgspec.json.encode(said)


TEXT = good().decode()
BAD: dict[str, tuple[bytes | None, str]] = {
    "truncated JSON": (good()[:-7], "decode"),
    "empty value": (b"", "decode"),
    "a tombstone": (None, "decode"),
    "not JSON": (b"hello", "decode"),
    "a JSON array": (b"[1,2]", "schema"),
    "wrong type": (good(amount="2.5"), "schema"),
    "a boolean for a number": (good(amount=True), "schema"),
    "missing field": (TEXT.replace('"amount":2.5,', "").encode(), "schema"),
    "missing key field": (TEXT.replace('"card":"c",', "").encode(), "schema"),
    "empty key field": (good(card=""), "schema"),
    "empty id": (good(name=""), "schema"),
    "a key of 64 KiB": (good(card="k" * 65_536), "schema"),
    "a key of one character too many": (good(card="é" * 1_025), "schema"),
    "NaN": (TEXT.replace("2.5", "NaN").encode(), "decode"),
    "Infinity": (TEXT.replace("2.5", "Infinity").encode(), "decode"),
    "1e999": (TEXT.replace("2.5", "1e999").encode(), "schema"),
    "2^70 in an integer": (good(times=2**70), "schema"),
    "a fraction in an integer": (good(times=1.5), "schema"),
    "deep nesting": (b'{"x":' + b"[" * 100_000, "decode"),
    "deep nesting in an unknown field": (
        TEXT[:-1].encode() + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "decode",
    ),
    "invalid UTF-8": (good().replace(b'"c"', b'"\xff\xfe"'), "decode"),
    "invalid UTF-8 in an unknown field": (good()[:-1] + b',"x":"\xff"}', "decode"),
    "10 MiB": (good(note="x" * (10 << 20)), "too_large"),
    "a time without a zone": (good(at="2026-05-01T12:00:00"), "schema"),
    "a time in the future": (good(at=NOW + timedelta(minutes=6)), "future"),
    "a time before 1970": (good(at=datetime(1969, 12, 31, tzinfo=UTC)), "range"),
    "a duplicate id": (good(name="first"), "duplicate"),
}


async def published(
    values: Sequence[bytes | None], partitions: int = 1, of: ps.Project = project, topic: str = "taps"
) -> tuple[MemoryLog, Topics]:
    topics = Topics(of, partitions)
    log = MemoryLog()
    await log.create([replace(topic, max_bytes=32 << 20) for topic in topics.all()])
    sends = [Send(topic, b"c", value, (("x", b"1"),)) for value in values]
    await log.send(sends)
    ends = {p.number: e for p, e in (await log.ends([topic])).items()}
    said = Clock(publisher="test", before=1 << 60, ends={topic: ends})
    await log.send([Send(topics.clock, b"test", msgspec.json.encode(said))])
    lane = lanes(topics, log, MemoryStore(), None)[0]
    while await lane.turn(0):
        pass
    return log, topics


@pytest.fixture(autouse=True)
def the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.runtime.lane.now", lambda: NOW.timestamp())


@pytest.mark.parametrize("name", BAD)
def test_a_bad_event_is_dead_lettered_with_its_cause_and_its_neighbours_are_not(name: str) -> None:
    value, reason = BAD[name]
    log, topics = asyncio.run(published([good("first"), value, good("last")]))
    dead = log._stores[Partition("taps.dlq", 0)]
    rows = [msgspec.json.decode(v or b"")["id"] for v in log._stores[Partition(topics.rows(project.events[0]), 0)].values]
    assert rows == ["first", "last"], f"{name}: the good neighbours must become rows"
    assert dead.values == [value], f"{name}: the bytes must be untouched"
    cause = cause_of(dead.headers[0])
    assert cause["dlq.reason"] == reason and cause["dlq.offset"] == "1" and cause["dlq.error"], f"{name}: {cause}"
    assert ("x", b"1") in dead.headers[0], "the original headers go along"


@ps.event("closings")
class Closing:
    tap_id: ps.Key[str]
    stolen: bool
    at: ps.EventTime


@ps.features(by=Closing.tap_id)
class Closed:
    times_1h = ps.count(Closing, over="1h")


@ps.model(scores=Tap, features=[Card], label=ps.label(Closing.stolen, within="6h"))
def stolen() -> ps.Learner:
    raise NotImplementedError


@pytest.mark.parametrize("value", ["yes", 1, "true", None, [True]])
def test_a_label_of_another_type_that_a_view_counts_is_dead_lettered_in_words(value: object) -> None:
    said = msgspec.json.encode({"tap_id": "t", "stolen": value, "at": NOW})
    right = msgspec.json.encode({"tap_id": "t", "stolen": True, "at": NOW})
    log, _ = asyncio.run(published([said, right], of=ps.Project("metro", [stolen], rows={Closing: [Closed]}), topic="closings"))
    dead = log._stores[Partition("closings.dlq", 0)]
    assert dead.values == [said]
    cause = cause_of(dead.headers[0])
    assert cause["dlq.reason"] == "schema" and "Expected `bool`" in cause["dlq.error"] and "$.stolen" in cause["dlq.error"]


def test_everything_at_once_keeps_every_good_event() -> None:
    values: list[bytes | None] = [good("first")]
    for index, (value, _) in enumerate(BAD.values()):
        values += [value, good(f"good{index}")]
    log, topics = asyncio.run(published(values))
    assert len(log._stores[Partition("taps.dlq", 0)].values) == len(BAD)
    assert len(log._stores[Partition(topics.rows(project.events[0]), 0)].values) == len(BAD) + 1


def test_a_record_in_the_wrong_partition_is_dead_lettered_with_the_right_one() -> None:
    async def go() -> tuple[str, int]:
        topics = Topics(project, 4)
        log = MemoryLog()
        await log.create(topics.all())
        await log.send([Send("taps", None, good("stray"), (), number) for number in range(4)])
        lane = lanes(topics, log, MemoryStore(), None)[0]
        while await lane.turn(0):
            pass
        letters = [h for n in range(4) for h in log._stores[Partition("taps.dlq", n)].headers]
        return cause_of(letters[0])["dlq.reason"], len(letters)

    assert asyncio.run(go()) == ("misplaced", 3)


def test_an_optional_column_may_be_absent_and_an_unknown_one_present() -> None:
    log, _ = asyncio.run(published([good("a"), good("b", note=None), good("c", extra={"x": 1})]))
    assert not log._stores[Partition("taps.dlq", 0)].values


def test_memory_stays_flat_however_much_is_refused() -> None:
    """A shard keeps nothing of what it refuses: after twenty times as many bad records it holds as much as before."""
    topics = Topics(project, 1)
    shard = FeatureShard(topics, 0, None, None, Succession(topics, MemoryLog(), MemoryStore()))
    shard.open(Saved())
    bad = [value for name, (value, _) in BAD.items() if name != "10 MiB"]
    shard.take([Batch(Partition("taps", 0), [0], [b"c"], [good("first")])], NOW.timestamp())
    at, held = 1, []
    tracemalloc.start()
    try:
        for rounds in (5, 100):
            for _ in range(rounds):
                batch = Batch(Partition("taps", 0), range(at, at + len(bad)), [b"c"] * len(bad), bad)
                at += len(bad)
                shard.take([batch], NOW.timestamp())
                effects = shard.step([])
                assert effects is not None and len(effects.sends) == len(bad), "each one leaves as a dead letter, at once"
                del effects, batch
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert held[1] - held[0] < 20_000, f"2,400 refused records left {held[1] - held[0]:,} bytes behind"
