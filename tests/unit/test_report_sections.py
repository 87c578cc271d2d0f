"""The sections of a report that say how groups fare, what was expected before labels came, and what was new to the versions."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest
from tests.pages import read
from tests.unit.test_report import MODEL, RAN, found, records

import penstock as ps
from penstock.model import Model
from penstock.policy import Novelty
from penstock.records import (
    Decision,
    Estimate,
    Group,
    LevelStatistic,
    Measure,
    Oddity,
    Paired,
    Population,
    Quality,
    Quarantine,
    Reviewed,
    Shift,
    Unseen,
)
from penstock.report.calibration import calibration
from penstock.report.drifting import drift
from penstock.report.expected import expected
from penstock.report.groups import groups
from penstock.report.influence import influence
from penstock.report.judged import judged
from penstock.report.quality import over_time
from penstock.report.records import Records, Restated, Slice, Slices
from penstock.report.report import report_of
from penstock.report.rollouts import starving
from penstock.report.section import Table, words_of
from penstock.report.slices import slices
from penstock.report.unseen import unseen
from penstock.report.verdict import verdict
from penstock.segment import Segment
from penstock.services.dashboard.heat import heat_of
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
    name = SEGMENT.name
    assert f"selection rate of {name} {LOW} is 0.200" in section.said or f"selection rate of {name} {HIGH} is 0.5" in section.said
    quality, gaps = tables(section)
    assert [words_of(row[0]) for row in quality.rows] == [LOW, HIGH]
    assert [words_of(row[-1]) for row in gaps.rows].count("wide") == 2


def test_of_wide_gaps_one_that_is_watched_is_said_first() -> None:
    known = grouped(300)
    (pair,) = known.cohorts
    other = Segment(next(column for column in MODEL.scores.columns.values() if column is not AMOUNT), edges=(20.0,))
    levels = {level: msgspec.structs.replace(group, selected=900 if level == LOW else 0)
              for level, group in pair.known.groups[SEGMENT.name].items()}  # fmt: skip
    cohort = msgspec.structs.replace(pair.known, groups=pair.known.groups | {other.name: levels})
    watching = replace(GROUPED, segments=(SEGMENT, other), monitors=(*MODEL.monitors, ps.fairness(AMOUNT).of(MODEL.label, "")))
    both = replace(known, cohorts=[Restated(cohort, cohort)])
    assert f"of {SEGMENT.name} " in groups(replace(both, model=watching)).said
    assert f"of {other.name} " in groups(replace(both, model=replace(watching, monitors=MODEL.monitors))).said


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
    plain = replace(number, cohorts=bare, model=replace(MODEL, label=replace(MODEL.label, column=AMOUNT)))
    assert calibration(plain).tone == "" and "the bias" in calibration(plain).said, "nothing is missing"


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
    assert unseen(records()).said.endswith("to know it: monitors=[ps.novelty()].")
    assert influence(records()).said.endswith("to know it: @ps.model(explain=0.01).")


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


def test_slices_are_shown_with_what_the_scores_made_expect_and_blame_only_what_was_not_expected() -> None:
    def made(expected: float) -> Records:
        one = Slice(["amount > 3", "city is Rome"], 120, 0.1, 0.6, 0.4, 0.1, 0.3, expected)
        return replace(records(), slices=Slices("1 slice found, worse than the rest on 1,200 answers", "log_loss", [one], 5))

    knew, blind = slices(made(0.59)), slices(made(0.3))
    assert (knew.tone, blind.tone) == ("", "warn")
    assert (
        "Worst where amount > 3 and city is Rome: log loss 0.6000, 0.4000 elsewhere, and 0.3000 was expected there" in blind.said
    )
    (table,) = tables(blind)
    assert [words_of(cell) for cell in table.rows[0]][:3] == ["amount > 3 and city is Rome", "120", "10.0%"]
    none = slices(replace(records(), slices=Slices("no slice found: 5 tried", "log_loss", [], 5)))
    assert none.tone == "good" and none.said == "No slice found: 5 tried."
    assert slices(replace(records(), unanswered="no outcomes are archived here")).tone == "unknown"


def test_an_online_learner_that_answers_alone_is_in_charge() -> None:
    first = next(d for d in found().decisions if d.kind == "champion")
    taught = msgspec.structs.replace(first, kind="snapshot", version="online-7")
    assert records(found(decisions=[taught])).champion == "online"
    assert records(found(decisions=[taught, first])).champion == first.version


def test_a_rollout_with_too_few_labels_to_end_in_time_is_said_to_starve() -> None:
    model = replace(MODEL, gates=(ps.no_worse(0.01, least=200),), rollout=(ps.shadow("1d"), ps.canary(0.25, "1d")))
    heard = records().heard

    def tried(n: int, hours: float) -> str:
        since = heard - timedelta(hours=hours)
        evidence = {"n": n, "stage": 0, "since": since.isoformat()}
        one = Decision(
            id="s3",
            model="late",
            kind="shadow",
            version="v3",
            at=since,
            actor="registry",
            reason="",
            share=0.0,
            expected="v2",
            candidate=None,
            evidence=evidence,
        )
        return starving(replace(records(found(decisions=[*found().decisions, one])), model=model))

    assert tried(200, 6) == "" == tried(90, 6), "enough, or soon"
    assert (
        "v3 starves: its shadow is to last 1d, and has 10 of the 200 labels needed; at 40 a day that takes 4.8 d more"
        in tried(10, 6)
    )
    assert "should be over after 1d, and has 0 of the 200 labels needed; none comes" in tried(0, 48)


def test_people_and_their_agreement_are_told_where_answers_are_reviewed() -> None:
    model, at = replace(MODEL, review=ps.review()), RAN.windows[1].end

    def ended(number: int, *said: bool) -> Reviewed:
        return Reviewed(
            id=f"r{number}", prediction=f"o{number}", model="late", at=at, reviewers=["ada", "bob"][: len(said)], said=list(said),
            state="labelled" if len(set(said)) == 1 else "contradicted", paired=len(said) == 2, label=said[0],
        )  # fmt: skip

    said = [ended(i, True, True) for i in range(20)] + [ended(20 + i, False, False) for i in range(15)]
    said += [ended(40 + i, True, False) for i in range(5)] + [ended(50 + i, False, True) for i in range(10)]
    section = judged(replace(Records.of("shop", model, found(reviewed=said)), model=model))
    assert "35 answers were labelled by reviewers; agreement beyond chance is 0.40." in section.said
    assert "alpha 0.40 (0.12 to 0.66; 2 reviewers)" in str(section.blocks)


def test_what_is_left_out_of_fits_is_told_until_it_is_lifted() -> None:
    at = RAN.windows[1].end
    stands = Quarantine(id="q1", model="late", at=at, actor="ada", source="shop", reason="flipped")
    lifted = Quarantine(id="q2", model="late", at=at, actor="bob", key="s3", lifted=at + timedelta(hours=1), lifted_by="bob")
    section = judged(records(found(quarantines=[stands, lifted])))
    assert section.tone == "warn" and section.said.endswith("1 quarantine stands.")
    (table,) = tables(section)
    assert [words_of(cell) for cell in table.rows[0]][::2] == ["labels of shop", "stands", "flipped"]
    assert judged(records(found(quarantines=[lifted]))).said.endswith("No quarantine stands any more.")


def test_an_input_that_drifted_within_a_level_is_named_beside_the_whole_that_stood_still() -> None:
    still = Shift(ks=0.02, psi=0.01, critical=0.05, n=900, floor=0.1)
    moved = LevelStatistic(drift={"Order.amount": msgspec.structs.replace(still, ks=0.3, psi=0.7)})
    mix = Population(stability=0.3, chance=0.02, n=900, m=9_000)
    of = {"levels": {SEGMENT.name: {LOW: moved}}, "drift": {"Order.amount": still}, "mix": {SEGMENT.name: mix}}
    statistics = [msgspec.structs.replace(each, **of) for each in RAN.windows]
    section = drift(Records.of("shop", GROUPED, found(statistics=statistics)))
    inside, shares = tables(section)[-2:]
    assert inside.rows[0][0] == f"Order.amount where {SEGMENT.name} is {LOW}"
    assert shares.rows[0][:2] == (SEGMENT.name, "the training rows of v2")
    assert not tables(drift(Records.of("shop", MODEL, found(statistics=statistics))))[1:]
    heat = heat_of(statistics, GROUPED)
    assert [row.input for row in heat.rows] == ["Order.amount", f"Order.amount where {SEGMENT.name} is {LOW}"]
