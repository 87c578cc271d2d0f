"""Files of lines, CSV and JSON, to be scored in bulk: cut into pieces of whole lines, read quickly where all is well, and line by
line where it is not, so that each line that cannot be read is told with its number.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from penstock.errors import DefinitionError, Refused
from penstock.inputs import Floats

from .given import called, column
from .sources import ROWS, Chunk, Source, Wanted, rounded

__all__ = ["lines_of"]

BYTES: Final = 8 << 20
"""Of one piece, about."""
MISSING: Final = ["", "NA", "N/A", "NaN", "nan", "null", "None"]
"""How programs write a number that is not there (as `penstock.files`)."""
TRUTHS: Final = {"true": 1.0, "false": 0.0, "True": 1.0, "False": 0.0}

_Found = tuple[Any, Any, Floats, dict[int, str]]
"""Line numbers, ids (None: there are none), float64 (rows, inputs), and why rows cannot be read."""


def lines_of(path: Path, wanted: Wanted) -> Source:
    """A .csv file, whose first line names its columns, or one of JSON objects. DefinitionError where it lacks an input."""
    kind = path.suffix
    cuts, digest = _cut(path, quoted=kind == ".csv")
    with path.open("rb") as file:
        head = file.readline()
    if not cuts:
        raise DefinitionError(f"{path} is empty", "give a file with rows")
    header: tuple[str, ...] = ()
    if kind == ".csv":
        header = tuple(name.strip() for name in next(csv.reader([head.decode("utf-8-sig", "replace")]), []))
        names, id_ = called(wanted.inputs, wanted.event, header), ""
        first = _Cut(len(head), cuts[0].end, 2)
        cuts = [cut for cut in (first, *cuts[1:]) if cut.start < cut.end]
    else:
        names, id_ = _called_in(head, wanted), wanted.named(list(_keys(head))) or ""
    parts = [_Lines(str(path), cut, wanted, names, header, id_, cut.end - cut.start) for cut in cuts]
    return Source({"file": path.name, "sha256": digest, "bytes": path.stat().st_size}, parts, "bytes")


class _Cut(NamedTuple):
    """Bytes of a file that are whole lines, and the number of the first, from 1."""

    start: int
    end: int
    line: int


def _cut(path: Path, quoted: bool) -> tuple[list[_Cut], str]:
    """The file in pieces of whole lines, and its sha256. `quoted`: a newline ends a line where the quotes before it are even in
    number (RFC 4180)."""
    cuts, digest = list[_Cut](), hashlib.sha256()
    start, at, line, pending, odd = 0, 0, 1, 0, False
    with path.open("rb") as file:
        while block := file.read(BYTES):
            digest.update(block)
            odd ^= quoted and block.count(b'"') % 2 == 1
            end = _last_line_end(block, odd, quoted)
            if end:
                cuts.append(_Cut(start, at + end, line))
                line += pending + block.count(b"\n", 0, end)
                start, pending = at + end, 0
            pending += block.count(b"\n", end)
            at += len(block)
    if start < at:
        cuts.append(_Cut(start, at, line))
    return cuts, digest.hexdigest()


def _last_line_end(block: bytes, odd: bool, quoted: bool) -> int:
    """Where the last line of a block ends; 0: nowhere. `odd`: quotes up to the end of the block are odd in number."""
    end = len(block)
    while (found := block.rfind(b"\n", 0, end)) >= 0:
        odd ^= quoted and block.count(b'"', found, end) % 2 == 1
        if not odd:
            return found + 1
        end = found
    return 0


@dataclass(frozen=True)
class _Lines:
    """Lines of a CSV file (`header` names its columns) or of JSON. Read quickly where all is well, else line by line."""

    path: str
    cut: _Cut
    wanted: Wanted
    names: Mapping[str, str]
    header: tuple[str, ...]
    id: str
    size: int

    def read(self) -> Iterator[Chunk]:
        import pyarrow as pa

        with open(self.path, "rb") as file:
            file.seek(self.cut.start)
            data = file.read(self.cut.end - self.cut.start)
        if self.header:
            lines, ids, wide, bad = self._table(data) or self._csv(data)
        else:
            lines, ids, wide, bad = self._structs(data) or self._json(data)
        for first in range(0, max(len(wide), 1), ROWS):
            some = slice(first, first + ROWS)
            place = {"row": pa.array(np.asarray(lines[some], np.int64))}
            if ids is not None:
                place["id"] = pa.array(ids[some], pa.string())
            wrong = {at - first: said for at, said in bad.items() if first <= at < first + ROWS}
            yield Chunk(pa.table(place), rounded(wide[some]), wrong)

    def _table(self, data: bytes) -> _Found | None:
        """None where it is not plainly a table of numbers, one row a line."""
        import pyarrow as pa
        from pyarrow import csv as arrow

        id_ = self.wanted.named(self.header)
        kinds = {name: pa.float64() for name in self.names.values()} | ({id_: pa.string()} if id_ else {})
        if len(set(self.header)) < len(self.header):
            return None
        try:
            table = arrow.read_csv(
                pa.BufferReader(data), arrow.ReadOptions(column_names=self.header, use_threads=False),
                convert_options=arrow.ConvertOptions(
                    column_types=kinds, include_columns=list(kinds), null_values=MISSING, strings_can_be_null=False
                ),
            )  # fmt: skip
        except (pa.ArrowException, OSError):
            return None
        columns = [table[name] for name in self.names.values()]
        wide = np.stack([column(values, name) for values, name in zip(columns, self.names, strict=True)], axis=1)
        stated = np.stack([~values.is_null().to_numpy() for values in columns], axis=1)
        if len(table) != _count(data) or not np.isfinite(wide[stated]).all():
            return None
        if any(values.null_count for name, values in zip(self.names, columns, strict=True) if not self.wanted.may_miss(name)):
            return None
        ids = table[id_].combine_chunks() if id_ else None
        return np.arange(self.cut.line, self.cut.line + len(table)), ids, wide, {}

    def _csv(self, data: bytes) -> _Found:
        reader = csv.reader(io.StringIO(data.decode("utf-8", "replace"), newline=""))
        id_ = self.wanted.named(self.header)
        at = [self.header.index(name) for name in self.names.values()]
        named = self.header.index(id_) if id_ else -1
        rows, lines, ids, bad = list[list[float]](), list[int](), list[str | None](), dict[int, str]()
        for cells in reader:
            if not cells:
                continue
            try:
                if len(cells) != len(self.header):
                    raise Refused("decode", f"{len(cells)} cells, the first line has {len(self.header)}")
                rows.append([self._cell(name, cells[place]) for name, place in zip(self.names, at, strict=True)])
            except Refused as refusal:
                bad[len(rows)] = f"{refusal.reason}: {refusal}"
                rows.append([math.nan] * len(at))
            lines.append(self.cut.line + reader.line_num - 1)
            ids.append(cells[named] if 0 <= named < len(cells) else None)
        return lines, ids if id_ else None, np.array(rows, np.float64).reshape(-1, len(at)), bad

    def _cell(self, name: str, text: str) -> float:
        text = text.strip()
        if text in MISSING:
            if self.wanted.may_miss(name):
                return math.nan
            raise Refused("schema", f"{name} is empty")
        try:
            found = TRUTHS[text] if text in TRUTHS else float(text)
        except ValueError:
            raise Refused("schema", f"{name}: {text[:80]!r} is no number") from None
        if not math.isfinite(found):
            raise Refused("schema", f"{name}: {text[:80]} is not finite")
        return found

    @cached_property
    def _line(self) -> Any:
        """What a line of JSON is decoded into."""
        fields: list[Any] = []
        for n, name in enumerate(self.names):
            kind = float | bool | None if self.wanted.may_miss(name) else float | bool
            fields.append((f"c{n}", kind, None) if name in self.wanted.optional else (f"c{n}", kind))
        rename = {f"c{n}": there for n, there in enumerate(self.names.values())}
        if self.id:
            fields.append(("id", str | int | None, None))
            rename["id"] = self.id
        return msgspec.defstruct("Line", fields, rename=rename, gc=False, kw_only=True)

    def _structs(self, data: bytes) -> _Found | None:
        try:
            rows: list[Any] = msgspec.json.Decoder(self._line).decode_lines(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        if len(rows) != _count(data):
            return None
        return self._found(np.arange(self.cut.line, self.cut.line + len(rows)), rows, {})

    def _json(self, data: bytes) -> _Found:
        decode = msgspec.json.Decoder(self._line).decode
        rows, lines, bad = list[Any](), list[int](), dict[int, str]()
        for number, text in enumerate(data.split(b"\n"), self.cut.line):
            if not text.strip():
                continue
            try:
                rows.append(decode(text))
            except msgspec.ValidationError as error:
                bad[len(rows)] = f"schema: {error}"
                rows.append(None)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                bad[len(rows)] = f"decode: {error}"
                rows.append(None)
            lines.append(number)
        return self._found(lines, rows, bad)

    def _found(self, lines: Any, rows: Sequence[Any], bad: dict[int, str]) -> _Found:
        width = len(self.names)
        nothing = (math.nan,) * width
        found = [nothing if row is None else [getattr(row, f"c{n}") for n in range(width)] for row in rows]
        ids = [None if row is None or row.id is None else str(row.id) for row in rows] if self.id else None
        return lines, ids, np.array(found, np.float64).reshape(-1, width), bad


def _count(data: bytes) -> int:
    return data.count(b"\n") + (not data.endswith(b"\n") and bool(data))


def _keys(line: bytes) -> Mapping[str, Any]:
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return {}


def _called_in(head: bytes, wanted: Wanted) -> dict[str, str]:
    """By input, its name in lines of JSON, as the first line tells; an optional one need not be in that."""
    keys = list(_keys(head))
    needed = [name for name in wanted.inputs if name not in wanted.optional]
    names = called(needed, wanted.event, keys)
    short = any(there != name for name, there in names.items() if name.startswith(f"{wanted.event}."))
    for name in wanted.inputs:
        if name not in names:
            own = name.partition(".")[2]
            names[name] = own if own in keys or (short and name not in keys) else name
    return {name: names[name] for name in wanted.inputs}
