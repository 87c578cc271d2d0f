"""What becomes of each record that monitoring reads: every fate that a label can have, and what cannot be read."""

from __future__ import annotations

import msgspec
import pytest
from tests.services.shop import LENGTH, START, WHOLE, WITHIN, WORLD, World, declared, prediction, run

from penstock.duration import HOUR
from penstock.event import from_micros, to_micros
from penstock.log import Send
from penstock.runtime.lane import FROM, SEQUENCE
from penstock.topics import Topics

CASES: dict[str, tuple[list[tuple[int, bool]], dict[str, int], list[tuple[bool, bool, bool | None]]]] = {
    # name: labels as (hours after the answer, value), counts, outcomes as (label, answered, corrects)
    "in time": ([(1, True)], {"outcomes": 1}, [(True, True, None)]),
    "at the horizon": ([(6, True)], {"outcomes": 1}, [(True, True, None)]),
    "after the horizon": ([(7, True)], {"silent": 1, "late": 1}, [(False, False, None)]),
    "never": ([], {"silent": 1}, [(False, False, None)]),
    "before its answer": ([(-1, True)], {"parked": 1, "outcomes": 1}, [(True, True, None)]),
    "long before its answer": ([(-7, True)], {"parked": 1, "orphan": 1, "silent": 1}, [(False, False, None)]),
    "twice the same": ([(1, True), (2, True)], {"outcomes": 1, "duplicate": 1}, [(True, True, None)]),
    "corrected": ([(1, True), (2, False)], {"outcomes": 1, "corrected": 1}, [(True, True, None), (False, True, True)]),
    "corrected too late": ([(1, True), (7, False)], {"outcomes": 1, "late": 1}, [(True, True, None)]),
    "corrected early": ([(-2, True), (-1, False)], {"parked": 1, "corrected": 1, "outcomes": 1}, [(False, True, None)]),
}


@pytest.mark.parametrize("case", CASES)
def test_each_fate_of_a_label_is_counted(case: str) -> None:
    labels, counts, outcomes = CASES[case]
    time = START + 24 * HOUR
    made = World([prediction("o", "s", time, {"v1": 0.7}, "v1", {})], [(time + h * HOUR, "o", v) for h, v in labels])
    result = run(made)
    assert result.counts == {"predictions": 1, **counts}
    assert [(o.label, o.answered, o.corrects) for o in result.settled.values()] == outcomes


def test_a_correction_restates_the_sums() -> None:
    time = START + 24 * HOUR
    answer = prediction("o", "s", time, {"v1": 0.7, "v2": 0.1}, "v1", {})
    right, corrected = (
        run(World([answer], [(time + h * HOUR, "o", v) for h, v in labels])).windows
        for labels in ([(2, False)], [(1, True), (2, False)])
    )
    for a, b in zip(right, corrected, strict=True):
        assert (a.quality, a.paired) == (b.quality, b.paired)
        assert (a.log_loss, a.auc) == (b.log_loss, b.auc)


@pytest.mark.parametrize(("before_the_end", "windows"), [(1, [1, 0]), (0, [0, 1])])
def test_silence_counts_in_the_window_that_holds_the_horizon(before_the_end: int, windows: list[int]) -> None:
    end = (START // LENGTH + 2) * LENGTH
    answer = prediction("o", "s", end - WITHIN - before_the_end, {"v1": 0.7}, "v1", {})
    got = {to_micros(s.end): s.counts.get("silent", 0) for s in run(World([answer])).windows}
    assert [got[end], got[end + LENGTH]] == windows


def test_a_prediction_that_came_twice_counts_once() -> None:
    time = START + 24 * HOUR
    answer = prediction("o", "s", time, {"v1": 0.7}, "v1", {})
    again = prediction("o", "s", time + HOUR, {"v1": 0.2}, "v1", {})
    result = run(World([answer, again], [(time + 2 * HOUR, "o", True)]))
    assert [outcome.score for outcome in result.settled.values()] == [0.7]
    assert result.counts == {"predictions": 1, "duplicate": 1, "outcomes": 1}


BAD: list[bytes | None] = [
    None, b"", b"{", b"[]", b"\xff\xfe", b'{"order_id": 7, "late": true, "at": "2026-03-01T09:00:00Z"}', b"null",
    b'{"order_id": "o1", "late": "yes", "at": "2026-03-01T09:00:00Z"}', b'{"order_id": "o1", "late": true}',
    b'{"order_id": "o1", "late": true, "at": "2026-03-01T09:00:00"}', b"[" * 100_000, b"1e999",
    b'{"order_id": "o1", "late": true, "at": "9999-12-31T00:00:00Z"}', b'"' + b"x" * (1 << 19) + b'"',
    b'{"order_id": "o1", "late": true, "at": "0001-01-01T00:00:00Z"}', b'{"order_id": 1180591620717411303424}',
]  # fmt: skip


def test_bad_records_are_counted_and_nothing_else_is_lost() -> None:
    topics = Topics(declared(False), 1)
    numbered = ((FROM, b"somebody"), (SEQUENCE, b"zero"))
    extra = [Send("paid", b"o1", value) for value in BAD]
    extra += [Send(topics.predictions("late"), b"o1", v, numbered if i % 2 else ()) for i, v in enumerate(BAD)]
    result = run(WORLD, extra=extra)
    assert result.outcomes == WHOLE.outcomes
    assert result.counts["malformed"] == len(extra)
    assert result.dead == len(result.dead_labels) == len(BAD)


@pytest.mark.parametrize("score", [b"null", b"NaN", b"Infinity", b'"NaN"', b'"0.7"', b"true", b"1e999", b"[0.7]"])
def test_an_answer_whose_score_is_no_number_is_dead_lettered_and_not_counted(score: bytes) -> None:
    time = START + 24 * HOUR
    good, odd = (prediction(name, "s", time, {"v1": 0.7}, "v1", {"Order.amount": 5.0}) for name in ("good", "odd"))
    said = msgspec.json.encode(odd)
    assert said.count(b'"score":0.7') == 1
    topic = Topics(declared(False), 1).predictions("late")
    bad = Send(topic, b"odd", said.replace(b'"score":0.7', b'"score":' + score))
    result = run(World([good], [(time + HOUR, "good", True)]), extra=[bad])
    assert result.counts == {"predictions": 1, "outcomes": 1, "malformed": 1} and result.dead == 1
    assert [outcome.id for outcome in result.settled.values()] == ["good"]


@pytest.mark.parametrize("value", ["yes", 1, "true", None, [True]])
def test_a_label_of_another_type_is_dead_lettered_in_words_and_not_counted(value: object) -> None:
    time = START + 24 * HOUR
    said = msgspec.json.encode({"order_id": "o", "late": value, "at": from_micros(time + HOUR)})
    answer = prediction("o", "s", time, {"v1": 0.7}, "v1", {"Order.amount": 5.0})
    result = run(World([answer], [(time + 2 * HOUR, "o", False)]), extra=[Send("paid", b"o", said)])
    assert result.counts == {"predictions": 1, "outcomes": 1, "malformed": 1}
    (cause,) = result.dead_labels
    assert (cause["dlq.reason"], cause["dlq.service"]) == ("schema", "monitoring")
    assert "Expected `bool`" in cause["dlq.error"] and "$.late" in cause["dlq.error"]


def test_inputs_that_cannot_be_read_are_counted_and_the_others_binned() -> None:
    time = START + 24 * HOUR
    answers = [prediction(f"o{i}", "s", time, {"v1": 0.5}, "v1", {"Order.amount": 5.0}) for i in range(9)]
    answers.append(prediction("odd", "s", time, {"v1": 0.5}, "v1", {"Order.amount": "much"}))
    result = run(World(answers))
    assert result.counts["unread"] == 1
    assert {shift.n for s in result.windows for shift in s.drift.values()} == {9}
