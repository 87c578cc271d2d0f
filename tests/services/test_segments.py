"""Segments on the log in memory: answers and outcomes are counted by group as a brute force would, whatever the partitions,
batches and restarts; and what is said of them."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.services import air
from tests.services.shop import AGE, LENGTH, REGION, WORLD, Order, Result, World, run, world
from tests.services.test_monitoring_laws import expected

import penstock as ps
from penstock.artefact import Artefacts
from penstock.duration import DAY, HOUR
from penstock.event import event_of, from_micros, to_micros
from penstock.evidence import facts
from penstock.log import Batch, Partition
from penstock.offline.columns import columns_of
from penstock.records import Alarm, Group, Outcome, Partial, Prediction, Statistic
from penstock.segment import MISSING
from penstock.services.inference.meters import Meters
from penstock.services.inference.sessions import Sessions
from penstock.services.inference.shard import ScoringShard
from penstock.services.monitoring.answers.ledger import Answer, Settled
from penstock.services.monitoring.counting.window import Counting, Window
from penstock.services.monitoring.judge import JudgeShard
from penstock.services.monitoring.monitors.sources import capping
from penstock.services.monitoring.quality.cohorts import Cohorting
from penstock.services.trainer.triggers import Triggers
from penstock.statistics.groups import Levels, added_groups
from penstock.store import Saved
from penstock.topics import Topics

SEGMENTS = (REGION, AGE)
OF_LEVELS = {REGION.name: ["nørth", "南", "", MISSING], AGE.name: ["< 30", "30 to 60", MISSING]}


@cache
def grouped() -> World:
    return apart(WORLD)


def apart(made: World) -> World:
    """The same history, whose answers carry levels; missing ones are not said, as of before the segment was declared, or are."""
    found = []
    for p in made.predictions:
        rng = random.Random(p.id)  # the same where it is repeated
        levels = {name: rng.choice(levels) for name, levels in OF_LEVELS.items()}
        if rng.random() < 0.1:
            levels = {name: level for name, level in levels.items() if level != MISSING}
        found.append(msgspec.structs.replace(p, segments=levels))
    return World(found, made.labels)


@cache
def whole(otherwise: bool | None) -> Result:
    return run(grouped(), otherwise=otherwise, segments=SEGMENTS)


def naive(answers: list[Prediction], judged: list[tuple[Prediction, bool, int]]) -> dict[str, dict[str, Group]]:
    found: dict[str, Levels] = defaultdict(Levels)
    for segment in SEGMENTS:
        for p in answers:
            if p.version != "none":
                found[segment.name].answer((p.segments or {}).get(segment.name, MISSING), p.score, 100)
        for p, label, sign in judged:
            if p.version != "none":
                found[segment.name].judge((p.segments or {}).get(segment.name, MISSING), p.score, label, sign)
    return {name: levels.frozen() for name, levels in found.items()}


@pytest.mark.parametrize("otherwise", [False, None])
def test_groups_are_what_the_brute_force_finds(otherwise: bool | None) -> None:
    made, result = grouped(), whole(otherwise)
    wanted = expected(made, otherwise)
    answers = {p.id: p for p in reversed(made.predictions)}
    for s in result.windows:
        start, end = to_micros(s.start), to_micros(s.end)
        asked = [p for p in answers.values() if start <= to_micros(p.time) < end]
        assert s.groups == naive(asked, [(p, label, sign) for at, p, label, sign in wanted.known if start <= at < end])
    for c in result.restated:
        start, end, until = to_micros(c.start), to_micros(c.end), to_micros(c.known_until)
        asked = [p for p in answers.values() if start <= to_micros(p.time) < min(end, until)]
        inside = [(p, label, sign) for at, p, label, sign in wanted.known if start <= to_micros(p.time) < end and at < until]
        assert c.groups == naive(asked, inside)
        served = c.quality.get("served")
        for levels in c.groups.values():
            assert sum(group.quality.n for group in levels.values()) == (served.n if served else 0)
    assert {level for s in result.windows for level in s.groups.get(REGION.name, {})} == {"nørth", "南", "", MISSING}


@pytest.mark.parametrize("partitions", [1, 4, 7])
@pytest.mark.parametrize("seed", range(2))
def test_partitions_batches_and_restarts_do_not_show(partitions: int, seed: int) -> None:
    die_at = range(seed, 100_000, 37)
    assert run(grouped(), partitions, seed, die_at=die_at, max_records=60, segments=SEGMENTS) == whole(False)


def test_without_segments_nothing_is_said_of_them() -> None:
    result = run(world(30))
    assert not any(window.groups for window in result.windows)
    assert not any(b'"segments"' in value for value in result.outcomes.values())


def test_outcomes_carry_the_levels_of_their_answers() -> None:
    answers = {p.id: p for p in reversed(grouped().predictions)}
    for (name, _), value in whole(False).outcomes.items():
        outcome: Any = msgspec.json.decode(value, type=Outcome)
        assert (outcome.segments or {}) == (answers[name].segments or {})


def test_windows_are_as_long_as_without_segments() -> None:
    assert {to_micros(s.end) - to_micros(s.start) for s in whole(None).windows} == {LENGTH}


# --- from the event to the answer, and to the alarm -------------------------------------------------------------------


@ps.event("applications")
class Application:
    number: ps.Id[str]
    branch: ps.Key[str]
    income: float
    sex: str | None
    age: int
    citizen: bool
    at: ps.EventTime


@ps.event("repayments")
class Repayment:
    number: ps.Key[str]
    repaid: bool
    at: ps.EventTime


@ps.model(
    scores=Application,
    features=[Application.income, Application.citizen],
    label=ps.label(Repayment.repaid, within="6h"),
    segments=[ps.segment(Application.age, edges=(30, 60)), Application.citizen],
    monitors=[ps.fairness(Application.sex, "m", gap=0.1, measures=["selection_rate", "true_positive_rate"])],
    retrain=ps.on_alarm(at_most_every="1d"),
)
def credit() -> ps.Learner:
    raise NotImplementedError


@ps.model(scores=Application, features=[Application.income], label=ps.label(Repayment.repaid, within="6h"))
def plain() -> ps.Learner:
    raise NotImplementedError


BANK = Topics(ps.Project("bank", [credit, plain]))
ASKED = {"number": "n1", "branch": "b", "income": 10.5, "sex": "f", "age": 30, "citizen": True, "at": "2026-03-01T00:00:00Z"}


def answered(*gone: str, **changes: Any) -> dict[str, Prediction]:
    """The answers of both models to a row, as the shard of inference gives them."""
    meters = Meters()
    shard = ScoringShard(BANK, 0, Sessions(Artefacts(Path()), meters), meters, ["feature_store.0"])
    event = {name: value for name, value in (ASKED | changes).items() if name not in gone}
    row = {"id": "n1", "time": ASKED["at"], "event": event, "features": {}, "cursor": {}}
    shard.take([Batch(Partition(BANK.rows(event_of(Application)), 0), [0], [b"b"], [msgspec.json.encode(row)])], 0.0)
    effects = shard.step([])
    assert effects is not None
    return {s.topic.rpartition(".")[2]: msgspec.json.decode(s.value or b"", type=Prediction) for s in effects.sends}


def test_an_answer_carries_the_levels_of_its_event_and_not_the_values() -> None:
    found = answered()
    assert found["credit"].segments == {"Application.age": "30 to 60", "Application.citizen": "true", "Application.sex": "f"}
    assert msgspec.json.decode(found["credit"].inputs) == {"Application.income": 10.5, "Application.citizen": 1.0}
    assert answered(sex=None, age=61)["credit"].segments == {
        "Application.age": ">= 60", "Application.citizen": "true", "Application.sex": "missing",
    }  # fmt: skip
    assert found["plain"].segments is msgspec.UNSET
    assert b"segments" not in msgspec.json.encode(found["plain"])


def test_a_row_that_is_older_than_the_column_of_a_segment_is_answered() -> None:
    found = answered("age", "sex")
    assert found["credit"].segments == {
        "Application.age": "missing", "Application.citizen": "true", "Application.sex": "missing",
    }  # fmt: skip
    assert msgspec.json.decode(found["plain"].inputs) == {"Application.income": 10.5}


class Bench:
    """The judge of the bank, opened anew after every window from what it saved."""

    def __init__(self) -> None:
        self.saved, self.offset, self.alarms, self.windows = Saved(), 0, list[Alarm](), list[Statistic]()

    def hear(self, day: int, groups: dict[str, Group]) -> None:
        partial = Partial(
            model="credit", start=day * DAY, end=(day + 1) * DAY, shard=0, shards=1, quality={}, paired={}, inputs={},
            reference="", counts={}, groups={day * DAY: {"Application.sex": groups}},
        )  # fmt: skip
        shard = JudgeShard(BANK.project.models, BANK)
        shard.open(self.saved)
        shard.take([Batch(Partition(BANK.partials, 0), [self.offset], [b""], [msgspec.json.encode(partial)])], 0.0)
        effects = shard.step(())
        assert effects is not None
        self.offset += 1
        self.saved = Saved(self.offset, effects.change.position)
        for send in effects.sends:
            if send.topic == BANK.alarms:
                self.alarms.append(msgspec.json.decode(send.value or b"", type=Alarm))
            elif send.topic == BANK.statistics("credit"):
                self.windows.append(msgspec.json.decode(send.value or b"", type=Statistic))


def chosen(**shares: float) -> dict[str, Group]:
    return {level: Group(answers=1_000, selected=round(1_000 * share)) for level, share in shares.items()}


def test_a_gap_raises_one_alarm_before_any_label_is_known_which_is_held_and_cleared_and_starts_no_fit() -> None:
    bench = Bench()
    for day, share in enumerate([0.5, 0.52, 0.3, 0.3, 0.31, 0.5, 0.49, 0.5]):
        bench.hear(day, chosen(m=0.5, f=share, x=0.5) | {"y": Group(answers=3)})
    assert [(a.signal, a.state, to_micros(a.at) // DAY) for a in bench.alarms] == [
        ("fairness", state, day) for day, state in enumerate(["raised", "held", "held", "held", "cleared"], 3)
    ]
    evidence = bench.alarms[0].evidence
    (gap,) = evidence["gaps"]
    assert (gap["group"], gap["against"], gap["measure"]) == ("f", "m", "selection_rate")
    assert gap["gap"]["low"] <= -0.2 <= gap["gap"]["high"]
    assert evidence["unjudged"]["selection_rate of y"] == "too small: 3 of 30"
    assert any("selection rate of f is 0.300, of m 0.500" in line for line in facts(evidence))
    assert bench.windows[2].groups == {"Application.sex": chosen(f=0.3, m=0.5, x=0.5) | {"y": Group(answers=3)}}
    assert Triggers().recall(bench.alarms[0]) == Triggers()


def test_an_event_over_http_has_the_levels_that_it_has_on_the_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apart = replace(air.late, segments=(ps.segment(air.Flight.origin), ps.segment(air.Flight.seats, edges=(200,))))
    monkeypatch.setattr(air, "TOPICS", Topics(ps.Project("air", [apart, air.long])))
    made = air.World(tmp_path)
    events = [air.EVENT, air.EVENT | {"flight": "f2", "seats": None}, air.EVENT | {"flight": "f3", "origin": "Åre", "seats": 7}]
    door = air.Door(made)

    async def talk(client: httpx.AsyncClient) -> None:
        for event in events:
            assert (await client.post("/predict/late", json=event)).status_code == 200

    door.run(talk, made.said("champion", "v1"))
    asked = [msgspec.json.decode(record.value or b"", type=Prediction).segments for record in door.recorded]
    sent = air.Driven(made).take(*(air.flight(n, **event) for n, event in enumerate(events)))
    assert asked == [found.segments for found in air.answers(sent)]
    assert asked == [
        {"Flight.origin": origin, "Flight.seats": seats}
        for origin, seats in (("JFK", ">= 200"), ("JFK", "missing"), ("Åre", "< 200"))
    ]


def test_the_offline_table_of_a_model_with_segments_has_them() -> None:
    values = [msgspec.json.encode(answered()[name]) for name in ("credit", "plain")]
    table = columns_of(BANK)[BANK.predictions("credit")].decode([values[0]]).columns["segments"].to_pylist()
    assert msgspec.json.decode(table[0])["Application.sex"] == "f"
    assert "segments" not in columns_of(BANK)[BANK.predictions("plain")].decode([values[1]]).columns


def test_labels_beyond_the_cap_of_their_source_are_in_no_group_either() -> None:
    caps = ps.sources(Order.region, {"bank": 1, "shop": 0.2})
    counting = Counting(Cohorting(DAY, 6 * HOUR, (6 * HOUR,)), caps, segments=SEGMENTS)
    window = Window(0)
    for n in range(100):
        answer = Answer(
            f"o{n}", "k", from_micros(n), msgspec.Raw(b"{}"), 0.7, {"v1": 0.7}, "v1", "champion", segments={REGION.name: "north"}
        )
        window.answer(answer, n, counting)
        window.judge(Settled(answer, True, n, True, None, n, rank=1 if n < 50 else 2), counting)
    (partial,) = window.partials("late", DAY, 0, 1, {})
    assert partial.groups[0][REGION.name]["north"].answers == 100
    assert partial.groups[0][REGION.name]["north"].quality.n == 50
    tally, left = capping(caps, partial.sources, partial.capped)
    whole = added_groups(partial.groups[0], tally.groups[0])
    assert whole[REGION.name]["north"].quality.n == 100 - left["shop"] <= 50 / 0.8
    assert whole[AGE.name]["missing"].quality.n == whole[REGION.name]["north"].quality.n
