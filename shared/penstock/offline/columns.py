"""What the records of a topic become in their offline table: typed columns, from the declaration, never from the values.

    events        their own columns (times as timestamp[us, UTC])
    rows          id, time, where windows end if that is later (`as_of`), every feature as float64 (null: missing), the cursor
                  and the fingerprints of the views as JSON
    predictions   who was asked, what was answered, and the inputs as used; the levels of its segments as JSON, where it has some
    outcomes      the same with the label, when it became known and whether it corrects one; of numbers and classes `truth` and
                  `corrected` are there instead of `label` and `corrects`
    inferences    answers to tensors: who answered, how many rows, and what was asked and answered, as JSON
    dead letters  of events: where the refused event lay, why it was refused, and its bytes
    passed        where a source had been passed, and how far (`records.Passed`)
    the others    what was counted, decided and said: key and value as they are (`WholeColumns`), to be read as a log (`kept`)

A table of events has every record that decodes, also one that the stream refused later (a repeated id, another's partition, a
time in the future): its table of dead letters says which those are.

The archive writes tables with it, and `penstock tables verify` asks it which records have no place in one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from ..codec import EventDecoder
from ..event import Event
from ..label import Label
from ..log import Headers
from ..place import PLACE, spelled
from ..records import Inference, Outcome, Passed, Prediction, Row
from ..runtime.deadletter import cause_of
from ..topics import Topics

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

__all__ = ["Columns", "Decoded", "WholeColumns", "columns_of", "whole_of"]


@dataclass(frozen=True, slots=True)
class Decoded:
    """Columns of equal length, and which of the values given they came from (ascending); the others were refused."""

    columns: Mapping[str, pa.Array]
    kept: npt.NDArray[np.int64]


class Columns(Protocol):
    """The columns of one table. `sought` are those by which readers skip files, beside the place. `numbered`: Penstock's own
    services number what they send, so that what a crash makes them send again is known."""

    sought: tuple[str, ...]
    numbered: bool

    @property
    def schema(self) -> pa.Schema:
        """Names and types of `Decoded.columns`."""
        ...

    def decode(
        self, values: Sequence[bytes | None], headers: Sequence[Headers] = (), keys: Sequence[bytes | None] = ()
    ) -> Decoded:
        """Records in order; `headers` is empty where none of them has any, `keys` where nobody asks for them."""
        ...


def columns_of(topics: Topics) -> dict[str, Columns]:
    """The tables of a project by their topic, which is also their name: of topics with as many partitions as the events have."""
    project = topics.project
    found: dict[str, Columns] = {event.topic: EventColumns(event) for event in project.events}
    found |= {topics.dead_letters(event.topic): DeadLetterColumns() for event in project.events}
    found[topics.passed] = PassedColumns()
    if project.models:
        found[topics.inferences] = RecordColumns(Inference, INFERENCE, "inputs", ())
    for event in project.topology.reads:
        found[topics.rows(event)] = RecordColumns(Row, ROW, "features", project.topology.columns(event))
    for model in project.models:
        apart = ({"answer": TEXT, "probabilities": JSON} if model.label.classes else {}) | (SEGMENTS if model.segments else {})
        found[topics.predictions(model.name)] = RecordColumns(Prediction, PREDICTION | apart, "inputs", model.inputs)
        found[topics.outcomes(model.name)] = RecordColumns(Outcome, _outcome(model.label) | apart, "inputs", model.inputs)
    if topics.reviewing:
        found |= dict.fromkeys((topics.flags, topics.reviews, topics.queue, topics.reviewed), WholeColumns())
    return found


def whole_of(topics: Topics) -> dict[str, Columns]:
    """The other tables, by their topic: of what is counted, decided and said, each on a topic of one partition."""
    names = [topics.quality, topics.alarms, topics.silences, topics.notices]
    if topics.project.models:
        names += [topics.runs, topics.models, topics.partials, topics.quarantines]
    names += [name(model.name) for model in topics.project.models for name in (topics.statistics, topics.cohorts)]
    return dict.fromkeys(names, WholeColumns())


class EventColumns:
    """Columns of a user's events, called as `place.spelled` says."""

    numbered = False

    def __init__(self, event: Event) -> None:
        self._decoder = EventDecoder(event)
        self._names = {c.name: spelled(c) for c in event.columns.values()}
        self._types = {c.name: c.type for c in event.columns.values()}
        self._clock = event.time.name
        self.sought: tuple[str, ...] = (self._names[self._clock],)

    @property
    def schema(self) -> pa.Schema:
        import pyarrow as pa

        return pa.schema([(self._names[name], _arrow(kind)) for name, kind in self._types.items()])

    def decode(
        self, values: Sequence[bytes | None], headers: Sequence[Headers] = (), keys: Sequence[bytes | None] = ()
    ) -> Decoded:
        import numpy as np
        import pyarrow as pa

        events, micros, refused = self._decoder.decode_all(values, math.inf)  # the wall clock decides nothing here
        kept = np.arange(len(events))
        if refused:
            kept = np.delete(kept, list(refused))
            events, micros = [event for event in events if event is not None], micros[kept]
        columns = {}
        for name, kind in self._types.items():
            if name == self._clock:
                columns[self._names[name]] = pa.array(micros).cast(_arrow(datetime))
            else:
                columns[self._names[name]] = pa.array(list(map(attrgetter(name), events)), _arrow(kind))
        return Decoded(columns, kept)


class DeadLetterColumns:
    """Columns of refused events: `of_partition` and `of_offset` say where the event lies in its own topic.

    A service that was killed may have sent one twice; their place tells.
    """

    numbered = False
    sought: tuple[str, ...] = ("of_partition", "of_offset")

    @property
    def schema(self) -> pa.Schema:
        import pyarrow as pa

        place = [("of_partition", pa.int32()), ("of_offset", pa.int64())]
        return pa.schema([*place, *((name, pa.string()) for name in ("reason", "error", "service")), ("value", pa.binary())])

    def decode(
        self, values: Sequence[bytes | None], headers: Sequence[Headers] = (), keys: Sequence[bytes | None] = ()
    ) -> Decoded:
        import numpy as np
        import pyarrow as pa

        kept, rows = [], []
        for i, found in enumerate(headers):
            cause = cause_of(found)
            try:
                place = int(cause["dlq.partition"]), int(cause["dlq.offset"])
            except (KeyError, ValueError):
                continue  # not written by Penstock
            kept.append(i)
            rows.append((*place, *(cause.get(f"dlq.{name}") for name in ("reason", "error", "service")), values[i]))
        cells = list(zip(*rows, strict=True)) or [()] * len(self.schema)
        return Decoded(
            {field.name: pa.array(column, field.type) for field, column in zip(self.schema, cells, strict=True)},
            np.array(kept, np.int64),
        )


class WholeColumns:
    """Any record as it is: its key, and its value, which is JSON (null: a tombstone). For topics of which there is little, and
    whose readers want them whole: see `kept.KeptLog`."""

    numbered = True
    sought: tuple[str, ...] = ()

    @property
    def schema(self) -> pa.Schema:
        import pyarrow as pa

        return pa.schema([("key", pa.string()), ("value", pa.string())])

    def decode(
        self, values: Sequence[bytes | None], headers: Sequence[Headers] = (), keys: Sequence[bytes | None] = ()
    ) -> Decoded:
        import numpy as np
        import pyarrow as pa

        columns = {"key": keys or [None] * len(values), "value": values}
        return Decoded(
            {name: pa.array(list(map(_text, column)), pa.string()) for name, column in columns.items()}, np.arange(len(values))
        )


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("utf-8", "replace")


class PassedColumns:
    """Columns of `records.Passed`; the place of the event is told as in dead letters."""

    numbered = True
    sought: tuple[str, ...] = ("of_partition", "of_offset")

    def __init__(self) -> None:
        self._decode = msgspec.json.Decoder(Passed).decode

    @property
    def schema(self) -> pa.Schema:
        import pyarrow as pa

        place = [("of_partition", pa.int32()), ("of_offset", pa.int64())]
        return pa.schema([("event", pa.string()), *place, ("before", pa.int64())])

    def decode(
        self, values: Sequence[bytes | None], headers: Sequence[Headers] = (), keys: Sequence[bytes | None] = ()
    ) -> Decoded:
        import numpy as np
        import pyarrow as pa

        kept, rows = [], []
        for i, value in enumerate(values):
            with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                said = self._decode(value or b"")
                rows.append((said.event, said.partition, said.offset, said.before))
                kept.append(i)
        cells = list(zip(*rows, strict=True)) or [()] * len(self.schema)
        return Decoded(
            {field.name: pa.array(column, field.type) for field, column in zip(self.schema, cells, strict=True)},
            np.array(kept, np.int64),
        )


TEXT, NUMBER, COUNT, TRUTH, TIME, JSON = str, float, int, bool, datetime, msgspec.Raw

ROW: Final[dict[str, Any]] = {"id": TEXT, "time": TIME, "as_of": TIME, "cursor": JSON, "views": JSON}
PREDICTION: Final[dict[str, Any]] = {
    "id": TEXT, "key": TEXT, "time": TIME, "score": NUMBER, "scores": JSON, "weights": JSON, "version": TEXT,
    "variant": TEXT, "digest": TEXT, "bucket": COUNT, "latency": NUMBER,
}  # fmt: skip
OUTCOME: Final[dict[str, Any]] = {
    "id": TEXT, "key": TEXT, "time": TIME, "labelled": TIME, "label": TRUTH, "answered": TRUTH, "corrects": TRUTH,
    "score": NUMBER, "scores": JSON, "version": TEXT, "variant": TEXT,
}  # fmt: skip
INFERENCE: Final[dict[str, Any]] = {
    "id": TEXT, "model": TEXT, "version": TEXT, "digest": TEXT, "time": TIME, "rows": COUNT, "recorded": COUNT,
    "inputs": JSON, "outputs": JSON, "latency": NUMBER, "trace": TEXT,
}  # fmt: skip
SEGMENTS: Final[dict[str, Any]] = {"segments": JSON}


def _outcome(label: Label) -> dict[str, Any]:
    if label.task == "binary":
        return OUTCOME
    kind = NUMBER if label.task == "regression" else TEXT
    valued = {"label": (label.kept, kind), "corrects": ("corrected", kind)}
    return dict(valued.get(name, (name, of)) for name, of in OUTCOME.items())


class RecordColumns:
    """Columns of Penstock's own records: some fields as they are, and an object of numbers, one column each.

    A number that is absent or null is null, so that a table outlives a change of its features. `kind` says which fields a
    record must have.
    """

    numbered = True
    sought: tuple[str, ...] = ("time",)

    def __init__(self, kind: type[msgspec.Struct], fields: Mapping[str, Any], numbers: str, names: Sequence[str]) -> None:
        optional = {f.name for f in msgspec.structs.fields(kind) if not f.required}
        wanted = sorted({**fields, numbers: JSON}.items(), key=lambda item: item[0] in optional)
        made = [_field(name, of, name in optional) for name, of in wanted]
        self._decode = msgspec.json.Decoder(msgspec.defstruct(kind.__name__, made, gc=False)).decode
        inner: list[Any] = [(f"c{i}", float | bool | None, None) for i in range(len(names))]
        values = msgspec.defstruct("Numbers", inner, rename={f"c{i}": name for i, name in enumerate(names)}, gc=False)
        self._numbers = msgspec.json.Decoder(list[values])  # type: ignore[valid-type]
        self._fields, self._inner, self._names, self._kind = dict(fields), numbers, tuple(names), kind

    def beside(self, there: pa.Schema) -> RecordColumns:
        """These, and the numbers that a table has and the declaration no longer names: records of before it changed have them."""
        import pyarrow as pa

        known = {*self.schema.names, *PLACE}
        dropped = [field.name for field in there if field.name not in known and pa.types.is_float64(field.type)]
        return RecordColumns(self._kind, self._fields, self._inner, [*self._names, *dropped]) if dropped else self

    @property
    def schema(self) -> pa.Schema:
        import pyarrow as pa

        fields = [(name, _arrow(kind)) for name, kind in self._fields.items()]
        return pa.schema([*fields, *((name, pa.float64()) for name in self._names)])

    def decode(
        self, values: Sequence[bytes | None], headers: Sequence[Headers] = (), keys: Sequence[bytes | None] = ()
    ) -> Decoded:
        import numpy as np

        try:
            return Decoded(self._columns(values), np.arange(len(values)))
        except (TypeError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            kept = [i for i, value in enumerate(values) if self._fits(value)]
            return Decoded(self._columns([values[i] for i in kept]), np.array(kept, np.int64))

    def _fits(self, value: bytes | None) -> bool:
        try:
            self._columns([value])
        except (TypeError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return False
        return True

    def _columns(self, values: Sequence[bytes | None]) -> dict[str, pa.Array]:
        import numpy as np
        import pyarrow as pa

        records = list(map(self._decode, values))  # type: ignore[arg-type]
        columns = {}
        for name, kind in self._fields.items():
            found = list(map(attrgetter(name), records))
            if kind is TIME and None not in found:
                # exact until 2106: until then a second is a float64 to a quarter of a microsecond
                micros = np.rint(np.fromiter(map(datetime.timestamp, found), np.float64, len(found)) * 1e6).astype(np.int64)
                columns[name] = pa.array(micros).cast(_arrow(TIME))
            elif kind is JSON:
                columns[name] = pa.array([str(raw, "utf-8") or None for raw in found], pa.string())
            else:
                columns[name] = pa.array(found, _arrow(kind))
        inner = self._numbers.decode(b"[" + b",".join(map(attrgetter(self._inner), records)) + b"]")
        matrix = np.array(list(map(msgspec.structs.astuple, inner)), np.float64).reshape(len(records), len(self._names))
        for name, column in zip(self._names, np.ascontiguousarray(matrix.T), strict=True):
            columns[name] = pa.array(column, from_pandas=True)  # NaN is null: the value is missing
        return columns


def _field(name: str, kind: Any, optional: bool) -> Any:
    """A field of a record; one of JSON that is absent is empty, as msgspec knows no other (null: missing, in the table)."""
    if not optional:
        return name, kind
    return (name, kind, msgspec.Raw()) if kind is JSON else (name, kind | None, None)


def _arrow(kind: Any) -> Any:
    import pyarrow as pa

    return {
        str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(),
        datetime: pa.timestamp("us", tz="UTC"), msgspec.Raw: pa.string(),
    }[kind]  # fmt: skip
