"""What is in quarantine is not learned: not by full fits, not by the online learner, not from training sets. What is lifted is
learned again, as if nothing had been."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.rides import DAY, START, command
from tests.services.test_trainer import Stage, outcomes

from penstock.event import to_micros
from penstock.frames.learned import learned
from penstock.log import Send
from penstock.quarantine import covered, identified, standing
from penstock.records import Candidate, Outcome, Quarantine, Run

DAYS = 6
TOLD = [
    msgspec.structs.replace(o, source="shop" if n % 5 == 0 else "bank", key=f"c{n % 7}")
    for n, o in enumerate(outcomes(DAYS, a_day=60))
]
SHOP = identified(Quarantine(id="", model="late", at=START + 2.5 * DAY, actor="ada", source="shop"))
CAR = identified(Quarantine(id="", model="late", at=START + 3.5 * DAY, actor="ada", key="c3", since=START + 2 * DAY))


class Played:
    """The trainer before `told`; `said` are quarantines by the day after which they were said."""

    def __init__(self, folder: Path, told: list[Outcome], said: dict[int, list[Quarantine]], restarts: bool = False) -> None:
        folder.mkdir()
        asyncio.run(self._play(Stage(folder), told, said, restarts))

    async def _play(self, stage: Stage, told: list[Outcome], said: dict[int, list[Quarantine]], restarts: bool) -> None:
        await stage.log.create(stage.t.all())
        for day in range(1, DAYS + 1):
            if restarts:
                stage.restart()
            await stage.day(day, told)
            sends = [Send(stage.t.quarantines, q.id.encode(), msgspec.json.encode(q)) for q in said.get(day, ())]
            await stage.log.send(sends)
        ask = msgspec.json.encode(command("retrain", day=DAYS))
        await stage.log.send([Send(stage.t.commands, b"late", ask)])
        await stage.loop.turn()
        self.runs: list[Run] = await stage.runs()
        self.made = {each.version: each for each in await stage.candidates()}

    def artefact(self, version: str) -> str:
        found: Candidate = self.made[version]
        return found.artefact.sha256

    def run(self, version: str) -> Run:
        return next(run for run in self.runs if run.version == version)


def without(*held: Quarantine) -> list[Outcome]:
    """The naive twin: what a world would have been told in which nothing of this was said."""

    def inside(o: Outcome, q: Quarantine) -> bool:
        return (
            q.source in ("", o.source)
            and q.key in ("", o.key)
            and (q.since is None or o.time >= q.since)
            and (q.until is None or o.time < q.until)
        )

    return [o for o in TOLD if not any(inside(o, q) for q in held)]


def test_fits_after_a_quarantine_are_those_of_a_world_without_it_and_fits_before_stay(tmp_path: Path) -> None:
    never = Played(tmp_path / "never", TOLD, {})
    found = Played(tmp_path / "found", TOLD, {2: [SHOP], 3: [CAR]})
    bare = Played(tmp_path / "bare", without(SHOP, CAR), {})
    assert found.artefact("online-2") == never.artefact("online-2") != bare.artefact("online-2"), "it was not said yet"
    for version in ("online-4", "online-6", "v2"):
        assert found.artefact(version) == bare.artefact(version) != never.artefact(version)
        assert found.made[version].weights == bare.made[version].weights
        assert found.run(version).data["sha256"] == bare.run(version).data["sha256"]
    known = [o for o in TOLD if o.labelled < START + DAYS * DAY and o.time >= START + (DAYS - 5) * DAY]
    gone = found.run("v2").data["quarantined"]
    assert gone[SHOP.id] == sum(o.source == "shop" for o in known)
    assert gone[CAR.id] == sum(o.source != "shop" and o.key == "c3" and o.time >= START + 2 * DAY for o in known)
    assert found.run("v2").data["rows"] == len(known) - sum(gone.values())
    assert "quarantined" not in never.run("v2").data


def test_what_is_lifted_is_learned_again_and_a_restart_changes_nothing(tmp_path: Path) -> None:
    lifted = msgspec.structs.replace(SHOP, lifted=START + 4.5 * DAY, lifted_by="ada")
    never = Played(tmp_path / "never", TOLD, {})
    found = Played(tmp_path / "found", TOLD, {2: [SHOP], 4: [lifted]})
    assert found.artefact("online-4") != never.artefact("online-4")
    assert found.artefact("online-5") == never.artefact("online-5")
    assert found.artefact("v2") == never.artefact("v2")
    again = Played(tmp_path / "again", TOLD, {2: [SHOP], 4: [lifted]}, restarts=True)
    assert (again.runs, again.made) == (found.runs, found.made)
    compacted = Played(tmp_path / "compacted", TOLD, {2: [lifted]})
    assert (compacted.runs, compacted.made) == (found.runs, found.made), "the last word has the whole history"


def test_a_fit_that_a_person_asks_for_knows_what_was_said_after_the_newest_window(tmp_path: Path) -> None:
    late = msgspec.structs.replace(SHOP, at=START + DAYS * DAY + timedelta(microseconds=1))
    found = Played(tmp_path / "found", TOLD, {DAYS: [late]})
    assert "quarantined" not in found.run("online-6").data
    assert set(found.run("v2").data["quarantined"]) == {late.id}


def test_what_is_no_quarantine_goes_to_the_dead_letters(tmp_path: Path) -> None:
    async def run() -> None:
        stage = Stage(tmp_path)
        await stage.log.create(stage.t.all())
        await stage.log.send([Send(stage.t.quarantines, b"x", b"{}")])
        await stage.day(1, TOLD)
        dead = stage.t.dead_letters(stage.t.quarantines)
        assert sum((await stage.log.ends([dead])).values()) == 1 and len(await stage.candidates()) == 1

    asyncio.run(run())


MOMENTS = st.none() | st.integers(0, 20).map(lambda n: START + n * DAY)
QUARANTINES = st.builds(
    Quarantine,
    id=st.uuids().map(str),
    model=st.just("late"),
    at=st.integers(0, 20).map(lambda n: START + n * DAY),
    actor=st.just("ada"),
    source=st.sampled_from(["", "bank", "shop", "nobody"]),
    key=st.sampled_from(["", "c1", "c2", "nobody"]),
    since=MOMENTS,
    until=MOMENTS,
    lifted=MOMENTS,
)
ROWS = st.lists(st.tuples(st.integers(0, 20), st.sampled_from(["c1", "c2"]), st.sampled_from(["", "bank", "shop"])), max_size=20)


@given(st.lists(QUARANTINES, max_size=4), ROWS, st.integers(0, 21))
def test_a_row_is_covered_by_the_first_that_stands_and_names_it(
    said: list[Quarantine], rows: list[tuple[int, str, str]], day: int
) -> None:
    now = START + day * DAY
    held = standing(said, to_micros(now))
    assert held == [q for q in said if q.at <= now and not (q.lifted and q.lifted <= now)]
    naive = [
        next(
            (
                place
                for place, q in enumerate(held)
                if q.source in ("", source)
                and q.key in ("", key)
                and (q.since or START) <= START + at * DAY < (q.until or START + 99 * DAY)
            ),
            -1,
        )
        for at, key, source in rows
    ]
    times = np.array([to_micros(START + at * DAY) for at, _, _ in rows], np.int64)
    keys, sources = (np.array([row[i] for row in rows], object) for i in (1, 2))
    assert covered(held, times, keys, sources).tolist() == naive
    frame = pd.DataFrame({"time": pd.to_datetime(times, unit="us", utc=True).as_unit("us"), "key": keys, "source": sources})
    kept = learned(frame, said, to_micros(now))
    assert len(kept) == naive.count(-1)


def test_a_training_set_without_sources_is_left_without_keys_and_spans() -> None:
    times = pd.date_range("2013-01-01", periods=4, freq="D", tz="UTC")
    frame = pd.DataFrame({"time": times, "key": ["c3", "c3", "c4", "c3"]})
    assert learned(frame, [SHOP, CAR]).time.tolist() == list(times[:3])
    assert learned(frame, [msgspec.structs.replace(CAR, lifted=START + 9 * DAY)]) is frame
    with pytest.raises(KeyError):
        learned(frame[["time"]], [CAR])
