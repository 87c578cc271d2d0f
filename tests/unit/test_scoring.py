"""The answer is one mixture, the same for a row alone and in a batch, and never depends on a version that failed."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from river import compose, linear_model, optim, preprocessing

from penstock.errors import PenstockError
from penstock.inputs import Floats, Matrix, squashed
from penstock.scoring.answers import Scored, Serving, score
from penstock.scoring.roster import bucket
from penstock.scoring.scorers import Member, RiverScorer


@dataclass(frozen=True)
class Made:
    """A scorer from a function of the first input."""

    of: Callable[[Floats], Any]

    def score(self, X: Matrix) -> Floats:  # noqa: N803
        return np.asarray(self.of(X[:, 0].astype(np.float64)), np.float64)


def member(version: str, of: Callable[[Floats], Any] | float) -> Member:
    constant = of if callable(of) else lambda x: np.full(len(x), of)
    return Member(version, f"digest of {version}", Made(constant))


ENTITIES = [f"e{i}" for i in range(200)]
ROWS = np.linspace(0, 1, 200, dtype=np.float32).reshape(-1, 1)
V1, V2, V0, ONLINE = member("v1", 0.2), member("v2", 0.9), member("v0", 0.4), member("online-3", lambda x: x)


def naive(serving: Serving, row: int) -> tuple[float, str, str]:
    """One row's answer, spelled out: the twin that `score` is compared with."""
    able = {}
    for asked in serving.members.values():
        with contextlib.suppress(RuntimeError):
            p = float(asked.score(ROWS[row : row + 1])[0])
            if 0 <= p <= 1:
                able[asked.version] = p
    canary = serving.challenger is not None and bucket("late", ENTITIES[row]) < round(serving.share * 10_000)
    lead = serving.challenger if canary else serving.champion or serving.online or serving.challenger or serving.probation
    assert lead is not None
    variant = "canary" if canary else "champion"
    if lead.version not in able:
        if not able:
            return 0.5, "none", "none"
        return next(iter(able.values())), next(iter(able)), "champion"
    online, weight = serving.online, serving.online_weight
    if online is None or weight is None or online.version not in able or online is lead:
        return able[lead.version], lead.version, variant
    return (1 - weight) * able[lead.version] + weight * able[online.version], lead.version, variant


def rows_of(scored: Scored) -> list[tuple[float, str, str]]:
    return [(p, a.version, a.variant) for p, a in zip(scored.score, scored.answers, strict=True)]


def broken(share: float) -> Callable[[Floats], Floats]:
    return lambda x: np.where((x * 1000) % 1 < share, np.nan, 0.7)


def raising(_: Floats) -> Floats:
    raise RuntimeError("no such operator")


SERVINGS = {
    "champion": Serving(champion=V1),
    "shadow": Serving(champion=V1, challenger=V2),
    "canary": Serving(champion=V1, challenger=V2, share=0.3),
    "probation": Serving(champion=V1, probation=V0),
    "mixture": Serving(champion=V1, online=ONLINE, online_weight=0.25),
    "mixture in a canary": Serving(champion=V1, challenger=V2, share=0.5, online=ONLINE, online_weight=0.25),
    "online, weight unknown": Serving(champion=V1, online=ONLINE),
    "online only": Serving(online=ONLINE, online_weight=0.5),
    "challenger only": Serving(challenger=V2),
    "champion fails sometimes": Serving(champion=member("v1", broken(0.5)), probation=V0),
    "champion always fails": Serving(champion=member("v1", raising), probation=V0),
    "canary fails sometimes": Serving(champion=V1, challenger=member("v2", broken(0.5)), share=0.5),
    "online fails sometimes": Serving(champion=V1, online=member("online-3", broken(0.5)), online_weight=0.5),
    "all fail": Serving(champion=member("v1", raising), online=member("online-3", math.nan), online_weight=0.5),
    "first kept": Serving(champion=V2, first=V1, online=ONLINE, online_weight=0.25),
    "first in charge": Serving(champion=V1, first=V1),
    "only the first does not fail": Serving(champion=member("v2", raising), first=V1),
    "beyond one": Serving(champion=member("v1", 1.5), probation=V0),
}


class TestAnswers:
    @pytest.mark.parametrize("serving", SERVINGS.values(), ids=SERVINGS)
    def test_are_those_of_the_naive_twin_in_batches_of_any_size(self, serving: Serving) -> None:
        expected = [naive(serving, row) for row in range(len(ROWS))]
        for size in (1, 7, len(ROWS)):
            found = []
            for at in range(0, len(ROWS), size):
                found += rows_of(score("late", ROWS[at : at + size], ENTITIES[at : at + size], serving))
            assert [f[1:] for f in found] == [e[1:] for e in expected]
            assert [f[0] for f in found] == pytest.approx([e[0] for e in expected], abs=1e-15)

    @pytest.mark.parametrize("serving", SERVINGS.values(), ids=SERVINGS)
    def test_the_served_score_can_be_recomputed_from_the_record(self, serving: Serving) -> None:
        scored = score("late", ROWS, ENTITIES, serving)
        for served, scores, answer in zip(scored.score, scored.scores, scored.answers, strict=True):
            assert set(answer.weights) <= set(scores) <= set(serving.members)
            assert all(0 <= p <= 1 for p in scores.values())
            if answer.weights:
                assert sum(answer.weights.values()) == pytest.approx(1)
                assert served == pytest.approx(sum(w * scores[v] for v, w in answer.weights.items()))
                assert answer.digest == serving.members[answer.version].digest

    def test_the_first_model_is_asked_and_changes_no_answer(self) -> None:
        with_it = score("late", ROWS, ENTITIES, Serving(champion=V2, first=V1, online=ONLINE, online_weight=0.25))
        without = score("late", ROWS, ENTITIES, Serving(champion=V2, online=ONLINE, online_weight=0.25))
        assert (with_it.score, with_it.answers) == (without.score, without.answers)
        assert all(scores["v1"] == 0.2 for scores in with_it.scores)

    def test_before_the_first_model_nobody_answers_and_that_is_said(self) -> None:
        scored = score("late", ROWS[:2], ENTITIES[:2], Serving())
        assert rows_of(scored) == [(0.5, "none", "none")] * 2
        assert scored.scores == [{}, {}]
        assert scored.answers[0].weights == {}

    def test_no_rows_give_no_answers(self) -> None:
        assert rows_of(score("late", ROWS[:0], [], SERVINGS["mixture"])) == []

    def test_widening_a_canary_keeps_everyone_who_was_in(self) -> None:
        def inside(share: float) -> set[int]:
            scored = score("late", ROWS, ENTITIES, Serving(champion=V1, challenger=V2, share=share))
            return {n for n, a in enumerate(scored.answers) if a.variant == "canary"}

        assert inside(0.05) <= inside(0.07) <= inside(0.5) <= inside(1.0) == set(range(200))
        assert inside(0.0) == set()

    def test_an_entity_is_always_answered_by_the_same_variant(self) -> None:
        serving = Serving(champion=V1, challenger=V2, share=0.5)
        twice = score("late", np.concatenate([ROWS, ROWS]), ENTITIES * 2, serving)
        assert twice.answers[:200] == twice.answers[200:]

    def test_failures_are_counted_and_explained(self) -> None:
        scored = score("late", ROWS, ENTITIES, SERVINGS["champion always fails"])
        assert scored.failed == {"v1": 200}
        assert "no such operator" in scored.causes["v1"]

    def test_rounding_beyond_one_is_cut_not_refused(self) -> None:
        scored = score("late", ROWS[:1], ["e"], Serving(champion=member("v1", 1.0 + 1e-7)))
        assert scored.score == [1.0]
        assert not scored.failed

    def test_a_member_fitted_on_other_columns_takes_its_own(self) -> None:
        wide = np.array([[0.1, 0.8]], np.float32)
        picky = Member("v1", "d", Made(lambda x: x), (1,))
        assert score("late", wide, ["e"], Serving(champion=picky)).score == pytest.approx([0.8])


class TestColumnarTwin:
    @pytest.mark.parametrize("with_std", [True, False])
    @pytest.mark.parametrize("scaled", [True, False])
    @pytest.mark.parametrize("seed", range(5))
    def test_gives_the_numbers_of_river(self, scaled: bool, with_std: bool, seed: int) -> None:
        drawn = random.Random(seed)
        names = [f"V.f{j}" for j in range(12)]
        learner = linear_model.LogisticRegression(optimizer=optim.SGD(drawn.choice([0.001, 0.1, 2.0])))
        model = compose.Pipeline(preprocessing.StandardScaler(with_std=with_std), learner) if scaled else learner
        for _ in range(drawn.choice([0, 1, 300])):
            row = np.array([[drawn.gauss(0, 50) for _ in names[:-1]]], np.float32)  # the last input is never seen
            model.learn_one(dict(zip(names[:-1], squashed(row)[0].tolist(), strict=True)), row[0, 0] > row[0, 1])
        rows = np.array([[drawn.choice([drawn.gauss(0, 100), math.nan, 1e38, -1e38, 0.0]) for _ in names] for _ in range(300)])
        matrix = rows.astype(np.float32)
        one_by_one = [model.predict_proba_one(dict(zip(names, row, strict=True)))[True] for row in squashed(matrix).tolist()]
        np.testing.assert_allclose(RiverScorer(model, names).score(matrix), one_by_one, rtol=0, atol=1e-9)

    @pytest.mark.parametrize(
        "model",
        [
            preprocessing.MinMaxScaler() | linear_model.LogisticRegression(),
            linear_model.LogisticRegression(loss=optim.losses.Hinge()),
            preprocessing.StandardScaler(window_size=3) | linear_model.LogisticRegression(),
            preprocessing.StandardScaler() | preprocessing.StandardScaler() | linear_model.LogisticRegression(),
            preprocessing.StandardScaler(),
        ],
        ids=["another scaler", "another loss", "a rolling scaler", "two scalers", "no learner"],
    )
    def test_refuses_what_it_does_not_cover(self, model: Any) -> None:
        with pytest.raises(PenstockError, match="is not LogisticRegression"):
            RiverScorer(model, ["a"])
