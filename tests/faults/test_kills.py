"""Services are killed in the middle of their work, and started again: nothing is lost, and nothing is counted twice.

The demo on a real broker and a real Redis, one process per service. SIGKILL comes at moments drawn from a seed; the
supervisor restarts what was killed; the audit reads the topics afterwards and knows nothing of any of this.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pytest

from penstock.cli.live import Live
from penstock.examples import flights
from penstock.examples.flights.data import events
from penstock.local import state
from penstock.offline import Tables
from penstock.offline.verify import verify
from penstock.picture import Picture
from penstock.proof.audit import Audit
from penstock.services.demo import drive, running
from penstock.services.embedded import Event
from penstock.settings import load

pytestmark = pytest.mark.usefixtures("servers_here")


class Killer(Live):
    """Watches the demo instead of a screen, and kills each service soon after so many rows are out."""

    def __init__(self, folder: Path, moments: Sequence[tuple[int, str]]) -> None:
        self.folder, self.left = folder, sorted(moments)
        self.killed: list[str] = []
        self._fate = random.Random(str(moments))

    def update(self, picture: Picture, published: int, now: datetime, final: bool = False) -> None:
        if not self.left or picture.counts["rows"] < self.left[0][0]:
            return
        _, name = self.left[0]
        time.sleep(self._fate.uniform(0.0, 0.1))  # the others work on: anywhere in their steps
        there = {entry.name: entry for entry in state.status(self.folder)}[name]
        if there.state == "ready":  # one that is just starting again after the last kill is killed a little later
            os.kill(there.pid, signal.SIGKILL)
            self.killed.append(f"{name} after {picture.counts['rows']:,} rows")
            del self.left[0]

    def restarts(self) -> dict[str, int]:
        return {entry.name: entry.restarts for entry in state.status(self.folder) if entry.restarts}


def survive(folder: Path, stream: Sequence[Event], partitions: int, moments: Sequence[tuple[int, str]]) -> Audit:
    """Run the demo with kills; what the audit found, after checking that they really happened."""
    killer = Killer(folder, moments)

    async def go() -> Audit:
        settings = load(trace_sample=0.0)
        async with running(settings, flights.project, folder, partitions) as platform:
            found: Audit = await drive(platform, stream, killer)
            wanted: dict[str, int] = {}
            for _, name in moments:
                wanted[name] = wanted.get(name, 0) + 1
            await archived(folder / "tables", found.rows)
            assert killer.left == [], f"the run ended before these were killed: {killer.left}"
            assert killer.restarts() == wanted, f"something else ended by itself; logs: {folder / 'logs'}"
            return found

    began = time.monotonic()
    found = asyncio.run(go())
    seconds = time.monotonic() - began
    print(f"\nkilled {', '.join(killer.killed)}")
    print(f"events {found.events_in:,}  rows {found.rows:,}  predictions {found.predictions:,}  outcomes {found.outcomes:,}")
    print(f"lost {found.lost}  counted twice {found.counted_twice}  redelivered {found.redelivered}  {seconds:.0f} s")
    return found


async def archived(folder: Path, rows: int) -> None:
    """Wait until the archive, which nobody waits for in a demo, has every row: it commits what is half a minute old."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        tables = Tables(folder)
        if "flights.rows.scheduled" in tables.names() and tables.table("flights.rows.scheduled").rows >= rows:
            return
        await asyncio.sleep(0.5)
    raise AssertionError("the archive has not caught up within two minutes")


def at_random(seed: int, services: Sequence[str], n: int) -> list[tuple[int, str]]:
    """Each service at a moment of its own, between a tenth and nine tenths of `n` rows."""
    fate = random.Random(seed)
    return [(fate.randint(n // 10, 9 * n // 10), name) for name in services]


def scored(stream: Sequence[Event]) -> int:
    return sum(event[0] == "scheduled" for event in stream)


@pytest.fixture(autouse=True)
def pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish only a little ahead of the answers, so that every service is at work whenever one is killed."""
    monkeypatch.setattr("penstock.services.demo.MOST_LAG", 400)


@pytest.mark.slow
def test_a_feature_store_killed_twice_loses_nothing_and_counts_nothing_twice(tmp_path: Path) -> None:
    stream = list(events(6))
    found = survive(tmp_path / "run", stream, 2, at_random(6, ["feature_store", "feature_store"], scored(stream)))
    assert (found.lost, found.counted_twice) == (0, 0), found.complaints
    assert found.rows == found.predictions > 5_000
    archived_once(tmp_path / "run" / "tables")


def archived_once(folder: Path) -> None:
    """No record is in an offline table twice, and no row that a killed service sent again."""
    tables = Tables(folder)
    rows = tables.table("flights.rows.scheduled").arrow(columns=["id"])["id"].to_pylist()
    assert len(rows) == len(set(rows)) > 0
    for name in tables.names():
        assert all(not one.doubled for one in asyncio.run(verify(tables.table(name)))), name


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_every_service_killed_once_loses_nothing_and_counts_nothing_twice(tmp_path: Path, seed: int) -> None:
    stream = list(events(28))
    services = ["feature_store", "inference", "monitoring", "trainer", "registry"]
    found = survive(tmp_path / "run", stream, 4, at_random(seed, services, scored(stream)))
    assert (found.lost, found.counted_twice) == (0, 0), found.complaints
    assert found.retrains > 0, "no model was fitted, so the trainer was killed for nothing"
