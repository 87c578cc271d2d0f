"""Like is compared with like: hours of the week, and what an input does by its own custom."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest

from penstock.duration import DAY, HOUR
from penstock.errors import PenstockError
from penstock.records import Moments, Summed
from penstock.services.monitoring.counting.bins import Binner
from penstock.services.monitoring.counting.moments import added_sums, moments_of
from penstock.services.trainer.reference import reference
from penstock.statistics.hours import SHARE, WEEK, Hours, customs_of, hour_of_week, hours_of, spreads_of
from penstock.statistics.reference import FEW_BINS, Numbers

RNG = np.random.default_rng
MONDAY = 4 * DAY
"""5 January 1970."""


def evenly(days: int, an_hour: int) -> np.ndarray:
    return MONDAY + np.arange(days * 24 * an_hour, dtype=np.int64) * (HOUR // an_hour)


def test_an_hour_of_the_week_has_rows_of_its_own_where_there_are_enough_days() -> None:
    times = evenly(28, 3)
    hours = hours_of(times, {"a": np.arange(len(times)) % 5}, {"a": 5})
    assert len(hours.rows) == WEEK
    assert set(hours.rows.tolist()) == {12}
    naive = [int((hour_of_week(times) == hour).sum()) for hour in range(WEEK)]
    assert [int(hours.rows[hours.group[hour]]) for hour in range(WEEK)] == naive


def test_a_thin_hour_is_compared_with_its_kind_of_day_then_with_its_hour_then_with_all() -> None:
    def parts(days: int) -> tuple[int, set[int]]:
        times = evenly(days, 3)
        found = hours_of(times, {"a": np.zeros(len(times), np.int64)}, {"a": 2})
        return len(found.rows), set(found.rows.tolist())

    assert parts(14) == (48, {10 * 3, 4 * 3}), "ten weekdays, four days of weekends"
    assert parts(7) == (48, {5 * 3, 7 * 3}), "five weekdays; two days of a weekend are thin, and fall back to all seven"
    assert parts(3) == (1, {3 * 24 * 3})


def test_a_reference_by_hours_travels_as_a_file_and_a_damaged_one_is_refused() -> None:
    times = evenly(28, 2)
    made = hours_of(times, {"a": np.arange(len(times)) % 3, "b": np.arange(len(times)) % 7}, {"a": 3, "b": 8})
    data = made.dumped()
    assert data == made.dumped()
    again = Hours.opened(data)
    assert (again.group == made.group).all()
    assert (again.rows == made.rows).all()
    assert all((again.counts[name] == made.counts[name]).all() for name in ("a", "b"))
    for bad in (b"", b"PK", data[:-40], data[:200]):
        with pytest.raises(PenstockError, match="the reference by hours is damaged"):
            Hours.opened(bad)


def test_what_is_expected_adds_up_to_the_same_bits_over_any_partitions_and_batches() -> None:
    rng, names = RNG(3), ("Ask.size", "Ask.tone")
    times = evenly(28, 6)
    values = rng.normal(size=(len(times), 2)).astype(np.float32)
    values[:, 1] += np.sin(hour_of_week(times) / 24 * 2 * np.pi).astype(np.float32)
    columns = {name: Numbers.of(values[:, i], FEW_BINS) for i, name in enumerate(names)}
    hours, customs = reference(values, times, columns, [DAY])
    edges = {name: column.edges for name, column in columns.items()}
    counts = {name: column.counts[: column.missing_cell + 1] for name, column in columns.items()}
    grid = {name: (column.centre, column.unit) for name, column in columns.items()}
    rows = [msgspec.Raw(json.dumps(dict(zip(names, row, strict=True))).encode()) for row in values[:2_000].tolist()]
    at = times[:2_000]

    def seen(pieces: list[np.ndarray]) -> tuple[object, object, dict[str, Moments | None]]:
        inputs: dict[str, np.ndarray] = {}
        expected: dict[str, np.ndarray] = {}
        sums: dict[str, Summed] = {}
        for piece in pieces:
            binner = Binner(edges, counts, hours, grid=grid, customs=customs)
            found, parts, summed, unread, _ = binner.count([rows[i] for i in piece], at[piece].tolist())
            assert unread == 0
            sums = added_sums(sums, summed)
            for total, share in ((inputs, found), (expected, binner.expected(parts)[0])):
                for name, column in share.items():
                    total[name] = total.get(name, 0) + np.array(column)
        moments = {name: moments_of(each) for name, each in sums.items()}
        return {n: c.tolist() for n, c in inputs.items()}, {n: c.tolist() for n, c in expected.items()}, moments

    whole = seen([np.arange(2_000)])
    for partitions in (4, 16):
        order = rng.permutation(2_000)
        assert seen([piece for piece in np.array_split(order, partitions * 3) if len(piece)]) == whole
    naive = sum(hours.counts["Ask.tone"][hours.group[h]] / hours.rows[hours.group[h]] for h in hour_of_week(at))
    assert np.array(whole[1]["Ask.tone"]) / SHARE == pytest.approx(naive, abs=0.01)  # type: ignore[index]
    for i, name in enumerate(names):
        told, column = whole[2][name], values[:2_000, i].astype(np.float64)
        assert told is not None
        assert (told.n, told.least, told.greatest) == (2_000, column.min(), column.max())
        assert told.mean == pytest.approx(column.mean(), abs=column.std() / 512)
        assert told.variance == pytest.approx(column.var(ddof=1), rel=0.01)


def test_a_season_of_the_week_is_no_custom_and_a_level_that_moves_by_day_is_one() -> None:
    rng, days = RNG(0), 56
    times = evenly(days, 20)
    n, hour, day = len(times), hour_of_week(times), (times - MONDAY) // DAY
    columns = {
        "plain": rng.normal(size=n),
        "season": rng.normal(size=n) + 2.0 * (hour >= 120) + np.cos(hour / 24 * 2 * np.pi),
        "moving": rng.normal(size=n) + rng.normal(size=days)[day] * 0.5,
    }
    bins = {name: Numbers.of(values, FEW_BINS) for name, values in columns.items()}
    places = {name: bins[name].cells(values) for name, values in columns.items()}
    found = spreads_of(times, places, {name: bins[name].missing_cell + 1 for name in columns}, DAY)
    assert found is not None
    assert found.get("plain", 0.0) < 0.02
    assert found.get("season", 0.0) < 0.02
    assert 0.12 < found["moving"] < 0.3, "half a standard deviation moves a distribution function by 0.19"


def test_each_length_has_a_custom_of_its_own_and_of_some_nothing_is_known() -> None:
    """What a day brings is over on the next: of ten days a third is left. Windows of two values, or four windows, say nothing."""
    rng, days = RNG(6), 120
    times = evenly(days, 2)
    values = rng.normal(size=len(times)) + np.repeat(rng.normal(size=days), 48)[: len(times)] * 0.5
    bins = Numbers.of(values, FEW_BINS)
    found = customs_of(times, {"x": bins.cells(values)}, {"x": bins.missing_cell + 1}, [HOUR, DAY, 10 * DAY, 40 * DAY])
    assert list(found) == [DAY, 10 * DAY]
    assert found[10 * DAY]["x"] < 0.6 * found[DAY]["x"]


def test_a_version_from_before_moments_and_scores_is_counted_as_it_was() -> None:
    rows = [msgspec.Raw(b'{"Ask.size":%d}' % size) for size in (1, 2, 3)]
    old = Binner({"Ask.size": [1.5]}, {"Ask.size": [10, 10, 0]}).count(rows, [MONDAY] * 3, [0.1, 0.2, 0.3])
    assert (old.counts, old.summed) == ({"Ask.size": [1, 2, 0]}, {})
    new = Binner({"Ask.size": [1.5]}, {"Ask.size": [10, 10, 0]}, grid={"score": [0.5, 0.01]}, scores=[0.25])
    found = new.count(rows, [MONDAY] * 3, [0.1, None, 0.3])
    assert found.counts == {"Ask.size": [1, 2, 0], "score": [1, 1, 1]}, "who was not asked is missing"
    assert (found.summed.keys(), found.summed["score"].n) == ({"score"}, 2)
