"""Does a source still say what it used to: turned labels are seen at any rate of positives, a season that moves all sources is
not an alarm, and sources may differ."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.duration import DAY
from penstock.records import Mix
from penstock.services.monitoring.monitors.turning import REMEMBERED, turned


def said(rng: np.random.Generator, n: int, positive: float, skill: float, flip: float = 0.0) -> Mix:
    """Labels of one source, of which a share is turned; a model of this skill answered."""
    truth = rng.random(n) < positive
    answered = np.where(rng.random(n) < skill, truth, rng.random(n) < positive)
    label = truth ^ (rng.random(n) < flip)
    return Mix(labels=n, positives=int(label.sum()), due=n, judged=n, missed=int((label != answered).sum()))


def windows(rng: np.random.Generator, number: int, positive: float) -> list[dict[str, Mix]]:
    """A bank, and a merchant who reports mostly what is bad."""
    return [
        {"bank": said(rng, 300, positive, 0.7), "merchant": said(rng, 80, min(3 * positive, 0.8), 0.6)} for _ in range(number)
    ]


@pytest.mark.parametrize("positive", [0.02, 0.1, 0.5])
def test_sources_that_differ_as_they_always_did_raise_hardly_an_alarm(positive: float) -> None:
    rng, earlier, alarms = np.random.default_rng(1), list[dict[str, Mix]](), 0
    for window in windows(rng, 360, positive):  # a year of days, at one false alarm a month at most
        found = turned(window, earlier, DAY)
        alarms += bool(found)
        if not found:
            earlier = [*earlier, window][-REMEMBERED:]
    print(f"rate {positive}: {alarms} alarms in 360 days")
    assert alarms <= 12


@pytest.mark.parametrize("positive", [0.02, 0.1, 0.5])
def test_turned_labels_of_one_source_are_seen_the_same_day_whichever_source_it_is(positive: float) -> None:
    rng = np.random.default_rng(2)
    earlier = windows(rng, 20, positive)
    (honest,) = windows(rng, 1, positive)
    for name, n in (("bank", 300), ("merchant", 80)):
        found = turned({**honest, name: said(rng, n, positive, 0.7, flip=1.0)}, earlier, DAY)
        assert {each["source"] for each in found} == {name}
        assert all(each["p"] < 1e-4 and each["moved"] > each["floor"] for each in found)


def test_where_both_answers_are_as_frequent_it_is_the_contradictions_that_tell() -> None:
    rng = np.random.default_rng(3)
    earlier = [{"bank": said(rng, 300, 0.5, 0.7), "shop": said(rng, 80, 0.5, 0.7)} for _ in range(20)]
    now = {"bank": said(rng, 300, 0.5, 0.7), "shop": said(rng, 80, 0.5, 0.7, flip=1.0)}
    assert [(each["source"], each["rate"]) for each in turned(now, earlier, DAY)] == [("shop", "contradicts")]


def test_a_season_and_a_model_that_ages_move_all_sources_and_are_no_turning() -> None:
    rng = np.random.default_rng(4)
    earlier = [{"bank": said(rng, 300, 0.1, 0.9), "shop": said(rng, 100, 0.1, 0.9)} for _ in range(20)]
    stormy = {"bank": said(rng, 300, 0.4, 0.2), "shop": said(rng, 100, 0.4, 0.2)}
    assert turned(stormy, earlier, DAY) == []


def test_a_new_source_is_held_against_the_others_by_its_contradictions_alone() -> None:
    rng = np.random.default_rng(5)
    earlier = [{"bank": said(rng, 300, 0.3, 0.8)} for _ in range(20)]
    bank = said(rng, 300, 0.3, 0.8)
    assert turned({"bank": bank, "shop": said(rng, 60, 0.9, 0.8)}, earlier, DAY) == []
    (found,) = turned({"bank": bank, "shop": said(rng, 60, 0.3, 0.8, flip=1.0)}, earlier, DAY)
    assert (found["source"], found["rate"]) == ("shop", "contradicts") and found["now"] > found["others"] + 0.25


def test_few_labels_and_a_source_alone_say_nothing() -> None:
    rng = np.random.default_rng(6)
    earlier = windows(rng, 20, 0.1)
    assert turned({"bank": said(rng, 300, 0.1, 0.7), "merchant": said(rng, 29, 0.3, 0.6, flip=1.0)}, earlier, DAY) == []
    assert turned({"bank": said(rng, 300, 0.9, 0.7)}, [{"bank": each["bank"]} for each in earlier], DAY) == []
    assert turned({}, [], DAY) == []
