"""Segments on the log in memory: answers and outcomes are counted by group as a brute force would, whatever the partitions,
batches and restarts; and what is said of them."""

from __future__ import annotations

import random
from collections import defaultdict
from functools import cache
from typing import Any

import msgspec
import pytest
from tests.services.shop import AGE, LENGTH, REGION, WORLD, Result, World, run, world
from tests.services.test_monitoring_laws import expected

from penstock.event import to_micros
from penstock.records import Group, Outcome, Prediction
from penstock.segment import MISSING
from penstock.statistics.groups import Levels

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
