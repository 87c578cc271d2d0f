"""Served rows are verified against archived events: what is right is never doubted, what is wrong is always found, and every
difference between has the cause that it really has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.laws.served import (
    ASK,
    PROJECT,
    WIDE,
    Ask,
    Batch,
    Buyer,
    Every,
    Fading,
    Sale,
    Shop,
    Street,
    Strict,
    Visit,
    ask,
    drawn,
    minutes,
    published,
    sale,
    visit,
)

import penstock as ps
from penstock.errors import PenstockError
from penstock.event import event_of
from penstock.feature import view_of
from penstock.offline import Tables
from penstock.proof.archive import table_of
from penstock.proof.history import Past, Recorded
from penstock.proof.recompute import parts_of, value, values
from penstock.proof.verify import Judge, Report, Served
from penstock.proof.walk import Order, walk
from penstock.replay import replay

QUIET = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Street:
    """In order, in three partitions."""
    return published(tmp_path_factory.mktemp("street"), drawn(7, 400), partitions=3)


def causes(report: Report) -> dict[str, set[str]]:
    """By cause the values that have it, as `<row> <column>`."""
    found: dict[str, set[str]] = {}
    for difference in report.differences:
        found.setdefault(difference.cause, set()).add(f"{difference.id} {difference.column}")
    return found


def of(street: Street, *events: Recorded) -> Street:
    """With other archived events."""
    recorded = street.past.recorded | {each.event: each for each in events}
    return replace(street, past=Past(PROJECT.topology, recorded, street.past.partitions))


def changed(street: Street, event: type, change: Any) -> Recorded:
    """An archived table, in the order of positions, after `change(table)`."""
    kind = event_of(event)
    table = table_of(Tables(street.folder / "tables"), kind.topic)
    table = table.sort_by([("partition", "ascending"), ("offset", "ascending")])
    return Recorded(kind, change(table), street.past.partitions, street.past.recorded[kind].passed)


# -- what is right ---------------------------------------------------------------------------------------------------


def test_rows_of_events_in_order_have_no_difference(street: Street) -> None:
    report = street.verify()
    assert (report.rows, report.values, report.same) == (report.of, len(PROJECT.topology.columns(ASK)) * report.of, report.values)
    assert report.of > 100


@settings(max_examples=15, **QUIET)  # type: ignore[arg-type]
@given(
    seed=st.integers(0, 1 << 32),
    partitions=st.sampled_from([1, 3]),
    disorder=st.sampled_from([0.0, 0.2, 1.0]),
    late=st.sampled_from([0.0, 0.0, 0.1, 0.3]),
)
def test_events_that_come_late_explain_every_difference(
    seed: int, partitions: int, disorder: float, late: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = published(tmp_path_factory.mktemp("late"), drawn(seed, 150, disorder, late), partitions)
    report = found.verify()
    assert set(report.causes) <= ({"late"} if disorder or late else set()), report.differences[:3]


def test_rows_drawn_with_a_seed_are_the_same_each_time(street: Street) -> None:
    spoilt = spoil(street, "Shop.asks_1h", slice(None))
    first, again, other = (causes(spoilt.verify(sample=20, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert len(first["unexplained"]) == 20


# -- what is wrong ---------------------------------------------------------------------------------------------------


def spoil(street: Street, column: str, rows: Any, by: float = 1.0) -> Street:
    """With one column of some rows greater."""
    (served,) = street.served
    values = served.columns[column].copy()
    values[rows] = np.nan_to_num(values[rows]) + by
    return replace(street, served=[replace(served, columns={**served.columns, column: values})])


@pytest.mark.parametrize("column", ["Shop.asks_1h", "Shop.paid_1d", "Shop.newest", "Shop.share", "Buyer.visits_1h"])
def test_a_value_that_was_tampered_with_is_found(street: Street, column: str) -> None:
    name = street.served[0].ids[50]
    found = causes(spoil(street, column, 50).verify())
    assert found == {"unexplained": {f"{name} {column}"}}


@pytest.mark.parametrize("column", ["Shop.asks_1h", "Shop.newest"])
def test_a_late_event_is_no_excuse_for_a_value_that_no_order_gives(column: str, tmp_path: Path) -> None:
    street = published(tmp_path, drawn(3, 200, 0.5, 0.2))
    before = causes(street.verify())
    found = causes(spoil(street, column, 40, by=50.0).verify())
    name = street.served[0].ids[40]
    assert f"{name} {column}" in found["unexplained"]
    assert all(each.startswith(f"{name} ") for each in found["unexplained"])
    assert "unexplained" not in before


def test_an_event_that_was_tampered_with_is_found_by_every_row_that_it_is_in(street: Street) -> None:
    def dearer(table: pa.Table) -> pa.Table:
        paid = table["paid"].to_pylist()
        first = next(i for i, amount in enumerate(paid) if amount is not None)
        paid[first] += 7.0
        return table.set_column(table.column_names.index("paid"), "paid", pa.array(paid))

    found = causes(of(street, changed(street, Sale, dearer)).verify())
    assert set(found) == {"unexplained"}
    assert {each.split()[1] for each in found["unexplained"]} >= {"Shop.paid_1d"}


def test_an_event_that_is_missing_in_the_middle_is_found(street: Street) -> None:
    def without(table: pa.Table) -> pa.Table:
        return pa.concat_tables([table.slice(0, 20), table.slice(21)])

    found = causes(of(street, changed(street, Sale, without)).verify())
    assert len(found["unexplained"]) > 10


def test_a_row_whose_event_is_not_there_is_found(street: Street) -> None:
    (served,) = street.served
    sources = served.sources.copy()
    sources[10, 1] += 10_000
    report = replace(street, served=[replace(served, sources=sources)]).verify()
    assert set(report.causes) == {"unarchived"}
    ids = [*served.ids[:10], "stranger", *served.ids[11:]]
    report = replace(street, served=[replace(served, ids=ids)]).verify()
    assert {d.id for d in report.differences} == {"stranger"}
    assert "is not in the table" in report.differences[0].because


def test_a_column_that_is_gone_though_the_rows_say_that_they_have_it_is_found(street: Street) -> None:
    (served,) = street.served
    columns = {name: values for name, values in served.columns.items() if name != "Buyer.visits_1h"}
    report = replace(street, served=[replace(served, columns=columns)]).verify()
    assert set(report.causes) == {"unexplained"}
    assert {d.column for d in report.differences} == {"Buyer.visits_1h"}


def test_an_event_that_has_two_rows_is_found(street: Street) -> None:
    (served,) = street.served
    twice = np.append(np.arange(len(served)), 10)
    columns = {name: values[twice] for name, values in served.columns.items()}
    doubled = replace(
        served,
        ids=[served.ids[i] for i in twice],
        times=served.times[twice],
        sources=served.sources[twice],
        views=[served.views[i] for i in twice],
        cursors={hop: cursor[twice] for hop, cursor in served.cursors.items()},
        columns=columns,
    )
    report = replace(street, served=[doubled]).verify()
    assert set(report.causes) == {"unexplained"}
    assert {(d.id, d.because) for d in report.differences} == {(served.ids[10], "its event has a row already")}
    assert report.differing == 1


def test_rows_that_change_places_are_found(street: Street) -> None:
    (served,) = street.served
    one, other = (
        30,
        next(i for i in range(31, len(served)) if served.columns["Shop.paid_1d"][i] != served.columns["Shop.paid_1d"][30]),
    )
    order = np.arange(len(served))
    order[[one, other]] = other, one
    columns = {name: column[order] for name, column in served.columns.items()}
    found = causes(replace(street, served=[replace(served, columns=columns)]).verify())
    assert set(found) == {"unexplained"}
    assert {f"{served.ids[i]} Shop.paid_1d" for i in (one, other)} <= found["unexplained"]


def test_a_value_that_should_have_been_forgotten_is_found(tmp_path: Path) -> None:
    events = [sale("s0", 0, paid=5.0), ask("q0", 5), ask("q1", 200)]
    street = published(tmp_path, [Batch(events, before=None)], project=WIDE)
    (served,) = street.served
    values = served.columns["Fading.newest"].copy()
    assert np.isnan(values[1])
    values[1] = 5.0
    found = causes(replace(street, served=[replace(served, columns={**served.columns, "Fading.newest": values})]).verify())
    assert found == {"unexplained": {"q1 Fading.newest"}}


def test_an_event_that_changed_a_view_although_it_came_too_late_is_found(tmp_path: Path) -> None:
    events = [sale("s0", 0), sale("s1", 60), sale("s2", 20, paid=8.0), sale("s3", 40, paid=4.0), ask("q0", 61)]
    street = published(tmp_path, [Batch(events, before=None)], project=WIDE)
    found = causes(spoil(street, "Strict.paid_1d", 0, by=8.0).verify())
    assert found == {"unexplained": {"q0 Strict.paid_1d"}}


# -- causes ----------------------------------------------------------------------------------------------------------


def test_rows_of_another_definition_are_told_from_faults(street: Street) -> None:
    spoilt = spoil(street, "Shop.asks_1h", slice(0, 30))
    (served,) = spoilt.served
    older = [{**views, "Shop": "0" * 12} for views in served.views[:20]]
    found = causes(replace(spoilt, served=[replace(served, views=[*older, *served.views[20:]])]).verify())
    assert found["version"] == {f"{name} Shop.asks_1h" for name in served.ids[:20]}
    assert found["unexplained"] == {f"{name} Shop.asks_1h" for name in served.ids[20:30]}


def test_a_column_that_rows_of_before_do_not_have_is_another_definition(street: Street) -> None:
    (served,) = street.served
    columns = {name: values for name, values in served.columns.items() if name != "Buyer.visits_1h"}
    report = replace(street, served=[replace(served, columns=columns, views=[{}] * len(served))]).verify()
    assert set(report.causes) == {"version"}
    assert {d.column for d in report.differences} == {"Buyer.visits_1h"}


def test_rows_made_by_the_feature_store_say_which_definitions_made_them(street: Street) -> None:
    (served,) = street.served
    assert served.views[0] == {"Shop": view_of(Shop).fingerprint, "Buyer": view_of(Buyer).fingerprint}


@pytest.mark.parametrize("partitions", [1, 3])
def test_an_event_that_comes_after_the_row_is_named(partitions: int, tmp_path: Path) -> None:
    first = Batch([sale("s0", 1, paid=5.0), ask("q0", 20), ask("q1", 59)], before=60)
    second = Batch([sale("s1", 10, paid=7.0), ask("q2", 70)], before=None)
    report = published(tmp_path, [first, second], partitions).verify()
    found = {d.column: d for d in report.differences if d.id == "q0" and d.column.startswith("Shop.")}
    assert set(report.causes) == {"late"}
    assert set(found) == {f"Shop.{name}" for name in ("paid_1h", "paid_1d", "most_6h", "newest", "idle", "share", "dear")}
    mean = found["Shop.paid_1h"]
    assert (mean.served, mean.recomputed) == (5.0, 6.0)
    assert [(e["topic"], e["id"], minutes(dict(e))) for e in mean.events] == [("sales", "s1", 10)]
    assert {d.id for d in report.differences} == {"q0", "q1"}, "the row of q2 was made after it came"


def test_an_event_of_a_source_that_was_passed_is_named_although_its_own_source_is_in_order(tmp_path: Path) -> None:
    first = Batch([ask("q0", 20), ask("q1", 40)], before=60)
    second = Batch([visit(10, length=3.0), visit(65, length=9.0), ask("q2", 70)], before=80)
    report = published(tmp_path, [first, second]).verify()
    assert {(d.id, d.column) for d in report.differences} == {
        (name, column) for name in ("q0", "q1") for column in ("Shop.length_1h", "Buyer.visits_1h")
    }
    assert {d.cause for d in report.differences} == {"late"}


def test_a_row_that_was_late_itself_has_what_was_there_before_it(tmp_path: Path) -> None:
    first = Batch([sale("s0", 1, paid=5.0), sale("s1", 50, paid=7.0), ask("q0", 55)], before=60)
    report = published(tmp_path, [first, Batch([ask("q1", 20)], before=None)]).verify()
    found = {d.column: d for d in report.differences if d.id == "q1"}
    assert (found["Shop.paid_1h"].served, found["Shop.paid_1h"].recomputed) == (6.0, 5.0)
    assert "late itself" in found["Shop.paid_1h"].because
    assert {d.cause for d in report.differences} == {"late"}


def test_rows_that_are_ahead_of_the_archived_events_wait_for_them(tmp_path: Path) -> None:
    street = published(tmp_path, [Batch([sale(f"s{i}", i, paid=1.0) for i in range(20)] + [ask("q0", 30)], before=None)])
    report = of(street, changed(street, Sale, lambda table: table.slice(0, 15))).verify()
    assert set(report.causes) == {"unarchived"}
    assert "5 events that its cursor counts" in report.differences[0].because


def test_values_that_a_view_forgot_are_expired(tmp_path: Path) -> None:
    events = [sale("s0", 0, paid=5.0), ask("q0", 5), ask("q1", 200)]
    report = published(tmp_path, [Batch(events, before=None)], project=WIDE).verify()
    assert causes(report) == {"expiry": {"q1 Fading.newest"}}, "windows were empty by then anyway"
    forgotten = next(d for d in report.differences if d.column == "Fading.newest")
    assert (forgotten.served, forgotten.recomputed) == (None, 5.0)


def test_events_beyond_the_lateness_of_a_view_are_named(tmp_path: Path) -> None:
    events = [sale("s0", 0), sale("s1", 60), sale("s2", 20, paid=8.0), sale("s3", 40, paid=4.0), ask("q0", 61)]
    found = {d.column: d for d in published(tmp_path, [Batch(events, before=None)], project=WIDE).verify().differences}
    assert set(found) == {"Strict.paid_1d"}
    assert (found["Strict.paid_1d"].cause, found["Strict.paid_1d"].served) == ("late", 6.0)
    assert [event["id"] for event in found["Strict.paid_1d"].events] == ["s2"]


@pytest.mark.parametrize(("disorder", "late"), [(0.0, 0.0), (0.5, 0.0), (0.2, 0.1)])
@pytest.mark.parametrize("seed", range(2))
def test_every_aggregate_is_verified(seed: int, disorder: float, late: float, tmp_path: Path) -> None:
    street = published(tmp_path, drawn(seed, 150, disorder, late), 2, WIDE)
    report = street.verify()
    assert set(report.causes) <= ({"expiry", "late"} if disorder else {"expiry"}), report.differences[:3]
    assert report.views == ["Every", "Fading", "Strict"]
    for column in ("Every.usual[1]", "Every.by_buyer[other]", "Every.spread", "Every.sold", "Every.mine"):
        found = causes(spoil(street, column, 30).verify())
        assert f"{street.served[0].ids[30]} {column}" in found["unexplained"]


def test_an_estimate_is_told_from_a_fault(tmp_path: Path) -> None:
    events = [ask(f"q{i}", i / 10, price=float(i % 700)) for i in range(900)]
    street = published(tmp_path, [Batch(events, before=None)], project=WIDE)
    report = street.verify(sample=30)
    assert set(report.causes) == {"estimate"}
    assert {d.column for d in report.differences} <= {"Every.prices", "Every.middle", "Every.high"}
    far = {name: values[880:].copy() for name, values in street.served[0].columns.items()}
    far["Every.prices"][10] *= 1.5
    found = causes(replace(street, served=[part(street.served[0], slice(880, None), far)]).verify())
    assert f"{street.served[0].ids[890]} Every.prices" in found["unexplained"]


def part(served: Served, rows: slice, columns: dict[str, Any]) -> Served:
    """Some of the rows, with these columns."""
    cursors = {hop: cursor[rows] for hop, cursor in served.cursors.items()}
    ids, times, sources, views = served.ids[rows], served.times[rows], served.sources[rows], served.views[rows]
    return replace(served, ids=ids, times=times, sources=sources, views=views, cursors=cursors, columns=columns)


@pytest.mark.parametrize("partitions", [1, 8])
def test_another_number_of_partitions_than_that_of_the_events_is_refused(partitions: int, street: Street) -> None:
    tables = {event: table_of(Tables(street.folder / "tables"), event.topic) for event in PROJECT.events}
    recorded = {event: Recorded(event, table, partitions) for event, table in tables.items()}
    with pytest.raises(PenstockError, match="published to 3 partitions") as caught:
        Past(PROJECT.topology, recorded, partitions)
    assert "PENSTOCK_PARTITIONS=3" in caught.value.fix


def test_what_the_feature_store_refused_is_left_out(tmp_path: Path) -> None:
    events = [sale("s0", 1, paid=5.0), sale("s0", 2, paid=9.0), ask("q0", 20)]
    street = published(tmp_path, [Batch(events, before=None)])
    assert len(street.past.recorded[event_of(Sale)]) == 1
    assert street.verify().causes.total() == 0


def test_an_event_of_a_clock_that_goes_wrong_is_left_out_though_its_table_has_it(tmp_path: Path) -> None:
    events = [
        sale("s0", 1, paid=5.0),
        sale("s1", 60 * 24 * 36_500, paid=7.0),
        ask("q0", 20),
        sale("s2", 30, paid=1.0),
        ask("q1", 40),
    ]
    street = published(tmp_path, [Batch(events, before=None)])
    tables = Tables(tmp_path / "tables")
    assert len(tables.table("sales").arrow()) == 3, "every record that decodes"
    assert street.past.recorded[event_of(Sale)].ids == ["s0", "s2"]
    assert street.verify().causes.total() == 0


@pytest.mark.parametrize("project", [PROJECT, WIDE])
def test_sums_that_no_float64_can_hold_are_missing_until_they_can_and_nothing_else_is(
    project: ps.Project, tmp_path: Path
) -> None:
    great = [sale("s0", 1, paid=1.7e308), sale("s1", 3, paid=1.7e308), ask("q0", 4), sale("s2", 5, paid=-1.7e308), ask("q1", 6)]
    street = published(tmp_path, [Batch([*great, sale("s3", 90, paid=5.0), ask("q2", 60 * 31)], before=None)], 1, project)
    assert set(street.verify().causes) <= {"expiry"}
    if project is PROJECT:
        columns = street.served[0].columns
        np.testing.assert_equal(columns["Shop.paid_1d"], [np.nan, np.nan, 0.0])
        np.testing.assert_equal(columns["Shop.most_6h"], [1.7e308, 1.7e308, np.nan])
        np.testing.assert_equal(columns["Shop.newest"], [1.7e308, -1.7e308, 5.0])


# -- the naive twin has one too --------------------------------------------------------------------------------------


@settings(max_examples=12, **QUIET)  # type: ignore[arg-type]
@given(seed=st.integers(0, 1 << 32), disorder=st.sampled_from([0.0, 0.5]), late=st.sampled_from([0.0, 0.3]))
def test_a_walk_finds_what_replay_means_in_either_order(
    seed: int, disorder: float, late: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    street = published(tmp_path_factory.mktemp("walk"), drawn(seed, 120, disorder, late), 2, WIDE)
    past = street.past
    here = past.starts[ASK] + np.arange(len(past.recorded[ASK]))
    orders: list[Order] = ["time", "position"]
    for view in (view_of(cls) for cls in (Every, Fading, Strict)):
        history, told = past.history(view.key), np.zeros((len(here), len(view.columns)))
        for order in orders:
            found = walk(past, history, view, order, here, told).values
            for event, line in zip(here.tolist(), found.tolist(), strict=True):
                moment, entity = int(past.times[event]), int(history.entities[event])
                if order == "position":
                    slow = values(past, view, history.preceding(event), moment, past.typed(event))
                else:
                    before = history.until(entity, int(past.by_time[event]))
                    slow = {name: value(past, part, before, moment) for name, part in parts_of(view).items()}
                quick = dict(zip(view.columns, line, strict=True))
                np.testing.assert_allclose([quick[name] for name in slow], list(slow.values()), rtol=1e-9, atol=1e-6)


def test_what_was_before_a_row_gives_the_row_that_replay_gives(street: Street) -> None:
    view, past = view_of(Buyer), street.past
    history = past.history(view.key)
    for entity in range(len(history.names)):
        own = history.of(entity).tolist()
        rows = replay(Buyer, [past.typed(event) for event in own])
        for event, row in zip(own, rows, strict=True):
            if isinstance(past.typed(event), Ask):
                found = values(past, view, history.preceding(event), int(past.times[event]), past.typed(event))
                np.testing.assert_equal(found, {f"Buyer.{name}": number for name, number in row.__dict__.items()})


def test_cursors_count_what_the_order_of_positions_gives(street: Street) -> None:
    past, (served,) = street.past, street.served
    asked = Judge(PROJECT.topology, past, street.served).events[ASK]
    for key, cursor in served.cursors.items():
        history = past.history(key)
        for (number, before), event in zip(cursor.tolist(), asked.tolist(), strict=True):
            if history.entities[event] >= 0:
                here = (history.partitions == number) & (past.by_position < past.by_position[event])
                assert before == np.count_nonzero(here)


def test_every_kind_of_event_is_typed_as_it_was_declared(street: Street) -> None:
    kinds = {type(street.past.typed(event)) for event in range(len(street.past))}
    assert kinds == {Ask, Sale, Visit}
