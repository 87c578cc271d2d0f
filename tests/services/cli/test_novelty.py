"""penstock novelty: the newest windows, the inputs outside, the oddest answers."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest
from tests.rides import window

from penstock.log import Send
from penstock.project import load
from penstock.records import Oddity, Unseen
from penstock.topics import Topics

if TYPE_CHECKING:
    from tests.services.cli.conftest import Cli

    from penstock.log.memory import MemoryLog

TOPICS = Topics(load("penstock.examples.flights"), 4)
ODD = Oddity(id="f7", level=9, bits=21, inputs={"Origin.wind": [41.5, 9], "Origin.visib": [None, 7]})
LEVELS = [90, 0, 0, 0, 0, 0, 0, 8, 2]
FOUND = Unseen(answers=100, levels=LEVELS, expected=[993, 0, 0, 0, 0, 0, 0, 7], outside={"Origin.wind": [0, 6, 1]}, oddest=[ODD])


def said(log: MemoryLog, days: int, **novelty: Unseen) -> None:
    async def work() -> None:
        await log.create(TOPICS.all())
        for day in range(1, days + 1):
            one = msgspec.structs.replace(window(day), novelty=novelty)
            await log.send([Send(TOPICS.statistics("late"), b"late", msgspec.json.encode(one))])

    asyncio.run(work())


def test_the_newest_windows_are_shown_with_what_was_outside_and_the_oddest_answers(cli: Cli, log: MemoryLog) -> None:
    said(log, 9, v1=FOUND)
    shown = cli("novelty", "late", "--windows", "2")
    assert shown.exit_code == 0, shown.output
    lines = [" ".join(line.split()) for line in shown.output.splitlines()]
    assert "2013-01-09 00:00 v1 100 10.0% 0.7% Origin.wind 7" in lines
    assert sum("v1 100" in line for line in lines) == 2
    assert any("f7 (v1): Origin.wind 41.5, Origin.visib missing" in line for line in lines)
    (newest,) = cli.json("novelty", "late", "--windows", "1")["windows"]
    assert msgspec.convert(newest["novelty"]["v1"], Unseen) == FOUND
    assert msgspec.convert(newest["end"], type=str).startswith(f"{window(9).end + timedelta(0):%Y-%m-%d}")


@pytest.mark.parametrize("model", ["late", "lat"])
def test_who_watches_for_nothing_or_names_nobody_is_told_what_to_do(cli: Cli, log: MemoryLog, model: str) -> None:
    said(log, 2)
    shown = cli("novelty", model)
    assert ("declare ps.novelty()" if model == "late" else "no model 'lat'") in shown.output
