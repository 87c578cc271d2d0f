"""Rebuild: where a shard has lost its state, its events come from the archive, as far as Kafka no longer keeps them.

How a loss is made good is the lane's (`penstock.lane`, `penstock.outbox`): the shard goes back to the positions of what the store
still has (all the way, when it has nothing), works on from there, and publishes only what the log does not show yet. Events that
retention has taken from Kafka are read here, under the offsets that they had. Where a table ends, Kafka is read on from that
very offset: nothing is missing, and nothing comes twice. (Hop topics must reach back to the first event: keep them for ever,
as `penstock topics apply` makes them. Where they do not, the service says which records are gone, and stops.)

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

from pathlib import Path
from typing import Any, Final

import msgspec

from penstock.log import Batch, Partition

__all__ = ["EventTables"]

WINDOW: Final = 50_000
"""Offsets read from a table at a time: 20 to 50 MB of typed columns."""


class EventTables:
    """Archived events in a folder of Delta tables, one for each topic. A `penstock.history.History`.

    Values are JSON of the columns; a field that the declaration does not name is not there any more. A table ends with its
    last event: refused records behind it, which it does not have, must still be in Kafka.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tables: dict[str, Any] = {}
        self._window: dict[Partition, Batch] = {}

    def end(self, partition: Partition) -> int:
        import pyarrow.compute as pc

        scan = self._scan(partition, 0, ["offset"])
        return 0 if scan is None or not scan.num_rows else int(pc.max(scan["offset"]).as_py()) + 1

    def read(self, partition: Partition, first: int, most: int) -> Batch | None:
        found = self._window.get(partition)
        if found is None or not found.offsets[0] <= first <= found.offsets[-1]:
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

        places = self._scan(partition, first, ["offset"])
        if places is None or not places.num_rows:
            return None
        first = int(pc.min(places["offset"]).as_py())
        rows = self._scan(partition, first, None, first + WINDOW).sort_by("offset")
        offsets = rows["offset"].to_pylist()
        named = rows.drop_columns([name for name in ("partition", "offset", "topic_id") if name in rows.column_names])
        values = [msgspec.json.encode(row) for row in named.to_pylist()]
        return Batch(partition, offsets, [None] * len(offsets), values)

    def _scan(self, partition: Partition, first: int, columns: list[str] | None, last: int | None = None) -> Any:
        """The rows of a partition from an offset on; None when there is no table."""
        import deltalake

        path = str(self._folder / partition.topic)
        if partition not in self._window or partition.topic not in self._tables:  # a beginning, or the end: what is there by now
            if not deltalake.DeltaTable.is_deltatable(path):
                return None
            self._tables[partition.topic] = deltalake.DeltaTable(path)
        wanted = [("partition", "=", partition.number), ("offset", ">=", first)]
        wanted += [("offset", "<", last)] if last is not None else []
        return self._tables[partition.topic].to_pyarrow_table(filters=wanted, columns=columns)
