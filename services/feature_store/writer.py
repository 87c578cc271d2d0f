"""Writes one offline table: compare and append.

A commit is one file that appears whole or not at all. It names the data files, and per partition the last offset that they
cover. Before each commit the table is looked at again: only a writer that is exactly where it believes to be may append, and
Delta refuses a commit when another one of the same partition came between the look and the commit. So two writers, one of
them a zombie, or a process that is killed between data file and commit, leave every record in the table once. Data files
that no commit names are not part of the table (`penstock tables vacuum` removes them).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import structlog

from penstock.errors import PenstockError
from penstock.offline import Location
from penstock.offline.columns import Columns, RecordColumns
from penstock.offline.location import spoken
from penstock.offline.table import PARTITIONS, TOPIC, app_of
from penstock.place import PLACE

__all__ = ["Away", "Moved", "TableWriter", "source_of"]

PROPERTIES: Final = {
    # How far back versions can be read. A commit every 30 s makes 260,000 log entries in that time, which opening a table and
    # compacting it still bear. What training sets pin outlives it, by the files that their manifests list.
    "delta.logRetentionDuration": "interval 90 days",
}


class Moved(Exception):
    """The table is not where this writer left it: another process has written the same partitions, or a person restored an
    older version. Nothing was written; open again and read on from what is recorded."""


class Away(OSError):
    """The storage did not take it: no space, no network. Nothing of it is in the table; try again."""


def source_of(topic_id: str, number: int, source: str) -> str:
    """The name under which the log keeps the greatest number that a source gave a record of a partition."""
    return f"{app_of(topic_id, number)}/{source}"


class TableWriter:
    """Appends to the table of one topic. `open` it, read on from `position`, `append`; after `Moved`, `open` it again."""

    def __init__(self, location: Location, name: str, columns: Columns) -> None:
        self.name, self._location, self.columns = name, location, columns
        self._logger = structlog.get_logger(service="feature_store", part="archive", table=name)
        self._delta: Any = None
        self._topic_id = ""
        self._positions: dict[int, int | None] = {}
        self._seen: dict[tuple[int, str], int] = {}

    def open(self, topic_id: str, partitions: int) -> None:
        """Look where the table is, making it where it is not there. `topic_id` is the topic's identity now.

        Raises Away, Moved (another process is just doing the same), PenstockError for a table that does not fit.
        """
        with _heard(self.name):
            wanted = {TOPIC: topic_id, PARTITIONS: str(partitions)}
            self._delta = self._found(wanted)
            known = self._delta.metadata().configuration
            if any(known.get(key) != value for key, value in wanted.items()):
                self._logger.warning("another topic", was=known.get(TOPIC), now=topic_id, meaning="it was made again; both stay")
                self._delta.alter.set_table_properties(wanted, raise_if_not_exists=False)
        self._fits()
        self._topic_id, self._seen = topic_id, {}
        self._positions = {number: self._recorded(number) for number in range(partitions)}

    def position(self, number: int) -> int | None:
        """The next offset to write of a partition; None before its first record."""
        return self._positions[number]

    def seen(self, number: int, source: str) -> int:
        """The greatest number that a source gave a record of a partition, -1 when it has none there."""
        found = self._seen.get((number, source))
        if found is None:
            version = self._delta.transaction_version(source_of(self._topic_id, number, source))
            found = self._seen[number, source] = -1 if version is None else int(version)
        return found

    def append(self, data: Any, positions: Mapping[int, int], seen: Mapping[tuple[int, str], int]) -> int:
        """Append rows (an Arrow table with this table's columns, without `topic_id`), and with them record the next offset
        of each partition and what was seen of its sources; the new version. Raises Away, Moved."""
        import pyarrow as pa
        from deltalake import CommitProperties, PostCommitHookProperties, Transaction, write_deltalake

        with _heard(self.name):
            self._look()
            if any(self._recorded(number) != self._positions[number] for number in positions):
                raise Moved(f"{self.name} was written by another process")
            said = [Transaction(app_of(self._topic_id, n), offset - 1) for n, offset in positions.items()]
            said += [Transaction(source_of(self._topic_id, *of), number) for of, number in seen.items()]
            there = set(self._names())
            write_deltalake(
                self._delta,
                data.add_column(0, PLACE[0], pa.repeat(self._topic_id, len(data))),
                mode="append",
                schema_mode=None if there == {PLACE[0], *data.column_names} else "merge",
                commit_properties=CommitProperties(app_transactions=said),
                writer_properties=_plain(),
                # Looking for old log entries lists them all, 10 ms per 1,000, after every commit; compaction does it.
                post_commithook_properties=PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False),
            )
        self._positions |= positions
        self._seen |= seen
        return int(self._delta.version())

    def look(self) -> None:
        """Look at the table again. Raises Moved where an older version was restored, Away."""
        with _heard(self.name):
            self._look()

    def _look(self) -> None:
        self._delta.update_incremental()
        # Ahead of what we know is another replica at work on partitions of its own; nothing but a restore goes back.
        if any((self._recorded(number) or 0) < (at or 0) for number, at in self._positions.items()):
            raise Moved(f"{self.name} was restored to an older version")

    def _found(self, properties: Mapping[str, str]) -> Any:
        import pyarrow as pa
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        uri, options = self._location.uri(self.name), self._location.options
        try:
            return DeltaTable(uri, storage_options=options)
        except TableNotFoundError:
            place = pa.schema([(PLACE[0], pa.string()), (PLACE[1], pa.int32()), (PLACE[2], pa.int64())])
            return DeltaTable.create(
                uri,
                pa.schema([*place, *self.columns.schema]),
                mode="ignore",
                partition_by=[PLACE[0]],
                storage_options=options,
                raise_if_key_not_exists=False,
                configuration={
                    **PROPERTIES,
                    **properties,
                    # Statistics of few columns instead of all: what readers skip files by, at half the cost of a commit.
                    "delta.dataSkippingStatsColumns": ",".join([*PLACE[1:], *self.columns.sought]),
                },
            )

    def _fits(self) -> None:
        import pyarrow as pa

        schema = pa.schema(self._delta.schema().to_arrow())
        there = {field.name: field.type for field in schema}
        if isinstance(self.columns, RecordColumns):
            self.columns = self.columns.beside(schema)
        if self._delta.metadata().partition_columns != [PLACE[0]]:
            raise PenstockError(
                f"the table {self._location.uri(self.name)} was not made by this archive", "move it away, or set PENSTOCK_TABLES"
            )
        for field in self.columns.schema:
            known = there.get(field.name, field.type)
            if not (known == field.type or (pa.types.is_large_string(known) and pa.types.is_string(field.type))):
                raise PenstockError(
                    f"column {field.name} of the table {self._location.uri(self.name)} holds {known}, "
                    f"and the project now declares {field.type}",
                    "give the changed field another name, or move the table away to begin a new one",
                )

    def _names(self) -> list[str]:
        return [field.name for field in self._delta.schema().fields]

    def _recorded(self, number: int) -> int | None:
        version = self._delta.transaction_version(app_of(self._topic_id, number))
        return None if version is None or version < 0 else int(version) + 1


@contextmanager
def _heard(name: str) -> Iterator[None]:
    """What deltalake raises, as the archive wants to hear it."""
    from deltalake.exceptions import CommitFailedError, DeltaError, DeltaProtocolError, SchemaMismatchError

    try:
        yield
    except CommitFailedError as error:
        raise Moved(spoken(error)) from error
    except (DeltaProtocolError, SchemaMismatchError) as error:
        raise PenstockError(f"table {name}: {spoken(error)}", f"look with:  penstock tables history {name}") from error
    except (DeltaError, OSError) as error:
        raise Away(f"table {name}: {spoken(error)}") from error


def _plain() -> Any:
    """How fresh files are written: without dictionaries, twice as quick. Compaction, in its own process, makes them small."""
    from deltalake import ColumnProperties, WriterProperties

    return WriterProperties(default_column_properties=ColumnProperties(dictionary_enabled=False))
