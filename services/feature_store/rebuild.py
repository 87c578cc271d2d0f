"""Rebuild: where a shard has lost its state, its events come from the archive, as far as Kafka no longer keeps them.

How a loss is made good is the lane's (`penstock.runtime.lane`, `penstock.runtime.outbox`): the shard goes back to the positions
of what the store still has (all the way, when it has nothing), works on from there, and publishes only what the log does not
show yet. Events that retention has taken from Kafka are read here, under the offsets that they had. Where a table ends, Kafka
is read on from that very offset: nothing is missing, and nothing comes twice. (Hop topics must reach back to the first event:
keep them for ever, as `penstock topics apply` makes them. Where they do not, the service says which records are gone, and
stops.)

New versions of views (a design; not built). `View.fingerprint` says what a view means. The fingerprints of all views of a project
name a *generation*, which has its own state, hop topics, rows topics and consumer group: their names end with it. So a state of
another definition cannot be misread, as it never has the same name, and old and new serve side by side. Which generation is in
charge says a decision record on `<p>.models`, as for models.

    build    lanes of the new generation, with a log in memory for their hops and rows and this history for their events, write
             states to the store; the steps are those of the stream, so the states are. A kill loses the log in memory: the
             generation's states are wiped and it begins anew (half a minute for a year of flights)
    hand     where the tables end, the states' positions are Kafka's, and nothing waits in a hop: lanes on Kafka go on from there
    shadow   both generations publish rows; equal views must agree at equal cursors (`penstock features verify`)
    swap     one decision record. Readers follow; the old generation is wiped by its name when nobody reads it
"""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.log import Batch, Partition
from penstock.offline import Table, Tables

__all__ = ["EventTables"]

WINDOW: Final = 50_000
"""Offsets read from a table at a time: 20 to 50 MB of typed columns."""


class EventTables:
    """Archived events, from the offline tables of their topics. A `penstock.runtime.earlier.Earlier`.

    What the stream refused is left out: whether an event lay in the future cannot be told again. Values are JSON of the
    columns; a field that the declaration does not name is not there any more.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._opened: dict[str, Table | None] = {}
        self._window: dict[Partition, Batch] = {}

    def end(self, partition: Partition) -> int:
        table = self._table(partition.topic)
        return 0 if table is None else table.positions().get(partition.number, 0)

    def read(self, partition: Partition, first: int, most: int) -> Batch | None:
        found = self._window.get(partition)
        if found is None or not found.offsets[0] <= first <= found.offsets[-1]:
            if found is None:  # a beginning: of what the table holds by now
                self._opened.pop(partition.topic, None)
            found = self._load(partition, first)
            if found is None:
                self._window.pop(partition, None)
                return None
            self._window[partition] = found
        low = next(i for i, offset in enumerate(found.offsets) if offset >= first)
        part = slice(low, low + most)
        return Batch(partition, found.offsets[part], found.keys[part], found.values[part])

    def _load(self, partition: Partition, first: int) -> Batch | None:
        import pyarrow.compute as pc

        table = self._table(partition.topic)
        if table is None:
            return None
        ours = (pc.field("topic_id") == table.topic_id) & (pc.field("partition") == partition.number)
        places = self._tables.taken(partition.topic, ["offset"], ours & (pc.field("offset") >= first))["offset"]
        if not len(places):
            return None
        begin = pc.min(places).as_py()
        within = (pc.field("offset") >= begin) & (pc.field("offset") < begin + WINDOW)
        rows = self._tables.taken(partition.topic, None, ours & within).sort_by("offset")
        offsets = rows["offset"].to_pylist()
        own = rows.drop_columns(["partition", "offset", "topic_id"])
        own = own.rename_columns([name.rpartition(".")[2] for name in own.column_names])  # see `place.spelled`
        values = [msgspec.json.encode(row) for row in own.to_pylist()]
        return Batch(partition, offsets, [None] * len(offsets), values)

    def _table(self, topic: str) -> Table | None:
        """The table of a topic, opened once; None where there is none."""
        if topic not in self._opened:
            self._opened[topic] = self._tables.table(topic) if topic in self._tables.names() else None
        return self._opened[topic]
