"""Reading a table in the order of its topic: the rows of one partition, by offset, from any place on, in bounded memory.

Rows lie in files in no order. But a commit writes what it has of a partition in order, and a compaction lays commits end to
end, so a file is a sequence of *runs*: neighbouring rows of one partition whose offsets ascend. A partition is read as a merge
of its runs, which is right however they overlap, and quick where they do not.

A file's runs are looked up (two columns of it) when its statistics say that it may hold the next rows, once for all partitions
that are being read. Its other columns are read by row group (`upkeep.GROUP` rows), of which some `HELD` bytes are kept: lanes
read their partitions at about the same pace, so each group is decoded about once.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..place import PLACE

if TYPE_CHECKING:
    import pyarrow as pa

    from .table import Table

__all__ = ["Scan"]

HELD: Final = 64 << 20
"""Bytes of decoded row groups that are kept; one is always, however large."""


class _Run(NamedTuple):
    """Neighbouring rows of a row group that are of one partition, with ascending offsets from `first` to `last`."""

    first: int
    last: int
    file: int
    group: int
    start: int
    rows: int


class _Cursor:
    """How far a partition is read: the next offset, which files' runs are known, and those of them that are not read."""

    def __init__(self, offset: int, files: int) -> None:
        self.offset = offset
        self.known = np.zeros(files, np.bool_)
        self.runs: list[_Run] = []


class Scan:
    """The rows of the topic that a table takes now, as of its version. Reads forward from wherever it is asked; going back
    costs looking the runs up again."""

    def __init__(self, table: Table) -> None:
        import pyarrow as pa

        self.schema = pa.schema([field for field in table.schema if field.name != PLACE[0]])
        self._open = table.open_file
        files = [file for file in table.added() if file[f"partition.{PLACE[0]}"] == table.topic_id and file["num_records"]]
        files.sort(key=lambda file: file.get(f"min.{PLACE[2]}") or 0)
        self._paths = [file["path"] for file in files]

        def stated(name: str, otherwise: int) -> npt.NDArray[np.int64]:
            return np.array([otherwise if (found := file.get(name)) is None else found for file in files], np.int64)

        most = np.iinfo(np.int64).max
        self._begins, self._ends = stated(f"min.{PLACE[2]}", 0), stated(f"max.{PLACE[2]}", most)
        self._lowest, self._highest = stated(f"min.{PLACE[1]}", 0), stated(f"max.{PLACE[1]}", most)
        self._cursors: dict[int, _Cursor] = {}
        self._held: OrderedDict[tuple[int, int], pa.Table] = OrderedDict()

    def read(self, number: int, first: int, most: int) -> pa.Table | None:
        """At most so many rows of a partition from an offset on, in order (all columns but `topic_id`); None: no more."""
        import pyarrow as pa

        cursor = self._cursors.get(number)
        if cursor is None or first < cursor.offset:
            cursor = self._cursors[number] = _Cursor(first, len(self._paths))
        parts, cursor.offset = list[pa.Table](), first
        while most and (run := self._next(number, cursor)) is not None:
            part = self._rows(run, cursor.offset)
            offsets, taken = _offsets(part), most
            if cursor.runs and cursor.runs[0].first <= run.last:  # they overlap: up to where the other one begins
                taken = min(most, int(np.searchsorted(offsets, cursor.runs[0].first, "right")))
            if taken:
                parts.append(part.slice(0, taken))
                left, most = offsets[taken:], most - len(parts[-1])
                cursor.offset = int(offsets[:taken][-1]) + 1
            else:
                left = offsets
            if len(left):
                heapq.heappush(cursor.runs, run._replace(first=int(left[0])))
        return pa.concat_tables(parts) if parts else None

    def _next(self, number: int, cursor: _Cursor) -> _Run | None:
        """Take the run with the next rows, once no file that is not looked into can have any before its last."""
        wanted = ~cursor.known & (self._lowest <= number) & (number <= self._highest) & (self._ends >= cursor.offset)
        for file in np.flatnonzero(wanted).tolist():  # in order of where they begin
            self._pass(cursor)
            if cursor.runs and cursor.runs[0].last < self._begins[file]:
                break
            self._look(file)
        self._pass(cursor)
        return heapq.heappop(cursor.runs) if cursor.runs else None

    @staticmethod
    def _pass(cursor: _Cursor) -> None:
        while cursor.runs and cursor.runs[0].last < cursor.offset:
            heapq.heappop(cursor.runs)

    def _look(self, file: int) -> None:
        """Tell all partitions that are being read about a file's runs."""
        with self._open(self._paths[file]) as source:
            metadata, columns = source.metadata, source.read(list(PLACE[1:]))
        numbers, offsets = (columns[name].to_numpy() for name in PLACE[1:])
        begins = np.cumsum([0, *(metadata.row_group(g).num_rows for g in range(metadata.num_row_groups))])
        breaks = np.flatnonzero((numbers[1:] != numbers[:-1]) | (offsets[1:] <= offsets[:-1])) + 1
        starts = np.unique(np.concatenate([begins[:-1], breaks]))
        starts = starts[starts < len(offsets)]
        lasts = np.append(starts[1:], len(offsets)) - 1
        groups = np.searchsorted(begins, starts, "right") - 1
        for number, cursor in self._cursors.items():
            if cursor.known[file]:
                continue
            cursor.known[file] = True
            ours = np.flatnonzero((numbers[starts] == number) & (offsets[lasts] >= cursor.offset))
            begin, end, group = starts[ours], lasts[ours], groups[ours]
            cells = (offsets[begin], offsets[end], group, begin - begins[group], end - begin + 1)
            for low, high, of, start, rows in zip(*(cell.tolist() for cell in cells), strict=True):
                heapq.heappush(cursor.runs, _Run(low, high, file, of, start, rows))

    def _rows(self, run: _Run, first: int) -> pa.Table:
        """The rows of a run from an offset on."""
        rows = self._group(run.file, run.group).slice(run.start, run.rows)
        return rows.slice(int(np.searchsorted(_offsets(rows), first)))

    def _group(self, file: int, group: int) -> pa.Table:
        found = self._held.get((file, group))
        if found is None:
            with self._open(self._paths[file]) as source:
                there = source.schema_arrow.names
                found = source.read_row_group(group, [name for name in self.schema.names if name in there])
            found = _fitted(found, self.schema).combine_chunks()
            while self._held and found.nbytes + sum(held.nbytes for held in self._held.values()) > HELD:
                self._held.popitem(last=False)
            self._held[file, group] = found
        self._held.move_to_end((file, group))
        return found


def _offsets(rows: pa.Table) -> npt.NDArray[np.int64]:
    return rows[PLACE[2]].to_numpy()  # type: ignore[no-any-return]


def _fitted(rows: pa.Table, schema: Any) -> pa.Table:
    """With the columns of the table as it is now: one that is younger than the file is null."""
    import pyarrow as pa

    there = set(rows.schema.names)
    columns = [rows[field.name].cast(field.type) if field.name in there else pa.nulls(len(rows), field.type) for field in schema]
    return pa.table(columns, schema=schema)
