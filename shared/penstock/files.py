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
import math
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, TextIO

import msgspec

from .codec import EventDecoder, entity_of
from .errors import DefinitionError, PenstockError, Refused
from .event import Column, Event, to_micros
from .publish import Record

__all__ = ["EventFile", "Inspection"]

KEPT: Final = 1_000
"""Refusals kept with their cause; all are counted."""

TOLD_EVERY: Final = 2_000
"""Rows between two calls of `told`: some 100 a second."""

ROWS_AT_ONCE: Final = 16_384
"""Rows of a Parquet file turned into Python objects together."""

MISSING: Final = frozenset({"", "NA", "N/A", "NaN", "nan", "null", "None"})
"""How programs write a number that is not there. In text columns only the empty cell is missing: NA is a country."""

TRUE, FALSE = frozenset({"true", "t", "yes", "1", "1.0"}), frozenset({"false", "f", "no", "0", "0.0"})


@dataclass
class Inspection:
    """What was found in a file. `times` are those of the rows that can be taken, in the order of the file."""

    times: array[int] = field(default_factory=lambda: array("q"))
    ordered: bool = True
    refused: list[tuple[int, Refused]] = field(default_factory=list)
    """The first refusals with the number of the line (Parquet: row), counted from 1."""
    bad: set[int] = field(default_factory=set)
    ignored: tuple[str, ...] = ()
    """Columns of the file that the event does not have."""

    @property
    def rows(self) -> int:
        return len(self.times) + len(self.bad)


class EventFile:
    """A file with one kind of event. `utc` reads times without a zone as UTC (else they are refused).

    DefinitionError where the file cannot be one: unknown kind, no such file, a required column is absent.
    """

    def __init__(self, path: Path, event: Event, utc: bool = False) -> None:
        self.path, self.event = path, event
        self._utc = utc
        suffixes = [s for s in path.suffixes if s != ".gz"]
        self.kind = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}.get(
            suffixes[-1] if suffixes else "", ""
        )
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
        self._decode = EventDecoder(event).decode

    def inspect(self, now: float, told: Callable[[int], None] = lambda rows: None) -> Inspection:
        """Check every row. `now` is the wall clock (the future is refused); `told(rows)` is called as it goes."""
        found = Inspection()
        newest = -1
        for number, value in self._rows(found):
            if found.rows % TOLD_EVERY == 0:
                told(found.rows)
            try:
                time = self._record(value, now)[2]
            except Refused as refusal:
                found.bad.add(number)
                if len(found.refused) < KEPT:
                    found.refused.append((number, refusal))
                continue
            found.ordered = found.ordered and time >= newest
            newest = time
            found.times.append(time)
        told(found.rows)
        return found

    def records(self, found: Inspection) -> Iterator[Record]:
        """The rows that can be taken, in order of time; of equal times in the order of the file."""
        taken = (self._record(value, math.inf) for number, value in self._rows(Inspection()) if number not in found.bad)
        return taken if found.ordered else iter(sorted(taken, key=lambda record: record[2]))

    def _record(self, value: bytes | Refused, now: float) -> Record:
        if isinstance(value, Refused):
            raise value
        decoded = self._decode(value, now)
        key = entity_of((self.event.key,), decoded)
        if key is None:
            raise Refused("schema", f"{self.event.key!r}, the key, is missing")
        return key.encode(), value, to_micros(getattr(decoded, self.event.time.name))

    def _rows(self, found: Inspection) -> Iterator[tuple[int, bytes | Refused]]:
        """Line (or row) number and JSON value, or why there is none."""
        if self.kind == "jsonl":
            return self._lines()
        return self._csv(found) if self.kind == "csv" else self._parquet(found)

    def _lines(self) -> Iterator[tuple[int, bytes | Refused]]:
        with gzip.open(self.path) if self.path.suffix == ".gz" else self.path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if text := line.strip():
                    yield number, text

    def _text(self) -> TextIO:
        if self.path.suffix == ".gz":
            return gzip.open(self.path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="")
        return self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")

    def _csv(self, found: Inspection) -> Iterator[tuple[int, bytes | Refused]]:
        with self._text() as text:
            reader = csv.reader(text)
            names = [name.strip() for name in next(reader, [])]
            columns = self._columns(names, found)
            places = [(names.index(column.name), column) for column in columns]
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(names):
                    yield reader.line_num, Refused("decode", f"{len(cells)} cells, the first line has {len(names)}")
                    continue
                try:
                    row = {column.name: _value(column, cells[at], self._utc) for at, column in places}
                    yield reader.line_num, msgspec.json.encode(row)
                except (Refused, UnicodeEncodeError) as error:
                    yield reader.line_num, error if isinstance(error, Refused) else Refused("decode", "not UTF-8 text")

    def _parquet(self, found: Inspection) -> Iterator[tuple[int, bytes | Refused]]:
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
        columns = self._columns(table.schema_arrow.names, found)
        times = [column.name for column in columns if column.kind == "time"]
        number = 0
        for batch in table.iter_batches(batch_size=ROWS_AT_ONCE, columns=[column.name for column in columns]):
            for row in batch.to_pylist():
                number += 1
                try:
                    for name in times:
                        row[name] = _zoned(row[name], name, self._utc)
                    yield number, msgspec.json.encode(row)
                except (Refused, TypeError, ValueError) as error:
                    yield number, error if isinstance(error, Refused) else Refused("schema", str(error))

    def _columns(self, names: list[str], found: Inspection) -> list[Column]:
        absent = [c.name for c in self.event.columns.values() if c.name not in names and not c.optional]
        if absent:
            raise DefinitionError(
                f"{self.path} has no column {', '.join(absent)}, which {self.event!r} needs; "
                f"it has: {', '.join(names) or 'nothing'}",
                f"rename the columns of the file as the fields of {self.event!r} are called",
            )
        found.ignored = tuple(name for name in names if name not in self.event.columns)
        return [column for column in self.event.columns.values() if column.name in names]


def _value(column: Column, text: str, utc: bool) -> Any:
    """A cell as the column wants it; Refused says what is wrong with it."""
    if column.type is str:
        return None if text == "" and column.optional else text
    text = text.strip()
    if text in MISSING:
        if column.optional:
            return None
        raise Refused("schema", f"column {column.name} is empty")
    try:
        if column.type is datetime:
            return _zoned(datetime.fromisoformat(text), column.name, utc)
        if column.type is bool:
            return _truth(text.lower())
        number = float(text)
        if not math.isfinite(number):
            raise Refused("schema", f"column {column.name}: {text} is not finite")
        if column.type is float:
            return number
        return int(text) if text.lstrip("+-").isdigit() else _whole(number)
    except ValueError:
        wanted = {
            datetime: "time as in 2013-01-31T10:00:00+00:00",
            bool: "truth value (true, false, 1, 0)",
            int: "whole number",
        }
        raise Refused("schema", f"column {column.name}: {text!r} is no {wanted.get(column.type, 'number')}") from None


def _truth(text: str) -> bool:
    if text not in TRUE and text not in FALSE:
        raise ValueError(text)
    return text in TRUE


def _whole(number: float) -> int:
    """Programs that know only floats write 3 as 3.0."""
    if number != int(number):
        raise ValueError(number)
    return int(number)


def _zoned(moment: Any, name: str, utc: bool) -> Any:
    if not isinstance(moment, datetime) or moment.tzinfo is not None:
        return moment
    if not utc:
        raise Refused(
            "schema",
            f"column {name}: {moment.isoformat(' ')} has no time zone; write one, or say that all are UTC: --utc",
        )
    return moment.replace(tzinfo=UTC)
