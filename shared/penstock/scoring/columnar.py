"""Parquet files and offline tables, to be scored in bulk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.errors import DefinitionError, Refused
from penstock.inputs import Floats, Matrix
from penstock.model import Model
from penstock.place import PLACE, spelled

from .given import called, column
from .sources import ROWS, Chunk, Part, Source, Wanted, rounded

if TYPE_CHECKING:
    import pyarrow as pa

    from penstock.offline import Tables

__all__ = ["parquet_of", "table_of"]


def parquet_of(path: Path, wanted: Wanted) -> Source:
    """A Parquet file. DefinitionError where it is none, or lacks an input."""
    from pyarrow import ArrowException, parquet

    try:
        file = parquet.ParquetFile(path)
    except (ArrowException, OSError) as error:
        fix = "write it again, for instance: frame.to_parquet(...)"
        raise DefinitionError(f"{path} is no Parquet file: {error}", fix) from None
    names = called(wanted.inputs, wanted.event, file.schema_arrow.names)
    _numbers(file.schema_arrow, names)
    with path.open("rb") as data:
        digest = hashlib.file_digest(data, "sha256").hexdigest()
    parts, row = list[Part](), 0
    for group in range(file.num_row_groups):
        size = file.metadata.row_group(group).num_rows
        if size:
            parts.append(_Group(str(path), group, row, names, wanted, size))
        row += size
    return Source({"file": path.name, "sha256": digest, "bytes": path.stat().st_size}, parts)


def _numbers(schema: pa.Schema, names: Mapping[str, str]) -> None:
    for name, there in names.items():
        try:
            column(schema.empty_table()[there], name)
        except Refused as refusal:
            raise DefinitionError(str(refusal), "write the column as numbers") from None


@dataclass(frozen=True)
class _Group:
    """A row group of a Parquet file; `row` is the number of its first row, from 1."""

    path: str
    group: int
    row: int
    names: Mapping[str, str]
    wanted: Wanted
    size: int

    def read(self) -> Iterator[Chunk]:
        import pyarrow as pa
        from pyarrow import parquet

        file, row = parquet.ParquetFile(self.path), self.row
        id_ = self.wanted.named(file.schema_arrow.names)
        columns = list(dict.fromkeys([*self.names.values(), *([id_] if id_ else [])]))
        for batch in file.iter_batches(ROWS, [self.group], columns):
            table = pa.Table.from_batches([batch])
            place = {"row": pa.array(np.arange(row + 1, row + 1 + len(table)))}
            yield Chunk(_place(place, table, id_), _matrix(table, self.names), {})
            row += len(table)


def table_of(tables: Tables, name: str, model: Model, version: int | None = None, as_of: datetime | None = None) -> Source:
    """A table at a version (default: as it is now): rows of the scored event, or one that has the inputs as columns.

    DefinitionError where it has not, PenstockError where there is no such table or version."""
    table = tables.table(name)
    if version is not None or as_of is not None:
        table = table.at(version, as_of)
    wanted = Wanted.of(model)
    said: dict[str, Any] = {"table": name, "version": table.version, "topic_id": table.topic_id}
    there, event = [name for name in table.schema.names if name not in PLACE], model.scores
    events: tuple[str, int] | None = None
    if "cursor" in there:  # rows: what is the event's own is in its table
        own = {repr(c): spelled(c) for c in event.columns.values() if repr(c) in wanted.inputs}
        if own:
            archived = tables.table(event.topic)
            events = event.topic, archived.version
            said["events"] = event.topic  # at any version that has them: what lies at a place never changes
            there = [*there, *own]
            _numbers(archived.schema, called(list(own), wanted.event, archived.schema.names))
    try:
        names = called(wanted.inputs, wanted.event, there)
    except DefinitionError as error:
        rows = [n for n in tables.names() if n.endswith(f".rows.{event.topic}")]
        raise DefinitionError(
            f"table {name}: {error}", f"--table {rows[0]}" if rows and name == event.topic else error.fix
        ) from None
    own_names = {n: t for n, t in names.items() if t in table.schema.names}
    _numbers(table.schema, own_names)
    parts = []
    for file in sorted(table.added(), key=lambda file: str(file["path"])):
        size = 1 if file["num_records"] is None else int(file["num_records"])
        if size:
            parts.append(_File(tables.location.root, name, table.version, events, file["path"], wanted, size))
    return Source(said, parts)


@dataclass(frozen=True)
class _File:
    """A file of a table, at a version; `events` is the table of the events behind its rows, and the version of that."""

    root: str
    table: str
    version: int
    events: tuple[str, int] | None
    path: str
    wanted: Wanted
    size: int

    def read(self) -> Iterator[Chunk]:
        import pyarrow as pa

        from penstock.offline import Tables

        tables = Tables(self.root)
        with_inputs = tables.table(self.table).at(self.version)
        events = None if self.events is None else tables.table(self.events[0]).at(self.events[1])
        file = with_inputs.open_file(self.path)
        there = file.schema_arrow.names
        id_ = self.wanted.named(there)
        names = [name for name in there if name not in PLACE]
        event = self.wanted.event if events is None else ""  # rows have features only
        mine = {name: own for name in self.wanted.inputs if (own := _mine(name, event, names))}
        place = [name for name in PLACE[1:] if name in there]
        cursor = ["cursor"] if events is not None else []
        row = 0
        for batch in file.iter_batches(
            ROWS, columns=list(dict.fromkeys([*mine.values(), *place, *cursor, *([id_] if id_ else [])]))
        ):
            table = pa.Table.from_batches([batch])
            known = {name: table[name] for name in place} or {"row": pa.array(np.arange(row + 1, row + 1 + len(table)))}
            row += len(table)
            X = np.full((len(table), len(self.wanted.inputs)), np.nan)  # noqa: N806
            bad: dict[int, str] = {}
            for at, name in enumerate(self.wanted.inputs):
                if name in mine:
                    X[:, at] = column(table[mine[name]], name)
            if events is not None:
                lacking = [name for name in self.wanted.inputs if name not in mine and name.startswith(f"{self.wanted.event}.")]
                found, absent = _beside(events, table, lacking, self.wanted, id_)
                X[:, [self.wanted.inputs.index(name) for name in lacking]] = found
                bad = dict.fromkeys(absent, "unknown: its event is not in the table of events")
            yield Chunk(_place(known, table, id_), rounded(X), bad)


def _mine(name: str, event: str, there: Sequence[str]) -> str:
    """What a file calls an input; empty where it has none: then it is younger than the file, or the event's own."""
    own, _, short = name.partition(".")
    return name if name in there else short if own == event and short in there else ""


def _beside(events: Any, rows: pa.Table, names: Sequence[str], wanted: Wanted, id_: str | None) -> tuple[Floats, list[int]]:
    """The events' own columns for rows, and the rows whose event is not there."""
    import pyarrow as pa
    import pyarrow.compute as pc

    source = pc.extract_regex(rows["cursor"], r'"source":\[(?P<partition>\d+),(?P<offset>\d+)\]').combine_chunks()
    partition, offset = (source.field(part).cast("int64").to_numpy(zero_copy_only=False) for part in ("partition", "offset"))
    needed = pc.field("topic_id") == events.topic_id
    ranges = None
    for number in np.unique(partition).tolist():
        mine = offset[partition == number]
        own = (
            (pc.field("partition") == number) & (pc.field("offset") >= int(mine.min())) & (pc.field("offset") <= int(mine.max()))
        )
        ranges = own if ranges is None else ranges | own
    columns = called(names, wanted.event, events.schema.names)
    read = events.arrow([*PLACE[1:], wanted.id, *columns.values()], needed & ranges if ranges is not None else needed)
    place = _keyed(read["partition"].to_numpy(), read["offset"].to_numpy())
    order = np.argsort(place, kind="stable")
    sought = _keyed(partition, offset)
    at = np.searchsorted(place[order], sought)
    at = np.where(at < len(order), at, 0)
    hit = place[order][at] == sought if len(order) else np.zeros(len(sought), bool)
    found = np.full((len(rows), len(names)), np.nan)
    if len(order):
        where = order[at]
        if id_:  # a topic that was made again has other events at these offsets
            theirs = read[wanted.id].cast(pa.string()).take(pa.array(where))
            hit &= pc.equal(rows[id_].cast(pa.string()), theirs).fill_null(False).to_numpy()
        for n, name in enumerate(names):
            found[:, n] = column(read[columns[name]], name)[where]
        found[~hit] = np.nan
    return found, np.flatnonzero(~hit).tolist()


def _keyed(partition: Any, offset: Any) -> Any:
    return (np.asarray(partition, np.int64) << 48) | np.asarray(offset, np.int64)


def _place(columns: Mapping[str, Any], table: pa.Table, id_: str | None) -> pa.Table:
    import pyarrow as pa

    return pa.table({**columns, **({"id": table[id_].cast(pa.string())} if id_ else {})})


def _matrix(table: pa.Table, names: Mapping[str, str]) -> Matrix:
    return rounded(np.stack([column(table[there], name) for name, there in names.items()], axis=1))
