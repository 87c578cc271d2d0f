"""The sections of a report that say how groups fare, what was expected before labels came, and what was new to the versions."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from tests.pages import read
from tests.unit.test_report import MODEL, RAN, found, records

import penstock as ps
from penstock.model import Model
from penstock.policy import Novelty
from penstock.records import Estimate, Group, Measure, Oddity, Paired, Quality, Unseen
from penstock.report.calibration import calibration
from penstock.report.expected import expected
from penstock.report.groups import groups
from penstock.report.quality import over_time
from penstock.report.records import Records, Restated
from penstock.report.report import report_of
from penstock.report.section import Table, words_of
from penstock.report.unseen import unseen
from penstock.report.verdict import verdict
from penstock.segment import Segment
from penstock.statistics.kinds import kind_of
from penstock.statistics.quality import BINS

AMOUNT = next(iter(column for column in MODEL.scores.columns.values() if column.type is float))
GROUPED: Model = replace(MODEL, segments=(Segment(AMOUNT, edges=(20.0,)),))
(SEGMENT,) = GROUPED.segments
LOW, HIGH = "< 20", ">= 20"


def outcomes(true: int, false: int, step: int) -> Quality:
    """All with one score."""
    one, none = [0] * BINS, [0] * BINS
    one[step], none[step] = true, false
    return Quality(n=true + false, positives=true, loss=1.0, squares=1.0, bins_true=one, bins_false=none)


def grouped(selected: int) -> Records:
    """1,000 answers of each group; of the lower `selected` said yes, of the higher 500."""
    levels = {
        LOW: Group(answers=1000, selected=selected, scores=300.0, quality=outcomes(90, 210, 60)),
        HIGH: Group(answers=1000, selected=500, scores=300.0, quality=outcomes(90, 210, 60)),
    }
    cohorts = [msgspec.structs.replace(RAN.restated[0], groups={SEGMENT.name: levels})]
    return Records.of("shop", GROUPED, found(cohorts=cohorts))


def tables(section: object) -> list[Table]:
    return [block for block in section.blocks if isinstance(block, Table)]  # type: ignore[attr-defined]


def test_a_wide_gap_between_groups_is_what_the_section_says_first() -> None:
    section = groups(grouped(200))
    assert section.tone == "warn"
    assert f"selection rate of {LOW} is 0.200" in section.said or f"selection rate of {HIGH} is 0.500" in section.said
    quality, gaps = tables(section)
    assert [words_of(row[0]) for row in quality.rows] == [LOW, HIGH]
    assert [words_of(row[-1]) for row in gaps.rows].count("wide") == 2


def test_groups_that_are_treated_alike_are_good_news() -> None:
    section = groups(grouped(497))
    assert (section.tone, section.said.startswith("None of")) == ("good", True)


def test_where_no_segment_is_declared_the_section_says_what_to_type() -> None:
    section = groups(records())
    assert section.tone == "unknown"
    assert "segments=[" in str(section.blocks)


def valued(prior: float) -> Records:
    """300 answers, all acted on, each worth -0.4 in the mean; by the prior they are worth `prior`."""
    model = replace(MODEL, value=ps.value(true_positive=1.0, false_positive=-1.0, above=0.2))
    sums = msgspec.structs.replace(outcomes(90, 210, 60), loss=150.0)
    kind = kind_of(model.label)
    beside = {
        **kind.measured(kind.answering(0.31, sums), model.value, None),
        "value": Measure(value=prior, low=prior, high=prior),
    }
    measures = {"served": kind.measured(sums, model.value, None), "prior": beside}
    cohort = msgspec.structs.replace(RAN.restated[0], quality={"served": sums, "v2": sums}, measures=measures)
    return Records.of("shop", model, found(cohorts=[cohort], alarms=[]))


def test_a_model_that_is_worth_less_than_acting_on_none_is_bad_news_whatever_its_loss() -> None:
    (better, well), (worse, said) = (verdict(valued(prior)) for prior in (-0.6, 0.0))
    assert better == "good" and "worth" not in well
    assert worse == "bad" and "acting on its answers is surely worth less than acting on all or on none" in said
    assert "an answer is worth -0.4000 (-0.5037 to -0.2963), and 0.0000 by the prior." in said
    assert over_time(valued(0.0)).tone == "bad"


def paired(better_than_prior: float, worse_than_first: float) -> Records:
    """200 answers whose losses differ by these in the mean, each by much the same, from those of the prior and of v1."""
    kind, sums = kind_of(MODEL.label), msgspec.structs.replace(outcomes(60, 140, 60), loss=120.0)
    measures = {"served": kind.measured(sums, None, None), "prior": kind.measured(kind.answering(0.3, sums), None, None)}
    against = {
        name: Paired(n=200, sum=200 * mean, squares=200 * (mean**2 + 0.01))
        for name, mean in (("prior", -better_than_prior), ("v1", worse_than_first))
    }
    cohort = msgspec.structs.replace(
        RAN.restated[0], quality={"served": sums, "v2": sums}, measures=measures, against=against, first="v1"
    )
    return Records.of("shop", MODEL, found(cohorts=[cohort], alarms=[]))


def test_what_was_served_is_compared_with_the_prior_and_the_first_model_answer_by_answer() -> None:
    known = paired(0.02, 0.0)
    ours, prior = (known.cohorts[0].known.measures[who]["log_loss"] for who in ("served", "prior"))
    assert ours.low < prior.value < ours.high, "by intervals that know nothing of each other nobody could tell"
    tone, said = verdict(known)
    assert tone == "good" and "surely better than the prior" in said and "first model" not in said
    assert "log loss -0.0200 (-0.0339 to -0.0061) on the 200 outcomes that both answered" in str(over_time(known).blocks)
    assert verdict(paired(0.01, 0.0))[0] == "warn", "which may be chance"
    assert verdict(paired(-0.02, 0.0))[0] == "bad"
    tone, said = verdict(paired(0.02, 0.03))
    assert tone == "warn" and "But it is surely worse than the first model (v1): log loss +0.0300" in said


def test_each_kind_of_label_has_its_own_words_for_calibration() -> None:
    assert "were true" in calibration(valued(0.0)).said
    classes = replace(MODEL, label=replace(MODEL.label, classes=("a", "b")))
    section = calibration(replace(valued(0.0), model=classes))
    assert section.said.startswith("Probabilities of the class that was answered are ") and "were right; " in section.said
    number = replace(valued(0.0), model=replace(MODEL, label=replace(MODEL.label, quantile=0.9)))
    bare = [Restated(c, msgspec.structs.replace(k, quality={"served": Quality(n=5)})) for c, k in number.cohorts]
    assert "the truths at or below their answer, which should be 0.9 of all" in calibration(replace(number, cohorts=bare)).said


@pytest.mark.parametrize(("low", "tone"), [(0.0, "good"), (0.999, "warn")])
def test_estimates_are_held_against_what_came_true(low: float, tone: str) -> None:
    whole = [msgspec.structs.replace(c, estimated={"accuracy": Estimate(value=0.7, low=low, high=1.0, compared=20)})
             for c in RAN.restated if c.complete and c.measures.get("served", {}).get("accuracy")]  # fmt: skip
    section = expected(Records.of("shop", MODEL, found(cohorts=whole)))
    judged = [c for c in whole if c.measures["served"]["accuracy"].value >= low]
    assert section.tone == tone
    assert f"intervals {len({c.start for c in judged})} held" in section.said or tone == "warn"
    assert "was" in words_of(tables(section)[0].rows[0][1])


def test_without_estimates_or_novelty_the_sections_say_why() -> None:
    bare = [msgspec.structs.replace(c, estimated={}) for c in RAN.restated]
    assert "30 answers" in expected(Records.of("shop", MODEL, found(cohorts=bare))).said
    assert "ps.novelty()" in str(unseen(records()).blocks)


def test_novel_inputs_are_counted_over_windows_and_the_oddest_named() -> None:
    odd = Oddity(id="a<b", level=9, bits=12, inputs={"Order.amount": [1e9, 12]})
    of = Unseen(answers=100, levels=[80, 0, 0, 0, 0, 0, 0, 20], expected=[990, 0, 0, 0, 0, 0, 0, 10],
                outside={"Order.amount": [0, 20, 0]}, oddest=[odd], inputs=1)  # fmt: skip
    windows = [msgspec.structs.replace(w, novelty={"v2": of}) for w in RAN.windows[:2]]
    watched = replace(MODEL, monitors=(*MODEL.monitors, Novelty(86_400_000_000, 0.1, 1.0)))
    known = Records.of("shop", watched, found(statistics=windows))
    section = unseen(known)
    assert (section.tone, section.said[:11]) == ("warn", "20.0 % of 2")
    assert [words_of(cell) for cell in tables(section)[1].rows[0]] == ["Order.amount", "v2", "0", "40", "0"]
    page = report_of(known).to_html()
    read(page)
    assert "a&lt;b" in page


def test_a_novelty_monitor_is_declared_in_one_word() -> None:
    assert isinstance(ps.novelty(), Novelty)
