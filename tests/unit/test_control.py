"""The control loop on the log in memory: order, recall, patience, and the side door for what cannot be taken."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock.errors import Refused
from penstock.log import Gap, LogError, Partition, Send, TooLarge, Topic
from penstock.log.memory import MemoryLog
from penstock.runtime.control import ControlLoop

TOPICS = ["first", "second", "out"]


class Echo:
    """Sends every value on, once per key; what it has sent is its state."""

    reads: tuple[str, ...] = ("first", "second")
    follows: tuple[str, ...] = ("out",)

    def __init__(self, trouble: list[Exception] | None = None) -> None:
        self.recalled: list[bytes | None] = []
        self.trouble = trouble or []

    def recall(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        self.recalled.append(key)

    def apply(self, topic: str, key: bytes | None, value: bytes | None) -> list[Send]:
        if value == b"trouble" and self.trouble:
            raise self.trouble.pop(0)
        if key in self.recalled:
            return []
        self.recalled.append(key)
        return [Send("out", key, value)]


async def a_log(*sends: tuple[str, bytes, bytes]) -> MemoryLog:
    log = MemoryLog()
    await log.create([Topic(name, 1) for name in [*TOPICS, "first.dlq", "second.dlq"]])
    await log.send([Send(*send) for send in sends])
    return log


async def kept(log: MemoryLog, topic: str) -> list[Any]:
    reader = await log.reader({Partition(topic, 0): 0})
    return [value for batch in await reader.read(1000, 0) for value in batch.values]


def test_topics_take_turns_in_the_order_in_which_they_are_declared() -> None:
    async def go() -> list[Any]:
        log = await a_log(("second", b"c", b"3"), ("first", b"a", b"1"), ("second", b"d", b"4"), ("first", b"b", b"2"))
        loop = ControlLoop(Echo(), log, "echo")
        assert await loop.turn()
        assert not await loop.turn()
        return await kept(log, "out")

    assert asyncio.run(go()) == [b"1", b"2", b"3", b"4"]


def test_a_new_loop_recalls_what_was_sent_and_sends_nothing_again() -> None:
    async def go() -> None:
        log = await a_log(("first", b"a", b"1"), ("first", b"b", b"2"))
        await ControlLoop(Echo(), log, "echo").turn()
        again = Echo()
        await ControlLoop(again, log, "echo").turn()
        assert again.recalled == [b"a", b"b"]
        assert await kept(log, "out") == [b"1", b"2"]

    asyncio.run(go())


@pytest.mark.parametrize("trouble", [LogError("away"), OSError("disk full")])
def test_a_fault_that_passes_is_waited_for_and_never_dead_lettered(trouble: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.runtime.patience.RETRY_SECONDS", (0.0,))

    async def go() -> None:
        log = await a_log(("first", b"a", b"trouble"))
        loop = ControlLoop(Echo([trouble, trouble, trouble]), log, "echo")
        await loop.turn()
        assert await kept(log, "out") == [b"trouble"]
        assert (await log.ends(["first.dlq"]))[Partition("first.dlq", 0)] == 0

    asyncio.run(go())


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (Refused("unknown", "no such model"), b"unknown"),
        (TooLarge("4 MB"), b"too_large"),
        (KeyError("oops"), b"failed"),
    ],
)
def test_a_record_that_cannot_be_taken_leaves_with_its_cause_and_the_next_one_is_taken(trouble: Exception, reason: bytes) -> None:
    async def go() -> None:
        log = await a_log(("first", b"a", b"trouble"), ("first", b"b", b"2"))
        loop = ControlLoop(Echo([trouble]), log, "echo")
        await loop.turn()
        assert await kept(log, "out") == [b"2"]
        reader = await log.reader({Partition("first.dlq", 0): 0})
        (batch,) = await reader.read(10, 0)
        assert batch.values == [b"trouble"]
        assert dict(batch.headers[0])["dlq.reason"] == reason
        assert dict(batch.headers[0])["dlq.service"] == b"echo"

    asyncio.run(go())


def test_bad_state_stops_the_loop() -> None:
    async def go() -> None:
        log = await a_log(("first", b"a", b"trouble"))
        await ControlLoop(Echo([Gap("gone")]), log, "echo").turn()

    with pytest.raises(Gap):
        asyncio.run(go())
