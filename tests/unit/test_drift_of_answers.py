"""Drift of scores, labels and contributions: against the first week of a version, by the two keys of inputs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from tests.replays import counted

import penstock as ps
from penstock.alarm import Watch
from penstock.duration import DAY, HOUR
from penstock.policy import ANSWERS, Drift
from penstock.records import Contributed
from penstock.services.monitoring.monitors.debut import LEAST
from penstock.services.monitoring.monitors.drifting import Counts, Habits, Period, drift
from penstock.services.monitoring.monitors.verdict import Verdict

RNG = np.random.default_rng
EDGES = np.linspace(0, 1, 33)[1:-1].tolist()


@dataclass
class Version:
    """One version under a drift monitor."""

    monitor: Drift = field(default_factory=lambda: Drift(ANSWERS, DAY, 0.1, 1.0))
    watch: Watch = field(default_factory=Watch)
    habits: Habits = field(default_factory=Habits)
    index: int = -1

    def see(
        self,
        scores: np.ndarray,
        labels: np.ndarray | None = None,
        absolute: dict[str, float] | None = None,
        explained: int = 0,
        version: str = "v1",
    ) -> tuple[str | None, Verdict]:
        """One more period; what its alarm says."""
        self.index += 1
        counts = Counts(
            {"score": counted(scores, EDGES), "Ask.size": [len(scores), 0, 0]},
            baseline={"Ask.size": [9_000, 9_000, 0]},
            contributed=Contributed(n=explained, absolute=absolute or {}),
        )
        known = {version: [int((~labels).sum()), int(labels.sum())]} if labels is not None else {}
        period = Period(self.index, {version: counts}, known)
        verdict, _ = drift(self.monitor, period, self.habits, self.watch.active)
        word = None
        if verdict.bad is not None:
            word = self.watch.hear({0: verdict.bad}, self.index, verdict.again)
            if word == "cleared":
                self.habits.forget()
        return word, verdict


def sigmoid(values: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-values)))


@pytest.mark.parametrize(("every", "years"), [(DAY, 4), (6 * HOUR, 1)])
def test_years_of_answers_with_a_week_and_days_of_their_own_cost_no_more_than_twice_the_budget(every: int, years: int) -> None:
    """Scores and labels that follow the hour and the day of the week, and that each day moves, with no help from materiality."""
    raised, days = 0, 365
    for seed in range(years):
        rng, version = RNG(seed), Version(Drift(ANSWERS, every, 1e-6, 1.0))
        mood = rng.normal(0, 0.2, days)
        for index in range(days * DAY // every):
            at = index * every
            day, hour = at // DAY, at % DAY / HOUR
            n = rng.poisson(300)
            level = -1 + 0.4 * (day % 7 >= 5) + 0.3 * np.cos(hour / 24 * 2 * np.pi) + mood[day]
            scores = sigmoid(level + rng.normal(size=n))
            mix = {name: n * share for name, share in zip("abc", rng.dirichlet([500, 300, 200]), strict=True)}
            raised += version.see(scores, rng.random(n) < scores, mix, n)[0] == "raised"
    budget = years * days / 30
    print(f"false alarms in {years} years, judged every {every // HOUR} h: {raised}, budget {budget:.0f}")
    assert raised <= 2 * budget
    assert raised >= budget / 2 or every < DAY, "hours of a day are each other's custom, which is duller than the budget asks for"


def moved(rate: float = 0.3, to: float = 0.3, shift: float = 0.0, n: int = 1_000, days: int = 5, seed: int = 0) -> list[str]:
    """Two quiet weeks, then `days` with other scores or another label rate; the names in the first alarm."""
    rng, version = RNG(seed), Version()
    for day in range(14 + days):
        late = day >= 14
        scores = sigmoid(rng.normal(shift * late, 1, n))
        word, verdict = version.see(scores, rng.random(n) < (to if late else rate))
        if word == "raised":
            assert late, "no alarm before"
            return [each["input"] for each in verdict.evidence["inputs"] if each["excess"] > 1]
    return []


def test_scores_that_move_by_a_third_of_a_deviation_are_seen_and_by_a_fiftieth_never() -> None:
    found = [moved(shift=0.35, seed=seed) for seed in range(20)]
    assert sum(names == ["score"] for names in found) >= 19
    assert moved(shift=0.02, n=100_000) == []


@pytest.mark.parametrize(("rate", "to"), [(0.3, 0.45), (0.02, 0.06), (0.5, 0.35)])
def test_another_label_rate_is_seen_in_units_of_its_deviation(rate: float, to: float) -> None:
    assert sum(moved(rate, to, seed=seed) == ["label"] for seed in range(10)) >= 9


def test_a_label_rate_that_hardly_moves_is_not_material_in_any_number_of_labels() -> None:
    assert moved(0.02, 0.025, n=100_000) == []
    assert moved(0.3, 0.33, n=100_000) == []


def test_what_moves_the_answers_may_move_while_scores_do_not() -> None:
    rng, version = RNG(1), Version()
    words = []
    for day in range(20):
        shares = [500, 300, 150, 50] if day < 14 else [200, 300, 150, 350]
        mix = {name: 100 * share for name, share in zip("abcd", rng.dirichlet(shares), strict=True)}
        word, verdict = version.see(sigmoid(rng.normal(size=1_000)), absolute=mix, explained=100)
        words.append(word)
        if word == "raised":
            assert verdict.evidence["inputs"][0]["input"] == "contributions"
            assert verdict.evidence["inputs"][0]["ks"] == pytest.approx(0.3, abs=0.05), "the share that has another input now"
    assert words.index("raised") in (14, 15)


def test_nothing_is_judged_before_a_week_is_over_and_it_is_said() -> None:
    rng, version = RNG(2), Version()
    for day in range(LEAST - 1):
        _, verdict = version.see(sigmoid(rng.normal(day, 1, 500)))
        assert verdict.bad is None
    again = Version(Drift((), DAY, 0.9, 1.0))
    _, verdict = again.see(sigmoid(rng.normal(size=500)))
    assert verdict.evidence["not_judged"] == {"score": "1 of at least 7 periods of its reference"}
    for _ in range(LEAST):
        _, verdict = again.see(sigmoid(rng.normal(size=500)))
    assert "not_judged" not in verdict.evidence


def test_another_version_begins_a_week_of_its_own() -> None:
    rng, version = RNG(3), Version()
    for day in range(30):
        sure = 3.0 if day >= 15 else 1.0
        word, _ = version.see(sigmoid(rng.normal(0, sure, 500)), version="v2" if day >= 15 else "v1")
        assert word is None, "a version that is surer than the one before is no drift"


@pytest.mark.parametrize("labels", [[0, 0], [-3, 1], [5, 1]])
def test_labels_that_were_taken_back_or_are_few_say_nothing(labels: list[int]) -> None:
    habits = Habits()
    for index in range(30):
        verdict, shifts = drift(Drift(ANSWERS, DAY, 0.1, 1.0), Period(index, {"v1": Counts()}, {"v1": labels}), habits)
        assert (verdict.bad, shifts) == (None, {})


def test_a_project_may_name_what_of_the_answers_it_watches() -> None:
    assert ps.drift("score", "label").inputs == ("score", "label")
    with pytest.raises(ps.PenstockError):
        ps.drift("scores")
