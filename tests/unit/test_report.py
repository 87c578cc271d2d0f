"""A report says what its records say: as known at a time, the same bytes each time, nothing left blank, nothing as markup."""

from __future__ import annotations

import math
import random
import re
from dataclasses import replace
from datetime import timedelta
from functools import reduce
from typing import Any

import msgspec
import pytest
from tests.pages import read
from tests.services import shop

from penstock.errors import PenstockError
from penstock.records import Alarm, Contributed, Decision, Partial, Run, Statistic
from penstock.report.alarms import episodes
from penstock.report.drifting import counts
from penstock.report.labels import coverage
from penstock.report.markdown import LONGEST
from penstock.report.quality import judged, totals
from penstock.report.records import NOBODY, SERVED, Answered, Found, Records, Restated, Wrong, day
from penstock.report.report import SECTIONS, report_of
from penstock.report.section import Table, words_of
from penstock.statistics.binary import measured
from penstock.statistics.quality import added

RAN = shop.run(shop.WORLD, otherwise=None)
(MODEL,) = shop.declared(None).models
AMOUNTS = [10.0, 20.0, 30.0]
HOSTILE = "<script>alert(1)</script>|`x`@all\n# *y* \u202e日本 \ud800\x00"


def partial(window: Statistic, shard: int, now: list[int]) -> Partial:
    start, end = (int(at.timestamp() * 1_000_000) for at in (window.start, window.end))
    return Partial(
        model="late", start=start, end=end, shard=shard, shards=2, quality={}, paired={}, inputs={"Order.amount": now},
        reference="v2", counts={}, baseline={"Order.amount": [5, 5, 5, 5, 0]},
    )  # fmt: skip


def found(**more: Any) -> Found:
    charge = msgspec.json.decode(shop.decision("v2", {"Order.amount": AMOUNTS}, {"Order.amount": [5, 5, 5, 5, 0]}), type=Decision)
    known = Found(
        statistics=RAN.windows,
        cohorts=RAN.restated,
        alarms=[msgspec.json.decode(value, type=Alarm) for value in RAN.alarms],
        decisions=[charge],
        partials=[partial(w, shard, [1, 2, 3 + shard, 0, 1]) for w in RAN.windows for shard in (0, 1)],
    )
    return replace(known, **more)


def records(known: Found | None = None, **period: Any) -> Records:
    return Records.of("shop", MODEL, known or found(), **period)


def test_the_same_records_give_the_same_bytes_however_they_come() -> None:
    made = report_of(records())
    known = found()
    for name in ("statistics", "alarms", "decisions", "partials"):
        doubled = 2 * getattr(known, name)
        random.Random(3).shuffle(doubled)
        setattr(known, name, doubled)
    known.cohorts *= 2
    again = report_of(records(known))
    assert again.to_html() == made.to_html() and again.to_markdown() == made.to_markdown()
    assert msgspec.json.encode(again.described()) == msgspec.json.encode(made.described())


def test_the_baseline_of_the_window_before_is_called_what_it_is() -> None:
    made = report_of(records()).to_html()
    assert "usual label before" in made and "last label" not in made


def test_a_skill_monitor_that_has_too_few_labels_is_named() -> None:
    windows = [msgspec.structs.replace(w, missing={"skill_monitor": "7 of 20 labels in 2d"}) for w in RAN.windows]
    assert "judged nothing in the newest window: 7 of 20 labels in 2d." in report_of(records(found(statistics=windows))).to_html()


def test_the_measures_of_a_period_are_those_of_its_sums() -> None:
    known = records()
    total = reduce(added, (pair.known.quality[SERVED] for pair in judged(known)))
    assert totals(judged(known), known) | measured(total) == totals(judged(known), known)
    answers, given, *rest = coverage([pair.known for pair in known.cohorts])
    assert answers == sum(c.known.answers for c in known.cohorts) and answers == given + sum(rest)


def test_the_numbers_at_the_top_are_those_of_the_sections_and_others_are_named_otherwise() -> None:
    known = records()
    silent = [Restated(c, msgspec.structs.replace(k, labels=0, silent=k.labels)) for c, k in known.cohorts]
    made = report_of(replace(known, cohorts=silent))
    head, said = dict(made.head), {section.name: section for section in made.sections}
    before = known.quality()[NOBODY].n  # answers that no model gave count for none
    assert int(head["silent, taken as declared"]) == int(head["outcomes that count"]) + before and head["with a label"] == "0"
    assert f"were judged on {head['outcomes that count']} outcomes" in said["versions"].said
    assert "labels that came" in str(said["running"].blocks) and "'outcomes'" not in str(said["running"].blocks)
    assert "silent, taken as declared" not in dict(report_of(known).head)


def test_a_report_knows_what_was_known_then_and_no_more() -> None:
    windows = sorted(RAN.windows, key=lambda w: w.end)
    then = windows[len(windows) // 2].end
    early, late = records(known_at=then), records()
    assert all(w.end <= then for w in early.statistics) and all(c.known.known_until <= then for c in early.cohorts)
    assert all(alarm.at <= then for alarm in early.alarms) and early.until <= then
    shared = {c.known.start: c for c in late.cohorts}
    assert any(c.known.quality != shared[c.known.start].known.quality for c in early.cohorts if c.known.start in shared)
    only = records(known_at=then, known=Found(**{k: [r for r in v if _known(r, then)] for k, v in vars(found()).items()}))
    assert report_of(only).sections == report_of(early).sections, "what came later changes nothing"


def _known(record: Any, then: Any) -> bool:
    if isinstance(record, Partial):
        return record.end <= then.timestamp() * 1_000_000
    return next(getattr(record, name) for name in ("known_until", "at", "end") if hasattr(record, name)) <= then


def test_a_period_holds_the_windows_and_cohorts_that_lie_in_it() -> None:
    whole = records()
    start = whole.start + timedelta(days=1)
    part = records(start=start, until=start + timedelta(days=1))
    assert {w.id for w in part.statistics} == {
        w.id for w in whole.statistics if start <= w.start and w.end <= start + timedelta(days=1)
    }
    assert all(part.start <= pair.known.start < part.until for pair in part.cohorts)
    with pytest.raises(PenstockError, match="before it begins"):
        records(start=whole.until, until=whole.start)


def test_by_default_a_period_ends_with_the_newest_answers_and_what_stands_is_told_as_of_now() -> None:
    whole, last = records(), max(RAN.windows, key=lambda w: w.end)
    later = [
        msgspec.structs.replace(last, id=f"later/{n}", start=last.start + n * (last.end - last.start),
                                end=last.end + n * (last.end - last.start), counts={"outcomes": 1})
        for n in range(1, 15)
    ]  # fmt: skip
    at = later[5].end
    raised = Alarm(id="late/labels/x", model="late", signal="labels", state="raised", at=at, evidence={})
    quiet = found(statistics=[*RAN.windows, *later], alarms=[raised])
    known = records(quiet)
    assert (known.start, known.until, known.heard) == (whole.start, whole.until, later[-1].end)
    assert [w.id for w in known.statistics] == [w.id for w in whole.statistics]
    assert {w.id for w in (*known.statistics, *known.later)} == {w.id for w in (*RAN.windows, *later)}, "labels came in all"
    made = report_of(known)
    assert f"labels since {at:%Y-%m-%d}" in made.said and "-" not in _stood(made)
    assert records(quiet, until=whole.until).alarms == [] and records(quiet, start=later[2].start).until == known.heard


def _stood(made: Any) -> str:
    (table,) = (block for section in made.sections if section.name == "alarms" for block in section.blocks)
    return words_of(table.rows[0][3])


def test_nothing_is_left_blank_where_nothing_is_known() -> None:
    (first, *_) = RAN.windows
    bare = msgspec.structs.replace(first, quality={}, paired={}, drift={}, counts={}, measures={}, contributions={})
    made = report_of(records(Found(statistics=[bare])))
    assert made.tone == "unknown" and "No version is in charge yet." in made.said
    for section in made.sections:
        assert section.said.endswith(".") and (section.blocks or section.name == "alarms"), section
    for text in (made.to_html(), made.to_markdown()):
        assert not re.search(r"\b(nan|inf|None)\b", text.partition("</style>")[2] or text)
    with pytest.raises(PenstockError, match="no window of late was closed yet"):
        records(Found())


def hostile() -> Records:
    """Everything that people or events name is an attack."""
    windows = [
        msgspec.structs.replace(w, drift=dict.fromkeys([HOSTILE], *list(w.drift.values())[:1])) if w.drift else w
        for w in RAN.windows
    ]
    alarm = Alarm(id="x", model="late", signal=HOSTILE, state="raised", at=windows[-1].end,
                  evidence={"since": HOSTILE, HOSTILE: [HOSTILE], "inputs": [{"input": HOSTILE, "ks": math.nan}]})  # fmt: skip
    charge = msgspec.structs.replace(found().decisions[0], version=HOSTILE, reason=HOSTILE, actor=HOSTILE, at=windows[-1].end)
    run = Run(id="r", model="late", kind="full", cause=HOSTILE, at=windows[-1].end, parameters={}, seed=0,
              data={"refused": HOSTILE}, code="", environment={}, metrics={}, seconds=1.0)  # fmt: skip
    known = records(found(statistics=windows, alarms=[alarm], decisions=[charge], runs=[run]))
    wrong = Wrong(HOSTILE, HOSTILE, known.start, HOSTILE, 0.1, 1.0, {HOSTILE: None, "Order.amount": 1e300})
    return replace(known, answered=Answered(10**9, [wrong] * 30, {"0.5": 0.001, "0.99": 0.5}, 7))


def test_the_page_stands_by_itself_and_shows_nothing_as_markup() -> None:
    for known in (records(), hostile()):
        made = report_of(known).to_html()
        reader = read(made)
        assert not reader.tags & {"script", "img", "link", "iframe", "object"}
        assert all(link.startswith("#") for link in reader.links)
        assert not [word for word in ("http:", "https:", "src=", "@import", "url(") if word in made]
        assert "\x00" not in made and made.encode("utf-8", "replace")


def test_markdown_shows_nothing_as_markup_and_fits_into_a_comment() -> None:
    text = report_of(hostile()).to_markdown()
    assert len(text) <= LONGEST + 500 and "<script" not in text and "@all" not in text
    for line in text.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) >= 3
    rows = [len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("| version")]
    assert rows and all(n >= 5 for n in rows)
    assert len(report_of(records()).to_markdown()) < 12_000


def test_each_section_has_a_name_of_its_own() -> None:
    names = [section.name for section in report_of(records()).sections]
    assert len(names) == len(SECTIONS) == len(set(names)) and all(name.isalpha() for name in names)


def test_the_counts_of_an_input_are_those_of_all_shards() -> None:
    known = records()
    window = next(w for w in known.statistics if w.drift)
    now, then = counts(known, "Order.amount", "v2", window.start, window.end)
    assert now is not None and then is not None
    assert now.tolist() == [2, 4, 7, 0, 2] and then.tolist() == [5, 5, 5, 5, 0]
    assert counts(known, "Order.amount", "v1", window.start, window.end) == (None, None)
    assert counts(known, "Order.weight", "v2", window.start, window.end) == (None, None)


def said(*states: str, signal: str = "drift") -> list[Alarm]:
    start = RAN.windows[0].end
    return [
        Alarm(id=f"{n}", model="late", signal=signal, state=state, at=start + timedelta(days=n), evidence={"n": n})
        for n, state in enumerate(states)
    ]


def test_alarms_are_told_as_stories() -> None:
    (one,) = episodes(said("raised", "held", "held", "cleared"))
    assert one.held == 2 and one.end == one.raised.at + timedelta(days=3) and not one.again
    first, second = episodes(said("raised", "held", "raised", "held"))
    assert first.again and first.end == second.raised.at and second.end is None and second.last.evidence == {"n": 3}
    assert second.since == first.raised.at, "nothing cleared it between"
    assert second.told == f"drift since {day(first.since)} (raised again {day(second.raised.at)})"
    assert episodes(said("raised", "cleared", "raised"))[1].told == f"drift since {day(second.raised.at)}"
    (before,) = episodes(said("held", "cleared"))
    assert before.end is not None, "raised before the records begin"
    assert episodes(said("cleared")) == []


def test_an_alarm_that_stands_is_in_the_verdict_and_one_that_is_over_is_not() -> None:
    late = [msgspec.structs.replace(a, at=RAN.windows[0].end) for a in said("raised")]
    made = report_of(records(found(alarms=late)))
    assert made.tone in ("warn", "bad") and "1 alarm stands: drift since" in made.said
    assert "No alarm stands." in report_of(records(found(alarms=[]))).said


def test_what_has_no_picture_is_named_with_the_reason() -> None:
    moved = [msgspec.structs.replace(w, drift=w.drift | dict.fromkeys(("score", "Order.weight"), w.drift["Order.amount"]))
             for w in RAN.windows if "Order.amount" in w.drift]  # fmt: skip
    text = report_of(records(found(statistics=moved))).to_html()
    assert "Of score there is no picture: it is compared with the first answers of its version." in text
    assert "Of Order.weight there is no picture: the counts of its window are gone." in text and "inputs that moved" not in text


def test_what_moves_the_answers_are_the_sums_over_all_windows() -> None:
    explained = Contributed(n=2, absolute={"Order.amount": 3.0, "Order.weight": 1.0}, signed={"Order.amount": -3.0})
    windows = [msgspec.structs.replace(w, contributions={"v2": explained}) for w in RAN.windows]
    section = next(
        s for s in report_of(records(found(statistics=windows), until=RAN.windows[-1].end)).sections if s.name == "influence"
    )
    many = f"of {2 * len(windows)} explained answers of v2"
    assert section.said == f"Most: Order.amount (75.0 %), Order.weight (25.0 %); {many}."


def test_fits_and_decisions_are_told_in_order_with_what_they_went_by() -> None:
    at = RAN.windows[-1].end
    fit = Run(id="r", model="late", kind="full", cause="schedule.0:late/x", at=at, parameters={}, seed=0,
              data={"rows": 1000}, code="", environment={}, metrics={}, seconds=2.5, version="v3")  # fmt: skip
    tried = Decision(id="d", model="late", kind="champion", version="v3", at=at, actor="ada", reason="I know it", share=1.0,
                     expected="v2", evidence={"n": 400, "mean": -0.02, "error": 0.005, "against": "v2"})  # fmt: skip
    made = report_of(records(found(runs=[fit], decisions=[*found().decisions, tried])))
    section = next(s for s in made.sections if s.name == "rollouts")
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    told = [[words_of(cell) for cell in row][1:] for row in table.rows[-2:]]
    assert told == [
        ["fit", "v3", "because of its schedule", "1,000 outcomes, 2.5 s"],
        ["champion", "v3", "I know it (ada)", "log loss -0.0200 ± 0.0098 against v2, 400 outcomes"],
    ]
    assert "v3 is in charge" in section.said and made.records.champion == "v3"


def test_a_decision_about_numbers_is_told_once_and_in_their_loss() -> None:
    evidence = {"n": 400, "mean": -2.5, "error": 0.5, "against": "v2", "loss": "squared error"}
    at, why = RAN.windows[-1].end, "squared error -2.50000 (error 0.50000) against v2 on 400 outcomes"
    tried = Decision(id="d", model="late", kind="champion", version="v3", at=at, actor="registry", reason=why, share=1.0,
                     expected="v2", evidence=evidence)  # fmt: skip
    made = report_of(records(found(decisions=[*found().decisions, tried])))
    (table,) = [block for s in made.sections if s.name == "rollouts" for block in s.blocks if isinstance(block, Table)]
    assert [words_of(cell) for cell in table.rows[-1]][3:] == ["squared error -2.5000 ± 0.9800 against v2, 400 outcomes", ""]


def test_a_cohort_with_few_labels_is_named() -> None:
    done = [pair for pair in records().cohorts if pair.known.complete and pair.known.answers > 10]
    poor = [msgspec.structs.replace(c, labels=1) if c.start == done[2].known.start else c for c in RAN.restated]
    said = next(s for s in report_of(records(found(cohorts=poor))).sections if s.name == "labels").said
    assert f"fewest of those of {done[2].known.start:%Y-%m-%d}" in said


def test_what_was_served_is_held_against_the_prior_on_the_same_outcomes() -> None:
    known = judged(records())
    bare = {pair.known.start for pair in known[::2]}
    cohorts = [
        msgspec.structs.replace(c, measures={n: m for n, m in c.measures.items() if n != "prior" or c.start not in bare})
        for c in RAN.restated
    ]
    fair = [p for p in judged(records(found(cohorts=cohorts))) if "prior" in p.known.measures]
    n = sum(pair.known.quality[SERVED].n for pair in fair)
    made = report_of(records(found(cohorts=cohorts)))
    loss = totals(fair, records())["log_loss"].value
    assert f"Log loss {loss:.4f} " in made.said and f"on {n:,} outcomes (those with a prior)" in made.said
