"""Training sets say what was known then: the rows that were served, the labels that monitoring had, and nothing later.

Three weeks of real flights and a shop with late payments, late and corrected labels go through the embedded machine into the
offline tables; what `ps.training_set` reads there is compared with what the services published.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.services.chargebacks import (
    SOURCES,
    START,
    Machine,
    Payment,
    chargeback,
    fraud,
    judging,
    payment,
    report,
    shop,
    shopping,
)  # fmt: skip

import penstock as ps
from penstock.event import from_micros, to_micros
from penstock.examples import flights
from penstock.examples.flights.data import events
from penstock.frames.truth import Asked, Said, capped, truths
from penstock.label import Label, Sources
from penstock.log import Batch, Partition
from penstock.services.embedded import slices
from penstock.services.monitoring.answers.ledger import Answer, Ledger, Settled
from penstock.services.trainer.examples import Examples

DAY = 86_400_000_000


def agrees(found: pd.DataFrame, outcomes: pd.DataFrame) -> None:
    """The labels are those of monitoring."""
    known = found[found["label"].notna()].set_index("id")
    assert set(known.index) == set(outcomes.index)
    theirs = outcomes.loc[known.index]
    assert (known["label"].astype(bool) == theirs["label"].astype(bool)).all()
    assert (known["answered"] == theirs["answered"].astype(bool)).all()
    assert (known["labelled"] == theirs["labelled"]).all()


# --- flights -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flown(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    machine = Machine(flights.project, tmp_path_factory.mktemp("flown"))

    async def run() -> None:
        await machine.embedded.start()
        for part, before in slices(list(events(21)), 7 * DAY):
            await machine.embedded.publish(part, before)
            await machine.embedded.settle()
        await machine.embedded.close()

    asyncio.run(run())
    return machine


def test_every_flight_that_was_to_be_scored_has_one_row_in_order(flown: Machine) -> None:
    found = ps.training_set(flights.late, flown.tables)
    scheduled = flown.tables.table("scheduled").arrow().to_pandas().sort_values(["scheduled_at", "flight_id"])
    assert found["id"].tolist() == scheduled["flight_id"].tolist() and len(found) > 15_000
    assert list(found.columns) == ["id", "key", "time", *flights.late.inputs, "label", "labelled", "answered", "late"]
    assert not found["late"].any()
    assert found["Scheduled.distance"].tolist() == scheduled["distance"].tolist()


def test_without_anything_late_the_rows_served_are_the_rows_computed_anew_bit_by_bit(flown: Machine) -> None:
    served = ps.training_set(flights.late, flown.tables, project=flights.project)
    again = ps.training_set(flights.late, flown.tables, project=flights.project, as_known_now=True)
    inputs = list(flights.late.inputs)
    assert served[inputs].to_numpy().tobytes() == again[inputs].to_numpy().tobytes()
    pd.testing.assert_frame_equal(served, again, check_exact=True)


def test_inputs_and_labels_are_those_that_the_services_published(flown: Machine) -> None:
    found = ps.training_set(flights.late, flown.tables)
    agrees(found, flown.outcomes("late"))
    predictions = flown.tables.table("flights.predictions.late").arrow().to_pandas().set_index("id").loc[found["id"]]
    inputs = list(flights.late.inputs)
    np.testing.assert_array_equal(found[inputs].to_numpy(), predictions[inputs].to_numpy(float))


def test_what_was_not_known_before_a_moment_is_not_in_the_set_of_that_moment(flown: Machine) -> None:
    before = datetime(2013, 1, 10, 12, tzinfo=UTC)
    whole = ps.training_set(flights.late, flown.tables)
    found = ps.training_set(flights.late, flown.tables, known_before=before)
    assert len(found) == (whole["time"] < before).sum() and (found["labelled"].dropna() < before).all()
    known = whole[: len(found)]["labelled"] < before
    assert (found["label"].notna() == known).all() and 0 < (~known).sum() < 500
    part = ps.training_set(flights.late, flown.tables, start="2013-01-05T00:00Z", end="2013-01-06T00:00Z")
    pd.testing.assert_frame_equal(part, whole[whole["id"].isin(part["id"])].reset_index(drop=True))
    assert part["time"].min() >= datetime(2013, 1, 5, tzinfo=UTC) and part["time"].max() < datetime(2013, 1, 6, tzinfo=UTC)


def test_a_set_of_a_moment_is_what_could_have_been_made_at_that_moment(tmp_path: Path) -> None:
    rng = random.Random(5)
    lines = [payment(i, i / 2 + rng.random() / 2, card=f"c{i % 3}") for i in range(60)]
    lines += [chargeback(i, i / 2 + rng.choice([1, 3, 5, 8]), rng.random() < 0.5) for i in range(60) if i % 3]
    lines.sort(key=lambda said: said.get("paid_at") or said["reported_at"])
    cut = 60
    moment = max(said.get("paid_at") or said["reported_at"] for said in lines[:cut]) + timedelta(microseconds=1)
    machine = Machine(shop, tmp_path)
    made = list[pd.DataFrame]()

    async def run() -> None:
        await machine.embedded.start()
        await machine.publish(lines[:cut], to_micros(moment))
        made.append(ps.training_set(fraud, machine.tables))
        await machine.publish(lines[cut:])

    asyncio.run(run())
    known = ps.training_set(fraud, machine.tables, known_before=moment)
    pd.testing.assert_frame_equal(known, made[0], check_exact=True)
    whole = ps.training_set(fraud, machine.tables)
    assert made[0]["label"].isna().any() and (whole["label"][: len(known)].notna()).sum() > known["label"].notna().sum()


# --- late, corrected, silent ---------------------------------------------------------------------------------------------


def test_what_came_late_is_not_in_the_rows_served_and_is_in_those_as_known_now(tmp_path: Path) -> None:
    late = payment(2, 0.5, 10.0)
    machine = shopping(tmp_path, [payment(0, 0, 1.0), payment(1, 1, 2.0), late, payment(3, 2, 4.0)])
    served, now = ps.training_set(fraud, machine.tables), ps.training_set(fraud, machine.tables, as_known_now=True)
    assert served["id"].tolist() == now["id"].tolist() == ["p000", "p002", "p001", "p003"]  # by time
    assert served["Card.spend_24h"].tolist() == [0.0, 3.0, 1.0, 13.0]  # p002 was scored after p001, which did not know of it
    assert now["Card.spend_24h"].tolist() == [0.0, 1.0, 11.0, 13.0]
    assert now["Card.surge"].tolist() == [1.0, 5.0, 2.0 / 3.0, 4.0 / 2.0]


def test_rows_that_came_late_are_said_to_be_and_can_be_left_out(tmp_path: Path) -> None:
    late, other = payment(2, 0.5, 10.0), payment(4, 0.2, 1.0, card="another")
    machine = shopping(tmp_path, [payment(0, 0, 1.0), payment(1, 1, 2.0), late, other, payment(3, 2, 4.0)])
    found = ps.training_set(fraud, machine.tables)
    assert found["id"].tolist() == ["p000", "p004", "p002", "p001", "p003"]
    assert found["late"].tolist() == [False, False, True, False, False], "nothing newer of the other card was known"
    left = ps.training_set(fraud, machine.tables, late=False)
    pd.testing.assert_frame_equal(left, found[~found["late"]].reset_index(drop=True))
    anew = ps.training_set(fraud, machine.tables, as_known_now=True)
    assert not anew["late"].any(), "every value is as of its own time"
    rows = machine.tables.table("shop.rows.payments").arrow().to_pandas().set_index("id")
    assert rows["as_of"].dropna().to_dict() == {"p002": START + timedelta(hours=1)}


def test_what_the_stream_refused_is_in_no_training_set(tmp_path: Path) -> None:
    again, ahead = payment(1, 3, 99.0), payment(7, 24 * 365 * 300, 99.0)
    machine = shopping(tmp_path, [payment(0, 0, 1.0), payment(1, 1, 2.0), again, payment(2, 4, 4.0), ahead, payment(3, 5, 8.0)])
    for as_known_now in (False, True):
        found = ps.training_set(fraud, machine.tables, as_known_now=as_known_now)
        assert found["id"].tolist() == ["p000", "p001", "p002", "p003"]
        assert found["Card.spend_24h"].tolist() == [0.0, 1.0, 3.0, 7.0]
        assert found["label"].isna().all()  # the clock of the one ahead ends no horizon


def test_labels_are_corrected_repeated_blank_early_late_or_never_as_monitoring_has_it(tmp_path: Path) -> None:
    lines = [payment(i, i) for i in range(8)] + [payment(9, 40)]
    lines += [
        chargeback(0, 2), chargeback(0, 3, False),  # corrected
        chargeback(1, 2), chargeback(1, 4),  # said twice
        chargeback(2, 3, None),  # says nothing
        chargeback(3, 2.5),  # before its payment
        chargeback(4, 30),  # too late
        chargeback(5, 11),  # on the dot
        chargeback(6, 7, False),
    ]  # fmt: skip
    lines.sort(key=lambda said: said.get("paid_at") or said["reported_at"])
    machine = shopping(tmp_path, lines, to_micros(START + timedelta(hours=40)) + 1)
    found = ps.training_set(fraud, machine.tables).set_index("id")
    assert found["label"].tolist() == [False, True, False, True, False, True, False, False, pd.NA]
    assert found["answered"].tolist() == [True, True, False, True, False, True, True, False, False]
    assert found.loc["p001", "labelled"] == START + timedelta(hours=2)
    agrees(ps.training_set(fraud, machine.tables), machine.outcomes("fraud"))
    early = ps.training_set(fraud, machine.tables, known_before=START + timedelta(hours=7.5)).set_index("id")
    assert early["label"].tolist() == [False, True, *[pd.NA] * 6], "labels wait for the horizon, as silence does"
    assert not early["answered"][early["label"].isna()].any()


def test_silence_is_believed_only_as_far_as_the_tables_go(tmp_path: Path) -> None:
    machine = shopping(tmp_path, [payment(0, 0), payment(1, 6), payment(2, 6.5)])
    found = ps.training_set(fraud, machine.tables, known_before=START + timedelta(days=9))
    assert found["label"].tolist() == [False, pd.NA, pd.NA]  # and without any label there is no table of them


def test_of_several_sources_the_trusted_one_is_right_and_what_exceeds_a_cap_has_no_label(tmp_path: Path) -> None:
    who = ["bank", "bank", "bank", "shop", "shop", "web", "bank", "shop", None]
    lines = (
        [payment(i, i) for i in range(11)] + [payment(11, 15.5)] + [report(i, i + 1, True, name) for i, name in enumerate(who)]
    )
    lines += [report(0, 3, False, "shop"), report(3, 2, False, "web"), report(7, 9, False, "bank")]
    lines.sort(key=lambda said: said.get("paid_at") or said["reported_at"])
    project = judging()
    machine = shopping(tmp_path, lines, project=project)
    found = ps.training_set(project.model("judged"), machine.tables)
    labels = found["label"].astype(object).where(found["label"].notna(), None)
    assert labels.tolist() == [True, True, True, True, None, None, True, False, True, False, None, None]
    said = ["bank", "bank", "bank", "shop", "shop", "others", "bank", "bank", "others", "", "", ""]
    assert found["source"].tolist() == said, "a source without a label: beyond its cap"
    assert found["answered"].tolist() == [True] * 9 + [False] * 3
    part = ps.training_set(project.model("judged"), machine.tables, start=START + timedelta(hours=4))
    pd.testing.assert_frame_equal(part, found[4:].reset_index(drop=True))  # the first of the shop there, and still beyond its cap


WITHIN = 5
"""Microseconds."""
names, hours = st.integers(0, 7), st.integers(10, 35)


class Known(NamedTuple):
    """What is known of one event."""

    label: bool
    labelled: int
    answered: bool
    rank: int


def outcome(settled: Settled) -> bytes:
    answer, source = settled.answer, SOURCES.name(settled.rank)
    return msgspec.json.encode(
        {
            "id": answer.id, "time": answer.time, "labelled": from_micros(settled.labelled), "label": settled.label,
            "inputs": answer.inputs, "scores": {}, "version": "v", "corrects": settled.corrects, "source": source,
        }
    )  # fmt: skip


Labels = list[tuple[int, int, bool, int, int]]
"""When each came, about whom, what it says, the rank of its source, and how much earlier its own time is."""
behind = [0, 0, 0, 1, 4]


@given(
    answers=st.dictionaries(names, st.tuples(hours, st.integers(0, WITHIN)), min_size=1),
    labels=st.lists(st.tuples(hours, names, st.booleans(), st.integers(1, 3), st.sampled_from(behind)), max_size=24),
    befores=st.lists(st.integers(10, 45), min_size=1, max_size=4),
    otherwise=st.none() | st.booleans(),
    sources=st.none() | st.just(SOURCES),
)
@settings(max_examples=400, deadline=None)
def test_truths_are_those_of_the_ledger_and_what_the_trainer_learns(
    answers: dict[int, tuple[int, int]], labels: Labels, befores: list[int], otherwise: bool | None, sources: Sources | None
) -> None:
    agree(answers, labels, befores, otherwise, sources)


@pytest.mark.parametrize("seed", range(20))
def test_of_a_flood_the_labels_that_count_are_those_that_the_trainer_takes(seed: int) -> None:
    rng = random.Random(seed)
    answers = {name: (rng.randrange(10, 35), rng.choice([0, 0, 0, 2, WITHIN])) for name in range(60)}
    about = [rng.randrange(60) for _ in range(120)]
    labels = [
        (answers[name][0] + rng.randint(-2, WITHIN), name, rng.random() < 0.5, rng.choice([1, 1, 2, 2, 2, 3]), rng.choice(behind))
        for name in about
    ]
    agree(answers, labels, [15, 20, 27, 36, 60], rng.choice([None, False]), SOURCES)


def agree(
    answers: dict[int, tuple[int, int]], labels: Labels, befores: list[int], otherwise: bool | None, sources: Sources | None
) -> None:
    """Labels of several sources, before their event, too late, out of order, contradicting and never, at several moments."""
    label = Label(SOURCES.column, WITHIN, otherwise, sources)
    said = sorted((came, 1, name, yes, rank if sources else 0, came - behind) for came, name, yes, rank, behind in labels)
    stream = sorted([*said, *((time + late, 0, name, False, 0, time) for name, (time, late) in answers.items())])
    ledger = Ledger("m", WITHIN, otherwise, label.waits)
    examples = Examples(["x"], WITHIN if label.waits else None, sources.limits if sources else {})
    published, told = list[Settled](), 0
    came, _, who, yes, ranks, times = (np.array(c) for c in zip(*said, strict=True)) if said else [np.empty(0, np.int64)] * 6
    for before in sorted(befores):
        while told < len(stream) and stream[told][0] < before:
            now, kind, name, value, rank, time = stream[told]
            ledger.expire(now)
            if kind:
                ledger.label(now, time, f"{name:03}", value, rank)
            else:
                ledger.answer(now, time, Answer(f"{name:03}", "", from_micros(time), msgspec.Raw(b'{"x":1}'), 0.5, {}, "v", "s"))
            told += 1
        ledger.expire(before)
        new = ledger.settled[len(published) :]
        offsets = range(len(published), len(ledger.settled))
        assert not examples.add(Batch(Partition("outcomes", 0), offsets, [b""] * len(new), [outcome(each) for each in new]))
        published += new
        if label.waits:
            meant = [published[offset] for offset in examples.window(before, 0).offset.tolist()]
        else:
            meant = published  # the last of an id is kept
        known = {int(s.answer.id): Known(s.label, s.labelled, s.answered, s.rank) for s in meant}

        there = sorted((name, time, time + late) for name, (time, late) in answers.items() if time + late < before)
        asked = Asked(*np.array(there, np.int64).reshape(-1, 3).T)
        found = truths(asked, Said(who, times, came, yes.astype(bool), ranks), WITHIN, otherwise, before, label.waits)
        found = capped(found, asked, WITHIN, sources) if sources else found
        rows = zip(asked.whose.tolist(), *(column.tolist() for column in found), strict=True)
        got = {name: Known(bool(value), *rest) for name, value, *rest in rows if value >= 0}
        assert got == known
        left = found.ranks[(found.labels < 0) & found.answered].tolist()
        assert Counter(map(SOURCES.name, left)) == examples.left_out(before)


# --- what is refused -----------------------------------------------------------------------------------------------------


def test_what_cannot_be_read_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(ps.PenstockError, match="has no table with rows of Payment"):
        ps.training_set(fraud, tmp_path)
    machine = shopping(tmp_path / "shop", [payment(0, 0)])
    with pytest.raises(ps.PenstockError, match="start is '2026-03-01', not a moment with a time zone"):
        ps.training_set(fraud, machine.tables, start="2026-03-01")
    with pytest.raises(ps.PenstockError, match=r"there is no table elsewhere\.rows\.payments"):
        ps.training_set(fraud, machine.tables, project=ps.Project("elsewhere", [fraud]))

    @ps.model(scores=Payment, features=[Later], label=fraud.label)
    def newer() -> ps.Learner:
        raise NotImplementedError

    with pytest.raises(ps.PenstockError, match=r"no row in shop\.rows\.payments has Later\.count_2h") as error:
        ps.training_set(newer, machine.tables)
    assert "as-known-now" in error.value.fix
    assert ps.training_set(newer, machine.tables, as_known_now=True)["Later.count_2h"].tolist() == [0.0]


@ps.features(by=Payment.card)
class Later:
    count_2h = ps.count(Payment, over="2h")
