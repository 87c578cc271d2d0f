"""Publishing: what is sent, with which headers, and which times are closed behind it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from datetime import datetime
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.cli.publish import AT_ONCE, SLOT, chunks
from penstock.errors import DefinitionError
from penstock.event import from_micros
from penstock.log import Headers, LogError, Partition, Send
from penstock.log.memory import MemoryLog
from penstock.project import load
from penstock.publish import FOREVER, Publisher, Record, sampled
from penstock.records import Clock
from penstock.runtime.merge import NEVER, Frontiers
from penstock.topics import Topics

T = TypeVar("T")
TOPICS = Topics(load("penstock.examples.flights"), 4)


def weather(origin: str, micros: int) -> Record:
    value = msgspec.json.encode({"origin": origin, "observed_at": from_micros(micros), "temp": 3.5})
    return origin.encode(), value, micros


def departed(flight: str, origin: str, micros: int) -> Record:
    row = {"flight_id": flight, "origin": origin, "delay": 1.0, "late": False, "departed_at": from_micros(micros)}
    return origin.encode(), msgspec.json.encode(row), micros


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


async def new_log() -> MemoryLog:
    log = MemoryLog()
    await log.create(TOPICS.all())
    return log


async def held(log: MemoryLog, topic: str) -> list[tuple[Partition, int, bytes | None, bytes | None, Headers]]:
    reader = await log.reader(await log.begins([topic]))
    found = []
    for batch in await reader.read(10_000, 0):
        headers = batch.headers or ((),) * len(batch)
        found += [(batch.partition, *each) for each in zip(batch.offsets, batch.keys, batch.values, headers, strict=True)]
    return found


async def clocks(log: MemoryLog) -> list[Clock]:
    return [msgspec.json.decode(value or b"", type=Clock) for _, _, _, value, _ in await held(log, TOPICS.clock)]


def test_an_event_carries_the_headers_of_a_cloud_event_in_binary_mode() -> None:
    async def turn() -> dict[str, bytes]:
        log = await new_log()
        await Publisher(log, TOPICS).send("departed", [departed("F1", "JFK", 1_000_000)])
        ((_, _, _, _, headers),) = await held(log, "departed")
        return dict(headers)

    headers = run(turn())
    assert headers["ce_specversion"] == b"1.0"
    assert headers["ce_id"] == b"F1"
    assert headers["ce_source"] == b"flights/departed"
    assert headers["ce_type"] == b"flights.departed.v1"
    assert datetime.fromisoformat(headers["ce_time"].decode()) == from_micros(1_000_000)
    assert headers["content-type"] == b"application/json"
    assert headers["ce_partitionkey"] == b"JFK"


def test_the_value_is_sent_byte_for_byte_under_the_event_s_key() -> None:
    async def turn() -> Any:
        log = await new_log()
        record = departed("F1", "JFK", 7)
        await Publisher(log, TOPICS).send("departed", [record])
        return record, await held(log, "departed")

    record, ((_, _, key, value, _),) = run(turn())
    assert (key, value) == record[:2]


def test_an_event_without_an_id_is_named_by_what_it_says_so_that_a_repeat_has_the_same_name() -> None:
    async def turn() -> list[bytes]:
        log = await new_log()
        await Publisher(log, TOPICS).send("weather", [weather("JFK", 1), weather("JFK", 2), weather("JFK", 1)])
        return [dict(headers)["ce_id"] for *_, headers in await held(log, "weather")]

    first, second, repeat = run(turn())
    assert first == repeat != second


def test_the_same_id_in_two_kinds_of_events_is_not_the_same_cloud_event() -> None:
    async def turn() -> set[tuple[bytes, bytes]]:
        log = await new_log()
        publisher = Publisher(log, TOPICS)
        await publisher.send("departed", [departed("F1", "JFK", 1)])
        row = {"flight_id": "F1", "origin": "JFK", "dest": "LAX", "carrier": "AA", "delay": 1.0, "late": False}
        value = msgspec.json.encode({**row, "arrived_at": from_micros(2)})
        await publisher.send("arrived", [(b"F1", value, 2)])
        kept = [*await held(log, "departed"), *await held(log, "arrived")]
        return {(dict(headers)["ce_source"], dict(headers)["ce_id"]) for *_, headers in kept}

    assert len(run(turn())) == 2


def test_a_closed_time_covers_every_event_sent_before_it() -> None:
    async def turn() -> tuple[list[Clock], dict[Partition, int]]:
        log = await new_log()
        publisher = Publisher(log, TOPICS, "mine")
        await publisher.send("weather", [weather(origin, 5) for origin in ("JFK", "EWR", "LGA")])
        await publisher.close(6, ["weather"])
        await publisher.send("weather", [weather("JFK", 8)])
        await publisher.close(9, ["weather"])
        return await clocks(log), await log.ends(["weather"])

    (first, second), ends = run(turn())
    assert (first.publisher, first.before, second.before) == ("mine", 6, 9)
    assert sum(first.ends["weather"].values()) == 3
    assert {Partition("weather", n): end for n, end in second.ends["weather"].items()} == ends
    heard = {n: Frontiers(["weather"], n) for n in first.ends["weather"]}
    for frontiers in heard.values():
        frontiers.hear(first)
    assert {heard[n].at("weather", end) for n, end in first.ends["weather"].items()} == {6}
    busy = next(n for n, end in first.ends["weather"].items() if end)
    assert heard[busy].at("weather", first.ends["weather"][busy] - 1) == NEVER


def test_closing_one_kind_of_event_says_nothing_about_the_others() -> None:
    async def turn() -> list[Clock]:
        log = await new_log()
        publisher = Publisher(log, TOPICS)
        await publisher.close(6, ["weather"])
        await publisher.close(FOREVER)
        return await clocks(log)

    one, all_of_them = run(turn())
    assert set(one.ends) == {"weather"}
    assert set(all_of_them.ends) == {event.topic for event in TOPICS.project.events}


def test_a_closed_time_counts_events_that_were_there_before_this_publisher_came() -> None:
    async def turn() -> tuple[list[Clock], dict[Partition, int]]:
        log = await new_log()
        await log.send([Send("weather", b"JFK", b"{}")])
        publisher = Publisher(log, TOPICS)
        await publisher.send("weather", [weather("EWR", 5)])
        await publisher.close(6)
        return await clocks(log), await log.ends(["weather"])

    (said,), ends = run(turn())
    assert {Partition("weather", n): end for n, end in said.ends["weather"].items()} == ends


def test_an_event_that_the_project_does_not_have_is_refused_with_those_that_it_has() -> None:
    async def turn() -> None:
        await Publisher(await new_log(), TOPICS).send("wether", [])

    with pytest.raises(DefinitionError, match="wether") as refused:
        run(turn())
    assert "weather" in refused.value.fix


def test_what_could_not_be_sent_is_not_counted_as_sent() -> None:
    class Broken(MemoryLog):
        async def send(self, records: Any) -> Any:
            raise LogError("away")

    async def turn() -> int:
        publisher = Publisher(Broken(), TOPICS)
        with pytest.raises(LogError):
            await publisher.send("weather", [weather("JFK", 1)])
        return publisher.sent

    assert run(turn()) == 0


TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-01")


@given(st.text())
def test_a_traceparent_follows_the_rules_of_w3c_and_is_the_same_every_time(name: str) -> None:
    found = sampled(1.0)(name)
    assert found is not None
    assert TRACEPARENT.fullmatch(found)
    assert sampled(1.0)(name) == found


def test_the_share_that_is_traced_is_the_share_that_was_asked_for() -> None:
    for share in (0.0, 0.01, 0.5):
        traced = sum(sampled(share)(f"event {n}") is not None for n in range(20_000))
        assert abs(traced / 20_000 - share) < 4 * (share * (1 - share) / 20_000) ** 0.5 + 1e-9


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_what_is_traced_at_a_low_share_is_traced_at_a_higher_one(name: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert sampled(low)(name) is None or sampled(high)(name) == sampled(low)(name)


def test_only_traced_events_carry_a_traceparent() -> None:
    async def turn() -> list[bool]:
        log = await new_log()
        publisher = Publisher(log, TOPICS, trace=lambda name: "00-" + "a" * 32 + "-" + "b" * 16 + "-01" if "F1" in name else None)
        await publisher.send("departed", [departed("F1", "JFK", 1), departed("F2", "JFK", 2)])
        return ["traceparent" in dict(headers) for *_, headers in await held(log, "departed")]

    assert run(turn()) == [True, False]


# -- pacing ------------------------------------------------------------------------------------------------------------

TIMES = st.lists(st.integers(0, 10**9), min_size=1, max_size=60).map(sorted)


@given(TIMES, st.none() | st.floats(0.1, 1000), st.integers(0, 5))
def test_chunks_are_every_row_once_in_order(times: list[int], rate: float | None, first: int) -> None:
    found = list(chunks(times, rate=rate, first=first))
    rows = [row for chunk in found for row in range(chunk.start, chunk.stop)]
    assert rows == list(range(min(first, len(times)), len(times))) or (first >= len(times) and not rows)
    assert [chunk.due for chunk in found] == sorted(chunk.due for chunk in found)


@given(TIMES, st.floats(0.1, 1000))
def test_no_row_is_sent_before_it_is_due_by_more_than_a_slot(times: list[int], accelerate: float) -> None:
    for chunk in chunks(times, accelerate=accelerate):
        for row in range(chunk.start, chunk.stop):
            assert chunk.due <= (times[row] - times[0]) / 1e6 / accelerate + 1e-9 <= chunk.due + SLOT + 2e-9


def test_at_full_speed_chunks_are_as_large_as_they_may_be() -> None:
    assert [chunk.stop - chunk.start for chunk in chunks(range(2 * AT_ONCE + 1))] == [AT_ONCE, AT_ONCE, 1]
