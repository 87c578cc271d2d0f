"""The judge adds up what shards report, in whatever order it comes, and says each thing once."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import msgspec
import pytest

import penstock as ps
from penstock.duration import DAY, HOUR
from penstock.event import to_micros
from penstock.evidence import facts
from penstock.log import Batch, Partition
from penstock.records import Alarm, Group, Partial, Quality, Statistic
from penstock.services.monitoring.counting.window import length_of
from penstock.services.monitoring.judge import JudgeShard, _Position
from penstock.statistics.kinds import kind_of
from penstock.statistics.quality import Sums
from penstock.store import Saved
from penstock.topics import Topics


@ps.event("asks")
class Ask:
    ask_id: ps.Id[str]
    user: ps.Key[str]
    size: float
    door: str
    side: str
    at: ps.EventTime


@ps.event("replies")
class Reply:
    ask_id: ps.Key[str]
    good: bool
    at: ps.EventTime


@ps.event("weighed")
class Weighed:
    ask_id: ps.Key[str]
    grams: float
    at: ps.EventTime


@ps.event("grades")
class Graded:
    ask_id: ps.Key[str]
    kind: str
    at: ps.EventTime


def topics_of(*monitors: Any, partitions: int = 1) -> Topics:
    @ps.model(scores=Ask, features=[Ask.size], label=ps.label(Reply.good, within="1h"), monitors=monitors)
    def good() -> ps.Learner:
        raise NotImplementedError

    return Topics(ps.Project("forum", [good]), partitions)


class Bench:
    """A judge, fed by hand, that is opened anew after every batch from what it saved."""

    def __init__(self, topics: Topics) -> None:
        self.topics, self.offset, self.saved = topics, 0, Saved()
        self.statistics: list[Statistic] = []
        self.alarms: list[Alarm] = []

    def hear(self, *partials: Partial, again: bool = False) -> None:
        shard = JudgeShard(self.topics.project.models, self.topics)
        assert shard.open(self.saved) == {Partition(self.topics.partials, 0): self.offset}
        values = [msgspec.json.encode(p) for p in partials]
        offsets = range(self.offset, self.offset + len(values))
        batch = Batch(Partition(self.topics.partials, 0), offsets, [b"good"] * len(values), values)
        shard.take([batch, batch] if again else [batch], 0.0)
        self.offset += len(values)
        effects = shard.step(())
        assert effects is not None
        assert shard.step(()) is None
        self.saved = Saved(self.saved.version + 1, effects.change.position)
        for send in effects.sends:
            assert b"NaN" not in (send.value or b"")
            if send.topic == self.topics.alarms:
                assert send.key == b"good"
                self.alarms.append(msgspec.json.decode(send.value or b"", type=Alarm))
            else:
                self.statistics.append(msgspec.json.decode(send.value or b"", type=Statistic))
                assert send.key == self.statistics[-1].start.isoformat().encode()

    @property
    def said(self) -> list[tuple[str, str, int]]:
        """Alarms as (signal, state, day)."""
        return [(a.signal, a.state, to_micros(a.at) // DAY) for a in self.alarms]


def partial(day: float, shard: int = 0, shards: int = 1, days: float = 1, **more: Any) -> Partial:
    start = round(day * DAY)
    known: dict[str, Any] = {"quality": {}, "paired": {}, "inputs": {}, "reference": "", "counts": {}}
    known |= more
    return Partial(model="good", start=start, end=start + round(days * DAY), shard=shard, shards=shards, **known)


def shifted(day: float, share: float, n: int = 1_000, version: str = "v1", days: float = 1) -> Partial:
    """A window in which `share` of the values lie in the first of two bins; half did in the reference."""
    first = round(share * n)
    inputs, baseline = {"Ask.size": [first, n - first, 0]}, {"Ask.size": [5_000, 5_000, 0]}
    return partial(day, inputs=inputs, reference=version, baseline=baseline, days=days)


def outcomes(n: int, positives: int, score: float) -> dict[str, Quality]:
    sums = Sums()
    for i in range(n):
        sums.add(score, i < positives)
    return {"served": sums.frozen()}


def test_a_window_closes_when_every_shard_has_reported() -> None:
    bench = Bench(topics_of(partitions=3))
    bench.hear(partial(5, 0, 3, counts={"predictions": 2}), partial(5, 2, 3, counts={"predictions": 3, "late": 1}))
    assert bench.statistics == []
    bench.hear(partial(5, 1, 3), again=True)
    assert [s.counts for s in bench.statistics] == [{"late": 1, "predictions": 5}]


def test_a_shard_whose_first_window_is_later_has_nothing_to_say_of_earlier_ones() -> None:
    bench = Bench(topics_of(partitions=2))
    bench.hear(partial(5, 0, 2), partial(6, 0, 2))
    assert bench.statistics == []
    bench.hear(partial(6, 1, 2))
    assert [to_micros(s.start) // DAY for s in bench.statistics] == [5, 6]


@pytest.mark.parametrize("seed", range(5))
def test_the_order_in_which_shards_report_does_not_show(seed: int) -> None:
    def reports(shard: int) -> list[Partial]:
        rng = random.Random(shard)
        return [
            partial(day, shard, 3, quality=outcomes(20, rng.randrange(20), rng.random()), counts={"outcomes": 20})
            for day in range(12)
        ]

    rng = random.Random(seed)
    queues = [reports(shard) for shard in range(3)]
    mixed, plain = (Bench(topics_of(ps.skill(0.0, least=10), partitions=3)) for _ in range(2))
    for day in range(12):
        plain.hear(*(queue[day] for queue in queues))
    while any(queues):
        queue = rng.choice([q for q in queues if q])
        mixed.hear(queue.pop(0))
    assert (mixed.statistics, mixed.alarms) == (plain.statistics, plain.alarms)
    assert len(plain.statistics) == 12


def test_a_window_of_two_references_is_judged_by_the_one_that_answered_more() -> None:
    bench = Bench(topics_of(ps.drift(every="1d")))
    few = msgspec.structs.replace(shifted(0, 0.9, 100, "v1"), parts=2)
    many = msgspec.structs.replace(shifted(0, 0.5, 900, "v2"), part=1, parts=2)
    bench.hear(few)
    assert bench.statistics == []
    bench.hear(many)
    assert bench.statistics[0].reference == "v2"
    assert bench.statistics[0].drift["Ask.size"].n == 900
    assert bench.alarms == []


def test_drift_is_raised_once_held_while_it_lasts_and_cleared_after_two_clean_windows() -> None:
    bench = Bench(topics_of(ps.drift(every="1d")))
    for day, share in enumerate([0.5, 0.7, 0.7, 0.5, 0.7, 0.5, 0.5, 0.5]):
        bench.hear(shifted(day, share))
    states = ["raised", "held", "held", "held", "held", "cleared"]
    assert bench.said == [("drift", state, day) for day, state in enumerate(states, start=2)]
    raised = bench.alarms[0]
    assert raised.evidence["reference"] == "v1"
    assert raised.evidence["inputs"][0]["input"] == "Ask.size"
    assert raised.evidence["inputs"][0]["ks"] == pytest.approx(0.2)
    assert len({a.id for a in bench.alarms}) == len(bench.alarms)


@pytest.mark.parametrize("monitors", [(), (ps.skill(0.0, least=10),)])
def test_an_alarm_of_what_is_watched_no_more_is_cleared_with_the_next_window(monitors: tuple[Any, ...]) -> None:
    bench = Bench(topics_of(ps.drift(every="1d")))
    bench.hear(*(shifted(day, share) for day, share in enumerate([0.5, 0.7, 0.7])))
    bench.topics = topics_of(*monitors)
    bench.hear(shifted(3, 0.7), shifted(4, 0.7))
    assert bench.said == [("drift", "raised", 2), ("drift", "held", 3), ("drift", "cleared", 4)]
    cleared = bench.alarms[-1]
    assert cleared.evidence == {"since": bench.alarms[0].evidence["since"], "why": "no monitor watches it any more"}
    assert facts(cleared.evidence) == ["why no monitor watches it any more"]
    bench.topics = topics_of(ps.drift(every="1d"))
    bench.hear(shifted(5, 0.7))
    assert bench.said[-1] == ("drift", "raised", 6), "who watches it again begins anew"


def test_another_cause_raises_the_alarm_that_stands_once_more() -> None:
    def day(number: float, *moved: str) -> Partial:
        inputs = {name: [800, 200, 0] if name in moved else [500, 500, 0] for name in ("Ask.size", "Ask.tone", "Ask.time")}
        return partial(number, inputs=inputs, reference="v1", baseline={key: [5000, 5000, 0] for key in inputs})

    @ps.model(scores=Ask, features=[Ask.size], label=ps.label(Reply.good, within="1h"), monitors=[ps.drift(every="1d")])
    def good() -> ps.Learner:
        raise NotImplementedError

    bench = Bench(Topics(ps.Project("forum", [good]), 1))
    size, both = ("Ask.size",), ("Ask.size", "Ask.tone")
    for number, moved in enumerate([size, both, both, both, (*both, "Ask.time"), size]):
        bench.hear(day(number, *moved))
    assert [word for _, word, _ in bench.said] == ["raised", "held", "held", "held", "raised", "held"]
    assert bench.alarms[4].evidence["inputs"][0]["input"] == "Ask.time", "what came with the first, a day later, is one cause"
    assert bench.alarms[5].evidence["since"] == bench.alarms[4].at.isoformat()


def test_windows_that_say_nothing_leave_an_alarm_as_it_is() -> None:
    bench = Bench(topics_of(ps.drift(every="1d")))
    for partial_ in (shifted(0, 0.8), partial(1), partial(2), partial(3), shifted(4, 0.5), shifted(5, 0.5)):
        bench.hear(partial_)
    assert bench.said == [("drift", "raised", 1), ("drift", "held", 5), ("drift", "cleared", 6)]


def test_a_monitor_of_several_windows_judges_their_sum() -> None:
    topics = topics_of(ps.drift(every="1d"), ps.skill(0.0, every="6h"))
    assert length_of(topics.project.models[0]) == 6 * HOUR
    bench = Bench(topics)
    for quarter in range(8):
        bench.hear(shifted(quarter / 4, 0.7, 100, days=0.25))
    assert [s.drift["Ask.size"].n if s.drift else 0 for s in bench.statistics] == [0, 0, 0, 400] * 2
    assert bench.said == [("drift", "raised", 1), ("drift", "held", 2)]


def test_two_drift_monitors_share_one_alarm() -> None:
    bench = Bench(topics_of(ps.drift(every="1d", material=0.05), ps.drift(every="2d", material=0.5)))
    for day in range(4):
        bench.hear(shifted(day, 0.7))
    assert bench.said == [("drift", "raised", 1), ("drift", "held", 2), ("drift", "held", 3), ("drift", "held", 4)]


def test_an_alarm_that_two_monitors_share_is_over_for_both_when_it_is_cleared() -> None:
    bench = Bench(topics_of(ps.drift(every="1d"), ps.drift(every="2d")))
    for day in range(4, 24):
        bench.hear(shifted(day, 0.9 if day < 8 else 0.5))
    assert [state for _, state, _ in bench.said if state != "held"] == ["raised", "cleared"], "one cause raises one alarm"
    (case,) = msgspec.msgpack.decode(bench.saved.position, type=_Position).states.values()
    assert [habits.named for habits in case.habits.values()] == [[], []]


def test_an_alarm_is_cleared_though_its_monitor_is_declared_at_another_place_since() -> None:
    bench = Bench(topics_of(ps.drift()))
    bench.hear(shifted(1, 0.9))
    bench.topics = topics_of(ps.skill(0.0), ps.drift())
    for day in (2, 3, 4):
        bench.hear(shifted(day, 0.5))
    assert [state for _, state, _ in bench.said] == ["raised", "held", "cleared"]


def test_of_numbers_and_classes_there_is_no_rate_of_labels_to_drift() -> None:
    @ps.model(
        scores=Ask, features=[Ask.size], label=ps.label(Graded.kind, within="1h", classes=("a", "b")), monitors=[ps.drift()]
    )
    def good() -> ps.Learner:
        raise NotImplementedError

    bench, rng = Bench(Topics(ps.Project("forum", [good]))), random.Random(1)
    for day in range(20):
        sums = kind_of(good.label).sums()
        for _ in range(200):
            kind_of(good.label).add(sums, {"a": 0.9, "b": 0.1}, "a" if rng.random() < (0.9 if day < 10 else 0.5) else "b")
        said = shifted(day, 0.5)
        bench.hear(msgspec.structs.replace(said, quality={"v1": sums.frozen()}))
    assert {name for s in bench.statistics for name in s.drift} == {"Ask.size"}
    assert bench.said == [], "that fewer answers are right is no drift of labels"


def test_without_a_drift_monitor_drift_is_measured_and_nobody_alarmed() -> None:
    bench = Bench(topics_of())
    bench.hear(shifted(0, 0.9))
    assert bench.statistics[0].drift["Ask.size"].ks == pytest.approx(0.4)
    assert bench.alarms == []


def test_a_shift_is_published_with_the_floor_that_the_alarm_holds_it_against() -> None:
    bench = Bench(topics_of(ps.drift(every="1d", material=0.05)))
    for day in range(7):
        bench.hear(shifted(day, 0.6))
    shifts = [s.drift["Ask.size"] for s in bench.statistics]
    assert {shift.floor for shift in shifts} == {0.05}
    assert {shift.spread for shift in shifts} == {0.0}, "what an alarm stands for is not custom"
    for statistic, shift in zip(bench.statistics, shifts, strict=True):
        bad = [a for a in bench.alarms if a.at == statistic.end and a.evidence["shifted"]]
        assert bool(bad) == (shift.ks > max(shift.critical, shift.floor or 0.0))


def test_a_skill_monitor_that_has_too_few_labels_says_so() -> None:
    bench = Bench(topics_of(ps.skill(-0.05, over="2d", least=150)))
    for day, n in enumerate((100, 60, 60, 100)):
        bench.hear(partial(day, quality=outcomes(n, n // 4, 0.25)))
    said = [s.missing.get("skill_monitor") for s in bench.statistics]
    assert said[1:] == [f"{n} of 150 labels in 2d: on fewer it does not judge" if n else None for n in (60, 120, None)]


def test_skill_compares_with_the_label_rate_of_the_week_before() -> None:
    bench = Bench(topics_of(ps.skill(-0.05, over="2d", least=50)))
    for day, score in enumerate([0.25, 0.25, 0.25, 0.9, 0.9, 0.25, 0.25, 0.25]):
        bench.hear(partial(day, quality=outcomes(100, 25, score)))
    first, second, *_ = bench.statistics
    assert (first.prior, first.prior_loss, first.skill) == (None, None, None)
    assert second.prior == 0.25
    assert second.prior_loss == pytest.approx(second.log_loss["served"], abs=1e-6)
    assert second.skill == pytest.approx(0.0, abs=1e-6)
    assert bench.said[0] == ("skill", "raised", 4)
    assert bench.alarms[0].evidence["n"] == 200
    assert bench.alarms[0].evidence["skill"] < 0


def test_few_outcomes_raise_nothing() -> None:
    bench = Bench(topics_of(ps.skill(0.5, over="2d", least=500)))
    for day in range(5):
        bench.hear(partial(day, quality=outcomes(100, 25, 0.9)))
    assert bench.alarms == []
    assert bench.statistics[-1].skill is not None


def test_an_empty_window_has_no_numbers_but_counts() -> None:
    bench = Bench(topics_of(ps.skill(0.0), ps.drift()))
    bench.hear(partial(3))
    s = bench.statistics[0]
    assert (s.quality, s.log_loss, s.auc, s.prior, s.skill, s.drift, s.reference) == ({}, {}, {}, None, None, {}, "")


def test_answers_without_a_model_count_for_the_label_rate_only() -> None:
    bench = Bench(topics_of(ps.skill(0.0, least=10)))
    before = outcomes(100, 25, 0.5)["served"]
    bench.hear(partial(0, quality={"none": before}), partial(1, quality=outcomes(100, 25, 0.25)))
    assert "served" not in bench.statistics[0].quality
    assert bench.statistics[1].prior == 0.25
    assert bench.statistics[1].skill == pytest.approx(0.0, abs=1e-6)
    assert bench.statistics[1].missing == {}


def test_a_number_that_is_missing_comes_with_the_reason() -> None:
    bench = Bench(topics_of(ps.skill(0.0, over="2d")))
    before, few = outcomes(100, 25, 0.5)["served"], outcomes(20, 5, 0.5)["served"]
    history = [{"none": few}, {"none": before}, {}, outcomes(100, 25, 0.25)]
    bench.hear(*(partial(day, quality=quality) for day, quality in enumerate(history)))
    nobody = "no label of a model's answer: {} became known, all of answers given before there was a model"
    assert [s.missing for s in bench.statistics] == [
        {
            "prior": "0 labels became known in the 7d before; 30 are needed",
            "prior_loss": nobody.format(20),
            "skill": nobody.format(20) + " (of the last 2d)",
        },
        {
            "prior": "20 labels became known in the 7d before; 30 are needed",
            "prior_loss": nobody.format(100),
            "skill": nobody.format(120) + " (of the last 2d)",
        },
        {"prior_loss": "no label became known", "skill": nobody.format(100) + " (of the last 2d)"},
        {"skill_monitor": "100 of 500 labels in 2d: on fewer it does not judge"},
    ]
    bench = Bench(topics_of())
    bench.hear(partial(0, quality=outcomes(100, 25, 0.25)))
    assert bench.statistics[0].missing["prior_loss"] == "no prior to compare with"


def test_a_reference_whose_hours_could_not_be_read_is_told_with_the_window() -> None:
    """A version that has customs has hours; with neither it is older than these."""
    bench = Bench(topics_of(ps.drift(every="1d")))
    older = shifted(0, 0.0)
    unread = msgspec.structs.replace(shifted(1, 0.0), customs={DAY: {"Ask.size": 0.01}})
    read = msgspec.structs.replace(shifted(2, 0.0), customs={DAY: {}, 2 * DAY: {"Ask.size": 0.01}}, expected=older.baseline)
    bench.hear(older, unread, read)
    assert ["hours" in statistic.missing for statistic in bench.statistics] == [False, True, False]


def test_a_jump_over_empty_windows_moves_time_on() -> None:
    bench = Bench(topics_of(partitions=2))
    bench.hear(partial(0, 0, 2), partial(1, 0, 2, days=20_000), partial(20_001, 0, 2))
    bench.hear(partial(0, 1, 2), partial(1, 1, 2))
    assert [to_micros(s.start) // DAY for s in bench.statistics] == [0, 1]
    bench.hear(partial(2, 1, 2, days=19_999), partial(20_001, 1, 2))
    days = [to_micros(s.start) // DAY for s in bench.statistics]
    assert days == [0, 1, 20_001]
    assert all(a < b for a, b in pairwise(days))


def test_what_is_not_a_partial_is_passed_by() -> None:
    topics = topics_of()
    shard = JudgeShard(topics.project.models, topics)
    shard.open(Saved())
    stranger = msgspec.structs.replace(partial(0), model="gone")
    values = [None, b"{", msgspec.json.encode(stranger), msgspec.json.encode(partial(0))]
    shard.take([Batch(Partition(topics.partials, 0), range(4), [None] * 4, values)], 0.0)
    effects = shard.step(())
    assert effects is not None
    assert [s.topic for s in effects.sends] == [topics.statistics("good")]


def test_another_reference_is_looked_at_as_if_there_had_been_none_before_it() -> None:
    rng = random.Random(3)
    days = [shifted(day, rng.gauss(0.5, 0.02), version="v2") for day in range(5, 60)]
    bench, fresh = Bench(topics_of(ps.drift(every="1d"))), Bench(topics_of(ps.drift(every="1d")))
    bench.hear(*(shifted(day, 0.5) for day in range(5)))
    bench.hear(*days)
    fresh.hear(*days)
    assert [s.drift for s in bench.statistics[5:]] == [s.drift for s in fresh.statistics]
    assert [(a.signal, a.state, a.at, a.evidence) for a in bench.alarms] == [
        (a.signal, a.state, a.at, a.evidence) for a in fresh.alarms
    ]
    habits = [msgspec.msgpack.decode(each.saved.position, type=_Position).states["good"].habits for each in (bench, fresh)]
    assert habits[0] == habits[1]


def test_what_the_judge_remembers_is_bounded() -> None:
    bench = Bench(topics_of(ps.drift(every="1d"), ps.skill(0.0, over="14d", least=10)))
    sizes = []
    for day in range(900):
        bench.hear(
            msgspec.structs.replace(shifted(day, 0.5 + 0.1 * (day % 3), version=f"v{day // 400}"), quality=outcomes(5, 2, 0.4))
        )
        sizes.append(len(bench.saved.position))
    assert max(sizes[500:]) <= max(sizes[:400]) + 64, "a year of distances for one reference, the weeks that skill looks back on"


def test_where_all_labels_were_alike_skill_is_missing_and_the_monitor_judges_all_the_same() -> None:
    bench = Bench(topics_of(ps.skill(0.0, over="2d", least=50)))
    bench.hear(*(partial(day, quality=outcomes(100, 0, 0.2)) for day in range(5)))
    newest = bench.statistics[-1]
    assert (newest.skill, newest.prior) == (None, 0.0)
    assert newest.missing["skill"] == "all 200 labels were alike, so there was nothing to be better at than the prior"
    assert ("skill", "raised") in [(signal, state) for signal, state, _ in bench.said]
    bench.hear(partial(5, quality=outcomes(100, 1, 0.2)))
    assert bench.statistics[-1].skill is not None


def numbers(*truths: float) -> Bench:
    """Five days, with answers of 300 to such truths on each."""

    @ps.model(scores=Ask, features=[Ask.size], label=ps.label(Weighed.grams, within="1h"))
    def good() -> ps.Learner:
        raise NotImplementedError

    bench, kind = Bench(Topics(ps.Project("forum", [good]))), kind_of(good.label)
    for day in range(5):
        sums = kind.sums()
        for truth in truths:
            kind.add(sums, 300.0, truth)
        bench.hear(partial(day, quality={"served": sums.frozen()}))
    return bench


def test_of_numbers_too_that_were_all_alike_nothing_could_be_better_than_the_prior() -> None:
    newest = numbers(*[300.1] * 100).statistics[-1]
    assert newest.prior == 300.1 and newest.skill is None
    assert newest.missing["skill"] == "all 500 labels were alike, so there was nothing to be better at than the prior"


def test_numbers_that_differ_by_less_than_a_step_of_their_sizes_are_not_alike() -> None:
    newest = numbers(*[299.9, 300.1] * 50).statistics[-1]
    assert newest.skill == pytest.approx(0.0, abs=1e-6) and "skill" not in newest.missing


DOOR, SIDE = (ps.fairness(by, measures=["selection_rate"], every="1d") for by in (Ask.door, Ask.side))


def treated(day: int, **levels: tuple[int, int]) -> Partial:
    """Of 40 answers to each of two groups, so many said yes."""
    found = {
        f"Ask.{name}": {f"{name} {at}": Group(answers=40, selected=n) for at, n in enumerate(said)}
        for name, said in levels.items()
    }
    return partial(day, groups={day * DAY: found})


def test_what_was_unequal_for_one_segment_is_not_laid_to_another_that_is_watched_in_its_place() -> None:
    bench = Bench(topics_of(DOOR))
    bench.hear(*(treated(day, door=(18, 11), side=(14, 14)) for day in range(8)))
    assert bench.said[0][1] == "raised"
    bench.topics, before = topics_of(SIDE), len(bench.alarms)
    bench.hear(*(treated(day, door=(18, 11), side=(14, 14)) for day in range(8, 12)))
    assert "Ask.side" in str(bench.alarms[before].evidence)
    assert not any("door" in str(each.evidence) for each in bench.alarms[before:])
    assert bench.said[-1][1] == "cleared"


def test_what_a_monitor_remembers_follows_it_to_another_place() -> None:
    bench, still = Bench(topics_of(ps.drift(every="1d"), DOOR)), Bench(topics_of(ps.drift(every="1d"), DOOR))
    days = [msgspec.structs.replace(shifted(d, 0.5), groups=treated(d, door=(18, 11)).groups) for d in range(20)]
    bench.hear(*days[:10])
    bench.topics = topics_of(ps.skill(0.0, over="2d"), DOOR, ps.drift(every="1d"))
    bench.hear(*days[10:])
    still.hear(*days)
    states = [msgspec.msgpack.decode(each.saved.position, type=_Position).states["good"] for each in (bench, still)]
    assert states[0].habits == {2: states[1].habits[0]} and states[0].standings == states[1].standings


def test_a_population_is_not_held_against_the_levels_of_a_segment_that_was_cut_otherwise() -> None:
    def cut(*edges: float) -> Topics:
        by = [ps.segment(Ask.size, edges=edges), Ask.door]

        @ps.model(scores=Ask, features=[Ask.size], label=ps.label(Reply.good, within="1h"), segments=by)
        def good() -> ps.Learner:
            raise NotImplementedError

        return Topics(ps.Project("forum", [good]), 1)

    def counted(day: int, *levels: str) -> Partial:
        groups = {"Ask.size": {level: Group(answers=500) for level in levels}, "Ask.door": {"a": Group(answers=1_000)}}
        return partial(day, groups={day * DAY: groups})

    bench = Bench(cut(1.0))
    bench.hear(*(counted(day, "< 1", ">= 1") for day in range(5)))
    bench.topics = cut(2.0)
    bench.hear(*(counted(day, "< 2", ">= 2") for day in range(5, 8)))
    told = [s.population["Ask.size"].stability if "Ask.size" in s.population else None for s in bench.statistics]
    assert told == [None, *[pytest.approx(0.0)] * 4, None, *[pytest.approx(0.0)] * 2]
    usual = msgspec.msgpack.decode(bench.saved.position, type=_Position).states["good"].usual
    assert set(usual["Ask.size"]) == {"< 2", ">= 2"}
    assert usual["Ask.door"]["a"] > 6_000, "eight days, faded"


@pytest.mark.parametrize("kept", [False, True])
def test_nobody_is_told_to_keep_the_first_model_who_keeps_it(kept: bool) -> None:
    @ps.model(scores=Ask, features=[Ask.size], label=ps.label(Reply.good, within="1h"), keep_first=kept)
    def good() -> ps.Learner:
        raise NotImplementedError

    bench = Bench(Topics(ps.Project("forum", [good]), 1))
    for day, version in enumerate(("v1", "v2")):  # the file of v1 is lost
        said = outcomes(50, 20, 0.4)
        bench.hear(partial(day, quality={**said, version: said["served"]}))
    told = bench.statistics[-1].missing["first"]
    assert told == "v1 was asked about 0 of 50 answers" + ("" if kept else ": keep_first=True asks it for good")
