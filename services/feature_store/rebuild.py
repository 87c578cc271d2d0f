"""Rebuild: where a shard has lost its state, its events come from the archive, as far as Kafka no longer keeps them.

How a loss is made good is the lane's (`penstock.runtime.lane`, `penstock.runtime.outbox`): the shard goes back to the positions
of what the store still has (all the way, when it has nothing, as a new generation of the views), works on from there, and
publishes only what the log does not show yet. Events that retention has taken from Kafka are read here, under the offsets that
they had. Where a table ends, Kafka is read on from that very offset: nothing is missing, and nothing comes twice. (Hop topics
must reach back to the first event: keep them for ever, as `penstock topics apply` makes them. Where they do not, the service
says which records are gone, and stops.)
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.log import Batch, Partition
from penstock.offline import Table, Tables
from penstock.offline.scan import Scan
from penstock.place import PLACE

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["EventTables"]


class EventTables:
    """Archived events, from the offline tables of their topics. A `penstock.runtime.earlier.Earlier`.

    What the stream refused is left out: whether an event lay in the future cannot be told again. Values are JSON of the
    columns; a field that the declaration does not name is not there any more.

    A partition is read from the table as it is when its reading begins.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._opened: dict[str, _Past | None] = {}
        self._reading: dict[Partition, int] = {}
        """Where the next read of a partition goes on; any other offset is a beginning."""

    def end(self, partition: Partition) -> int:
        past = self._past(partition.topic)
        return 0 if past is None else past.table.positions().get(partition.number, 0)

    def read(self, partition: Partition, first: int, most: int) -> Batch | None:
        past = self._past(partition.topic, anew=self._reading.pop(partition, None) != first)
        batch = None if past is None else past.read(partition, first, most)
        if batch is not None:
            self._reading[partition] = batch.next
        return batch

    def _past(self, topic: str, anew: bool = False) -> _Past | None:
        """The past of a topic, None where it has no table; `anew`: of what the table holds by now."""
        if anew or topic not in self._opened:
            table = self._tables.table(topic) if topic in self._tables.names() else None
            known = self._opened.get(topic)
            if table is None or known is None or known.table.version != table.version:
                self._opened[topic] = None if table is None else _Past(table, self._tables.refused(topic))
        return self._opened[topic]


class _Past:
    """The events of one table at one version."""

    def __init__(self, table: Table, refused: pa.Table) -> None:
        self.table, self._scan = table, Scan(table)
        self._refused = set(zip(*(column.to_pylist() for column in refused.columns), strict=True))
        names = [name for name in self._scan.schema.names if name not in PLACE]
        fields: list[Any] = [(f"c{i}", object, None) for i in range(len(names))]
        own = {f"c{i}": name.rpartition(".")[2] for i, name in enumerate(names)}  # `Ride.offset`: see `EventColumns`
        self._names, self._event = names, msgspec.defstruct("Event", fields, rename=own, gc=False)
        self._encode = msgspec.json.Encoder().encode

    def read(self, partition: Partition, first: int, most: int) -> Batch | None:
        """As `Earlier.read`."""
        while (rows := self._scan.read(partition.number, first, most)) is not None:
            offsets = rows[PLACE[2]].to_pylist()
            first = offsets[-1] + 1
            if self._refused:
                kept = [at for at, offset in enumerate(offsets) if (partition.number, offset) not in self._refused]
                if len(kept) < len(offsets):
                    rows, offsets = rows.take(kept), [offsets[at] for at in kept]
            if offsets:
                values = list(map(self._encode, map(self._event, *map(_cells, map(rows.column, self._names)))))
                return Batch(partition, offsets, [None] * len(offsets), values)
        return None


def _cells(column: pa.ChunkedArray) -> list[Any]:
    """A column's values. Moments by way of numpy: one by one, pyarrow takes 3 microseconds for each."""
    import pyarrow as pa

    if not pa.types.is_timestamp(column.type):
        return column.to_pylist()  # type: ignore[no-any-return]
    moments: list[datetime | None] = column.to_numpy().astype("datetime64[us]").tolist()
    return [None if moment is None else moment.replace(tzinfo=UTC) for moment in moments]
