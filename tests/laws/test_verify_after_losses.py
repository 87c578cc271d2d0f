"""A store that is lost again and again while events come late: what rows say then has its cause, and what is wrong is found."""

from __future__ import annotations

import asyncio
import copy
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.laws.served import MINUTE, PROJECT, Street, archived, drawn, sent

from penstock.event import to_micros
from penstock.services.embedded import Embedded
from penstock.store.memory import MemoryStore


def lossy(folder: Path, seed: int, emptied: bool) -> Street:
    """A street whose topics lag behind each other by hours, each in its own order, and whose times are closed without waiting for
    them. Before about every third batch the store is emptied, or put back to what it was up to four batches ago."""
    fate = random.Random(seed)
    due: list[tuple[int, Any]] = []
    lag, last = dict[type, int](), dict[type, int]()
    for event in [event for batch in drawn(seed, 120, batches=2) for event in batch.events]:
        kind = type(event)
        if kind not in lag or fate.random() < 0.1:
            lag[kind] = fate.choice([0, 0, 0, 60, 240]) * MINUTE
        last[kind] = max(to_micros(event.at) + lag[kind], last.get(kind, 0))
        due.append((last[kind], event))
    events = [event for _, event in sorted(due, key=lambda each: each[0])]

    async def run() -> None:
        store, first = MemoryStore(), 0
        machine = Embedded(PROJECT, folder, store=store, tables=folder / "tables")
        await machine.start()
        copies: list[dict[str, Any]] = [{}]
        while first < len(events):
            part = events[first : first + fate.randrange(1, 20)]
            first += len(part)
            if fate.random() < 0.3:
                store._shards = {} if emptied else copy.deepcopy(fate.choice(copies[-4:]))
            await machine.publish([sent(event) for event in part], max(to_micros(event.at) for event in part))
            if fate.random() < 0.5:
                for _ in range(fate.randrange(4)):
                    await machine.lanes[0].turn(0.0)
            else:
                await machine.settle()
            copies.append(copy.deepcopy(store._shards))
        await machine.publish([], 1 << 55)
        await machine.settle()
        await machine.close()

    asyncio.run(run())
    return archived(folder)


@pytest.mark.parametrize("emptied", [False, True])
@pytest.mark.parametrize("seed", [0, 3, 6, 7, 11, 13, 14, 16, 51])
def test_rows_that_a_loss_put_elsewhere_are_explained_by_their_cursors(seed: int, emptied: bool, tmp_path: Path) -> None:
    report = lossy(tmp_path, seed, emptied).verify()
    assert report.rows > 20
    assert set(report.causes) <= {"late"}, [d for d in report.differences if d.cause != "late"][:2]


@pytest.mark.parametrize("seed", [3, 6, 51])
def test_a_loss_is_no_excuse_for_a_value_that_was_tampered_with(seed: int, tmp_path: Path) -> None:
    street = lossy(tmp_path, seed, emptied=True)
    assert any("lost its state" in difference.because for difference in street.verify().differences)
    (served,) = street.served
    for row in range(len(served)):
        values = served.columns["Buyer.paid_1d"].copy()
        values[row] = np.nan_to_num(values[row]) + 12.34
        spoilt = replace(street, served=[replace(served, columns={**served.columns, "Buyer.paid_1d": values})])
        found = [d for d in spoilt.verify().differences if d.cause == "unexplained"]
        assert {d.id for d in found} == {served.ids[row]}
