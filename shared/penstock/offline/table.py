"""Reading the offline tables, as they are or as they were."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import PenstockError
from ..mistake import nearest
from ..place import PLACE
from .commits import Commits, Version
from .location import Location

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["PARTITIONS", "TOPIC", "Table", "Tables", "app_of", "delta_at"]

TOPIC, PARTITIONS = "penstock.topic.id", "penstock.topic.partitions"
"""Table properties: the identity of the topic whose records the table takes now, and how many partitions that has."""


def app_of(topic_id: str, number: int) -> str:
    """The name under which a table's transaction log keeps the last offset that it has of a partition. The topic's identity
    is in it because a topic that is deleted and made again starts at offset 0, below what the table has."""
    return f"{topic_id}/{number}"


class Tables:
    """All offline tables of a location: a folder, or `s3://bucket/prefix` (credentials: the AWS_* variables).

    Raises SettingError for a location of another kind, Unreachable where it cannot be read.
    """

    def __init__(self, location: str | Path | Location) -> None:
        self.location = location if isinstance(location, Location) else Location(location)

    def __repr__(self) -> str:
        return f"Tables({self.location.root!r})"

    def names(self) -> list[str]:
        """The tables that are there, sorted: each is called like the topic that it keeps."""
        return [name for name in self.location.folders() if self.location.listed(f"{name}/_delta_log")]

    def table(self, name: str) -> Table:
        """A table as it is now. PenstockError names the nearest one where there is none of that name."""
        return Table(self, name, delta_at(self, name))

    def taken(self, event: str, columns: Sequence[str] | None = None, filter: Any = None) -> pa.Table:  # noqa: A002
        """The rows of an event's table that the stream took, as `Table.arrow` gives them: without those that the feature store
        refused after decoding them (a repeated id, another's partition, a time in the future), as its dead letters say."""
        import pyarrow as pa

        table, refused = self.table(event), self.refused(event)
        wanted = list(columns) if columns is not None else table.schema.names
        rows = table.arrow([*wanted, *(name for name in PLACE if name not in wanted)], filter)
        refused = refused.append_column("topic_id", pa.repeat(table.topic_id, len(refused)))  # it speaks of the topic of now
        left = rows.join(refused, list(PLACE), ["topic_id", "of_partition", "of_offset"], join_type="left anti")
        return left.select(wanted)

    def refused(self, event: str) -> pa.Table:
        """Where the events lie (`of_partition`, `of_offset`) that the feature store refused of an event's topic as it is now."""
        import pyarrow.compute as pc

        dead = self.table(f"{event}.dlq")
        ours = (pc.field("service") == "feature_store") & (pc.field("topic_id") == dead.topic_id)
        return dead.arrow(["of_partition", "of_offset"], ours)

    def arrow_of(
        self,
        name: str,
        files: Sequence[str],
        columns: Sequence[str] | None = None,
        filter: Any = None,  # noqa: A002
    ) -> pa.Table:
        """The rows of given files of a table (paths as in `Table.files`), in their order: how a training set is read whose
        version the log no longer knows. A column that is younger than a file is null there.

        PenstockError where one of the files is gone.
        """
        from pyarrow import dataset

        schema = self.table(name).schema
        paths = [f"{name}/{path}" for path in files]
        found = dataset.dataset(paths, schema, "parquet", self.location.files, dataset.partitioning(flavor="hive"))
        try:
            return found.to_table(columns=None if columns is None else list(columns), filter=filter)
        except FileNotFoundError as error:
            raise PenstockError(
                f"a file of {name} that was pinned is gone: {error}", "it was deleted by other means than: penstock tables vacuum"
            ) from error
        except OSError as error:
            raise self.location.away(error) from error


class Table:
    """An offline table at one version, which stays as it is whatever is written meanwhile.

    Beside its own columns a table has `partition` (int32) and `offset` (int64): the place of the record in its topic, unique
    together with `topic_id`, which differs only where a topic was deleted and made again. Rows are in no order.
    """

    def __init__(self, tables: Tables, name: str, delta: Any) -> None:
        self._tables, self.name, self._delta = tables, name, delta

    def __repr__(self) -> str:
        return f"<Table {self.name} version {self.version}>"

    @property
    def version(self) -> int:
        """Counts commits from 0. Compaction is one, too, and changes no row."""
        return int(self._delta.version())

    @property
    def delta(self) -> Any:
        """The `deltalake.DeltaTable`, for what is not here."""
        return self._delta

    def at(self, version: int | None = None, as_of: datetime | None = None) -> Table:
        """The table at a version, or as it was at a moment (of the wall clock: when its commits were made; with a time zone).

        PenstockError where there is no such version, or what it needs has been cleaned away.
        """
        if (version is None) == (as_of is None):
            raise PenstockError("at() takes a version or a moment, one of them", "at(version=3)   or   at(as_of=moment)")
        return Table(self._tables, self.name, delta_at(self._tables, self.name, version if as_of is None else as_of))

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns and their types."""
        import pyarrow as pa

        return pa.schema(self._delta.schema().to_arrow())

    @property
    def partitions(self) -> int:
        """How many its topic has; 0 for a table that was not written by Penstock."""
        return int(self._delta.metadata().configuration.get(PARTITIONS, 0))

    @property
    def rows(self) -> int:
        """How many rows, from the log alone."""
        return int(self._delta.count())

    @property
    def files(self) -> list[str]:
        """The files of this version, as paths below the table's folder, sorted: what a manifest pins."""
        return sorted(self._adds.column("path").to_pylist())

    @property
    def bytes(self) -> int:
        """Size of the files of this version."""
        return sum(self._adds.column("size_bytes").to_pylist())

    @cached_property
    def _adds(self) -> Any:
        return self._delta.get_add_actions(flatten=True)  # as it comes: pyarrow.table would import pandas, for seconds

    def added(self) -> list[dict[str, Any]]:
        """What the log says of each file of this version: `path`, `num_records`, `min.<column>`, `partition.topic_id` and so on
        (Delta's words)."""
        names, adds = self._adds.schema.names, self._adds
        columns = [adds.column(name).to_pylist() for name in names]
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]

    def open_file(self, path: str) -> Any:
        """A file of this version, as a `pyarrow.parquet.ParquetFile`. Errors as of `arrow`."""
        import pyarrow.parquet as pq

        with self._gone():
            return pq.ParquetFile(self._tables.location.files.open_input_file(f"{self.name}/{path}"), pre_buffer=True)

    def arrow(self, columns: Sequence[str] | None = None, filter: Any = None) -> pa.Table:  # noqa: A002  # pyarrow's word
        """The rows, as a pyarrow table; `columns` in that order (default: all), `filter` a pyarrow expression or a list of
        (column, operator, value). Files whose statistics rule the filter out are not opened.

        PenstockError for an unknown column, and where files of this version have been vacuumed.
        """
        for name in columns or ():
            if name not in self.schema.names:
                raise PenstockError(f"table {self.name} has no column {name!r}", nearest(name, self.schema.names))
        with self._gone():
            return self._delta.to_pyarrow_table(columns=None if columns is None else list(columns), filters=filter)

    @contextmanager
    def _gone(self) -> Iterator[None]:
        """What a file that cannot be read means to a person."""
        try:
            yield
        except FileNotFoundError as error:
            raise PenstockError(
                f"version {self.version} of {self.name} has been vacuumed: its files are gone",
                f"choose a later one:  penstock tables history {self.name}",
            ) from error
        except OSError as error:
            raise self._tables.location.away(error) from error

    @property
    def topic_id(self) -> str:
        """The identity of the topic whose records it takes; empty for a table that Penstock did not make."""
        return str(self._delta.metadata().configuration.get(TOPIC, ""))

    def positions(self) -> dict[int, int]:
        """The next offset of each partition that this version has records of: all before it are in, or were refused."""
        last = {n: self._delta.transaction_version(app_of(self.topic_id, n)) for n in range(self.partitions)}
        return {number: int(offset) + 1 for number, offset in last.items() if offset is not None and offset >= 0}

    def history(self, limit: int | None = None) -> list[Version]:
        """The commits up to this version, newest first."""
        return list(Commits(self._tables.location, self.name).until(self.version, limit))

    @property
    def committed(self) -> datetime:
        """When this version was made."""
        [found] = self.history(1)
        return found.at


def delta_at(tables: Tables, name: str, version: int | datetime | None = None) -> Any:
    """The `deltalake.DeltaTable` of a name, at its newest version, at a given one, or as it was at a moment."""
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError, TableNotFoundError

    location = tables.location
    open_now = f"choose another:  penstock tables history {name}"
    try:
        delta = DeltaTable(location.uri(name), storage_options=location.options)
        newest = int(delta.version())
        if isinstance(version, datetime):
            if version.tzinfo is None:
                raise PenstockError(f"the moment {version} has no time zone", "say which, such as 2026-02-01T12:00Z")
            then = Commits(location, name).at(version, newest)
            if then is None:
                raise PenstockError(f"table {name} is not known before {version:%Y-%m-%d %H:%M:%S %Z}", open_now)
            version = then
        if version is not None:
            if not 0 <= version <= newest:
                raise PenstockError(f"table {name} has versions 0 to {newest}, not {version}", open_now)
            delta.load_as_version(version)
        return delta
    except TableNotFoundError as error:
        there = tables.names()
        fix = nearest(name, there) if there else "the archive makes it when it starts; what is there:  penstock tables list"
        raise PenstockError(f"there is no table {name} in {location.root}", fix) from error
    except DeltaError as error:
        if version is None:
            raise location.away(error) from error
        raise PenstockError(f"version {version} of {name} is gone: its log entries have been cleaned away", open_now) from error
    except OSError as error:
        raise location.away(error) from error
