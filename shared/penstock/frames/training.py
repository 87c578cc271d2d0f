"""Training sets: what a model was asked, with the inputs and the truth as they were known, from the offline tables.

Two clocks run through every join. An event has its own time, and it *arrived* at a position; what time it was then is the
running maximum of time in its partition up to there (`frame.arrived`). The rows in the archive are what was served, so their
features are those known at scoring time by themselves; a label counts as monitoring and the trainer count it (`truth`), and only
what arrived before `known_before` is known. With `as_known_now` the features are computed anew from all archived events, and
everything counts by its own time, whenever it arrived.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..errors import DefinitionError, PenstockError
from ..event import Column, Event, moment_of, to_micros
from ..label import GREATEST, Label
from ..model import Model
from ..offline import Table, Tables
from ..place import PLACE, spelled
from ..records import Quarantine
from ..topology import Topology
from . import columns as frames
from .compute import compute
from .learned import learned
from .truth import Asked, Said, Truths, capped, truths

if TYPE_CHECKING:
    from ..project import Project

__all__ = ["Query", "Readable", "moment", "training_set"]

Ints = npt.NDArray[np.int64]

PLACED: Final = {name: f"@{name}" for name in PLACE}
"""Columns beside an event's own: the place of its record, by their names in the tables."""
TOPIC, PARTITION, OFFSET = PLACED.values()
CAME, ROW, LATE = "@came", "@row", "@late"
"""What time it was when it came, the id of its row, and whether that is late."""
FOREVER: Final = int(np.iinfo(np.int64).max)


def training_set(
    model: Model,
    tables: Tables | str | Path,
    *,
    start: datetime | str | None = None,
    end: datetime | str | None = None,
    known_before: datetime | str | None = None,
    as_known_now: bool = False,
    late: bool = True,
    project: Project | None = None,
    quarantines: Sequence[Quarantine] = (),
) -> pd.DataFrame:
    """One row per event that the model was to score, `start` <= its time < `end`, in order of (time, id).

    Columns: `id`, `key`, `time` of the event; the model's inputs by name, float64, NaN where missing; `label` (boolean, or as its
    column float64 or text; missing where it is not known), `labelled` (the time of the label event, or when the horizon passed in
    silence) and `answered` (False where silence was taken as declared), `late` (boolean: the event came late, so the values
    served for it know of newer events of its entities, see `records.Row.as_of`; NA where its row is of before rows said so). An
    event is in once both it and its row are archived; `late=False` leaves out those that are late. With `as_known_now` none is:
    every value is as of the event's own time.

    With `otherwise=` or `sources=` a label is known when the horizon of its event has passed, however early `labelled` is: the
    trainer learns it at max(labelled, time + within). With sources the column `source` says whose word the label is ("" where
    it is silence, or not known). A row with a source and no label is one whose label is beyond the cap and left out; caps are
    met over all scored events in the tables, so that `start` and `end` choose rows and change none.

    `quarantines` are outcomes that are not to be learned from (records, see `penstock quarantine list`): rows that one of them
    holds, as of `known_before`, are left out. (The trainer takes the label before it, where there was one that none holds, and
    holds caps to what is left.)

    `tables` is a folder or `s3://...` (see `penstock.offline`), `known_before` the knowledge that is used (default: all there
    is). Moments are datetimes with a zone, or texts such as "2013-02-01T00:00Z". `project` says whose rows they are where
    several projects keep tables in one place, and which event comes first where different ones share an instant.

    PenstockError says which table or column is not there, and what to type.
    """
    if not isinstance(model, Model):
        fix = "give the function that @ps.model decorates: ps.training_set(fraud, tables)   or:  project.model(name)"
        raise DefinitionError(f"{model!r} is no model", fix)
    topology = project.topology if project else Topology([(model.scores, model.views)], [model.label.event])
    opened = tables if isinstance(tables, Tables) else Tables(tables)
    asked = Query(
        model, topology, moment(start, "start"), moment(end, "end"), moment(known_before, "known_before"), as_known_now, late,
        model.label.waits, tuple(quarantines),
    )  # fmt: skip
    return asked.run(asked.tables(opened, project.name if project else None))


def moment(value: datetime | str | None, said: str) -> int | None:
    """Microseconds of a moment; PenstockError for one without a time zone."""
    if value is None:
        return None
    try:
        return to_micros(moment_of(value))
    except ValueError:
        raise PenstockError(f"{said} is {str(value)!r}, not a moment with a time zone", "write 2013-02-01T00:00Z") from None


class Readable(Protocol):
    """A table at a version: `offline.Table`, or one that is pinned."""

    name: str

    @property
    def topic_id(self) -> str:
        """The identity of the topic whose records it takes."""

    @property
    def schema(self) -> Any:
        """Its pyarrow schema."""

    def arrow(self, columns: Sequence[str] | None = None) -> Any:
        """Its rows as a pyarrow table."""


@dataclass(frozen=True)
class Query:
    """What is asked of the tables; moments in microseconds. The same query over the same versions gives the same rows."""

    model: Model
    topology: Topology
    start: int | None = None
    end: int | None = None
    known_before: int | None = None
    as_known_now: bool = False
    late: bool = True
    """Whether late rows are in it."""
    waits: bool = True
    """Whether labels that wait are waited for; older datasets did not."""
    quarantines: tuple[Quarantine, ...] = ()

    def tables(self, tables: Tables, project: str | None = None) -> list[Table]:
        """The tables that are read, as they are now. The rows come first, so that their events are there as a rule."""
        scored, label = self.model.scores, self.model.label.event
        names = [_rows(tables, scored, project), scored.topic]
        if self.as_known_now:
            names += [event.topic for event in self._computed_from()]
        there = set(tables.names())
        names += [label.topic] if label.topic in there else []  # else nothing has answered yet
        names += [_refusals(name) for name in names if _refusals(name) in there]
        return [tables.table(name) for name in dict.fromkeys(names)]

    def run(self, opened: Sequence[Readable]) -> pd.DataFrame:
        """The training set over these tables, of which the first has the rows."""
        scored, tables = self.model.scores, {table.name: table for table in opened}
        columns = [item for item in self.model.items if isinstance(item, Column)]
        events = _events(tables, scored, (*_head(scored), *columns), "feature_store")
        events[CAME] = _came(events, scored)
        found = _met(events, self._rows(opened[0]), scored)
        known = self._truths(tables, found, int(events[CAME].max()) if len(events) else 0)
        inside = self._inside(found, scored)
        found, known = found.iloc[inside].reset_index(drop=True), known.at(inside)
        made = {repr(column): frames.numbers(found[column.name], column) for column in columns}
        if self.as_known_now:
            made |= self._computed(tables, found)
        else:
            made |= {name: found[name].to_numpy(np.float64, na_value=np.nan) for name in self._features()}
        sources = self.model.label.sources
        labelled = pd.Series(known.labelled.view("datetime64[us]")).where(known.known).dt.tz_localize("UTC")
        frame = pd.DataFrame(
            {
                "id": _named(found[_id(scored).name]).array,
                "key": _named(found[scored.key.name]).array,
                "time": found[scored.time.name].array,
                **{name: made[name] for name in self.model.inputs},
                "label": _labels(self.model.label, known),
                "labelled": labelled.array,
                "answered": known.answered,
                **({"source": pd.array([sources.name(rank) for rank in known.ranks.tolist()], "str")} if sources else {}),
                "late": found[LATE].array,
            }
        )
        return learned(frame, [one for one in self.quarantines if one.model == self.model.name], self.known_before)

    # --- rows ----------------------------------------------------------------------------------------------------------

    def _features(self) -> list[str]:
        own = {repr(item) for item in self.model.items if isinstance(item, Column)}
        return [name for name in self.model.inputs if name not in own]

    def _rows(self, table: Readable) -> pd.DataFrame:
        """The archived rows: id, the place of their event, and the features that are not computed anew."""
        import pyarrow.compute as pc

        names = [] if self.as_known_now else self._features()
        for name in names:
            if name not in table.schema.names:
                raise PenstockError(
                    f"no row in {table.name} has {name}: they were archived before the view had it",
                    "as_known_now=True (--as-known-now) computes it from the events   or score new ones first",
                )
        ends = [] if self.as_known_now or "as_of" not in table.schema.names else ["as_of"]
        read = table.arrow(["partition", "offset", "id", "cursor", *ends, *names])
        source = pc.extract_regex(read["cursor"], r'"source":\[(?P<partition>\d+),(?P<offset>\d+)\]').combine_chunks()
        rows = _pandas(read.drop_columns(["cursor", *ends])).rename(columns={"id": ROW})
        known = ends or self.as_known_now
        late = read["as_of"].is_valid().to_numpy() if ends else np.zeros(len(rows), bool)
        rows[LATE] = pd.arrays.BooleanArray(late, np.full(len(rows), not known))
        for name, part in ((PARTITION, "partition"), (OFFSET, "offset")):
            rows[name] = source.field(part).cast("int64").to_numpy()
        return rows.sort_values(["partition", "offset"]).drop(columns=["partition", "offset"])

    def _inside(self, found: pd.DataFrame, scored: Event) -> Ints:
        """Those asked for, in order."""
        times = _times(found, scored)
        end = min(FOREVER if moment is None else moment for moment in (self.end, self.known_before))
        wanted = self.late | ~found[LATE].to_numpy(bool, na_value=False)
        inside = np.flatnonzero((times >= (self.start or 0)) & (times < end) & wanted)
        found, times = found.iloc[inside], times[inside]
        ids = pd.factorize(_named(found[_id(scored).name]), sort=True)[0]
        return inside[np.lexsort((found[OFFSET], found[PARTITION], ids, times))]

    # --- labels --------------------------------------------------------------------------------------------------------

    def _truths(self, tables: Mapping[str, Readable], found: pd.DataFrame, reached: int) -> Truths:
        """`reached` is how far the scored events go; silence is believed up to there or to the newest label."""
        scored, label, sources = self.model.scores, self.model.label, self.model.label.sources
        answers = pd.DataFrame({"whose": [], "value": []}, dtype=object)
        times = came = ranks = np.empty(0, np.int64)
        if label.event.topic in tables:
            named = (label.event.key, label.event.time, label.column, *([sources.column] if sources else []))
            answers = _events(tables, label.event, named, "monitoring")
            answers = answers.sort_values([TOPIC, PARTITION, OFFSET], ignore_index=True)
            times, came = _times(answers, label.event), _came(answers, label.event)
            reached = max(reached, int(came.max(initial=0)))
            spoken = answers[label.column.name].notna().to_numpy()
            answers, times, came = answers[spoken], times[spoken], came[spoken]
            ranks = np.array([sources.rank(name) for name in answers[sources.column.name]] if sources else times * 0, np.int64)
            answers = answers.rename(columns={label.event.key.name: "whose", label.column.name: "value"})
            if label.task != "binary":
                fits = _fits(label, answers["value"])
                answers, times, came, ranks = answers[fits], times[fits], came[fits], ranks[fits]
        asked_at, asked_came = _times(found, scored), found[CAME].to_numpy(np.int64)
        if self.as_known_now:
            came, asked_came = times, asked_at
        names = pd.concat([_named(found[_id(scored).name]), _named(answers["whose"])], ignore_index=True)
        whose = pd.factorize(names, sort=sources is not None)[0].astype(np.int64)
        asked = Asked(whose[: len(found)], asked_at, asked_came)
        said = Said(whose[len(found) :], times, came, _values(label, answers["value"]), ranks)
        until = FOREVER if self.known_before is None else self.known_before
        otherwise = label.classes.index(label.otherwise) if isinstance(label.otherwise, str) else label.otherwise
        known = truths(asked, said, label.within, otherwise, min(until, reached + 1), self.waits and label.waits)
        return capped(known, asked, label.within, sources) if sources else known

    # --- features computed anew ----------------------------------------------------------------------------------------

    def _computed_from(self) -> list[Event]:
        """The events behind the views, in the stream's order of events."""
        scored, views = self.model.scores, self.model.views
        return [e for e in self.topology.events if e is scored or any(e in view.updates for view in views)]

    def _computed(self, tables: Mapping[str, Readable], found: pd.DataFrame) -> dict[str, Any]:
        """The features of the events found, from all archived events."""
        scored, made = self.model.scores, dict[str, Any]()
        for view in self.model.views:
            own = {}
            for event in self._computed_from():
                if event is scored or event in view.updates:
                    read = _events(tables, event, event.columns.values(), "feature_store")
                    if event.id is not None:  # the stream takes the first of an id and key, and refuses its repeats
                        named = list({event.id.name, event.key.name})
                        read = read.sort_values([TOPIC, PARTITION, OFFSET]).drop_duplicates(named)
                    own[event] = read
            rows = compute(view.type, {event.type: frame for event, frame in own.items()}, at=scored.type)
            places = pd.MultiIndex.from_frame(own[scored][[TOPIC, PARTITION, OFFSET]])
            at = places.get_indexer(pd.MultiIndex.from_frame(found[[TOPIC, PARTITION, OFFSET]]))
            made |= {name: rows[name].to_numpy()[at] for name in rows.columns}
        return made


# --- reading -------------------------------------------------------------------------------------------------------------


def _rows(tables: Tables, scored: Event, project: str | None) -> str:
    """The name of the table of rows."""
    if project is not None:
        return f"{project}.rows.{scored.topic}"
    found = [name for name in tables.names() if name.endswith(f".rows.{scored.topic}")]
    if len(found) != 1:
        there = f"{len(found)} tables" if found else "no table"
        raise PenstockError(
            f"{tables.location!r} has {there} with rows of {scored!r}" + (f": {', '.join(found)}" if found else ""),
            "say whose: project=project" if found else "they appear with the first archived rows; see: penstock tables list",
        )
    return found[0]


def _fits(label: Label, values: pd.Series[Any]) -> npt.NDArray[np.bool_]:
    """Which of them are labels of the model, as the ledger of monitoring says it."""
    if label.classes:
        return values.isin(label.classes).to_numpy(bool)
    return (values.astype(np.float64).abs() <= GREATEST).to_numpy(bool)


def _values(label: Label, values: pd.Series[Any]) -> npt.NDArray[Any]:
    """Labels as `truth.Said` takes them."""
    if label.task == "binary":
        return values.to_numpy(bool)
    if label.classes:
        return np.array([label.classes.index(value) for value in values], np.int8)
    return values.to_numpy(np.float64)


def _labels(label: Label, known: Truths) -> Any:
    """And as a column of the set."""
    if label.task == "binary":
        return pd.arrays.BooleanArray(known.labels == 1, known.labels < 0)
    if label.classes:
        return pd.array([label.classes[at] if at >= 0 else None for at in known.labels.tolist()], "str")
    return known.labels


def _id(event: Event) -> Column:
    return event.id or event.key


def _head(event: Event) -> tuple[Column, ...]:
    return (_id(event), event.key, event.time)


def _refusals(topic: str) -> str:
    """The table of the dead letters of a topic."""
    return f"{topic}.dlq"


def _events(tables: Mapping[str, Readable], event: Event, columns: Iterable[Column], service: str) -> pd.DataFrame:
    """Columns of archived events under the names of their declaration, and the place of each; without those that the service
    refused: the tables have every record that decodes, also repeats and those of a wrong clock."""
    read, dead = _archived(tables[event.topic], event, columns), tables.get(_refusals(event.topic))
    if dead is None:
        return read
    letters = dead.arrow(["topic_id", "of_partition", "of_offset", "service"]).to_pandas()
    letters = letters[(letters["service"] == service) & (letters["topic_id"].astype(str) == dead.topic_id)]
    refused = pd.MultiIndex.from_frame(letters[["of_partition", "of_offset"]].astype(np.int64))
    now = (read[TOPIC].astype(str) == tables[event.topic].topic_id).to_numpy()  # letters speak of the topic that is there now
    kept: pd.DataFrame = read[~(now & pd.MultiIndex.from_frame(read[[PARTITION, OFFSET]]).isin(refused))]
    return kept.reset_index(drop=True)


def _archived(table: Readable, event: Event, columns: Iterable[Column]) -> pd.DataFrame:
    named = {spelled(c): c for c in columns}
    there = table.schema.names
    if "offset" not in there or "partition" not in there:
        raise PenstockError(f"table {table.name} does not say where its records were", "it was not written by Penstock")
    missing = [c for name, c in named.items() if name not in there]
    for column in missing:
        if not column.optional:
            raise PenstockError(
                f"table {table.name} has no column {column.name}: its events were archived before {column!r} was declared",
                f"declare it {column.type.__name__} | None",
            )
    place = {name: to for name, to in PLACED.items() if name in there}
    read = _pandas(table.arrow([*(name for name in named if name in there), *place]))
    read = read.rename(columns={**place, **{name: column.name for name, column in named.items()}})
    if TOPIC not in read:
        read[TOPIC] = ""
    for column in missing:
        read[column.name] = None
    return read.astype({PARTITION: np.int64, OFFSET: np.int64})


def _pandas(table: Any) -> pd.DataFrame:
    """An Arrow table with whole numbers and truths that can be missing and stay exact."""
    import pyarrow as pa

    exact = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    made: pd.DataFrame = table.to_pandas(types_mapper=exact.get)
    return made


def _met(events: pd.DataFrame, rows: pd.DataFrame, scored: Event) -> pd.DataFrame:
    """Events beside their rows; of a row that was published again the first counts."""
    met = events.merge(rows, on=[PARTITION, OFFSET])
    same = _named(met[_id(scored).name]).to_numpy() == _named(met[ROW]).to_numpy()  # not so for a topic that was made again
    found: pd.DataFrame = met[same].drop_duplicates([TOPIC, PARTITION, OFFSET])
    return found


def _times(frame: pd.DataFrame, event: Event) -> Ints:
    return frames.micros(frame[event.time.name], repr(event.time))


def _came(events: pd.DataFrame, event: Event) -> Ints:
    """What time it was when each event arrived."""
    partition = pd.Series(frames.combined([pd.factorize(events[name])[0].astype(np.int64) for name in (TOPIC, PARTITION)]))
    return frames.arrived(_times(events, event), partition, events[OFFSET])[0]


def _named(series: Any) -> Any:
    """Ids and keys as texts, as records carry them."""
    return series.astype(object).map(str).astype("str")
