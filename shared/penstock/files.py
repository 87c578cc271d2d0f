"""Files of events: CSV, Parquet or JSON lines, checked row by row before use, read in event-time order.

A file is read twice: `inspect` checks every row and learns whether the file is in order of time; `records` then streams
it (memory stays flat) when it is, and sorts it in memory when it is not.

    .jsonl .ndjson    one JSON object a line, published byte for byte as it stands
    .csv              first line names the columns; an empty cell is a missing value (for numbers also NA, NaN, null)
    .parquet          needs pyarrow
    .gz               may follow .csv and .jsonl
"""

from __future__ import annotations

import csv
import gzip
import heapq
import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import msgspec

from .codec import EventDecoder, entity_of
from .errors import DefinitionError, PenstockError, Refused
from .event import Column, Event, to_micros
from .expectation import Gate
from .publish import Record

__all__ = ["EventFile", "Inspection", "in_folder", "merged", "refusals"]

KINDS: Final = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}

KEPT: Final = 1_000
"""Refusals kept with their cause; all are counted."""

SHOWN: Final = 10
"""Refusals told to people."""

TOLD_EVERY: Final = 2_000
"""Rows between two calls of `told`: some 100 a second."""

ROWS_AT_ONCE: Final = 16_384
"""Rows of a Parquet file turned into Python objects together."""

MISSING: Final = frozenset({"", "NA", "N/A", "NaN", "nan", "null", "None"})
"""How programs write a number that is not there. In text columns only the empty cell is missing: NA is a country."""

TRUE, FALSE = frozenset({"true", "t", "yes", "1", "1.0"}), frozenset({"false", "f", "no", "0", "0.0"})


class Refusal(NamedTuple):
    """A row that cannot be taken: the number of its line (Parquet: row), counted from 1, and why."""

    row: int
    cause: Refused


@dataclass
class Inspection:
    """What was found in a file. `times` are those of the rows that can be taken, in the order of the file."""

    file: EventFile
    times: array[int] = field(default_factory=lambda: array("q"))
    ordered: bool = True
    refused: list[Refusal] = field(default_factory=list)
    """The first of them."""
    bad: set[int] = field(default_factory=set)
    unexpected: int = 0
    """Rows that the stream will dead-letter because of an expectation (`ps.expect`): they are sent, and counted there."""
    first_unexpected: Refusal | None = None
    ignored: tuple[str, ...] = ()
    """Columns of the file that the event does not have."""

    @property
    def rows(self) -> int:
        return len(self.times) + len(self.bad)

    def records(self) -> Iterator[Record]:
        """The rows that can be taken, in order of time; of equal times in the order of the file."""
        taken = (self.file.record(value, math.inf) for number, value in self.file.read() if number not in self.bad)
        return taken if self.ordered else iter(sorted(taken, key=lambda record: record[2]))

    def lines(self) -> Iterator[str]:
        """What people should know of it: the first rows that are left out, and why."""
        name, place = self.file.path.name, "row" if self.file.kind == "parquet" else "line"
        for refusal in self.refused[:SHOWN]:
            yield f"left out  {name} {place} {refusal.row}: {refusal.cause.reason}: {refusal.cause}"
        if len(self.bad) > SHOWN:
            yield f"left out  ... and {len(self.bad) - SHOWN:,} more of {name}"
        if self.first_unexpected is not None:
            row, cause = self.first_unexpected
            yield f"sent      {name} {place} {row}: the stream refuses it: {cause.reason}: {cause}"
            yield f"          rows of {name} that go to {self.file.event.topic}.dlq so: {self.unexpected:,}"
        if self.ignored:
            yield f"{name}: not fields of {self.file.event!r}, so not sent: {', '.join(self.ignored)}"
        if not self.ordered:
            yield f"{name} is not in order of time: sorted by {self.file.event.time.name} in memory"


def in_folder(folder: Path, events: Sequence[Event], utc: bool = False) -> list[EventFile]:
    """The files of a folder, one per event, named by its topic; DefinitionError where one is missing."""
    if not folder.is_dir():
        raise DefinitionError(f"{folder} is no folder", "give the folder that holds a file per event")
    found = []
    for event in events:
        names = [f"{event.topic}{end}{packed}" for end in KINDS for packed in ("", ".gz")]
        path = next((folder / name for name in names if (folder / name).exists()), None)
        if path is None:
            raise DefinitionError(
                f"{folder} has no file for the event {event!r}",
                f"add {event.topic}.jsonl (or .csv, .parquet) with one event a row",
            )
        found.append(EventFile(path, event, utc))
    return found


def merged(found: Sequence[Inspection]) -> Iterator[tuple[Event, Record]]:
    """All rows that can be taken, with their kind, in order of time; of equal times in the order of the files."""

    def one(each: Inspection) -> Iterator[tuple[Event, Record]]:
        return ((each.file.event, record) for record in each.records())

    return heapq.merge(*map(one, found), key=lambda item: item[1][2])


def refusals(found: Sequence[Inspection]) -> list[dict[str, str | int]]:
    """The first refused rows of each file, for programs."""
    return [
        {"file": each.file.path.name, "row": row, "reason": cause.reason, "error": str(cause)}
        for each in found
        for row, cause in each.refused
    ]


class EventFile:
    """A file with one kind of event. `utc` reads times without a zone as UTC (else they are refused).

    DefinitionError where the file cannot be one: unknown kind, no such file, a required column is absent.
    """

    def __init__(self, path: Path, event: Event, utc: bool = False) -> None:
        self.path, self.event = path, event
        self._utc, self._packed = utc, path.suffix == ".gz"
        self.kind = KINDS.get(Path(path.stem).suffix if self._packed else path.suffix, "")
        if not path.exists():
            near = get_close_matches(path.name, [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else [])
            raise DefinitionError(
                f"no such file: {path}",
                f"did you mean {path.parent / near[0]}?" if near else "give the path of a .csv, .parquet or .jsonl file",
            )
        if not self.kind or not path.is_file():
            raise DefinitionError(
                f"{path} is no .csv, .parquet or .jsonl file",
                "convert it, for instance with pandas: frame.to_parquet('events.parquet')",
            )
        self._decode = EventDecoder(event, expectations=False).decode
        self._gate = Gate(event)

    def inspect(self, now: float, told: Callable[[int], None] = lambda rows: None) -> Inspection:
        """Check every row. `now` is the wall clock (the future is refused); `told(rows)` is called as it goes."""
        found = Inspection(self)
        newest = -1
        for number, value in self.read(found):
            if found.rows % TOLD_EVERY == 0:
                told(found.rows)
            try:
                decoded, (_, _, time) = self._read(value, now)
            except Refused as refusal:
                found.bad.add(number)
                if len(found.refused) < KEPT:
                    found.refused.append(Refusal(number, refusal))
                continue
            try:
                self._gate.check(decoded)
            except Refused as refusal:
                found.unexpected += 1
                found.first_unexpected = found.first_unexpected or Refusal(number, refusal)
            found.ordered = found.ordered and time >= newest
            newest = time
            found.times.append(time)
        return found

    def record(self, value: bytes | Refused, now: float) -> Record:
        """What is published of a row; raises why it cannot be. Expectations are the stream's to judge."""
        return self._read(value, now)[1]

    def _read(self, value: bytes | Refused, now: float) -> tuple[Any, Record]:
        if isinstance(value, Refused):
            raise value
        decoded = self._decode(value, now)
        key = entity_of((self.event.key,), decoded)
        if key is None:
            raise Refused("schema", f"{self.event.key!r}, the key, is missing")
        return decoded, (key.encode(), value, to_micros(getattr(decoded, self.event.time.name)))

    def read(self, found: Inspection | None = None) -> Iterator[tuple[int, bytes | Refused]]:
        """Line (or row) number and JSON value, or why there is none. `found` learns which columns are ignored."""
        if self.kind == "jsonl":
            yield from self._lines()
            return
        for number, row in (self._csv if self.kind == "csv" else self._parquet)(found or Inspection(self)):
            try:
                if isinstance(row, Refused):
                    raise row
                columns = self.event.columns
                yield number, msgspec.json.encode({name: self._value(columns[name], cell) for name, cell in row.items()})
            except UnicodeEncodeError:
                yield number, Refused("decode", "not UTF-8 text")
            except (Refused, TypeError, ValueError) as error:
                yield number, error if isinstance(error, Refused) else Refused("schema", str(error))

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        with gzip.open(self.path) if self._packed else self.path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if text := line.strip():
                    yield number, self._in_utc(text) if self._utc else text

    def _in_utc(self, line: bytes) -> bytes:
        """The line with a zone where its times have none; what cannot be read is refused later, with its reason."""
        try:
            row = msgspec.json.decode(line, type=dict[str, Any])
            times = {c.name: datetime.fromisoformat(row[c.name]) for c in self.event.columns.values() if c.type is datetime}
        except (msgspec.MsgspecError, ValueError, TypeError, KeyError):
            return line
        naive = {name: moment.replace(tzinfo=UTC) for name, moment in times.items() if moment.tzinfo is None}
        return msgspec.json.encode(row | naive) if naive else line

    def _csv(self, found: Inspection) -> Iterator[tuple[int, dict[str, Any] | Refused]]:
        text: IO[str] = (gzip.open if self._packed else open)(
            self.path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline=""
        )
        with text:
            reader = csv.reader(text)
            names = [name.strip() for name in next(reader, [])]
            places = {name: names.index(name) for name in self._known(names, found)}
            for cells in reader:
                if len(cells) == len(names):
                    yield reader.line_num, {name: cells[at] for name, at in places.items()}
                elif cells:
                    yield reader.line_num, Refused("decode", f"{len(cells)} cells, the first line has {len(names)}")

    def _parquet(self, found: Inspection) -> Iterator[tuple[int, dict[str, Any]]]:
        try:
            from pyarrow import ArrowException, parquet
        except ImportError:
            raise PenstockError(
                "reading Parquet needs pyarrow, which is not installed",
                "pip install pyarrow   or convert the file to .csv or .jsonl",
            ) from None
        try:
            table = parquet.ParquetFile(self.path)
        except (ArrowException, OSError) as error:
            raise DefinitionError(
                f"{self.path} is no Parquet file: {error}", "write it again, for instance: frame.to_parquet(...)"
            ) from None
        columns = self._known(table.schema_arrow.names, found)
        batches = table.iter_batches(batch_size=ROWS_AT_ONCE, columns=columns)
        yield from enumerate((row for batch in batches for row in batch.to_pylist()), 1)

    def _known(self, names: list[str], found: Inspection) -> list[str]:
        """The columns of the file that the event has; refuses a file without one that it needs."""
        absent = [c.name for c in self.event.columns.values() if c.name not in names and not c.optional]
        if absent:
            if len(names) == 1 and (other := next((mark for mark in ";\t|" if mark in names[0]), "")):
                said = f"pd.read_csv({self.path.name!r}, sep={other!r}).to_csv({self.path.name!r}, index=False)"
                raise DefinitionError(
                    f"the cells of {self.path} stand between {other!r}, not between commas", f"with pandas: {said}"
                )
            raise DefinitionError(
                f"{self.path} has no column {', '.join(absent)}, which {self.event!r} needs; "
                f"it has: {', '.join(names) or 'nothing'}",
                f"rename the columns of the file as the fields of {self.event!r} are called",
            )
        found.ignored = tuple(name for name in names if name not in self.event.columns)
        return [name for name in self.event.columns if name in names]

    def _value(self, column: Column, cell: Any) -> Any:
        """A cell as the column wants it; Refused says what is wrong with it. Parquet's have types, CSV's are text."""
        if isinstance(cell, str) and column.type is str:
            return cell if cell or not column.optional else None
        if isinstance(cell, str):
            cell = _parsed(column, cell.strip())
        if isinstance(cell, datetime) and cell.tzinfo is None:
            if not self._utc:
                said = f"{cell.isoformat(' ')} has no time zone; write one, or say that all are UTC: --utc"
                raise Refused("schema", f"column {column.name}: {said}")
            return cell.replace(tzinfo=UTC)
        return cell


def _parsed(column: Column, text: str) -> Any:
    if text in MISSING:
        if column.optional:
            return None
        raise Refused("schema", f"column {column.name} is empty")
    what, parse = PARSED[column.type]
    try:
        return parse(text)
    except ValueError:
        raise Refused("schema", f"column {column.name}: {text!r} is no {what}") from None
    except OverflowError:
        raise Refused("schema", f"column {column.name}: {text} is not finite") from None


def _truth(text: str) -> bool:
    if text.lower() not in TRUE | FALSE:
        raise ValueError(text)
    return text.lower() in TRUE


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise OverflowError(text)
    return number


def _whole(text: str) -> int:
    """Programs that know only floats write 3 as 3.0."""
    if not _finite(text).is_integer():
        raise ValueError(text)
    return int(text) if text.lstrip("+-").isdigit() else int(float(text))


PARSED: Final[dict[type, tuple[str, Callable[[str], Any]]]] = {
    datetime: ("time as in 2013-01-31T10:00:00+00:00", datetime.fromisoformat),
    bool: ("truth value (true, false, 1, 0)", _truth),
    int: ("whole number", _whole),
    float: ("number", _finite),
}
