"""The registry on the log in memory: what it publishes, that others understand it, and that a restart changes nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from tests import rides
from tests.rides import a_model, candidate, command, window

import penstock as ps
from penstock.log import Partition, Send
from penstock.log.memory import MemoryLog
from penstock.records import Decision
from penstock.runtime.control import ControlLoop
from penstock.scoring.roster import Rosters
from penstock.services.registry.service import Registry
from penstock.topics import Topics


def topics() -> Topics:
    return rides.topics(a_model(gates=[ps.no_worse(by=0.001)], rollout=[ps.shadow("1d"), ps.canary(0.2, "1d")]))


def story(t: Topics) -> list[Send]:
    said: list[tuple[str, Any]] = [
        (t.candidates, candidate("v1", 7)),
        (t.candidates, candidate("online-1", 7, "incremental", recent_log_loss=0.5)),
        (t.candidates, candidate("v2", 8)),
        (t.statistics("late"), window(9, v1=0.0, v2=-0.01)),
        (t.candidates, candidate("online-2", 9, "incremental", recent_log_loss=0.5)),
        (t.statistics("late"), window(10, v1=0.0, v2=-0.01)),
        (t.commands, command("roll_back", "v1", day=10)),
        (t.statistics("late"), window(11, v1=0.0, v2=0.2)),
        (t.candidates, candidate("v3", 11)),
        (t.commands, command("roll_back", "v1", day=12)),
    ]
    return [Send(topic, b"late", msgspec.json.encode(record)) for topic, record in said]


async def everything(log: MemoryLog, topic: str) -> list[tuple[bytes | None, bytes | None]]:
    reader = await log.reader({Partition(topic, 0): 0})
    batches = await reader.read(100_000, 0)
    return [pair for b in batches for pair in zip(b.keys, b.values, strict=True)]


async def told(sends: list[Send], restart: bool = False, twice: bool = False) -> tuple[Topics, MemoryLog, Registry]:
    t, log = topics(), MemoryLog()
    await log.create(t.all())
    registry = Registry(t)
    loop = ControlLoop(registry, log, "registry")
    for send in sends:
        await log.send([send, send] if twice else [send])
        if restart:
            registry = Registry(t)
            loop = ControlLoop(registry, log, "registry")
        await loop.turn()
    return t, log, registry


def test_the_story_of_a_rollout_is_on_the_topic() -> None:
    t = topics()
    _, log, registry = asyncio.run(told(story(t)))
    kinds = [
        (key.decode(), msgspec.json.decode(value, type=Decision).kind if value else None)
        for key, value in asyncio.run(everything(log, t.models))
        if key is not None
    ]
    assert kinds[:2] == [("late/first", "champion"), ("late/champion", "champion")]
    for said in (
        ("late/v2", "canary"),
        ("late/v2", "champion"),
        ("late/probation", "retired"),
        ("late/v2", "rolled_back"),
    ):
        assert said in kinds
    state = registry.state["late"]
    assert (state["champion"].version, state["online"].version, state["challenger"].version) == ("v1", "online-2", "v3")
    refused = [d for key, d in state.items() if key.startswith("command-")]
    assert sorted(d.reason for d in refused) == [
        "no version to return to",
        "the champion is v2, not v1 as the command expects",
    ]


def test_inference_understands_every_record_and_sees_the_same_aliases() -> None:
    t = topics()
    _, log, registry = asyncio.run(told(story(t)))
    rosters = Rosters()
    for key, value in asyncio.run(everything(log, t.models)):
        rosters.hear(key, value)
    roster, state = rosters.of("late"), registry.state["late"]
    assert (roster.champion, roster.challenger, roster.online) == (
        state["champion"],
        state["challenger"],
        state["online"],
    )
    assert roster.probation is None
    assert roster.online_weight == 0.6


def test_restarts_and_repeats_change_no_byte() -> None:
    """A new process reads all topics from the start again; nothing that it was told before has an effect."""
    t = topics()
    once = asyncio.run(everything(asyncio.run(told(story(t)))[1], t.models))
    for how in ({"restart": True}, {"twice": True}, {"restart": True, "twice": True}):
        _, log, registry = asyncio.run(told(story(t), **how))
        assert asyncio.run(everything(log, t.models)) == once
        fresh = Registry(t)
        for key, value in once:
            fresh.recall(t.models, key, value)
        assert fresh.state == registry.state


def test_what_cannot_be_taken_is_dead_lettered_with_its_bytes_and_the_rest_goes_on() -> None:
    t = topics()
    stranger = msgspec.structs.replace(candidate("v1", 1), model="nobody")
    bad = [
        Send(t.candidates, b"late", b'{"id"'),
        Send(t.candidates, b"late", b"{}", (("traceparent", b"00-x"),)),
        Send(t.candidates, b"late", None),
        Send(t.candidates, b"nobody", msgspec.json.encode(stranger)),
        Send(t.candidates, b"late", msgspec.json.encode(candidate("v1", 1))),
    ]
    _, log, registry = asyncio.run(told(bad))
    dead = t.dead_letters(t.candidates)
    letters = asyncio.run(everything(log, dead))
    assert [value for _, value in letters] == [send.value for send in bad[:4]]

    async def headers() -> list[dict[str, bytes]]:
        reader = await log.reader({Partition(dead, 0): 0})
        (batch,) = await reader.read(10, 0)
        return [dict(h) for h in batch.headers]

    found = asyncio.run(headers())
    assert [h["dlq.reason"] for h in found] == [b"decode", b"schema", b"decode", b"unknown"]
    assert found[1]["traceparent"] == b"00-x"
    assert found[3]["dlq.offset"] == b"3"
    assert registry.state["late"]["champion"].version == "v1"
