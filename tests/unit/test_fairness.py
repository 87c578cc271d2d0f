"""Groups of a segment: what is counted of them, the gaps between them, and when these are an alarm."""

from __future__ import annotations

import math
import random
import re
from collections import defaultdict
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

import penstock as ps
from penstock.duration import DAY
from penstock.errors import DefinitionError
from penstock.fairness import MEASURES
from penstock.records import Group, Measure
from penstock.segment import MISSING, MOST, OTHERS
from penstock.services.monitoring.monitors.parity import Standing, unequal
from penstock.statistics.apart import chance, newcombe, ratio
from penstock.statistics.binary import wilson
from penstock.statistics.fairness import LEAST, Gap, Treated, gaps, treated
from penstock.statistics.groups import Levels, added_groups
from penstock.statistics.population import populations
from penstock.statistics.quality import BINS


@ps.event("applicants")
class Applicant:
    id: ps.Id[str]
    who: ps.Key[str]
    income: float
    sex: str | None
    home: str
    citizen: bool
    age: float | None
    at: ps.EventTime


@ps.event("repaid")
class Repaid:
    id: ps.Key[str]
    repaid: bool
    left: float
    why: str
    at: ps.EventTime


def model(**said: Any) -> Any:
    def credit() -> ps.Learner:
        raise NotImplementedError

    return ps.model(scores=Applicant, features=[Applicant.income], label=ps.label(Repaid.repaid, within="1d"), **said)(credit)


def numbers(quantile: float | None = None, **said: Any) -> Any:
    def debt() -> ps.Learner:
        raise NotImplementedError

    label = ps.label(Repaid.left, within="1d", quantile=quantile)
    return ps.model(scores=Applicant, features=[Applicant.income], label=label, **said)(debt)


def classes(n: int, **said: Any) -> Any:
    def kind() -> ps.Learner:
        raise NotImplementedError

    label = ps.label(Repaid.why, within="1d", classes=[f"c{each}" for each in range(n)])
    return ps.model(scores=Applicant, features=[Applicant.income], label=label, **said)(kind)


# --- what is declared -------------------------------------------------------------------------------------------------


def test_a_segment_says_the_level_of_a_value() -> None:
    age, home = ps.segment(Applicant.age, edges=(30, 60.5)), ps.segment(Applicant.home, levels=("nørth", "南"))
    sex, citizen = ps.segment(Applicant.sex), ps.segment(Applicant.citizen)
    assert [age.level(v) for v in (-1, 30, 60, 60.5, None, math.nan, math.inf)] == [
        "< 30", "30 to 60.5", "30 to 60.5", ">= 60.5", "missing", "missing", ">= 60.5",
    ]  # fmt: skip
    assert [home.level(v) for v in ("nørth", "南", "south", "", None)] == ["nørth", "南", OTHERS, OTHERS, MISSING]
    assert [sex.level(v) for v in ("f", "", "x" * 101, None)] == ["f", "", OTHERS, MISSING]
    assert [citizen.level(v) for v in (True, False, None)] == ["true", "false", MISSING]


def test_an_answer_of_an_older_declaration_counts_as_the_declaration_of_now_says() -> None:
    assert ps.segment(Applicant.home, levels=("north",)).counted("south") == OTHERS
    assert ps.segment(Applicant.age, edges=(40,)).counted("< 30") == OTHERS


def test_a_monitor_declares_the_segment_that_it_asks_about_and_takes_one_that_is_declared() -> None:
    (alone,) = model(monitors=[ps.fairness(Applicant.sex)]).segments
    assert (alone.name, alone.declared) == ("Applicant.sex", ())
    aged = ps.segment(Applicant.age, edges=(30,))
    assert model(segments=[aged], monitors=[ps.fairness(Applicant.age, "< 30")]).segments == (aged,)
    assert model(monitors=[ps.fairness(aged), ps.fairness(Applicant.age)]).segments == (aged,)
    assert model().segments == ()


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: model(segments=[Applicant.age]), r"is a number.*ps\.segment\(Applicant\.age, edges="),
        (lambda: model(segments=[Applicant.at]), "is a time"),
        (lambda: model(segments=[Repaid.repaid]), "no column of Applicant"),
        (lambda: model(segments=["sex"]), "is not a column"),
        (lambda: ps.segment(Applicant.age, edges=(3, 2)), "do not ascend"),
        (lambda: ps.segment(Applicant.sex, edges=(3,)), "cut a column of numbers"),
        (lambda: ps.segment(Applicant.age, levels=("3",)), "texts of a str column"),
        (lambda: ps.segment(Applicant.sex, levels=("f", "others")), "none"),
        (lambda: ps.segment(Applicant.sex, levels=tuple(map(str, range(65)))), "more than 64"),
        (lambda: model(monitors=[ps.fairness(ps.segment(Applicant.home, levels=("north",)), "nort")]), "did you mean north"),
        (lambda: ps.fairness(Applicant.sex, gap=0), "gap lies between 0 and 1"),
        (lambda: ps.fairness(Applicant.sex, measures=["recal"]), "'recal'"),
        (lambda: ps.fairness(Applicant.sex, measures=[]), "names none"),
        (
            lambda: model(monitors=[ps.fairness(Applicant.sex, measures=["mae"])]),
            "mae, and the answers are yes and no.*precision",
        ),
        (lambda: classes(50, segments=[Applicant.sex, Applicant.home]), "2 segments of 50 classes.*fewer segments"),
        (lambda: numbers(0.9, monitors=[ps.fairness(Applicant.sex, measures=["bias"])]), "bias.* a quantile of numbers.*pinball"),
        (lambda: model(segments=[ps.segment(Applicant.age, edges=(at,)) for at in (3, 4)]), "declared twice"),
    ],
)
def test_what_is_declared_wrongly_is_said_with_what_to_type(made: Any, said: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        made()
    assert re.search(said, f"{caught.value} {caught.value.fix}")


def test_a_monitor_watches_all_that_the_answers_have_unless_it_names_some() -> None:
    def asked(made: Any) -> tuple[str, ...]:
        (monitor,) = made.monitors
        return tuple(monitor.measures)

    monitor = ps.fairness(Applicant.sex)
    assert asked(model(monitors=[monitor])) == MEASURES
    assert asked(numbers(monitors=[monitor])) == ("mean_answer", "bias", "mae")
    assert asked(numbers(0.9, monitors=[monitor])) == ("mean_answer", "coverage", "pinball")
    assert asked(numbers(monitors=[ps.fairness(Applicant.sex, measures=["mae"])])) == ("mae",)
    assert asked(numbers().under(ps.Policy(monitors=[monitor]))) == ("mean_answer", "bias", "mae")


def test_segments_are_in_the_fingerprint_of_a_model_only_where_there_are_some() -> None:
    assert "segments" not in model().spelled()
    assert model(segments=[Applicant.sex]).spelled() != model(segments=[Applicant.home]).spelled()


# --- what is counted --------------------------------------------------------------------------------------------------

Row = tuple[str, float, bool | None]
"""Level, score, label (None: not known)."""


def counted(rows: list[Row], threshold: float = 0.5) -> dict[str, Group]:
    levels, cut = Levels(), round(threshold * BINS)
    for level, score, label in rows:
        levels.answer(level, score, cut)
        if label is not None:
            levels.judge(level, score, label, 1)
    return levels.frozen()


def history(seed: int, n: int = 600) -> list[Row]:
    rng = random.Random(seed)
    found: list[Row] = []
    for _ in range(n):
        level = rng.choice(["a", "b", "ü", MISSING])
        score = round(rng.random() ** (1 + (level == "b")), 3)
        found.append((level, score, None if rng.random() < 0.2 else rng.random() < score))
    return found


@pytest.mark.parametrize("threshold", [0.5, 0.2])
@pytest.mark.parametrize("against", ["", "b"])
@pytest.mark.parametrize("seed", range(4))
def test_every_gap_is_what_rows_say(seed: int, against: str, threshold: float) -> None:
    rows = history(seed)
    found = gaps({level: treated(group, threshold) for level, group in counted(rows, threshold).items()}, against)
    levels = sorted({level for level, _, _ in rows} - {against})
    assert [(gap.group, gap.measure) for gap in found] == [(level, measure) for level in levels for measure in MEASURES]
    for gap in found:
        mine = _naive([r for r in rows if r[0] == gap.group], gap.measure, threshold)
        theirs = _naive([r for r in rows if (r[0] == against if against else r[0] != gap.group)], gap.measure, threshold)
        assert gap.value == pytest.approx(mine, abs=1e-7)
        assert gap.other == pytest.approx(theirs, abs=1e-7)
        assert gap.gap is not None
        assert gap.gap.value == pytest.approx(mine - theirs, abs=1e-7)
        assert gap.gap.low <= gap.gap.value <= gap.gap.high
        if gap.ratio is not None:
            assert gap.ratio.value == pytest.approx(mine / theirs)
            assert gap.ratio.low <= gap.ratio.value <= gap.ratio.high


def _naive(rows: list[Row], measure: str, threshold: float) -> float:
    known = [(score, label) for _, score, label in rows if label is not None]
    by_measure: dict[str, list[float]] = {
        "selection_rate": [score >= threshold for _, score, _ in rows],
        "true_positive_rate": [score >= threshold for score, label in known if label],
        "false_positive_rate": [score >= threshold for score, label in known if not label],
        "precision": [bool(label) for score, label in known if score >= threshold],
        "calibration": [label - score for score, label in known],
    }
    return sum(by_measure[measure]) / len(by_measure[measure])


@given(st.integers(1, 300), st.integers(1, 300), st.data())
@settings(max_examples=200, deadline=None)
def test_chance_is_never_below_the_exact_test_and_close_above_it_where_it_matters(n: int, m: int, data: st.DataObject) -> None:
    a, b = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    tails = hypergeom.sf(a - 1, n + m, a + b, n), hypergeom.cdf(a, n + m, a + b, n)
    exact = min(1.0, 2 * min(tails))
    assert exact * (1 - 1e-9) <= chance(a, n, b, m) <= 1
    if exact < 0.01:
        assert chance(a, n, b, m) < 1.15 * exact
    assert chance(a, n, b, m) == pytest.approx(chance(b, m, a, n))


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.data())
@settings(max_examples=200, deadline=None)
def test_intervals_hold_their_value_and_are_numbers(n: int, m: int, data: st.DataObject) -> None:
    one, two = wilson(data.draw(st.integers(0, n)), n), wilson(data.draw(st.integers(0, m)), m)
    assert one is not None
    assert two is not None
    for found in (newcombe(one, two), ratio(one, two)):
        assert found is None or (math.isfinite(found.high) and found.low - 1e-12 <= found.value <= found.high + 1e-12)
    assert (ratio(one, two) is None) == (two.value == 0)


def test_intervals_of_gaps_and_ratios_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    held: dict[str, list[bool]] = defaultdict(list)
    for _ in range(2_000):
        p, q, n, m = 0.3, 0.45, 60, 90
        one, two = wilson(int(rng.binomial(n, p)), n), wilson(int(rng.binomial(m, q)), m)
        assert one is not None
        assert two is not None
        for name, found, truth in (("gap", newcombe(one, two), p - q), ("ratio", ratio(one, two), p / q)):
            held[name].append(found is not None and found.low <= truth <= found.high)
    for name, cases in held.items():
        assert 0.935 <= np.mean(cases) <= 0.97, name


def test_what_there_is_too_little_of_is_said_and_not_judged() -> None:
    small, large = Treated(answers=LEAST - 1, selected=29), Treated(answers=1_000, selected=10)
    (first, *rest) = gaps({"small": small, "large": large}, "large")
    assert (first.unjudged, first.p) == ("too small: 29 of 30", None)
    assert first.gap is not None, "the figures are shown all the same"
    assert {gap.unjudged for gap in rest} == {"too small: 0 of 30"}
    assert all(gap.gap is None and gap.value is None for gap in rest)
    assert gaps({"only": large}) == [], "nobody to compare with"
    assert {gap.unjudged for gap in gaps({"a": large}, "b") + gaps({"a": large, "c": large}, "b")} == {"too small: 0 of 30"}


def test_a_group_with_less_than_nothing_is_not_judged() -> None:
    odd = Treated(answers=100, selected=50, true_positives=-1, false_negatives=60, true_negatives=40, squares=1.0)
    found = gaps({"a": odd, "b": Treated(answers=100, selected=50)})
    assert all(gap.p is None and gap.unjudged for gap in found)


# --- many levels ------------------------------------------------------------------------------------------------------


def naive_levels(rows: list[Row]) -> dict[str, Group]:
    """All at once: the levels of the least hashes, counted apart."""
    named = sorted({level for level, _, _ in rows} - {MISSING, OTHERS}, key=lambda level: (crc32(level.encode()), level))[:MOST]
    return counted([(level if level in (*named, MISSING) else OTHERS, score, label) for level, score, label in rows])


@pytest.mark.parametrize("partitions", [1, 3, 8])
@pytest.mark.parametrize("seed", range(3))
def test_more_levels_than_are_counted_apart_give_the_same_in_any_order_and_partition(seed: int, partitions: int) -> None:
    rng = random.Random(seed)
    rows: list[Row] = [(f"λ{int(rng.expovariate(0.02))}", round(rng.random(), 3), rng.random() < 0.5) for _ in range(3_000)]
    rows += [(MISSING, 0.5, None)] * 5
    whole = naive_levels(rows)
    assert len(whole) == MOST + 2
    rng.shuffle(rows)
    shares: list[list[Row]] = [[] for _ in range(partitions)]
    for row in rows:
        rng.choice(shares).append(row)
    found = added_groups(*({"segment": counted(share)} for share in shares))
    assert found["segment"] == whole


def test_a_million_levels_take_no_more_room_than_a_few() -> None:
    levels = Levels()
    for number in range(1_000_000):
        levels.answer(f"level {number}", 0.7, 100)
    found = levels.frozen()
    assert len(found) == MOST + 1
    assert sum(group.answers for group in found.values()) == 1_000_000
    assert {group.answers for level, group in found.items() if level != OTHERS} == {1}


def test_an_outcome_that_is_taken_back_leaves_nothing() -> None:
    levels = Levels()
    levels.answer("a", 0.7, 100)
    for sign, label in ((1, True), (-1, True), (1, False)):
        levels.judge("a", 0.7, label, sign)
    assert levels.frozen() == counted([("a", 0.7, False)])


# --- shares -----------------------------------------------------------------------------------------------------------


def answers(counts: dict[str, int]) -> dict[str, dict[str, Group]]:
    return {"segment": {level: Group(answers=n) for level, n in counts.items()}}


def test_without_a_change_the_shares_of_groups_are_as_stable_as_chance_says() -> None:
    rng = np.random.default_rng(8)
    usual: dict[str, dict[str, float]] = {}
    found = [
        populations(answers(dict(zip("abcde", rng.multinomial(500, SHARES).tolist(), strict=True))), usual, DAY)
        for _ in range(400)
    ]
    assert found[0] == {}, "nothing to compare with yet"
    beyond = [each["segment"].stability > each["segment"].chance for each in found[1:]]
    assert 0.02 <= np.mean(beyond) <= 0.08
    assert found[-1]["segment"].n == 500
    assert found[-1]["segment"].m == pytest.approx(500 / (1 - 2 ** (-1 / 14)), rel=0.1), "two weeks count half"


def test_shares_that_move_are_seen_and_a_new_level_is_no_infinity() -> None:
    usual: dict[str, dict[str, float]] = {}
    populations(answers({"a": 500, "b": 500}), usual, DAY)
    moved = populations(answers({"a": 400, "b": 500, "new": 100}), usual, DAY)["segment"]
    assert moved.chance < moved.stability < 2
    assert populations(answers({}), usual, DAY) == {}
    assert populations(answers({"a": -3}), usual, DAY) == {}


# --- alarms -----------------------------------------------------------------------------------------------------------

JUDGED = ["true_positive_rate", "false_positive_rate", "calibration"]
"""What is alike in these groups."""
SHARES = [0.4, 0.3, 0.15, 0.1, 0.05]


def day(rng: Any, n: int, odd: str = "", less: float = 0.0) -> dict[str, Treated]:
    """Groups of a day, alike but for `odd`, whose true outcomes are found the less often."""
    found = {}
    for name, size in zip("abcde", rng.multinomial(n, SHARES).tolist(), strict=True):
        positives = int(rng.binomial(size, 0.3))
        hits = int(rng.binomial(positives, 0.6 - (less if name == odd else 0.0)))
        false = int(rng.binomial(size - positives, 0.1))
        scores = rng.beta(1, 2, size)
        outcomes = rng.random(size) < scores
        found[name] = Treated(
            answers=size, selected=hits + false, true_positives=hits, false_positives=false, false_negatives=positives - hits,
            true_negatives=size - positives - false, scores=float(scores.sum() + positives - outcomes.sum()),
            squares=float(((outcomes - scores) ** 2).sum()), spread=float((scores * (1 - scores)).sum()),
        )  # fmt: skip
    return found


def verdicts(days: list[dict[str, Treated]], monitor: Any) -> list[tuple[bool | None, dict[str, Any]]]:
    """Of every day, as of a monitor that stands for itself (an alarm is cleared at once, as after two clean days)."""
    standing, found = Standing(), []
    for groups in days:
        standing.period = groups
        verdict = unequal(monitor, standing)
        found.append((verdict.bad, verdict.evidence))
        if verdict.bad:
            standing.forget()
    return found


@pytest.mark.parametrize(("n", "against"), [(200, ""), (2_000, "a")])
def test_where_all_are_alike_alarms_are_as_rare_as_the_budget_says(n: int, against: str) -> None:
    rng = np.random.default_rng(n)
    monitor = ps.fairness(Applicant.sex, against, gap=0.001, measures=JUDGED)
    found = verdicts([day(rng, n) for _ in range(720)], monitor)
    raised = sum(bad is True for bad, _ in found)
    print(f"{raised} false alarms in 24 months at {n} answers a day")
    assert raised <= 2 * 24
    assert raised / len(found) <= 0.05


def test_a_gap_that_is_planted_is_found_named_and_measured() -> None:
    rng = np.random.default_rng(3)
    monitor = ps.fairness(Applicant.sex, gap=0.1, measures=["true_positive_rate", "false_positive_rate"])
    found = verdicts([day(rng, 8_000) for _ in range(30)] + [day(rng, 8_000, "d", 0.25) for _ in range(20)], monitor)
    assert not any(bad for bad, _ in found[:30])
    first = next(at for at, (bad, _) in enumerate(found) if bad)
    assert first == 30, "on its first day, though a tenth of the answers are of that group"
    evidence = found[first][1]
    (gap,) = [each for each in evidence["gaps"] if each["group"] == "d"]
    assert (evidence["segment"], evidence["against"], gap["measure"]) == ("Applicant.sex", "all others", "true_positive_rate")
    assert gap["gap"]["low"] <= -0.25 <= gap["gap"]["high"] < 0


def test_a_small_gap_in_many_answers_is_significant_and_no_alarm() -> None:
    rng = np.random.default_rng(4)
    monitor = ps.fairness(Applicant.sex, gap=0.1, measures=["true_positive_rate"])
    days = [day(rng, 100_000, "b", 0.05) for _ in range(5)]
    assert min(gap.p or 1.0 for gap in gaps(days[0]) if gap.measure == "true_positive_rate") < 1e-6
    assert [bad for bad, _ in verdicts(days, monitor)] == [False] * 5


def test_the_gap_of_a_small_group_is_found_when_it_has_lasted() -> None:
    rng = np.random.default_rng(5)
    monitor = ps.fairness(Applicant.sex, gap=0.1, measures=["true_positive_rate"])
    found = verdicts([day(rng, 400, "e", 0.35) for _ in range(16)], monitor)
    assert found[0][1]["unjudged"]["true_positive_rate of e"].startswith("too small")
    assert any(bad and evidence["periods"] > 1 and evidence["gaps"][0]["group"] == "e" for bad, evidence in found)


def test_nothing_is_said_of_nothing() -> None:
    monitor, standing = ps.fairness(Applicant.sex), Standing()
    assert unequal(monitor, standing).bad is None
    standing.period = {"a": Treated(answers=3)}
    assert unequal(monitor, standing).bad is None


def test_an_alarm_stands_until_its_gap_is_closed_and_another_group_raises_it_anew() -> None:
    rng = np.random.default_rng(6)
    monitor = ps.fairness(Applicant.sex, "a", gap=0.1, measures=["true_positive_rate"])
    standing, said = Standing(), []
    for odd in "bbbbbbccaa":
        groups = day(rng, 20_000, "b", 0.3)
        groups |= {"c": day(rng, 20_000, "c", 0.3)["c"]} if odd == "c" else {}
        standing.period = day(rng, 20_000) if odd == "a" else groups
        verdict = unequal(monitor, standing)
        said.append((verdict.bad, verdict.again))
    assert said == [(True, False)] * 6 + [(True, True), (True, False), (False, False), (False, False)]


def test_an_alarm_stands_while_its_group_is_too_small_to_tell() -> None:
    rng = np.random.default_rng(7)
    monitor = ps.fairness(Applicant.sex, gap=0.1, measures=["true_positive_rate"])
    standing, said = Standing(), []
    for n, less in ((4_000, 0.4), (300, 0.4), (300, 0.0), (8_000, 0.0)):
        standing.period = day(rng, n, "e", less)
        said.append(unequal(monitor, standing).bad)
    assert said == [True, True, None, False], "as wide with the day before; two small days cannot tell; a large one can"


def test_a_measure_is_a_number_or_absent() -> None:
    found: list[Gap] = gaps({level: Treated(answers=n, selected=s) for level, n, s in (("a", 40, 0), ("b", 40, 0), ("c", 0, 0))})
    for gap in found:
        for each in (gap.gap, gap.ratio):
            assert each is None or (isinstance(each, Measure) and all(map(math.isfinite, (each.value, each.low, each.high))))
