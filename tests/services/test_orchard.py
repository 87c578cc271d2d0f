"""Everything that monitoring can watch, at once: the same for any partitions, and through a restart at any step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.services.orchard import Said, history, project, watched, words

from penstock.duration import DAY
from penstock.records import Alarm, Statistic
from penstock.topics import Topics

TOPICS = Topics(project, 1)
TOLD = [of(model.name) for model in project.models for of in (TOPICS.statistics, TOPICS.cohorts)]
OUTCOMES = [TOPICS.outcomes(model.name) for model in project.models]


@pytest.fixture(scope="module")
def said() -> list[Said]:
    return history(12, 60)


@pytest.fixture(scope="module")
def whole(said: list[Said], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return watched(said, tmp_path_factory.mktemp("orchard"))


def values(found: dict[str, Any], topic: str) -> list[bytes]:
    return [value for _, value, _ in found[topic]]


def test_everything_has_something_to_say(whole: dict[str, Any]) -> None:
    alarms = [msgspec.json.decode(value, type=Alarm) for value in values(whole, TOPICS.alarms)]
    assert {a.signal for a in alarms} >= {"drift", "novelty", "skill", "sources"}
    for model in project.models:
        statistics = [msgspec.json.decode(v, type=Statistic) for v in values(whole, TOPICS.statistics(model.name))]
        assert all(any(getattr(s, part) for s in statistics) for part in ("quality", "drift", "novelty", "moments", "latency"))
        assert bool(model.segments) == any(s.groups for s in statistics)
        of_levels = [of for s in statistics for levels in (s.levels or {}).values() for of in levels.values()]
        for part in ("drift", "moments", "latency", "missing"):
            assert bool(model.segments) == any(getattr(of, part) for of in of_levels), part
        assert bool(model.segments) == any(s.mix for s in statistics)
        assert model.segments or not any(b'"levels":{"Picked' in value for value in values(whole, TOPICS.statistics(model.name)))
        assert bool(model.explain) == any(s.contributions for s in statistics)
    for topic in TOLD:
        assert not any(b"NaN" in value or b"Infinity" in value for value in values(whole, topic))


@pytest.mark.parametrize("partitions", [4, 16])
def test_the_number_of_partitions_and_pieces_does_not_show(
    said: list[Said], whole: dict[str, Any], partitions: int, tmp_path: Path
) -> None:
    found = watched(said, tmp_path, partitions, seed=partitions)
    for topic in TOLD:
        assert values(found, topic) == values(whole, topic), topic
    for topic in (TOPICS.alarms, *OUTCOMES):  # of several models, of several partitions: in which order follows from who was read
        assert sorted(values(found, topic)) == sorted(values(whole, topic)), topic


def test_a_restart_after_each_step_changes_no_byte(said: list[Said], tmp_path: Path) -> None:
    few = [each for each in said if each[0] < said[0][0] + 4 * DAY]
    reviewed = [*few, *words(few)]
    once = watched(reviewed, tmp_path, 2, seed=1)
    again = watched(reviewed, tmp_path, 2, seed=1, restarts=True)
    assert all(once[topic] for topic in (TOPICS.queue, TOPICS.reviewed))
    for topic in once:
        assert again[topic] == once[topic], topic
