"""Monitoring on the log in memory: the same outcomes and statistics for any partitions, batches and crashes, compared
with a brute-force recomputation that knows nothing of ledgers, merges or windows."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from tests.replays import counted
from tests.services.shop import EDGES, END, LENGTH, REFERENCE, START, WHOLE, WITHIN, WORLD, World, run, world

from penstock.duration import DAY
from penstock.event import to_micros
from penstock.records import Cohort, Paired, Prediction, Quality


@dataclass
class Expected:
    """What has to come out: outcomes by (id, corrects), and per window the counts and plain sums."""

    outcomes: dict[tuple[str, bool | None], tuple[bool, bool, int]] = field(default_factory=dict)
    known: list[tuple[int, Prediction, bool, int]] = field(default_factory=list)
    """(moment, answer, label, sign)."""
    words: Counter[tuple[int, str]] = field(default_factory=Counter)

    def say(self, moment: int, word: str) -> None:
        self.words[moment // LENGTH * LENGTH, word] += 1


def expected(made: World, otherwise: bool | None) -> Expected:
    """Each id by itself, its records in order of time (an answer before a label of the same time)."""
    found = Expected()
    answers: dict[str, Prediction] = {}
    for p in made.predictions:
        found.say(to_micros(p.time), "predictions" if p.id not in answers else "duplicate")
        answers.setdefault(p.id, p)
    labels: dict[str, list[tuple[int, bool]]] = {}
    for moment, name, label in made.labels:
        labels.setdefault(name, []).append((moment, label))
    for name in answers.keys() | labels.keys():
        _one(found, answers.get(name), labels.get(name, []), otherwise)
    return found


def _one(found: Expected, answer: Prediction | None, labels: list[tuple[int, bool]], otherwise: bool | None) -> None:
    time = to_micros(answer.time) if answer else END * 10
    before = [label for label in labels if label[0] < time]
    parked: tuple[int, bool] | None = None
    since = 0
    for moment, label in before:
        if parked is not None and moment > since + WITHIN:
            found.say(since + WITHIN, "orphan")
            parked = None
        if parked is None:
            found.say(moment, "parked")
            parked, since = (moment, label), moment
        else:
            found.say(moment, "duplicate" if parked[1] == label else "corrected")
            parked = parked if parked[1] == label else (moment, label)
    if parked is not None and time > since + WITHIN:
        found.say(since + WITHIN, "orphan")
        parked = None
    if answer is None:
        return
    now: bool | None = None
    met: list[tuple[int, Prediction, bool, int]] = []
    if parked is not None:
        now = _learn(found, met, answer, None, parked[1], parked[0], time)
    for moment, label in [label for label in labels if label[0] >= time]:
        if moment > time + WITHIN:
            found.say(moment, "late" if moment <= time + 2 * WITHIN else "parked")
        elif now == label:
            found.say(moment, "duplicate")
        else:
            now = _learn(found, met, answer, now, label, moment, moment)
    if now is None:
        found.say(time + WITHIN, "unanswered" if otherwise is None else "silent")
        if otherwise is not None:
            found.outcomes[answer.id, None] = (otherwise, False, time + WITHIN)
            now = otherwise
    if otherwise is None:
        found.known += met
    else:  # all labels count when the horizon has passed, the last one
        assert now is not None
        found.known.append((time + WITHIN, answer, now, 1))


def _learn(
    found: Expected,
    met: list[tuple[int, Prediction, bool, int]],
    answer: Prediction,
    was: bool | None,
    label: bool,
    labelled: int,
    moment: int,
) -> bool:
    found.say(moment, "outcomes" if was is None else "corrected")
    found.outcomes[answer.id, was] = (label, True, labelled)
    if was is not None:
        met.append((moment, answer, was, -1))
    met.append((moment, answer, label, 1))
    return label


def _loss(score: float, label: bool) -> float:
    p = min(max(score, 1e-6), 1 - 1e-6)
    return -math.log(p if label else 1 - p)


# --- laws -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("otherwise", [False, True, None])
def test_outcomes_are_what_the_brute_force_finds(otherwise: bool | None) -> None:
    result, wanted = run(WORLD, otherwise=otherwise), expected(WORLD, otherwise)
    got = {key: (o.label, o.answered, to_micros(o.labelled)) for key, o in result.settled.items()}
    assert got == wanted.outcomes
    assert any(corrects is not None for _, corrects in got)


@pytest.mark.parametrize("otherwise", [False, None])
def test_statistics_are_what_the_brute_force_finds(otherwise: bool | None) -> None:
    result, wanted = run(WORLD, 4, otherwise=otherwise), expected(WORLD, otherwise)
    statistics = result.windows
    first, last = START // LENGTH * LENGTH, END // LENGTH * LENGTH
    starts = [to_micros(s.start) for s in statistics]
    assert starts == list(range(first, last, LENGTH)), "every window once, empty ones too"
    for s in statistics:
        start, end = to_micros(s.start), to_micros(s.end)
        assert s.counts == {w: n for (at, w), n in wanted.words.items() if at == start}
        inside = [(a, label, sign) for moment, a, label, sign in wanted.known if start <= moment < end]
        for version in ("served", "v1", "v2"):
            asked = [(a.scores.get(version, a.score), label, sign, a) for a, label, sign in inside if a.scores]
            quality = s.quality.get(version)
            if quality is None:
                assert not asked
                continue
            assert quality.n == sum(sign for _, _, sign, _ in asked)
            assert quality.positives == sum(sign * label for _, label, sign, _ in asked)
            assert quality.loss == pytest.approx(sum(sign * _loss(p, label) for p, label, sign, _ in asked), abs=1e-5)
            squares = sum(sign * (p - label) ** 2 for p, label, sign, _ in asked)
            assert quality.squares == pytest.approx(squares, abs=1e-5)
        both = [(_loss(a.scores["v1"], label) - _loss(a.scores["v2"], label), sign) for a, label, sign in inside if a.scores]
        between = s.versus("v1", "v2")
        assert between.n == sum(sign for _, sign in both)
        assert between.sum == pytest.approx(sum(sign * gap for gap, sign in both), abs=1e-5)
        assert between.squares == pytest.approx(sum(sign * gap * gap for gap, sign in both), abs=1e-5)
        assert s.versus("v2", "v1") == Paired(n=between.n, sum=-between.sum, squares=between.squares)
        week = max(first, start - 7 * DAY)
        before = [(label, sign) for moment, _, label, sign in wanted.known if week <= moment < start]
        known = sum(sign for _, sign in before)
        prior = sum(sign * label for label, sign in before) / known if known >= 30 else None
        assert s.prior == (pytest.approx(prior) if prior is not None else None)
        shown = {"prior": s.prior, "prior_loss": s.prior_loss, "skill": s.skill}
        without = {name for name, number in shown.items() if number is None}
        assert s.missing.keys() - {"skill_monitor"} == without, "what is missing has its reason"
        assert not {"skill", "skill_monitor"} <= s.missing.keys()


@pytest.mark.parametrize("otherwise", [False, None])
def test_cohorts_are_what_was_known_of_their_answers_at_each_time(otherwise: bool | None) -> None:
    result, wanted = run(WORLD, 4, otherwise=otherwise), expected(WORLD, otherwise)
    answers = {p.id: p for p in reversed(WORLD.predictions)}
    seen: dict[int, list[Cohort]] = {}
    for c in result.restated:
        start, end, until = to_micros(c.start), to_micros(c.end), to_micros(c.known_until)
        assert end - start == LENGTH, "as long as a window, as the horizon is short"
        seen.setdefault(start, []).append(c)
        assert c.answers == sum(start <= to_micros(p.time) < end for p in answers.values() if to_micros(p.time) < until)
        inside = [k for k in wanted.known if start <= to_micros(k[1].time) < end and k[0] < until]
        silent = sum(
            start <= to_micros(answers[i].time) < end
            for (i, _), (_, said, at) in wanted.outcomes.items()
            if not said and at < until
        )
        assert (c.silent, c.complete) == (silent, until >= end + WITHIN)
        for version in ("served", "v1", "v2"):
            asked = [(a.scores.get(version, a.score), label, sign) for _, a, label, sign in inside if a.scores]
            quality = c.quality.get(version, Quality())
            assert quality.n == sum(sign for _, _, sign in asked)
            assert quality.positives == sum(sign * label for _, label, sign in asked)
            assert quality.loss == pytest.approx(sum(sign * _loss(p, label) for p, label, sign in asked), abs=1e-5)
        if c.complete:
            assert c.answers == c.labels + c.silent + c.unanswered
    assert seen.keys() == {to_micros(p.time) // LENGTH * LENGTH for p in answers.values()}
    for said in seen.values():
        times = [c.known_until for c in said]
        assert times == sorted(set(times)), "each time once, in order"
        assert [c.complete for c in said] == [False] * (len(said) - 1) + [True]
    assert any(a.quality != b.quality for said in seen.values() for a, b in pairwise(said)), "history was restated"


def test_drift_counts_are_those_of_all_answers_of_the_version() -> None:
    for s in WHOLE.windows:
        if to_micros(s.end) % DAY:
            assert s.drift == {}, "the drift monitor judges days"
            continue
        start = to_micros(s.end) - DAY
        mine = [p for p in WORLD.predictions if start <= to_micros(p.time) < start + DAY and p.version != "none"]
        by = Counter(p.version for p in mine)
        if not by:
            assert s.drift == {}
            continue
        top = max(by, key=lambda v: (by[v], v))
        amounts = [msgspec.json.decode(p.inputs)["Order.amount"] for p in mine if p.version == top]
        counts = np.cumsum(counted(np.array(amounts), EDGES["Order.amount"]))
        reference = np.cumsum(REFERENCE["Order.amount"])
        naive = np.max(np.abs(counts / counts[-1] - reference / reference[-1]))
        assert s.drift["Order.amount"].ks == pytest.approx(naive)
        assert s.drift["Order.amount"].n == len(amounts)


def test_moments_and_latencies_are_those_of_all_answers_of_the_window() -> None:
    for s in run(WORLD, 4).windows:
        asked = {p.id: p for p in reversed(WORLD.predictions)}.values()
        inside = [p for p in asked if to_micros(s.start) <= to_micros(p.time) < to_micros(s.end)]
        assert s.moments.keys() == {p.version for p in inside} - {"none"}
        for version, by in s.moments.items():
            mine = [p for p in inside if p.version == version]
            columns: dict[str, list[float]] = {"score": [p.scores[version] for p in mine]}
            for name in EDGES:
                values = [msgspec.json.decode(p.inputs)[name] for p in mine]
                columns[name] = [float(np.float32(v)) for v in values if v is not None]
            assert by.keys() == {name for name, values in columns.items() if values}
            for name, found in by.items():
                values_, unit = np.array(columns[name]), 2.0 ** (-10 if name == "score" else -7)
                assert (found.n, found.least, found.greatest) == (len(values_), values_.min(), values_.max())
                assert found.mean == pytest.approx(values_.mean(), abs=unit / 2)
                spread = None if found.variance is None else math.sqrt(found.variance)
                assert spread == (pytest.approx(values_.std(ddof=1), abs=unit) if len(values_) > 1 else None)
        assert {variant: latency.n for variant, latency in s.latency.items()} == Counter(p.variant for p in inside)
        for variant, latency in s.latency.items():
            took = sorted(p.latency for p in inside if p.variant == variant)
            for share, said in ((0.5, latency.p50), (0.9, latency.p90), (0.99, latency.p99)):
                exact = took[math.ceil(share * len(took)) - 1]
                assert exact <= said * (1 + 1e-9)
                assert said <= exact * 2 ** (1 / 8) * (1 + 1e-9)


@pytest.mark.parametrize("partitions", [1, 4, 7, 16])
@pytest.mark.parametrize("seed", range(4))
def test_partitions_and_batches_do_not_show(partitions: int, seed: int) -> None:
    assert run(WORLD, partitions, seed, max_records=[7, 50, 4096][seed % 3]) == WHOLE


@pytest.mark.parametrize("seed", range(3))
def test_a_restart_at_any_step_loses_nothing_and_counts_nothing_twice(seed: int) -> None:
    small = world(60, seed=5)
    whole = run(small, 2, seed, sizes=(1, 4))
    assert whole == run(small), "killed nowhere"
    assert whole.passed > 60
    for moment in range(whole.passed):
        assert run(small, 2, seed, sizes=(1, 4), die_at=[moment]) == whole, f"killed at {moment}"


@pytest.mark.parametrize("seed", range(4))
def test_many_restarts_lose_nothing_and_count_nothing_twice(seed: int) -> None:
    assert run(WORLD, 3, seed, die_at=range(seed, 100_000, 37), max_records=60) == WHOLE


def test_nothing_shown_is_not_a_number() -> None:
    for value in (*WHOLE.statistics, *WHOLE.alarms):
        assert b"NaN" not in value
        assert b"Infinity" not in value
    assert "skill" in WHOLE.signals, "random answers have no skill"


def test_times_of_the_world_fit_its_end() -> None:
    assert max(to_micros(p.time) for p in WORLD.predictions) + 2 * WITHIN < END
