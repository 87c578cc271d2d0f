"""What is expected of a cohort before its labels come, as monitoring says it: from the scores of its answers and the cohorts that
were complete by its end, once and for all."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from tests.services import shop

from penstock.event import to_micros
from penstock.records import Cohort, Estimate, Scored
from penstock.services.monitoring.quality.estimating import Estimator
from penstock.statistics.quality import BINS, place_of

FOUND = shop.run(shop.WORLD, otherwise=None)


def scored(start: int) -> Scored:
    found: dict[str, list[int]] = {}
    for answer in {p.id: p for p in reversed(shop.WORLD.predictions)}.values():
        if answer.version != "none" and start <= to_micros(answer.time) < start + shop.LENGTH:
            found.setdefault(answer.version, [0] * BINS)[place_of(answer.score)] += 1
    return Scored(scores=found)


def as_of(moment: int, complete: Iterable[Cohort]) -> Estimator:
    """What was learnt by a moment."""
    estimator = Estimator()
    for cohort in complete:
        if to_micros(cohort.known_until) <= moment:
            estimator.learn(cohort.quality, scored(to_micros(cohort.start)), cohort.estimated)
    return estimator


def test_an_estimate_follows_from_the_scores_and_what_was_complete_at_its_end_and_never_changes() -> None:
    complete = sorted((c for c in FOUND.restated if c.complete), key=lambda c: c.start)
    told: list[dict[str, Estimate]] = []
    for start, restated in groupby(sorted(FOUND.restated, key=lambda c: c.start), key=lambda c: to_micros(c.start)):
        end = start + shop.LENGTH
        told.append(as_of(end, complete).estimate(scored(start)))
        assert all(cohort.estimated == told[-1] for cohort in restated if to_micros(cohort.known_until) >= end)
    assert max(each["auc"].compared for each in told if each) >= 3
    assert {} in told, "of answers before there was a model, and of too few"
