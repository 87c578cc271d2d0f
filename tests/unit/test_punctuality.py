"""Do labels come as they used to: seen when they stop or slow down, quiet when they do not, and when they come sooner."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.duration import DAY, HOUR, MINUTE
from penstock.policy import Labels
from penstock.records import Scored
from penstock.services.monitoring.quality.punctuality import Custom, punctual

EDGES = tuple(sorted(2 * DAY >> k for k in range(20)))
MONITOR = Labels(within=0, material=0.1, false_alarms_per_month=1.0)


def cohort(rng: np.random.Generator, answers: int = 400, share: float = 0.8, typical: float = 3 * HOUR) -> Scored:
    """Answers of which a share is labelled, after times around `typical` microseconds."""
    took = typical * rng.lognormal(0, 1, answers)
    took = took[(rng.random(answers) < share) & (took <= EDGES[-1])]
    return Scored(answers=answers, delays=np.bincount(np.searchsorted(EDGES, took), minlength=len(EDGES)).tolist())


def settled(rng: np.random.Generator) -> Custom:
    custom = Custom()
    for _ in range(10):
        punctual(MONITOR, cohort(rng), EDGES, DAY, custom)
    return custom


def test_a_feed_as_it_always_was_raises_hardly_an_alarm() -> None:
    rng = np.random.default_rng(0)
    custom, alarms, judged = Custom(), 0, 0
    for _ in range(720):  # two years of days, at one false alarm a month at most
        bad, _ = punctual(MONITOR, cohort(rng, int(rng.integers(60, 900))), EDGES, DAY, custom)
        alarms, judged = alarms + bool(bad), judged + (bad is not None)
    assert judged == 720 - 3
    assert alarms <= 24


@pytest.mark.parametrize(
    ("share", "typical", "seen"),
    [
        (0.0, 3 * HOUR, True),
        (0.5, 3 * HOUR, True),
        (0.8, 9 * HOUR, True),
        (0.78, 3 * HOUR, False),
        (0.8, 30 * MINUTE, False),
        (1.0, HOUR, False),
    ],
)
def test_fewer_or_later_labels_are_seen_and_nothing_else(share: float, typical: float, seen: bool) -> None:
    rng = np.random.default_rng(1)
    bad, evidence = punctual(MONITOR, cohort(rng, 400, share, typical), EDGES, DAY, settled(rng))
    assert bad is seen
    assert evidence["usually"] == pytest.approx(0.8, abs=0.03)
    assert evidence["labelled"] == pytest.approx(share, abs=0.08)


def test_a_feed_that_dies_is_seen_where_few_answers_are_ever_labelled_and_its_silence_is_never_custom() -> None:
    rng, custom = np.random.default_rng(5), Custom()
    for _ in range(5):  # before any label came
        assert punctual(MONITOR, cohort(rng, 300, 0.0), EDGES, DAY, custom) == (None, {})
    for _ in range(28):
        bad, _ = punctual(MONITOR, cohort(rng, 300, 0.08), EDGES, DAY, custom)
        assert not bad
    for _ in range(60):
        bad, evidence = punctual(MONITOR, cohort(rng, 300, 0.0), EDGES, DAY, custom)
        assert bad
        assert evidence["distance"] == pytest.approx(1)
    bad, _ = punctual(MONITOR, cohort(rng, 300, 0.08), EDGES, DAY, custom)
    assert not bad


@pytest.mark.parametrize("horizon", [3 * DAY, 5 * HOUR])
@pytest.mark.parametrize("halvings", [20, 9])
def test_a_custom_of_another_horizon_is_forgotten(horizon: int, halvings: int) -> None:
    """The project was changed, and what is remembered was counted in other bins of delays."""
    rng = np.random.default_rng(2)
    custom, edges = settled(rng), tuple(sorted(horizon >> k for k in range(halvings)))
    for known in range(4):
        delays = np.bincount(rng.integers(0, len(edges), 300), minlength=len(edges)).tolist()
        bad, _ = punctual(MONITOR, Scored(answers=400, delays=delays), edges, DAY, custom)
        assert bad is (None if known < 3 else False)


def test_only_what_had_its_time_counts() -> None:
    """At a quarter of a day a label that takes six hours longer is missing, which is no news over two days."""
    soon = Labels(within=12 * HOUR, material=0.1, false_alarms_per_month=1.0)
    edges = tuple(sorted({*EDGES, soon.within}))
    custom = Custom()
    for delay in (8 * HOUR, 8 * HOUR, 8 * HOUR, 20 * HOUR):
        delays = [0] * len(edges)
        delays[int(np.searchsorted(edges, delay))] = 90
        bad, evidence = punctual(soon, Scored(answers=100, delays=delays), edges, DAY, custom)
    assert bad
    assert (evidence["labelled"], evidence["usually"], evidence["within_seconds"]) == (0.0, pytest.approx(0.9), 12 * 3600)


def test_too_few_answers_or_cohorts_say_nothing() -> None:
    rng, custom = np.random.default_rng(2), Custom()
    assert punctual(MONITOR, Scored(), EDGES, DAY, custom)[0] is None
    assert [punctual(MONITOR, cohort(rng), EDGES, DAY, custom)[0] for _ in range(5)] == [None, None, None, False, False]
    assert punctual(MONITOR, cohort(rng, 40, 0.0), EDGES, DAY, custom)[0] is None


def test_what_lasts_a_week_is_how_it_is_now() -> None:
    rng = np.random.default_rng(3)
    custom = settled(rng)
    said = [punctual(MONITOR, cohort(rng, share=0.4), EDGES, DAY, custom)[0] for _ in range(12)]
    assert said == [True] * 7 + [False] * 5
