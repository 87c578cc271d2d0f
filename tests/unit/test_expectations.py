"""What is expected of an event is judged the same one by one, in columns and on a frame; mistakes in it are told in words."""

from __future__ import annotations

import itertools
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import penstock as ps
from penstock.codec import EventDecoder
from penstock.duration import HOUR
from penstock.errors import DefinitionError, Refused
from penstock.event import event_of, to_micros
from penstock.expectation import REMEMBERED, Expectation, Remembering, Rising, Rule, Unique
from penstock.project import load

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
NOW = NOON.timestamp() + 86_400


@ps.event("parcels")
class Parcel:
    parcel_id: ps.Id[str]
    depot: ps.Key[str]
    kind: str
    weight: float
    pieces: int
    insured: bool
    value: float | None
    note: str | None
    sent_at: ps.EventTime


ps.expect(Parcel.weight, between=(0.0, 30.0), otherwise="dead_letter")
ps.expect(Parcel.pieces, between=(1, None), among=[1, 2, 3, 5])
ps.expect(Parcel.pieces, between=(None, 2.0**53))
ps.expect(Parcel.kind, among=["box", "letter"], otherwise="dead_letter")
ps.expect(Parcel.depot, matches=r"[A-Z]{3}|x.y")
ps.expect(Parcel.value, present=True, between=(None, 1e4), otherwise="alarm", above=0.1)
ps.expect(Parcel.sent_at, between=(NOON, None))


@ps.expect
def worth_insuring(parcel: Parcel) -> bool:
    return (parcel.insured == False) | (parcel.value >= 10.0)  # type: ignore[operator]  # noqa: E712


@ps.expect(otherwise="dead_letter")
def letters_are_light(now: Parcel) -> bool:
    return now.kind != "letter" or now.weight / now.pieces <= 2.0


@ps.expect(otherwise="flag")
def light_or_many(now: Parcel) -> bool:
    return (now.weight / now.pieces < 3.0) | (now.kind == "box")


EVENT = event_of(Parcel)
RULES = [expectation for expectation in EVENT.expectations if isinstance(expectation, Rule)]
RECORD = st.builds(
    Parcel,
    parcel_id=st.sampled_from(["a", "b"]),
    depot=st.sampled_from(["BER", "ber", "xzy", "x.yy", "日本", "BER\n"]),
    kind=st.sampled_from(["box", "letter", "Box", ""]),
    weight=st.one_of(st.floats(-1, 40), st.sampled_from([0.0, 30.0, math.nextafter(30.0, 31.0), -0.0, 5e-324])),
    pieces=st.one_of(st.integers(-1, 6), st.sampled_from([2**63 - 1, -(2**63), 2**53 + 1])),
    insured=st.booleans(),
    value=st.one_of(st.none(), st.floats(0, 2e4)),
    note=st.none(),
    sent_at=st.sampled_from([NOON, NOON - timedelta(microseconds=1), NOON + timedelta(hours=1)]),
)


def parcel(**changes: Any) -> Parcel:
    said = {
        "parcel_id": "p", "depot": "BER", "kind": "box", "weight": 1.0, "pieces": 1, "insured": False, "value": 20.0,
        "note": None, "sent_at": NOON,
    }  # fmt: skip
    return Parcel(**{**said, **changes})


def refusal_of(decoder: EventDecoder, value: bytes | None) -> Refused | None:
    try:
        decoder.decode(value, NOW)
    except Refused as refusal:
        return refusal
    return None


# --- one meaning ------------------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(st.lists(RECORD, max_size=12))
def test_a_batch_is_judged_as_each_of_its_records_is(records: list[Parcel]) -> None:
    for expectation in EVENT.expectations:
        if isinstance(expectation, Remembering):
            continue
        asked, broken = expectation.judge(records)
        assert [None if not a else not b for a, b in zip(asked, broken, strict=True)] == [expectation.one(r) for r in records]


@settings(max_examples=200, deadline=None)
@given(st.lists(RECORD, max_size=12))
def test_a_decoder_refuses_of_a_batch_what_it_refuses_one_by_one(records: list[Parcel]) -> None:
    values = [msgspec.json.encode(record) for record in records] + [b"{", None]
    decoder = EventDecoder(EVENT)
    decoded, micros, refused = decoder.decode_all(values, NOW)
    for at, value in enumerate(values):
        alone = refusal_of(decoder, value)
        said = refused.get(at)
        assert (said and (said.reason, str(said))) == (alone and (alone.reason, str(alone)))
        assert (decoded[at] is None) == (micros[at] == 0) == (alone is not None)


WHY: dict[str, dict[str, Any]] = {
    "Parcel.weight is 31.5; expected between 0.0 and 30.0": {"weight": 31.5},
    "Parcel.kind is 'crate'; expected among box, letter": {"kind": "crate"},
    "rule letters_are_light is not met (kind='letter', weight=5.0, pieces=1)": {"kind": "letter", "weight": 5.0},
    "rule letters_are_light raises ZeroDivisionError: float division by zero (kind='letter', weight=5.0, pieces=0)": {
        "kind": "letter", "weight": 5.0, "pieces": 0,
    },
    f"Parcel.kind is '{'x' * 89}... (65,538 characters); expected among box, letter": {"kind": "x" * 65_536},
}  # fmt: skip


def test_a_record_makes_no_reason_long_also_where_a_rule_raises_with_it() -> None:
    @ps.event("letters")
    class Letter:
        place: ps.Key[str]
        text: str
        at: ps.EventTime

    @ps.expect
    def is_a_number(now: Letter) -> bool:
        return float(now.text) > 0

    (rule,) = event_of(Letter).expectations
    assert len(rule.why(Letter(place="a", text="x" * 65_536, at=NOON))) < 300


@pytest.mark.parametrize("said", WHY)
def test_what_is_refused_is_told_with_the_value_and_what_was_expected(said: str) -> None:
    with pytest.raises(Refused) as raised:
        EventDecoder(EVENT).decode(msgspec.json.encode(parcel(**WHY[said])), NOW)
    assert (raised.value.reason, str(raised.value)) == ("expectation", said)


def test_what_is_only_flagged_is_not_refused() -> None:
    decoded = EventDecoder(EVENT).decode(msgspec.json.encode(parcel(depot="nowhere", value=None, pieces=4)), NOW)
    assert decoded.depot == "nowhere"


def test_a_straight_rule_is_asked_of_whole_columns_and_another_one_by_one() -> None:
    assert {rule.name: rule._straight for rule in RULES} == {
        "worth_insuring": True, "letters_are_light": False, "light_or_many": True,
    }  # fmt: skip
    calls = []
    rule = Rule(EVENT, lambda record: calls.append(1) or record.weight < 2, [EVENT.columns["weight"]], True)  # type: ignore[func-returns-value]
    rule.judge([parcel(weight=float(i)) for i in range(50)])
    assert len(calls) == 1


def test_a_rule_is_asked_only_where_all_that_it_reads_is_there() -> None:
    assert RULES[0].one(parcel(insured=True, value=None)) is None
    asked, broken = RULES[0].judge([parcel(insured=True, value=None), parcel(insured=True, value=1.0)])
    assert (asked.tolist(), broken.tolist()) == ([False, True], [False, True])


# --- those that remember ----------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=40))
def test_unique_is_what_a_search_through_all_of_the_past_says(steps: list[tuple[str, int]]) -> None:
    unique, memory, time, past = Unique(EVENT.columns["kind"], "2h"), dict[int, Any](), 0, list[tuple[str, int]]()
    for value, hours in steps:
        time += hours * HOUR
        _, broken = unique.follow(memory, [parcel(kind=value)], [time])
        assert bool(broken[0]) == any(known == value and time - at < 2 * HOUR for known, at in past)
        past.append((value, time))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 5)), max_size=40))
def test_rising_is_what_the_greatest_of_the_past_of_a_key_says(steps: list[tuple[str, int]]) -> None:
    rising, memory = Rising(EVENT.columns["pieces"]), dict[int, Any]()
    records = [parcel(depot=depot, pieces=pieces) for depot, pieces in steps]
    _, broken = rising.follow(memory, records, [0] * len(records))
    for i, record in enumerate(records):
        before = [other.pieces for other in records[:i] if other.depot == record.depot]
        assert bool(broken[i]) == (record.pieces < max(before, default=-1))


def test_what_is_remembered_is_bounded_and_the_oldest_is_forgotten() -> None:
    unique, memory = Unique(EVENT.columns["kind"], "1d"), dict[int, Any]()
    many = [parcel(kind=str(i)) for i in range(REMEMBERED + 10)]
    unique.follow(memory, many, list(range(len(many))))
    assert len(memory) == REMEMBERED
    _, broken = unique.follow(memory, [many[0], many[-1]], [HOUR, HOUR])
    assert broken.tolist() == [False, True]


# --- on a frame -------------------------------------------------------------------------------------------------------


ps.expect(Parcel.parcel_id, unique="1h")
ps.expect(Parcel.pieces, rising=True)


@settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.generate])  # shrinking takes an hour: pandera is slow
@given(st.lists(RECORD, min_size=1, max_size=12))
def test_pandera_judges_a_frame_as_the_stream_judges_its_records(records: list[Parcel]) -> None:
    pytest.importorskip("pandera")
    import pandas as pd
    from pandera.errors import SchemaErrors

    frame = pd.DataFrame([{name: getattr(record, name) for name in EVENT.columns} for record in records])
    frame["value"] = frame["value"].astype(float)
    failed: dict[str, set[int]] = {}
    try:
        ps.expectations(Parcel).validate(frame, lazy=True)
    except SchemaErrors as errors:
        for check, at in zip(errors.failure_cases["check"], errors.failure_cases["index"], strict=True):
            failed.setdefault(check, set()).add(int(at))
    times = list(itertools.accumulate((to_micros(record.sent_at) for record in records), max))
    for expectation in EVENT.expectations:
        judged = expectation.follow({}, records, times) if isinstance(expectation, Remembering) else expectation.judge(records)
        name = "not_nullable" if expectation.said == "present" else None
        found = [at for check, at in failed.items() if check in (name, expectation.name, expectation.said)]
        assert set().union(*found) == set(judged[1].nonzero()[0].tolist()), (expectation.name, failed)


def test_the_schema_of_the_topic_says_what_is_refused() -> None:
    from penstock.log import Topic
    from penstock.schemas import contract_schema
    from penstock.topics import Contract

    @ps.event("letters")
    class Letter:
        letter_id: ps.Key[str]
        pages: int
        stamp: str | None
        weight: float | None
        sent_at: ps.EventTime

    ps.expect(Letter.pages, between=(1, None), among=[1, 2, 3], otherwise="dead_letter")
    ps.expect(Letter.stamp, present=True, matches="[A-Z]+|x", otherwise="dead_letter")
    ps.expect(Letter.weight, between=(None, 2.5), otherwise="dead_letter")
    ps.expect(Letter.sent_at, between=(NOON, None), otherwise="dead_letter")
    ps.expect(Letter.weight, between=(1.0, 2.0))
    event = event_of(Letter)
    schema = contract_schema(Contract(Topic("letters", 1), "letter_id", event, (), ()))["$defs"]["Letter"]
    found, decoder = jsonschema.Draft202012Validator(schema), EventDecoder(event)
    assert schema["properties"]["pages"] == {"type": "integer", "minimum": 1, "maximum": 2**63 - 1, "enum": [1, 2, 3]}
    assert schema["required"] == ["letter_id", "pages", "sent_at", "stamp"]
    good = {"letter_id": "l", "pages": 1, "stamp": "A", "weight": 1.0, "sent_at": NOON.isoformat()}
    for change in (
        {},
        {"pages": 4},
        {"pages": 0},
        {"stamp": None},
        {"stamp": "xA"},
        {"stamp": "x"},
        {"weight": 2.6},
        {"weight": None},
    ):
        said = {**good, **change}
        assert found.is_valid(said) == (refusal_of(decoder, msgspec.json.encode(said)) is None), change


# --- declaring --------------------------------------------------------------------------------------------------------


GOOD = """\
from datetime import UTC, datetime
import penstock as ps

@ps.event("taps")
class Tap:
    tap_id: ps.Id[str]
    card: ps.Key[str]
    amount: float
    note: str | None
    at: ps.EventTime

@ps.features(by=Tap.card)
class Card:
    taps = ps.count(Tap, over="1h")

{}

project = ps.Project("metro", rows={{Tap: [Card]}})
"""
WRONG = {
    "ps.expect(Tap.amuont, present=True)": "Tap has no column amuont; did you mean amount?",
    "ps.expect(Tap.amount)": "nothing is expected of Tap.amount; say what: ps.expect(column, between=(0, 1))",
    "ps.expect(Tap.note, between=(0, 1))": "Tap.note holds text, and between= is of numbers and times; use among= or matches=",
    "ps.expect(Tap.amount, between=(2, 1))": "between=(2, 1): nothing lies there; write the lesser bound first",
    "ps.expect(Tap.amount, between=5)": "between=5 of Tap.amount; write two numbers",
    "ps.expect(Tap.amount, between=(None, None))": "between=(None, None) of Tap.amount",
    "ps.expect(Tap.amount, between=(float('nan'), 1))": "between=(nan, 1) of Tap.amount",
    "ps.expect(Tap.at, between=(datetime(2026, 1, 1), None))": "has no time zone; write datetime(..., tzinfo=UTC)",
    "ps.expect(Tap.note, among='abc')": "among='abc' of Tap.note; list the str values that it may have",
    "ps.expect(Tap.note, among=[1])": "among=[1] of Tap.note",
    "ps.expect(Tap.note, matches='[')": "'[' is no regular expression",
    "ps.expect(Tap.amount, matches='1')": "Tap.amount holds number, and matches= is of text",
    "ps.expect(Tap.card, present=True)": "Tap.card is always present; declare it as str | None, or leave present= out",
    "ps.expect(Tap.note, unique='a day')": '"a day" is not a length of time',
    "ps.expect(Tap.note, rising=True)": "Tap.note holds text, and rising= is of numbers and times",
    "ps.expect(Tap.card, unique='1d', otherwise='dead_letter')": "depends on the records before, and cannot dead-letter",
    "ps.expect(Tap.amount, between=(0, 1), otherwise='drop')": 'otherwise=\'drop\'; write "dead_letter", "flag" or "alarm"',
    "ps.expect(Tap.amount, between=(0, 1), above=0.5)": "above=0.5 with otherwise='flag'; above is a share from 0 to 1",
    "ps.expect(Tap.note, present=True); ps.expect(Tap.note, present=True)": "Tap.note present is expected twice; leave one out",
    "@ps.expect\ndef rule(tap: Tap) -> bool:\n    return tap.amuont > 0": "rule rule: Tap has no amuont; did you mean amount?",
    "@ps.expect\ndef rule(tap) -> bool:\n    return True": "rule rule is given one record; give it one argument, an event",
    "@ps.expect\ndef rule(tap: Tpa) -> bool:\n    return True": "name 'Tpa' is not defined",
}


@pytest.mark.parametrize(("text", "said"), WRONG.items(), ids=list(WRONG.values()))
def test_a_mistake_is_told_with_its_line(text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("metro.py").write_text(GOOD.format(text))
    with pytest.raises(DefinitionError) as raised:
        load("metro.py")
    lines = str(raised.value).split("\n")
    assert any(line.startswith("metro.py, line 1") and said in line for line in lines), lines


def test_expectations_are_part_of_what_a_project_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prints = []
    rule = "@ps.expect\ndef rule(tap: Tap) -> bool:\n    return tap.amount > {}"
    for text in (
        "", "", "ps.expect(Tap.amount, between=(0, 1))", "ps.expect(Tap.amount, between=(0, 2))",
        "ps.expect(Tap.amount, between=(0, 2), otherwise='alarm')", rule.format(0), rule.format(1),
    ):  # fmt: skip
        Path("metro.py").write_text(GOOD.format(text))
        import linecache

        linecache.clearcache()
        prints.append(load("metro.py").fingerprint)
    assert prints[0] == prints[1] and len(set(prints)) == 6


def test_an_expectation_is_spelled_by_what_it_asks() -> None:
    assert [expectation.name for expectation in EVENT.expectations] == [
        "weight between 0.0 and 30.0", "pieces at least 1", "pieces among 1, 2, 3, 5", "pieces at most 9007199254740992.0",
        "kind among box, letter",
        "depot matching [A-Z]{3}|x.y", "value at most 10000.0", "value present", "sent_at at least 2026-05-01 12:00:00+00:00",
        "worth_insuring", "letters_are_light", "light_or_many", "parcel_id unique within 1h", "pieces rising",
    ]  # fmt: skip
    assert repr(EVENT.expectations[0]) == "Parcel.weight between 0.0 and 30.0"
    assert all(isinstance(expectation, Expectation) for expectation in EVENT.expectations)
