"""A label is declared otherwise while answers wait for theirs: monitoring goes on, and never adds up what does not fit."""

from __future__ import annotations

import asyncio
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from tests.services.crew import settle
from tests.services.shop import decision, prediction

import penstock as ps
from penstock.cli.cohorts import whole
from penstock.duration import DAY, HOUR, MINUTE
from penstock.event import from_micros, to_micros
from penstock.frames.slices import archived, slices
from penstock.log import Partition, Send
from penstock.log.memory import MemoryLog
from penstock.offline import Tables
from penstock.records import Clock, Cohort, Outcome, Statistic
from penstock.report.reading import answered_of
from penstock.report.records import as_known
from penstock.services.dashboard.shown import _steps
from penstock.services.feature_store.archive import Archive
from penstock.services.monitoring.service import lanes
from penstock.statistics.kinds import kind_of
from penstock.store.memory import MemoryStore
from penstock.topics import Topics


@ps.event("orders")
class Order:
    order_id: ps.Id[str]
    shop: ps.Key[str]
    amount: float
    at: ps.EventTime


@ps.event("paid")
class Paid:
    order_id: ps.Key[str]
    late: bool
    days: float
    how: str
    at: ps.EventTime


START, CHANGED, END = (to_micros(from_micros(0)) + day * DAY for day in (20_000, 20_005, 20_012))
EVERY, DELAY = HOUR, 30 * HOUR - MINUTE
"""Each answer has its label after DELAY."""

LABELS = {
    "yes or no": ps.label(Paid.late, within="2d"),
    "a number": ps.label(Paid.days, within="2d"),
    "a class": ps.label(Paid.how, within="2d", classes=["early", "late"]),
    "a quantile": ps.label(Paid.days, within="2d", quantile=0.9),
    "classes turned round": ps.label(Paid.how, within="2d", classes=["late", "early"]),
    "a class more": ps.label(Paid.how, within="2d", classes=["early", "late", "never"]),
    "by the horizon": ps.label(Paid.late, within="2d", otherwise=False),
    "of a longer horizon": ps.label(Paid.late, within="3d"),
    "of a shorter horizon": ps.label(Paid.late, within="32h"),
}
LOSSES = {"a number": "squared error", "a quantile": "pinball loss"}


class Said(NamedTuple):
    outcomes: list[Outcome]
    windows: list[Statistic]
    cohorts: list[Cohort]


def topics_of(label: Any) -> Topics:
    monitors: list[Any] = [ps.skill(0.0, over="2d", every="12h", least=20), ps.labels()]

    @ps.model(scores=Order, features=[Order.amount], label=label, monitors=monitors)
    def late() -> ps.Learner:
        raise NotImplementedError

    return Topics(ps.Project("shop", [late]), 1)


@cache
def told(*labels: str) -> Said:
    """A history under each of the labels in turn, a change at CHANGED."""

    async def run() -> Said:
        log, store, low = MemoryLog(), MemoryStore(), 0
        topics = topics_of(LABELS[labels[0]])
        await log.create(topics.all())
        found = decision("v1", {"Order.amount": [10.0]}, {"Order.amount": [100, 100, 0]})
        history = list[tuple[int, Send]]()
        for n in range((END - START) // EVERY):
            time, name, come = START + n * EVERY, f"o{n}", START + n * EVERY + DELAY
            answer = prediction(name, "s", time, {"v1": 0.7}, "v1", {"Order.amount": float(n % 20)})
            if any(LABELS[label].classes for label in labels):
                answer = msgspec.structs.replace(answer, answer="late", probabilities={"v1": {"early": 0.3, "late": 0.7}})
            value = {
                "order_id": name,
                "late": n % 3 == 0,
                "days": n % 7 + 0.5,
                "how": "early" if n % 3 else "late",
                "at": from_micros(come),
            }
            history.append((time, Send(topics.predictions("late"), name.encode(), msgspec.json.encode(answer))))
            history.append((come, Send("paid", name.encode(), msgspec.json.encode(value))))
        history.sort(key=lambda each: each[0])
        await log.send([Send(topics.models, b"late/v1", found)])
        for label, high in zip(labels, [CHANGED, END][-len(labels) :], strict=True):
            await log.send([send for time, send in history if low <= time < high])
            clocks = []
            for topic, publisher in (("paid", "users"), (topics.predictions("late"), "inference.0")):
                ends = {topic: {p.number: at for p, at in (await log.ends([topic])).items()}}
                clocks.append(Clock(publisher=publisher, before=high, ends=ends))
            await log.send([Send(topics.clock, c.publisher.encode(), msgspec.json.encode(c)) for c in clocks])
            for _ in range(2):  # the second time from what was saved
                log._groups.clear()
                topics = topics_of(LABELS[label])
                running = lanes(topics.project, topics, log, store)
                while any([await lane.turn(0) for lane in running]):
                    pass
            low = high

        def all_of(topic: str, kind: Any) -> list[Any]:
            return [msgspec.json.decode(v or b"", type=kind) for v in log._stores[Partition(topic, 0)].values]

        return Said(
            all_of(topics.outcomes("late"), Outcome),
            all_of(topics.statistics("late"), Statistic),
            all_of(topics.cohorts("late"), Cohort),
        )

    return asyncio.run(run())


def after(found: Said) -> list[Any]:
    cohorts = [cohort for cohort in found.cohorts if cohort.complete and to_micros(cohort.start) >= CHANGED + DAY]
    return [(c.start, c.known_until, c.answers, c.labels, c.silent, c.delays, c.edges, c.quality) for c in cohorts]


KINDS = ("yes or no", "a number", "a class", "by the horizon")


@pytest.mark.parametrize(("first", "then"), [(a, b) for a in KINDS for b in KINDS if a != b])
def test_a_label_of_another_kind_is_counted_from_the_change_on(first: str, then: str) -> None:
    found, plain = told(first, then), told(then)
    for window in found.windows:
        at = to_micros(window.end)
        assert window.loss == LOSSES.get(first if at <= CHANGED else then, "log loss")
    assert len({o.id for o in found.outcomes}) == len(found.outcomes) == len(plain.outcomes), "each is answered once"
    settled = to_micros(found.windows[0].start) + 8 * DAY
    late = [w for w in found.windows if to_micros(w.start) >= settled]
    same = [w for w in plain.windows if to_micros(w.start) >= settled]
    assert [(w.start, w.quality, w.counts) for w in late] == [(w.start, w.quality, w.counts) for w in same] != []
    assert after(found) == after(plain) != []


@pytest.mark.parametrize(
    ("first", "then"), [("a number", "a quantile"), ("a class", "classes turned round"), ("a class", "a class more")]
)
def test_what_is_known_of_labels_that_were_counted_otherwise_is_not_added_to(first: str, then: str) -> None:
    found = told(first, then)
    since = [window for window in found.windows if to_micros(window.start) >= CHANGED]
    assert since[0].prior is None and not since[0].priors, "no label was counted so"
    judged = 0
    for at, window in enumerate(since):
        mine = [w for w in since[max(at - 3, 0) : at + 1] if w.prior_loss is not None]
        if window.skill is not None:
            prior = sum((w.prior_loss or 0.0) * w.quality["served"].n for w in mine)
            assert window.skill == pytest.approx(1 - sum(w.quality["served"].loss for w in mine) / prior)
            judged += 1
        if window.priors:
            assert window.priors["late"] == pytest.approx(1 / 3, abs=0.05)
    assert judged > 4 and after(found) == after(told(then)) != []


@pytest.mark.parametrize("then", ["of a longer horizon", "of a shorter horizon"])
def test_answers_under_way_have_the_new_horizon_and_cohorts_begin_anew(then: str) -> None:
    found, plain = told("yes or no", then), told(then)
    assert [o.id for o in found.outcomes] == [o.id for o in plain.outcomes]
    assert after(found) == after(plain) != []
    for cohort in found.cohorts:
        assert cohort.labels <= cohort.answers <= 12
    lasts = {cohort.edges[-1] for cohort in found.cohorts if to_micros(cohort.known_until) > CHANGED}
    assert lasts == {cohort.edges[-1] for cohort in plain.cohorts}


@pytest.mark.parametrize("first", ["yes or no", "a number"])
def test_archived_outcomes_are_told_by_the_label_as_it_is_declared_now(first: str, tmp_path: Path) -> None:
    then = "a number" if first == "yes or no" else "yes or no"
    found, topics = told(first, then).outcomes, topics_of(LABELS[then])
    kinds = {label: [o for o in found if (o.truth is msgspec.UNSET) == (label == "yes or no")] for label in (first, then)}

    async def story() -> None:
        log = MemoryLog()
        await log.create(topics.all())
        for label, outcomes in kinds.items():
            await log.send([Send(topics.outcomes("late"), o.id.encode(), msgspec.json.encode(o)) for o in outcomes])
            log._groups.clear()
            await settle(Archive(topics_of(LABELS[label]), log, tmp_path))

    asyncio.run(story())
    tables, model = Tables(tmp_path), topics.project.model("late")
    assert min(map(len, kinds.values())) > 50
    assert slices(archived(tables, topics.outcomes("late"), model.label, model.inputs)).rows == len(kinds[then])
    answered = answered_of(tables, topics, model, from_micros(START), from_micros(END), None)
    assert answered is not None and answered.outcomes == len(kinds[then]) and answered.wrong


@pytest.mark.parametrize(("first", "then"), [(a, b) for a in KINDS[:3] for b in KINDS[:3] if a != b])
def test_what_people_are_shown_adds_up_cohorts_of_the_label_as_it_is_declared_now(first: str, then: str) -> None:
    cohorts, model = told(first, then).cohorts, topics_of(LABELS[then]).project.model("late")
    counted = {c.start: c.quality["served"].n for c in cohorts if to_micros(c.start) >= CHANGED and "served" in c.quality}
    shown = as_known(cohorts, model.label)
    assert sum(known.quality["served"].n for _, known in shown if "served" in known.quality) >= sum(counted.values()) > 0
    (loss, *_) = kind_of(model.label).shown
    together = whole(model, [known for _, known in shown])[loss]
    each = [known.measures["served"][loss].value for _, known in shown if "served" in known.measures]
    assert min(each) <= together.value <= max(each) and together.low <= together.value <= together.high


def test_the_line_of_the_dashboard_is_of_one_loss() -> None:
    windows = told("yes or no", "a number").windows
    steps, _ = _steps(windows, "")
    assert [step.end for step in steps] == [w.end for w in windows if to_micros(w.end) > CHANGED]
