"""One shard of monitoring by itself: what it waits for, what it takes up after a restart, what it keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeVar

import msgspec
import pytest
from tests.services.shop import EDGES, END, LENGTH, REFERENCE, START, WITHIN, WORLD, Order, Paid, decision, declared, prediction

import penstock as ps
from penstock.duration import DAY, HOUR, MINUTE
from penstock.event import from_micros, to_micros
from penstock.log import Batch, Headers, Partition, partition_of
from penstock.log.memory import MemoryLog
from penstock.records import Clock, Outcome, Partial, Statistic
from penstock.runtime.lane import FROM, SEQUENCE, Effects
from penstock.services.monitoring.book import QUIET
from penstock.services.monitoring.judge import JudgeShard
from penstock.services.monitoring.pairing import PairingShard
from penstock.services.monitoring.service import lanes
from penstock.store import Change, Saved
from penstock.store.memory import MemoryStore
from penstock.topics import Topics

T = TypeVar("T")

NOW = 1e10
"""A wall clock after everything here, in seconds."""


def one(partitions: int = 1, registered: bool = True) -> tuple[PairingShard, Topics]:
    topics = Topics(declared(False), partitions)
    shard = PairingShard(0, topics.project.models, topics)
    shard.open(Saved())
    if registered:
        shard.take([batch(topics.models, [decision("v1", EDGES, REFERENCE)])], now=NOW)
    return shard, topics


def batch(
    topic: str, values: Sequence[bytes], keys: Sequence[bytes] = (), headers: Sequence[Headers] = (), first: int = 0
) -> Batch:
    keys = keys or [b"k"] * len(values)
    return Batch(Partition(topic, 0), range(first, first + len(values)), keys, values, headers)


def numbered(writer: int, *numbers: int) -> list[Headers]:
    return [((FROM, b"inference.%d" % writer), (SEQUENCE, b"%d" % n)) for n in numbers]


def paid(name: str, moment: int) -> bytes:
    return msgspec.json.encode({"order_id": name, "late": True, "at": from_micros(moment)})


def answered(name: str, moment: int, version: str = "v1") -> bytes:
    return msgspec.json.encode(prediction(name, "s", moment, {version: 0.5}, version, {"Order.amount": 1.0}))


def closes(topics: Topics, publisher: str, topic: str, before: int, end: int) -> Batch:
    clock = Clock(publisher=publisher, before=before, ends={topic: {0: end}})
    return batch(topics.clock, [msgspec.json.encode(clock)])


def both(topics: Topics, before: int, predictions: int, labels: int = 0) -> list[Batch]:
    """Inference and the users close a time, up to these positions."""
    return [
        closes(topics, "inference.0", topics.predictions("late"), before, predictions),
        closes(topics, "users", "paid", before, labels),
    ]


def sent(effects: Effects | None, topic: str, kind: type[T]) -> list[T]:
    """What a step published to a topic."""
    assert effects is not None
    return [msgspec.json.decode(send.value or b"", type=kind) for send in effects.sends if send.topic == topic]


def written(table: dict[bytes, bytes], change: Change) -> dict[bytes, bytes]:
    """The shard's table in the store after one more write."""
    table = {**table, **{name: value for name, value in change.table.items() if value is not None}}
    return {name: value for name, value in table.items() if change.table.get(name, value) is not None}


def reopened(topics: Topics, change: Change) -> tuple[PairingShard, dict[str, int]]:
    """The shard after a crash that followed its first write, and where it wants to read on."""
    again = PairingShard(0, topics.project.models, topics)
    positions = again.open(Saved(1, change.position, b"", written({}, change)))
    again.take([batch(topics.models, [decision("v1", EDGES, REFERENCE)])], now=NOW)
    return again, {p.topic: at for p, at in positions.items()}


def test_after_a_restart_time_does_not_go_back() -> None:
    shard, topics = one()
    topic = topics.predictions("late")
    shard.take([batch(topic, [answered("o1", START)], headers=numbered(0, 0))], now=NOW)
    shard.take(both(topics, START + DAY, 1), now=NOW)
    effects = shard.step(())
    assert effects is not None
    shard, _ = reopened(topics, effects.change)
    late = batch(topic, [answered("o2", START + HOUR)], headers=numbered(0, 1), first=1)
    shard.take([late, batch("paid", [paid("o2", START + DAY)], [b"o2"])], now=NOW)
    shard.take(both(topics, START + 2 * DAY, 2, 1), now=NOW)
    said = sent(shard.step(()), topics.outcomes("late"), Outcome)
    assert [(o.id, o.answered) for o in said] == [("o2", True)], "an answer that comes late is processed when it comes"


def test_what_was_applied_beyond_the_position_is_not_applied_again() -> None:
    """Two writers and the gateway share a partition; one writer's record waits, so the others' are read again."""
    shard, topics = one(partitions=2)
    topic = topics.predictions("late")
    names = [n for n in (f"o{i}" for i in range(99)) if partition_of(n.encode(), 2) == 0][:3]
    times = [START + DAY, START, START + HOUR]
    headers = [*numbered(0, 0), *numbered(1, 0), ()]
    sent = batch(topic, [answered(n, t) for n, t in zip(names, times, strict=True)], headers=headers)
    shard.take([sent], now=NOW)
    closed = [closes(topics, who, topic, START + 2 * HOUR, 3) for who in ("inference.0", "inference.1")]
    shard.take([*closed, closes(topics, "users", "paid", START + 2 * HOUR, 0)], now=NOW)
    effects = shard.step(())
    assert effects is not None
    again, positions = reopened(topics, effects.change)
    assert positions == {topic: 0, "paid": 0}
    again.take([sent], now=NOW)
    closed = [closes(topics, who, topic, START + 2 * DAY, 3) for who in ("inference.0", "inference.1")]
    again.take([*closed, closes(topics, "users", "paid", START + 2 * DAY, 0)], now=NOW)
    more = again.step(())
    assert more is not None
    total: Counter[str] = Counter()
    for send in [*effects.sends, *more.sends]:
        if send.topic == topics.partials:
            total.update(msgspec.json.decode(send.value or b"", type=Partial).counts)
    assert total == {"predictions": 3, "silent": 3}


def test_models_that_share_a_label_topic_do_not_show_to_each_other() -> None:
    alone, pair = (
        ps.Project("shop", [_model(name, every) for name, every in chosen])
        for chosen in ([("late", "12h")], [("early", "8h"), ("late", "12h")])
    )
    found = []
    for project in (alone, pair):
        topics = Topics(project)
        shard = PairingShard(0, project.models, topics)
        shard.open(Saved())
        decisions = [decision(v, EDGES, REFERENCE, model.name) for v in ("v1", "v2") for model in project.models]
        shard.take([batch(topics.models, decisions)], now=NOW)
        answers = [msgspec.json.encode(p) for p in WORLD.predictions]
        labels = [{"order_id": name, "late": label, "at": from_micros(moment)} for moment, name, label in WORLD.labels]
        keys = [name.encode() for _, name, _ in WORLD.labels]
        batches = [batch("paid", [msgspec.json.encode(label) for label in labels], keys)]
        batches.append(closes(topics, "users", "paid", END, len(labels)))
        for model in project.models:
            topic = topics.predictions(model.name)
            batches += [batch(topic, answers), closes(topics, "inference.0", topic, END, len(answers))]
        shard.take(batches, now=NOW)
        effects = shard.step(())
        outcomes = sent(effects, topics.outcomes("late"), Outcome)
        partials = [p for p in sent(effects, topics.partials, Partial) if p.model == "late"]
        found.append((outcomes, partials))
    assert found[0] == found[1]
    assert len(found[0][0]) > 200


def _model(name: str, every: str) -> Any:
    def build() -> ps.Learner:
        raise NotImplementedError

    build.__name__ = name
    features, label = [Order.amount, Order.weight], ps.label(Paid.late, within="6h", otherwise=False)
    return ps.model(scores=Order, features=features, label=label, monitors=[ps.skill(0.0, every=every)])(build)


def test_labels_wait_for_inference_however_long_it_is_silent() -> None:
    shard, topics = one(registered=False)
    labels = batch("paid", [paid(f"o{i}", START + i * DAY) for i in range(5)], [b"o%d" % i for i in range(5)])
    shard.take([labels], now=NOW + 100.0)
    assert shard.step(()) is None
    shard.take([], now=NOW + 100_000.0)
    assert shard.step(()) is None
    shard.take([batch(topics.models, [decision("v1", EDGES, REFERENCE)])], now=NOW + 100_000.0)
    topic = topics.predictions("late")
    shard.take([batch(topic, [answered("o3", START + 3 * DAY)], headers=numbered(0, 0))], now=NOW + 100_001.0)
    shard.take([closes(topics, "inference.0", topic, START + 4 * DAY, 1)], now=NOW + 100_001.0)
    assert [o.id for o in sent(shard.step(()), topics.outcomes("late"), Outcome)] == ["o3"]


@pytest.mark.parametrize(("closing", "until"), [(False, 109.0), (True, 160.0)])
def test_a_silent_label_topic_is_passed_after_the_stated_wait_and_not_before(closing: bool, until: float) -> None:
    shard, topics = one()
    shard.take([batch(topics.predictions("late"), [answered("o1", START)], headers=numbered(0, 0))], now=NOW + 100.0)
    if closing:
        said = closes(topics, "users", "paid", START - DAY, 0)
        said.stamps = [int((NOW + 100.0) * 1000)]
        shard.take([said], now=NOW + 100.0)
    shard.take([], now=NOW + 104.0)
    shard.take([closes(topics, "inference.0", topics.predictions("late"), START + DAY, 1)], now=NOW + 104.0)
    shard.step(())
    for moment in (104.0, until):
        shard.take([], now=NOW + moment)
        assert shard.step(()) is None
    shard.take([], now=NOW + until + 0.5)
    assert [o.answered for o in sent(shard.step(()), topics.outcomes("late"), Outcome)] == [False]


def test_a_history_published_at_once_after_a_quiet_start_finds_its_labels() -> None:
    shard, topics = one()
    shard.take([], now=NOW + 600.0)
    answers = [answered(f"o{i}", START + i * HOUR) for i in range(40)]
    labels = [paid(f"o{i}", START + i * HOUR + MINUTE) for i in range(40)]
    shard.take([batch(topics.predictions("late"), answers, headers=numbered(0, *range(40)))], now=NOW + 600.0)
    shard.take([closes(topics, "inference.0", topics.predictions("late"), END, 40)], now=NOW + 601.0)
    assert shard.step(()) is None, "a label topic that was quiet before there was anything to wait with is not passed"
    shard.take([batch("paid", labels, [b"o%d" % i for i in range(40)])], now=NOW + 603.0)
    shard.take([closes(topics, "users", "paid", END, 40)], now=NOW + 603.0)
    assert [o.answered for o in sent(shard.step(()), topics.outcomes("late"), Outcome)] == [True] * 40


def test_answers_wait_for_the_registration_of_their_version() -> None:
    shard, topics = one(registered=False)
    answers = batch(topics.predictions("late"), [answered("o1", START)], headers=numbered(0, 0))
    shard.take([answers, *both(topics, START + DAY, 1)], now=NOW + 100.0)
    assert shard.step(()) is None
    shard.take([batch(topics.models, [decision("v1", EDGES, REFERENCE)])], now=NOW + 101.0)
    partial = sent(shard.step(()), topics.partials, Partial)[0]
    assert partial.reference == "v1"
    assert sum(partial.inputs["Order.amount"]) == 1


def test_a_registration_that_never_comes_is_waited_for_only_so_long() -> None:
    shard, topics = one(registered=False)
    answers = batch(topics.predictions("late"), [answered("o1", START, "gone")], headers=numbered(0, 0))
    shard.take([answers], now=NOW + 100.0)
    shard.take(both(topics, START + DAY, 1), now=NOW + 104.0)
    assert shard.step(()) is None
    shard.take([], now=NOW + 105.5)
    partial = sent(shard.step(()), topics.partials, Partial)[0]
    assert (partial.reference, partial.inputs) == ("", {})


def test_of_forty_thousand_empty_windows_so_many_are_reported_as_the_rule_says_and_the_others_in_one_record() -> None:
    shard, topics = one()
    far = START + 40_000 * LENGTH
    answers = [answered("o1", START), answered("o2", far)]
    shard.take([batch(topics.predictions("late"), answers, headers=numbered(0, 0, 1))], now=NOW)
    shard.take(both(topics, far + DAY, 2), now=NOW)
    partials = sent(shard.step(()), topics.partials, Partial)
    assert QUIET // LENGTH <= len(partials) < QUIET // LENGTH + 10
    assert max(b.start - a.start for a, b in pairwise(partials)) > 39_900 * LENGTH
    assert all(a.end <= b.start for a, b in pairwise(partials))


@pytest.mark.parametrize("partitions", [1, 4])
@pytest.mark.parametrize("steps", [[], [70], [3, 6, 9, 12, 15, 30, 60, 120, 199]])
def test_in_which_steps_time_passes_over_empty_windows_does_not_show(partitions: int, steps: list[int]) -> None:
    """The same two answers, and the time between them closed at once or in steps (in windows): the same statistics."""
    topics = Topics(declared(False), partitions)
    times = [START, START + 200 * LENGTH, START + 200 * LENGTH + DAY]
    names = [next(n for n in (f"o{i}{k}" for k in range(99)) if partition_of(n.encode(), partitions) == 0) for i in range(3)]
    shards = [PairingShard(number, topics.project.models, topics) for number in range(partitions)]
    judge, offset, starts = JudgeShard(topics.project.models, topics), 0, list[int]()
    for shard in (*shards, judge):
        shard.open(Saved())
    topic = topics.predictions("late")
    for number, shard in enumerate(shards):
        shard.take([batch(topics.models, [decision("v1", EDGES, REFERENCE)])], now=NOW)
        if not number:
            answers = [answered(name, time) for name, time in zip(names, times, strict=True)]
            shard.take([batch(topic, answers, headers=numbered(0, 0, 1, 2))], now=NOW)
    for step in [*steps, 220, 221]:
        for number, shard in enumerate(shards):
            ends = {topic: {number: 3 if not number else 0}, "paid": {number: 0}}
            said = [
                msgspec.json.encode(Clock(publisher=who, before=START + step * LENGTH, ends=ends))
                for who in ("users", *(f"inference.{q}" for q in range(partitions)))
            ]
            shard.take([batch(topics.clock, said)], now=NOW)
            effects = shard.step(())
            partials = [send.value or b"" for send in effects.sends if send.topic == topics.partials] if effects else []
            judge.take([batch(topics.partials, partials, first=offset)], 0.0)
            offset += len(partials)
            said_ = judge.step(())
            windows = sent(said_, topics.statistics("late"), Statistic) if said_ else []
            starts += [(to_micros(w.start) - START) // LENGTH for w in windows]
    assert starts == [*range(-1, 7), *range(199, 209)], "while anything happens, and three days after"


def test_of_a_project_without_models_there_are_alarms_about_its_data_to_tell_and_nothing_else() -> None:
    @ps.features(by=Order.shop)
    class Shop:
        orders_1h = ps.count(Order, over="1h")

    project = ps.Project("plain", rows={Order: [Shop]})
    assert [lane.name for lane in lanes(project, Topics(project), MemoryLog(), MemoryStore())] == ["notifier"]


def test_what_is_kept_does_not_grow_however_long_labels_are_wrong_or_missing() -> None:
    """Forty horizons of answers without labels, labels without answers, repeats and garbage: no more is kept than the
    answers of two horizons and the labels of one, in memory and in the store."""
    shard, topics = one()
    ledger, table, predictions, labels = shard._books["late"].ledger, dict[bytes, bytes](), 0, 0
    sizes, fields = [], []
    for turn in range(40):
        start, end = START + turn * WITHIN, START + (turn + 1) * WITHIN
        answers = [answered(f"a{turn}-{i}", start + i * MINUTE) for i in range(50)]
        strangers = [f"b{turn}-{i}" for i in range(50) for _ in range(2)]
        bad = [b"{", b"", b"[]", b"\xff" * 1000] * 10
        garbled = batch(topics.predictions("late"), bad, first=predictions + 50)
        said = [paid(name, start + i * MINUTE) for i, name in enumerate(strangers)]
        orphans = batch("paid", [*said, *bad], [*(name.encode() for name in strangers), *([b"x"] * len(bad))], first=labels)
        shard.take([batch(topics.predictions("late"), answers, first=predictions), garbled, orphans], now=NOW)
        predictions, labels = predictions + 90, labels + 140
        shard.take(both(topics, end, predictions, labels), now=NOW)
        effects = shard.step(())
        assert effects is not None
        table = written(table, effects.change)
        assert len(ledger) <= 2 * 50 + 50
        assert len(ledger._agenda) <= 2 * 50 + 50
        assert len(table) == len(ledger)
        sizes.append(len(effects.change.position))
        fields.append(sum(map(len, table.values())))
    assert max(sizes[20:]) <= max(sizes[:20]) + 64, "numbers get longer, nothing else"
    assert max(fields[20:]) <= max(fields[:20]) + 1_000
    assert shard._intake._merge.pending == 0
    assert not any(feed.staged for feed in shard._intake._feeds.values())
