"""What tables keep as it is, read as a log: so whoever reads topics answers the same where there is no broker."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from ..log import Batch, LogError, Partition
from ..place import PLACE
from ..topics import Topics
from .columns import WholeColumns, columns_of, whole_of
from .table import Tables

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["KeptLog", "KeptReader"]


class KeptLog:
    """The topics of a project whose records tables keep whole, as `log.Readable`. Each is as it was when it was first asked for.

    Headers and times of writing are not kept; what was sent twice was kept once; what retention took of a topic stays here.
    """

    def __init__(self, tables: Tables, topics: Topics) -> None:
        self._tables, self._topics = tables, topics
        self._read: dict[str, list[Batch]] = {}

    @cached_property
    def there(self) -> list[str]:
        """The topics that there are tables of."""
        declared = columns_of(self._topics) | whole_of(self._topics)
        return [name for name in self._tables.names() if isinstance(declared.get(name), WholeColumns)]

    async def describe(self) -> dict[str, int]:
        """See `log.Readable`."""
        return {name: self._tables.table(name).partitions for name in self.there}

    async def begins(self, topics: Sequence[str]) -> dict[Partition, int]:
        """See `log.Readable`."""
        return {batch.partition: batch.offsets[0] if len(batch) else 0 for name in topics for batch in self._whole(name)}

    async def ends(self, topics: Sequence[str]) -> dict[Partition, int]:
        """See `log.Readable`."""
        return {batch.partition: batch.next if len(batch) else 0 for name in topics for batch in self._whole(name)}

    async def reader(self, positions: Mapping[Partition, int]) -> KeptReader:
        """See `log.Readable`."""
        whole = {batch.partition: batch for name in {place.topic for place in positions} for batch in self._whole(name)}
        return KeptReader([whole[place] for place in positions], positions)

    def _whole(self, name: str) -> list[Batch]:
        """What there is of a topic, a batch for each partition."""
        import pyarrow.compute as pc

        if name not in self.there:
            raise LogError(f"no table in {self._tables.location.root} keeps {name}; what is there: penstock tables list")
        if name not in self._read:
            table = self._tables.table(name)
            columns = [column for column in ("key", "value") if column in table.schema.names]
            rows = table.arrow([*PLACE[1:], *columns], pc.field(PLACE[0]) == table.topic_id).sort_by(PLACE[2])
            parts = [rows.filter(pc.equal(rows[PLACE[1]], number)) for number in range(table.partitions)]
            self._read[name] = [
                Batch(Partition(name, number), rows[PLACE[2]].to_pylist(), _raw(rows, "key"), _raw(rows, "value"))
                for number, rows in enumerate(parts)
            ]
        return self._read[name]


class KeptReader:
    """See `log.Reader`: it never waits, as nothing comes."""

    def __init__(self, batches: Sequence[Batch], positions: Mapping[Partition, int]) -> None:
        self._batches, self._at = list(batches), dict(positions)

    async def read(self, max_records: int, wait: float) -> list[Batch]:
        """Of one partition after the other."""
        for batch in self._batches:
            first = bisect_left(batch.offsets, self._at[batch.partition])
            if first < len(batch):
                cut = slice(first, first + max_records)
                found = Batch(batch.partition, batch.offsets[cut], batch.keys[cut], batch.values[cut])
                self._at[batch.partition] = found.next
                return [found]
        return []

    def seek(self, partition: Partition, offset: int) -> None:
        """See `log.Reader`."""
        if partition in self._at:
            self._at[partition] = offset

    async def close(self) -> None:
        """See `log.Reader`."""
        self._batches.clear()


def _raw(rows: pa.Table, column: str) -> list[bytes | None]:
    """A column as bytes; tables of before it was kept have none."""
    texts = rows[column].to_pylist() if column in rows.column_names else [None] * len(rows)
    return [None if text is None else text.encode() for text in texts]
