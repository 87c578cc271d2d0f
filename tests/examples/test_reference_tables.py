"""Reference tables are events whose newest version counts: `ps.last` joins them as of the moment, versions and all.

The aircraft of the real flights (year, seats, manufacturer), published as versions: one before the year begins, a refit of
some in mid-January, and a correction of the first version that comes after the refit and must not undo it.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd

import penstock as ps
from penstock.event import to_micros
from penstock.examples.flights import Scheduled
from penstock.examples.flights.data import _located as located
from penstock.examples.flights.data import events
from penstock.services.embedded import Embedded, slices


@ps.event("machines")
class Machine:
    tailnum: ps.Key[str]
    year: int | None
    seats: int
    maker: str
    valid_from: ps.EventTime


@ps.features(by=[Scheduled.aircraft, Machine.tailnum])
class Plane:
    """What is known of the machine on paper."""

    year = ps.last(Machine.year)
    seats = ps.last(Machine.seats)
    maker = ps.last(Machine.maker)
    versions = ps.count(Machine)

    @ps.derived
    def age(self, now: Scheduled) -> float:
        return 2013 - self.year


project = ps.Project("reference", rows={Scheduled: [Plane]})
FIRST, REFIT = datetime(2012, 12, 1, tzinfo=UTC), datetime(2013, 1, 15, 6, tzinfo=UTC)
CORRECTED = datetime(2012, 12, 15, tzinfo=UTC)


def version(plane: Any, since: datetime, more_seats: int = 0, maker: str = "") -> tuple[str, bytes, bytes, int]:
    value = {
        "tailnum": plane.tailnum,
        "year": None if np.isnan(plane.year) else int(plane.year),
        "seats": plane.seats + more_seats,
        "maker": maker or plane.manufacturer,
        "valid_from": since,
    }
    return "machines", plane.tailnum.encode(), msgspec.json.encode(value), to_micros(since)


def test_a_row_has_the_version_that_was_valid_when_the_flight_was_scored(tmp_path: Path) -> None:
    planes = pd.read_csv(located("planes.csv")).dropna(subset=["seats"])
    flown = [event for event in events(31) if event[0] == "scheduled"]
    first = [version(p, FIRST) for p in planes.itertuples()]
    refitted = planes[::3]
    refit = [version(p, REFIT, 10) for p in refitted.itertuples()]
    stream = sorted([*first, *flown, *refit], key=lambda event: event[3])
    late = [version(p, CORRECTED, 1, "corrected") for p in planes[::6].itertuples()]

    async def go() -> list[dict[str, Any]]:
        machine = Embedded(project, tmp_path)
        await machine.start()
        middle = next(i for i, event in enumerate(stream) if event[3] > to_micros(REFIT) + 86_400_000_000)
        for part, before in slices(stream[:middle], 86_400_000_000):
            await machine.publish(part, min(before, stream[middle][3]))
        await machine.publish(late, stream[middle][3])
        for part, before in slices(stream[middle:], 86_400_000_000):
            await machine.publish(part, before)
        await machine.settle()
        ends = await machine.log.ends(["reference.rows.scheduled"])
        reader = await machine.log.reader(dict.fromkeys(ends, 0))
        rows = [msgspec.json.decode(v or b"") for batch in await reader.read(100_000, 0.0) for v in batch.values]
        await machine.close()
        return rows

    rows = asyncio.run(go())
    assert len(rows) == len(flown) > 20_000
    known, refits = planes.set_index("tailnum"), set(refitted.tailnum)
    seen = corrected = 0
    for row in rows:
        aircraft, found = row["event"]["aircraft"], row["features"]
        if aircraft not in known.index:
            assert found["Plane.seats"] is None
            assert found["Plane.versions"] == 0
            continue
        plane: Any = known.loc[aircraft]
        at = datetime.fromisoformat(row["time"])
        refitted_by_then = aircraft in refits and at > REFIT
        assert found["Plane.seats"] == plane.seats + 10 * refitted_by_then, f"{aircraft} at {at}: {found}"
        assert found["Plane.maker"] == ps.code(plane.manufacturer)
        assert found["Plane.age"] == (None if np.isnan(plane.year) else 2013 - plane.year)
        seen += refitted_by_then
        corrected += found["Plane.versions"] == 3
    assert seen > 1_000, "flights of machines after their refit"
    assert corrected > 500, "flights after a correction of the first version, which does not undo the refit"
