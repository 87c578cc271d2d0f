"""Rows of real flights mean what they say: the stream, `ps.replay` and a recomputation from the archive agree.

Six weeks of flights go through the feature store in memory and into the offline tables. Rows drawn from the archive are
then computed again from the archived events in two other ways:

    as of     pandas and numpy: sort once, cut each window out by binary search, join last values as of (10,000 rows)
    replay    `ps.replay`, the written-down meaning, over what single entities did (some hundred rows)

Beside the views of the example, one by carrier has the aggregates that the example does without (sum, min, max, 30 days).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from deltalake import DeltaTable

import penstock as ps
from penstock.aggregate import Feature, hop_of
from penstock.event import Column, Event, event_of
from penstock.examples import flights
from penstock.examples.flights import Arrived, Scheduled
from penstock.examples.flights.data import events
from penstock.feature import View, view_of
from penstock.services.embedded import Embedded, slices

DAYS, DRAWN, SEED = 42, 10_000, 2013
DAY = 86_400_000_000
EXACT = ("count", "last", "min", "max", "since_last")
REPLAYED, LONGEST_HISTORY = 100, 800
"""Rows replayed of each view, at least; replay takes the square of an entity's events, so the busiest are passed by."""

Floats = npt.NDArray[np.float64]


@ps.features(by=[Scheduled.carrier, Arrived.carrier])
class Extremes:
    planned_30d = ps.count(Scheduled, over="30d")
    worst_24h = ps.max(Arrived.delay, over="24h")
    best_6h = ps.min(Arrived.delay, over="6h")
    total_30d = ps.sum(Arrived.delay, over="30d")
    miles_13d = ps.sum(Scheduled.distance, over="13d")
    usual_2h = ps.mean(Arrived.delay, over="2h")


VIEWS = (flights.Origin, flights.Carrier, Extremes, flights.Destination, flights.Aircraft, flights.Path)
SCHEDULED = event_of(Scheduled)
project = ps.Project("asof", rows={Scheduled: list(VIEWS)})


class Archive(NamedTuple):
    """What the offline tables hold. `place` is an event's place among all: by time, then kind, then id."""

    events: dict[Event, pd.DataFrame]
    times: npt.NDArray[np.int64]
    """Microseconds, by place."""
    rows: pd.DataFrame
    """Every row beside the event that asked for it."""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    folder = tmp_path_factory.mktemp("archive")
    asyncio.run(_run(folder))
    tables = {event: _table(folder, event.topic) for event in project.events}
    for event, table in tables.items():
        table["micros"] = table[event.time.name].dt.tz_localize(None).to_numpy("datetime64[us]").astype(np.int64)
        table["rank"] = project.topology.rank[event]
        table["name"] = table[(event.id or event.key).name]
    order = pd.concat([table[["micros", "rank", "name"]] for table in tables.values()], keys=range(len(tables)))
    order = order.sort_values(["micros", "rank", "name"], kind="stable")
    order["place"] = np.arange(len(order))
    for number, (event, table) in enumerate(list(tables.items())):
        tables[event] = table.join(order["place"].xs(number)).sort_values("place", ignore_index=True)
    rows = _table(folder, f"{project.name}.rows.scheduled").drop(columns=["partition", "offset"])
    rows = rows.merge(tables[SCHEDULED], left_on="id", right_on="flight_id", validate="1:1").sort_values(
        "place", ignore_index=True
    )
    assert len(rows) == len(tables[SCHEDULED]), "a scheduled flight has no row in the archive; look with: penstock simulate"
    return Archive(tables, order["micros"].to_numpy(), rows)


async def _run(folder: Path) -> None:
    machine = Embedded(project, folder, tables=folder / "tables")
    await machine.start()
    for part, before in slices(list(events(DAYS)), 7 * DAY):
        await machine.publish(part, before)
        await machine.settle()
    await machine.close()


def _table(folder: Path, topic: str) -> pd.DataFrame:
    found: pd.DataFrame = DeltaTable(str(folder / "tables" / topic)).to_pandas()
    return found


# -- as of ---------------------------------------------------------------------------------------------------------------


def test_ten_thousand_drawn_rows_equal_an_as_of_recomputation_from_the_archive(archive: Archive) -> None:
    drawn = archive.rows.sample(DRAWN, random_state=SEED).sort_values("place", ignore_index=True)
    for view in map(view_of, VIEWS):
        again = {feature.name: _as_of(view, feature, drawn, archive) for feature in view.features}
        for feature in view.features:
            relative = 0.0 if feature.kind in EXACT else 1e-9
            _assert_equal(drawn, repr(feature), again[feature.name], relative)
        if view.name == "Origin":
            waiting = again["planned_4h"] - again["planned_1h"] - again["departures_3h"]
            _assert_equal(drawn, "Origin.waiting", waiting, 0.0)


def _as_of(view: View, feature: Feature[float], asked: pd.DataFrame, archive: Archive) -> Floats:
    """One feature for the rows in `asked`, from the archived events that lie before each of them."""
    source, column = archive.events[feature.event], feature.column
    known = pd.DataFrame(
        {
            "entity": _entities(source, view.by[feature.event]),
            "place": source["place"],
            "value": (source["micros"] if column is None else source[column.name]).astype(float),
        }
    ).dropna()
    asking = pd.DataFrame({"entity": _entities(asked, view.by[SCHEDULED]), "place": asked["place"]})
    if not feature.over:
        last: Floats = pd.merge_asof(asking, known, on="place", by="entity", allow_exact_matches=False)["value"].to_numpy()
        ago: Floats = (asked["micros"].to_numpy() - last) / 1e6
        return last if feature.kind == "last" else ago
    names = pd.Index(known["entity"].unique())
    n = len(archive.times)
    code = names.get_indexer(pd.Index(known["entity"]))
    order = np.lexsort((known["place"], code))
    lines = code[order] * n + known["place"].to_numpy()[order]
    values = known["value"].to_numpy()[order]
    hop = hop_of(feature.over)
    since = np.searchsorted(archive.times, (asked["micros"].to_numpy() - feature.over) // hop * hop)
    whose = names.get_indexer(pd.Index(asking["entity"])) * n  # -n for who never did anything: finds nothing
    low, high = np.searchsorted(lines, whose + since), np.searchsorted(lines, whose + asking["place"].to_numpy())
    if feature.kind == "count":
        return np.asarray(high - low, np.float64)
    kinds: dict[str, Callable[[Floats], float]] = {"sum": np.sum, "mean": np.mean, "min": np.min, "max": np.max}
    reduce = kinds[feature.kind]
    empty = 0.0 if feature.kind == "sum" else math.nan
    return np.array([reduce(values[a:b]) if b > a else empty for a, b in zip(low, high, strict=True)])


def _entities(table: pd.DataFrame, columns: tuple[Column, ...]) -> pd.Series[Any]:
    """The entity of each event; missing where a part of its name is."""
    named = table[columns[0].name]
    for column in columns[1:]:
        named = named + " " + table[column.name]
    return named


def _assert_equal(asked: pd.DataFrame, name: str, expected: Floats, relative: float) -> None:
    got = asked[name].to_numpy(float)
    wrong = ~np.isclose(got, expected, rtol=relative, atol=0.0, equal_nan=True)
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        pytest.fail(
            f"{name} differs in {int(wrong.sum())} of {len(got)} rows, first in that of {asked['id'][first]} at "
            f"{asked['time'][first]}: the stream says {got[first]!r}, the archive {expected[first]!r}"
        )
    assert np.isfinite(expected).mean() > 0.5, f"{name} is missing in most rows: this proves little"


# -- replay --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", VIEWS, ids=lambda cls: cls.__name__)
def test_rows_of_drawn_entities_equal_the_replay_of_what_they_did(cls: Any, archive: Archive) -> None:
    view, rng = view_of(cls), np.random.default_rng(SEED)
    did = {e: dict(list(archive.events[e].groupby(_entities(archive.events[e], by)))) for e, by in view.by.items()}
    rows = dict(list(archive.rows.groupby(_entities(archive.rows, view.by[SCHEDULED]))))
    drawn = rng.permutation([(entity, place) for entity, own in rows.items() for place in own["place"]]).tolist()
    compared = 0
    while compared < REPLAYED:
        entity, last = drawn[0][0], int(drawn.pop(0)[1])
        half_a_day = int(archive.times[last]) - DAY // 2
        history = _history(view, {e: tables[entity] for e, tables in did.items() if entity in tables}, half_a_day, last)
        if len(history) > LONGEST_HISTORY:
            continue
        meant = {e.flight_id: row for e, row in zip(history, ps.replay(cls, history), strict=True) if isinstance(e, Scheduled)}
        own = rows[entity][(rows[entity]["micros"] >= half_a_day) & (rows[entity]["place"] <= last)]
        for name, values in zip(own["id"], own[list(view.columns)].to_numpy(float), strict=True):
            for column, got in zip(view.columns, values.tolist(), strict=True):
                expected = meant[name].__dict__[column.partition(".")[2]]
                same = (math.isnan(got) and math.isnan(expected)) or math.isclose(got, expected, rel_tol=1e-9)
                assert same, f"{column} of {name}: the stream says {got!r}, replay {expected!r}"
        compared += len(own)


def _history(view: View, did: dict[Event, pd.DataFrame], start: int, last: int) -> list[Any]:
    """What an entity did, in order, up to and with place `last`: all that windows of rows since `start` can see, and before
    that the newest value of everything of which the last one is asked for."""
    seen = min((start - f.over) // hop_of(f.over) * hop_of(f.over) if f.over else start for f in view.features)
    found: dict[int, Any] = {}
    for event, table in did.items():
        table = table[table["place"] <= last]
        wanted = table["micros"] >= seen
        for feature in view.features:
            if feature.event is event and not feature.over:
                valued = table if feature.column is None else table[table[feature.column.name].notna()]
                wanted |= table["place"].isin(valued[valued["micros"] < seen]["place"].tail(1))
        if int(wanted.sum()) <= LONGEST_HISTORY:
            lines: Any = table[wanted].itertuples()
            found |= {line.place: _typed(event, line) for line in lines}
        else:
            found |= dict.fromkeys(table[wanted]["place"])
    return [event for _, event in sorted(found.items(), key=lambda pair: pair[0])]


def _typed(event: Event, line: Any) -> Any:
    values = {name: getattr(line, name) for name in event.columns}
    values = {name: None if not isinstance(v, str) and pd.isna(v) else v for name, v in values.items()}
    values[event.time.name] = values[event.time.name].to_pydatetime()
    return event.type(**values)
