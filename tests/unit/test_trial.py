"""A trial: what is known of one version against another, from sums of paired differences."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta
from itertools import combinations

import msgspec
import pytest

from penstock.policy import Coverage, Gate
from penstock.records import Errors, Paired, Quality, Statistic
from penstock.services.registry.trial import Trial

START = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def summed(differences: list[float]) -> Paired:
    return Paired(n=len(differences), sum=sum(differences), squares=sum(d * d for d in differences))


def window(day: int, losses: list[dict[str, float]]) -> Statistic:
    """A closed window of these events, each with the losses of the versions asked and of what was `served`."""
    versions = sorted({version for event in losses for version in event} - {"served"})
    paired: dict[str, dict[str, Paired]] = {}
    for one, other in combinations(versions, 2):
        both = [event[one] - event[other] for event in losses if one in event and other in event]
        paired.setdefault(one, {})[other] = summed(both)
    return Statistic(
        id=f"s-{day}", model="late", start=START + (day - 1) * DAY, end=START + day * DAY, quality={}, paired=paired,
        log_loss={}, auc={}, prior=None, prior_loss=None, skill=None, drift={}, counts={}, reference="",
    )  # fmt: skip


def events(rng: random.Random, n: int, gap: float) -> list[dict[str, float]]:
    """Losses with heavy noise in common; what is served is half v1 and half an online learner of its own mind."""
    found = []
    for _ in range(n):
        v1 = rng.expovariate(2)
        found.append({"v1": v1, "v2": v1 + rng.gauss(gap, 0.02), "served": (v1 + rng.expovariate(2)) / 2})
    return found


@pytest.mark.parametrize("turned", [False, True])
def test_mean_and_error_are_those_of_the_differences_event_by_event(turned: bool) -> None:
    subject, against = ("v1", "v2") if turned else ("v2", "v1")
    trial = Trial(subject=subject, against=against, until=START)
    losses = [events(random.Random(day), 300, 0.01) for day in range(3)]
    for day, made in enumerate(losses, 1):
        trial = trial.grown(window(day, made))
    gaps = [event[subject] - event[against] for made in losses for event in made]
    mean = sum(gaps) / len(gaps)
    assert trial.n == 900
    assert trial.mean == pytest.approx(mean)
    assert trial.error == pytest.approx(math.sqrt(sum((g - mean) ** 2 for g in gaps)) / len(gaps))


def test_losses_of_two_kinds_are_never_added() -> None:
    of_numbers = msgspec.structs.replace(window(2, [{"v1": 400.0, "v2": 100.0}] * 3), loss="squared error")
    trial = Trial(subject="v2", against="v1", until=START).grown(window(1, [{"v1": 0.1, "v2": 0.9}] * 5))
    trial = trial.grown(of_numbers)
    assert (trial.n, trial.mean, trial.loss, trial.windows) == (3, -300.0, "squared error", 1)
    assert trial.since == START + DAY


def test_a_window_of_corrections_alone_takes_back_what_it_corrects() -> None:
    """A label that is corrected is taken back and counted anew: no more outcomes, other differences."""
    trial = Trial(subject="v2", against="v1", until=START).grown(window(1, [{"v1": 0.1, "v2": 2.1}, {"v1": 0.5, "v2": 0.4}]))
    corrected = window(2, [])
    corrected.paired["v1"] = {"v2": Paired(n=0, sum=2.0 + 2.0, squares=0.0)}  # v1 - v2 was -2, is 2
    assert trial.grown(corrected).mean == pytest.approx((-2.0 - 0.1) / 2)
    early = Trial(subject="v2", against="v1", until=START).grown(window(1, [])).grown(corrected)
    assert early.sum == 0.0, "what was counted before the trial is not taken back from it"


def test_a_version_that_is_a_little_worse_is_caught_whatever_is_served_beside_it() -> None:
    made = events(random.Random(1), 1_000, 0.01)
    trial = Trial(subject="v2", against="v1", until=START)
    assert trial.grown(window(1, made)).verdict([Gate(0.002)]) == "fail"


def test_only_events_that_both_were_asked_about_are_evidence() -> None:
    easy = [{"v1": 0.1, "served": 0.1} for _ in range(500)]
    hard = [{"v1": 0.9, "v2": 0.8 + 0.001 * (i % 2), "served": 0.9} for i in range(500)]
    trial = Trial(subject="v2", against="v1", until=START).grown(window(1, easy + hard))
    assert (trial.n, trial.mean) == (500, pytest.approx(-0.0995))
    apart = Trial(subject="v2", against="v1", until=START).grown(window(1, [*easy, {"v2": 0.8, "served": 0.8}]))
    assert (apart.n, apart.windows) == (0, 1)


def _covering(day: int, covered: int, above: int, gap: float = 0.0) -> Statistic:
    """A closed window in which v2 answered with a quantile that so many truths were up to, and above."""
    made = window(day, [{"v1": 1.0, "v2": 1.0 + gap}] * (covered + above))
    quality = {"v2": Quality(n=covered + above, errors=Errors(covered={0: above, 1: covered}))}
    return msgspec.structs.replace(made, quality=quality, loss="pinball loss")


@pytest.mark.parametrize(
    ("covered", "verdict"),
    [(450, "pass"), (430, "pass"), (405, "fail"), (499, "fail")],
    ids=["nine in ten", "within the margin", "too few", "too many"],
)
def test_a_gate_on_coverage_refuses_a_quantile_that_holds_too_few_truths_or_too_many(covered: int, verdict: str) -> None:
    gates = [Gate(margin=0.1), Coverage(margin=0.03)]
    trial = Trial(subject="v2", against="v1", until=START).grown(_covering(1, covered, 500 - covered))
    assert trial.coverage == covered / 500 == trial.evidence()["coverage"]
    assert trial.verdict(gates, 0.9) == verdict
    assert trial.words.endswith(f"on 500 outcomes, coverage {covered / 500:.3f}")
    if verdict == "fail":
        assert trial.fault(gates, 0.9) == f"its answers cover {covered / 500:.3f} of the truths, not 0.9 within 0.03"
    few = Trial(subject="v2", against="v1", until=START).grown(_covering(1, covered // 10, 10))
    assert few.verdict(gates, 0.9) == "inconclusive"
    assert msgspec.convert(trial.evidence(), Trial) == trial


def test_coverage_before_a_trial_began_is_not_its_own() -> None:
    before = msgspec.structs.replace(_covering(1, 10, 490), paired={})
    trial = Trial(subject="v2", against="v1", until=START).grown(before).grown(_covering(2, 45, 5))
    assert (trial.covered, trial.above, trial.n) == (45, 5, 50)
