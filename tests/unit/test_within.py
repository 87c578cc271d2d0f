"""Drift within the levels of segments: counted as if each level were alone, judged with the whole, named where the whole stands
still."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pytest

import penstock as ps
from penstock.alarm import Watch
from penstock.duration import DAY, HOUR
from penstock.errors import PenstockError
from penstock.evidence import facts
from penstock.policy import SCORE, Drift
from penstock.records import Group
from penstock.segment import MISSING, MOST, OTHERS
from penstock.services.monitoring.counting.apart import Apart, Aside, Column, joined
from penstock.services.monitoring.counting.bins import Binner
from penstock.services.monitoring.monitors.drifting import Counts, Habits, Period, drift
from penstock.services.monitoring.monitors.moving import counts_of
from penstock.services.monitoring.monitors.within import Within
from penstock.services.trainer.levels import LevelCoder
from penstock.services.trainer.reference import by_level, reference
from penstock.statistics.population import mixed
from penstock.statistics.reference import FEW_BINS, Numbers
from penstock.statistics.segmented import LEAST_ROWS, MOST_CELLS, LevelReference, Segmented, affordable, most_levels

RNG = np.random.default_rng
NAMES = ["Ask.size", "Ask.tone"]


@ps.event("ask")
class Ask:
    id: ps.Id[str]
    who: ps.Key[str]
    city: str
    size: float
    tone: float
    at: ps.EventTime


CITY, SIZE = ps.segment(Ask.city), ps.segment(Ask.size, edges=(0,))
Batch = tuple[np.ndarray, list[str], np.ndarray]
"""Times, cities and inputs of some rows."""


def day_of(rng: np.random.Generator, day: int, n: int = 400, cities: int = 8, mood: float = 0.1) -> Batch:
    """A day's rows: each city has a place of its own, days and hours have moods."""
    times = np.sort(rng.integers(0, DAY, rng.poisson(n))) + day * DAY
    codes = rng.integers(0, cities, len(times))
    places = np.arange(cities)[:, None] / 4 + rng.normal(0, mood, (cities, 2)) + rng.normal(0, mood, 2)
    season = 0.3 * np.cos(times / DAY * 2 * np.pi) + 0.3 * (times // DAY % 7 >= 5)
    values = places[codes] + season[:, None] + rng.normal(size=(len(times), 2))
    return times, [f"c{code}" for code in codes], values


@dataclass
class Version:
    """A version, fitted on sixty days, under a drift monitor."""

    rng: np.random.Generator
    monitor: Drift = field(default_factory=lambda: Drift((), DAY, 0.1, 1.0))
    fitted: bool = True
    """Whether its training rows are known by level."""
    cities: int = 8

    def __post_init__(self) -> None:
        rows = [day_of(self.rng, day, cities=self.cities) for day in range(60)]
        times, values = (np.concatenate([each[at] for each in rows]) for at in (0, 2))
        levels = {CITY.name: [city for _, cities, _ in rows for city in cities]}
        X = values.astype(np.float32)  # noqa: N806
        columns = {name: Numbers.of(X[:, i], FEW_BINS) for i, name in enumerate(NAMES)}
        hours, customs = reference(X, times, columns, [self.monitor.every])
        self.segmented = Segmented.opened(by_level(X, times, levels, columns, customs)) if self.fitted else None
        self.aside = Aside([CITY], NAMES, self.segmented)
        counts = {name: list(column.counts[: column.missing_cell + 1]) for name, column in columns.items()}
        grid = {name: [column.centre, column.unit] for name, column in columns.items()}
        edges = {name: list(column.edges) for name, column in columns.items()}
        self.binner = Binner(edges, counts, hours, grid=grid, customs=customs, aside=self.aside, scores=[0.25, 0.5, 0.75])
        self.watch, self.habits, self.within = Watch(), Habits(), Within()
        self.said: list[tuple[str, int, dict[str, Any]]] = []

    def counts(self, batch: Batch, apart: bool = True) -> Counts:
        times, cities, values = batch
        rows = [msgspec.Raw(msgspec.json.encode(dict(zip(NAMES, row, strict=True)))) for row in values.tolist()]
        scores = (1 / (1 + np.exp(-values[:, 1]))).tolist()
        found = self.binner.count(rows, times.tolist(), scores, [{CITY.name: city} for city in cities])
        expected, hours = self.binner.expected(found.parts)
        made = Counts(found.counts, expected, hours, customs=self.binner.customs)
        if apart:
            told = self.aside.told(found.levels)
            made.levels = {s: {level: counts_of(of) for level, of in levels.items()} for s, levels in told.items()}
        return made

    def see(self, day: int, batch: Batch, apart: bool = True) -> None:
        self.within = Within()
        period = Period(day, {"v1": self.counts(batch, apart)})
        verdict, _ = drift(self.monitor, period, self.habits, self.watch.active, self.within)
        if verdict.bad is None:
            return
        word = self.watch.hear({0: verdict.bad}, day, verdict.again)
        if word == "cleared":
            self.habits.forget()
        if word is not None:
            self.said.append((word, day, verdict.evidence))

    @property
    def raised(self) -> list[tuple[int, dict[str, Any]]]:
        return [(day, evidence) for word, day, evidence in self.said if word == "raised"]


def test_a_level_is_counted_as_if_it_were_alone_over_any_pieces() -> None:
    rng, version = RNG(1), Version(RNG(0))
    times, cities, values = day_of(rng, 70, n=2_000)
    values[rng.random(values.shape) < 0.1] = np.nan
    values[3, 0] = np.inf
    rows = [msgspec.Raw(msgspec.json.encode(dict(zip(NAMES, row, strict=True)))) for row in values.tolist()]
    rows[5] = msgspec.Raw(b'"no row"')
    cities = [MISSING if at % 11 == 0 else "nowhere" if at % 13 == 0 else city for at, city in enumerate(cities)]
    levels, scores = [{CITY.name: city} for city in cities], rng.random(len(rows)).tolist()

    def counted(places: Sequence[int]) -> dict[str, dict[str, Apart]]:
        given = [[of[at] for at in places] for of in (rows, times.tolist(), scores, levels)]
        return version.binner.count(*given).levels

    whole = counted(range(len(rows)))
    for pieces in (4, 16):
        order, together = rng.permutation(len(rows)), dict[str, dict[str, Apart]]()
        for piece in np.array_split(order, pieces):
            together = joined(together, counted(piece.tolist()), Apart.__add__)
        assert together == whole
        assert version.aside.told(together) == version.aside.told(whole)
    assert whole[CITY.name].keys() == {f"c{n}" for n in range(8)} | {MISSING, OTHERS}
    for level, found in whole[CITY.name].items():
        inside = [at for at, city in enumerate(cities) if (OTHERS if city == "nowhere" else city) == level and at != 5]
        alone = version.binner.count(*([of[at] for at in inside] for of in (rows, times.tolist(), scores)))
        assert (found.inputs, found.summed) == (alone.counts, alone.summed)


def test_learnt_levels_are_the_same_over_any_pieces_and_bounded() -> None:
    version = Version(RNG(0), fitted=False)
    times, _, values = day_of(RNG(2), 70, n=1_000)
    rows = [msgspec.Raw(msgspec.json.encode(dict(zip(NAMES, row, strict=True)))) for row in values.tolist()]
    levels = [{CITY.name: f"town {at % 300}"} for at in range(len(rows))]

    def counted(places: Sequence[int]) -> dict[str, dict[str, Apart]]:
        return version.binner.count([rows[at] for at in places], times[places].tolist(), (), [levels[at] for at in places]).levels

    whole = counted(range(len(rows)))
    assert len(whole[CITY.name]) == MOST + 1 and OTHERS in whole[CITY.name]
    together = dict[str, dict[str, Apart]]()
    for piece in np.array_split(RNG(3).permutation(len(rows)), 16):
        together = joined(together, counted(piece.tolist()), Apart.__add__)
    assert together == whole


def test_what_drifts_in_one_city_is_named_though_the_whole_stands_still() -> None:
    rng = RNG(4)
    version, blind = Version(rng), Version(RNG(4))
    for day in range(60, 90):
        times, cities, values = day_of(rng, day)
        values[:, 0] += 1.2 * (day >= 75) * (np.array(cities) == "c3")
        version.see(day, (times, cities, values))
        blind.see(day, (times, cities, values), apart=False)
    assert not blind.raised, "an eighth of the rows is lost in the whole"
    ((day, evidence),) = version.raised
    print(f"found {day - 75} days after")
    assert 75 <= day <= 79
    named = [each for each in evidence["inputs"] if each["shifted"]]
    assert [each["within"] for each in named] == [{"segment": CITY.name, "level": "c3", "input": "Ask.size"}]
    assert facts(evidence)[1].startswith("Ask.size where Ask.city is c3 moved by 0.")
    assert evidence["tested"] == 3 + 8 * 3, "two inputs and the score, of the whole and of each city"
    assert version.within.shifts[CITY.name]["c3"]["Ask.size"].psi > 0.5


def test_what_moves_everywhere_is_one_cause_and_is_told_of_the_whole() -> None:
    rng = RNG(7)
    version = Version(rng)
    for day in range(60, 80):
        times, cities, values = day_of(rng, day)
        values[:, 1] += 1.0 * (day >= 70)
        version.see(day, (times, cities, values))
    ((_, evidence),) = version.raised
    assert {each["input"] for each in evidence["inputs"] if each["shifted"]} >= {"Ask.tone"}
    assert not any("within" in each and each["within"]["input"] == "Ask.tone" for each in evidence["inputs"])


@pytest.mark.parametrize("cities", [3, 20])
def test_more_hypotheses_raise_no_more_alarms_than_the_budget(cities: int) -> None:
    """Half a year of moods that training knows, with no help from materiality."""
    rng = RNG(cities)
    version = Version(rng, Drift(tuple(NAMES), DAY, 1e-6, 1.0), cities=cities)
    days = 180
    for day in range(60, 60 + days):
        version.see(day, day_of(rng, day, cities=cities))
    budget = days / 30
    print(f"false alarms of {2 + 2 * cities} hypotheses in {days} days: {len(version.raised)}, budget {budget:.0f}")
    assert len(version.raised) <= 2 * budget


def test_without_a_reference_of_training_the_first_week_is_one() -> None:
    rng = RNG(6)
    version = Version(rng, fitted=False)
    for day in range(60, 100):
        times, cities, values = day_of(rng, day)
        values[:, 0] += 2.0 * (day >= 85) * (np.array(cities) == "c3")
        version.see(day, (times, cities, values))
        if day == 62:
            assert version.within.missing[CITY.name]["c3"]["Ask.size"] == "3 of at least 7 periods of its reference"
        if day == 68:
            assert "c3" in version.within.shifts[CITY.name]
    (day, evidence), *_ = version.raised
    assert 85 <= day <= 89 and evidence["inputs"][0]["input"] == "Ask.size where Ask.city is c3"


def test_the_reference_of_a_level_is_its_rows_and_thin_levels_have_none() -> None:
    rng, n = RNG(7), 3_000
    times, X = np.sort(rng.integers(0, 40 * DAY, n)), rng.normal(size=(n, 2)).astype(np.float32)  # noqa: N806
    cities = ["rare" if at < LEAST_ROWS - 1 else "often" for at in rng.permutation(n)]
    columns = {name: Numbers.of(X[:, i], FEW_BINS) for i, name in enumerate(NAMES)}
    found = Segmented.opened(by_level(X, times, {CITY.name: cities}, columns, {DAY: {}, HOUR: {}}))
    often, rare = found.levels[CITY.name]["often"], found.levels[CITY.name]["rare"]
    assert (rare.rows, rare.hours) == (LEAST_ROWS - 1, b"") and often.rows == n - rare.rows
    assert DAY in often.customs and HOUR not in often.customs, "an hour has three rows of it, which say nothing"
    aside = Aside([CITY], NAMES, found)
    assert aside.mix == {CITY.name: {"often": often.rows, "rare": rare.rows}}
    for bad in (b"", b"x", by_level(X, times, {}, columns, {DAY: {}})[:-3]):
        with pytest.raises(PenstockError, match="the reference by segment is damaged"):
            Segmented.opened(bad)


def test_levels_times_inputs_are_bounded_and_the_first_inputs_are_kept() -> None:
    names = [f"i{at}" for at in range(200)]
    assert most_levels([CITY, SIZE]) == MOST + 2 + 4
    kept = affordable(names, most_levels([CITY, SIZE]))
    assert kept == names[: len(kept)] and (len(kept) + 1) * most_levels([CITY, SIZE]) <= MOST_CELLS
    rng, n = RNG(8), 600
    X, times = rng.normal(size=(n, 200)).astype(np.float32), np.sort(rng.integers(0, 9 * DAY, n))  # noqa: N806
    columns = {name: Numbers.of(X[:, i], FEW_BINS) for i, name in enumerate(names)}
    found = Segmented.opened(by_level(X, times, {CITY.name: [f"c{at % 30}" for at in range(n)]}, columns, {DAY: {}}))
    assert found.inputs == names[: len(found.inputs)] and (len(found.inputs) + 1) * 32 <= MOST_CELLS


def test_the_trainer_knows_levels_whatever_the_order_of_outcomes() -> None:
    said = [f"town {at % 300}" for at in range(2_000)] + [OTHERS, MISSING, "x" * 500]
    found = []
    for order in (range(len(said)), RNG(9).permutation(len(said)).tolist()):
        coder = LevelCoder(CITY)
        codes = {at: coder.code({CITY.name: said[at]} if said[at] != MISSING else {}) for at in order}
        found.append(coder.levels(np.array([codes[at] for at in range(len(said))])))
    assert found[0] == found[1] and len({*found[0]} - {OTHERS, MISSING}) == MOST
    assert all(level in (name, OTHERS) for level, name in zip(found[0], said, strict=True))
    assert found[0][-3:] == [OTHERS, MISSING, OTHERS]


def answers(counts: dict[str, int]) -> dict[str, dict[str, Group]]:
    return {CITY.name: {level: Group(answers=n) for level, n in counts.items()}}


def test_the_mix_is_held_against_training_with_the_same_levels_apart() -> None:
    same = mixed(answers({"a": 500, "b": 500}), {CITY.name: {"a": 5_000, "b": 5_000}})[CITY.name]
    assert same.stability <= same.chance and (same.n, same.m) == (1_000, 10_000)
    moved = mixed(answers({"a": 300, "b": 700}), {CITY.name: {"a": 5_000, "b": 5_000}})[CITY.name]
    assert moved.stability > moved.chance and moved.stability == pytest.approx(0.17, abs=0.01)
    many = {f"t{at}": 10 for at in range(40)}
    other = {f"t{at}": 1_000 for at in range(20, 120)}
    assert mixed(answers(many), {CITY.name: other})[CITY.name].n == 400
    assert mixed(answers({}), {CITY.name: other}) == {}


def test_a_score_is_held_against_the_first_week_within_a_level_as_in_the_whole() -> None:
    rng, version = RNG(10), Version(RNG(10))
    for day in range(60, 62):
        version.see(day, day_of(rng, day))
    assert version.within.missing[CITY.name]["c1"] == {SCORE: "2 of at least 7 periods of its reference"}


def test_a_reference_by_levels_that_are_cut_otherwise_now_is_none() -> None:
    rows = LevelReference(500)
    inputs = [f"Ask.i{at}" for at in range(300)]
    made = Segmented(inputs, {"Ask.size": {"< 0": rows, ">= 0": rows, MISSING: rows}, "Ask.city": {"c1": rows, OTHERS: rows}})
    assert set(Aside([SIZE, CITY], inputs, made).mix) == {"Ask.size", "Ask.city"}
    again = [ps.segment(Ask.size, edges=(5,)), ps.segment(Ask.city, levels=("c1", "c2"))]
    aside = Aside(again, inputs, made)
    assert set(aside.mix) == {"Ask.city"}, "of which the levels are still declared"
    column = Column("Ask.i0", Numbers(edges=(0.0,), counts=(), centre=0.0, unit=1.0), np.ones(1), False)
    columns = [column._replace(name=name) for name in inputs]
    found = aside.count(columns, np.zeros(1, np.int64), [{"Ask.size": "< 5", "Ask.city": "c1"}])
    assert set(found["Ask.size"]) == {"< 5"}
    assert len(found["Ask.size"]["< 5"].inputs) * most_levels(again) <= MOST_CELLS
    assert set(Aside([SIZE], inputs, made).mix) == {"Ask.size"}
