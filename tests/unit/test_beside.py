"""Differences to baselines follow from sums alone: as if every answer had been compared with the baseline one by one."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from tests.services.parcels import at_most, door, hours
from tests.services.shop import declared
from tests.unit.test_report import RAN

from penstock.records import Quality
from penstock.report.beside import spoken
from penstock.services.monitoring.quality.beside import against, first_of, measures_of
from penstock.statistics.kinds import Kind, kind_of
from penstock.statistics.quality import difference

(late,) = declared(None).models
RNG = np.random.default_rng(8)
N = 4_000
DOORS = ("front", "back", "gate")


def counted(kind: Kind, said: list[Any], truth: list[Any]) -> Quality:
    sums = kind.sums()
    for one, true in zip(said, truth, strict=True):
        kind.add(sums, one, true)
    return kind.told(sums.frozen())


def losses(kind: Kind, said: list[Any], truth: list[Any]) -> Any:
    return np.array([kind.add(kind.sums(), one, true) for one, true in zip(said, truth, strict=True)])


def test_the_spread_against_a_rate_is_that_of_the_answers_one_by_one() -> None:
    kind = kind_of(late.label)
    p = RNG.beta(2, 3, N)
    truth = (RNG.random(N) < p).tolist()
    apart = losses(kind, p.tolist(), truth) - losses(kind, [0.4] * N, truth)
    found = kind.against(0.4, counted(kind, p.tolist(), truth))
    assert found.n == N and found.sum == pytest.approx(apart.sum(), rel=1e-4)
    assert found.squares == pytest.approx((apart**2).sum(), rel=0.01)


def test_the_spread_against_shares_of_classes_is_that_of_the_answers_one_by_one() -> None:
    kind = kind_of(door.label)
    shares = RNG.dirichlet([2, 3, 4], N)
    said = [dict(zip(DOORS, row, strict=True)) for row in shares.tolist()]
    truth = [DOORS[RNG.choice(3, p=row)] for row in shares]
    prior = {"front": 0.2, "back": 0.3, "gate": 0.5}
    apart = losses(kind, said, truth) - losses(kind, [prior] * N, truth)
    found = kind.against(prior, counted(kind, said, truth))
    assert found.n == N and found.sum == pytest.approx(apart.sum(), rel=1e-4)
    assert found.squares == pytest.approx((apart**2).sum(), rel=0.02)


@pytest.mark.parametrize("model", [hours, at_most])
def test_numbers_are_held_against_the_prior_as_two_samples_which_is_never_too_sure(model: Any) -> None:
    kind = kind_of(model.label)
    truth = RNG.gamma(4, 5, N)
    said = truth + RNG.normal(0, 4, N)
    ours, theirs = losses(kind, said.tolist(), truth.tolist()), losses(kind, [20.0] * N, truth.tolist())
    found = difference(kind.against(20.0, counted(kind, said.tolist(), truth.tolist())))
    assert found is not None and not kind.pairs
    assert found.value == pytest.approx((ours - theirs).mean(), rel=0.01)
    two = 1.96 * np.sqrt(ours.var() / N + theirs.var() / N)
    assert (found.high - found.low) / 2 == pytest.approx(two, rel=0.03)


def test_an_interval_of_a_paired_difference_holds_the_truth_about_as_often_as_it_says() -> None:
    kind, held = kind_of(late.label), 0
    p = RNG.beta(2, 3, 200_000)
    rate, fair = 0.4, -p * np.log(p) - (1 - p) * np.log(1 - p)
    truth = fair.mean() - (-p * np.log(rate) - (1 - p) * np.log(1 - rate)).mean()
    for _ in range(200):
        some = RNG.choice(p, 300)
        labels = (RNG.random(300) < some).tolist()
        found = difference(kind.against(rate, counted(kind, some.tolist(), labels)))
        assert found is not None
        held += found.low <= truth <= found.high
    assert 180 <= held <= 199


def test_the_first_model_is_told_only_where_it_was_asked_about_all() -> None:
    kind = kind_of(late.label)
    served, all_of_it = (counted(kind, [0.2, 0.7, 0.6], [False, True, False]) for _ in range(2))
    some = counted(kind, [0.2, 0.7], [False, True])
    assert "first" in measures_of(served, 0.5, True, None, kind, all_of_it)
    assert "first" not in measures_of(served, 0.5, True, None, kind, some)
    assert set(against(served, 0.5, True, kind, {})) == {"prior", "last"}
    assert against(Quality(), None, None, kind, {}) == {}
    assert first_of(["v10", "v9", "served", "none"]) == "v9"


_YES_NO: Any = (True, False, 0.7, [0.9, 0.2])
_DOORS: Any = ("front", "back", dict(zip(DOORS, (0.7, 0.3, 0.0), strict=True)),
               [dict(zip(DOORS, shares, strict=True)) for shares in ((0.9, 0.1, 0.0), (0.2, 0.8, 0.0))])  # fmt: skip


@pytest.mark.parametrize("model", [late, door], ids=lambda model: model.name)
def test_the_usual_label_is_sure_of_itself_and_so_judged_by_wrong_answers(model: Any) -> None:
    kind = kind_of(model.label)
    often, seldom, prior, said = _YES_NO if model is late else _DOORS
    truth = [often] * 140 + [seldom] * 60
    served = counted(kind, [said[0]] * 140 + [said[1]] * 60, truth)
    cohort = msgspec.structs.replace(
        RAN.restated[0],
        measures=measures_of(served, prior, often, None, kind, None),
        against=against(served, prior, often, kind, {}),
    )
    to_prior, to_last = spoken(kind, [cohort, cohort], "")
    assert "log loss" in to_prior
    assert to_last.startswith("surely better than the usual label before: share of wrong answers -0.3000 (")
    assert to_last.endswith(" on the 400 outcomes that both answered, compared as two samples")
