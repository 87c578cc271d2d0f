"""Is every record of a topic in its table, and there once? The table's places are compared with the log, offset by offset.

An offset that the table lacks is looked up in the log, where that still has it: nothing may lie there (a transaction's
marker), or a record that fits no column (a dead letter), or one that a service sent twice. Anything else is lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ..log import Batch, Gap, Log, Partition
from ..place import PLACE
from ..runtime.lane import numbered
from .columns import Columns
from .table import Table

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Checked", "verify"]

AT_ONCE: Final = 20_000
"""Records in one read."""
WAIT: Final = 5.0
"""Seconds for a record that the log says is there."""
NAMED: Final = 10
"""Offsets that a complaint names."""


@dataclass(slots=True)
class Checked:
    """What was found for one partition of one topic. The table is right where `lost` and `doubled` are 0."""

    table: str
    topic_id: str
    partition: int
    rows: int
    first: int
    """The oldest offset that the table has."""
    next: int
    """The position after the newest that it covers."""
    doubled: int = 0
    lost: int = 0
    refused: int = 0
    """Records that fit no column."""
    repeated: int = 0
    """Records that one of our services sent twice, which are kept once."""
    empty: int = 0
    """Offsets without a record."""
    unknown: int = 0
    """Offsets that the table lacks and the log no longer has, or was not asked for."""
    behind: int = 0
    """Records that are not archived yet."""
    examples: list[int] = field(default_factory=list)
    """The first offsets of what is lost or doubled."""

    @property
    def right(self) -> bool:
        """Whether nothing is lost and nothing doubled."""
        return not (self.lost or self.doubled)


async def verify(table: Table, columns: Columns | None = None, log: Log | None = None) -> list[Checked]:
    """Check a table, per partition. Without a log (or for a topic that is gone) only doubled rows are found for certain, and
    gaps are `unknown`; without `columns` every record in the log must be in the table."""
    import numpy as np

    rows = table.arrow(columns=list(PLACE)).to_pandas()
    groups = {place: group[PLACE[2]].to_numpy() for place, group in rows.groupby(list(PLACE[:2]), sort=True)}
    begins: dict[int, int] = {}
    ends: dict[int, int] = {}
    if log is not None and table.name in await log.describe():
        identity = (await log.identities([table.name]))[table.name]
        if identity == table.topic_id:
            begins = {p.number: at for p, at in (await log.begins([table.name])).items()}
            ends = {p.number: at for p, at in (await log.ends([table.name])).items()}
    for number in ends:
        groups.setdefault((table.topic_id, number), np.zeros(0, np.int64))
    positions, found = table.positions(), []
    for (topic_id, number), offsets in sorted(groups.items()):
        current = topic_id == table.topic_id
        unique, times = np.unique(offsets, return_counts=True)
        first, last = (int(unique[0]), int(unique[-1])) if len(unique) else (begins.get(number, 0), begins.get(number, 0) - 1)
        end = max(last + 1, positions.get(number, 0) if current else 0)
        one = Checked(table.name, str(topic_id), int(number), len(offsets), first, end)
        one.doubled, one.examples = int((times - 1).sum()), unique[times > 1][:NAMED].tolist()
        begin = begins.get(number, first) if current else first
        gaps = np.setdiff1d(np.arange(min(begin, first), end), unique)
        if current and number in ends and log is not None:
            one.behind = max(ends[number] - end, 0)
            await _explain(one, gaps, begin, columns, log)
        else:
            one.unknown = len(gaps)
        found.append(one)
    return found


async def _explain(one: Checked, gaps: npt.NDArray[np.int64], begin: int, columns: Columns | None, log: Log) -> None:
    """Why the table lacks these offsets, by what the log has there."""
    left = {int(offset) for offset in gaps if offset >= begin}
    one.unknown = len(gaps) - len(left)
    if not left:
        return
    last, at = max(left), begin
    greatest: dict[str, int] = {}
    reader = await log.reader({Partition(one.table, one.partition): begin})
    try:
        while at <= last:
            batches = await reader.read(AT_ONCE, WAIT)
            if not batches:
                break  # nothing but markers up to the end
            for batch in batches:
                at = batch.next
                _look(one, batch, left, greatest, begin, columns)
    except Gap:  # retention took records away while we looked
        one.unknown += len(left)
        left.clear()
    finally:
        await reader.close()
    one.empty += len(left)


def _look(one: Checked, batch: Batch, left: set[int], greatest: dict[str, int], begin: int, columns: Columns | None) -> None:
    """Take the offsets of a batch from `left`, and count what lies there. `greatest` is the greatest number of each source."""
    named: Any = columns is not None and columns.numbered and batch.headers
    for i, offset in enumerate(batch.offsets):
        said = numbered(batch.headers[i]) if named else None
        before = None if said is None else greatest.get(said[0])
        if said is not None:
            greatest[said[0]] = max(said[1], -1 if before is None else before)
        if offset not in left:
            continue
        left.discard(offset)
        if said is not None and before is not None and said[1] <= before:
            one.repeated += 1
        elif columns is not None and not len(columns.decode([batch.values[i]], batch.headers[i : i + 1]).kept):
            one.refused += 1
        elif said is not None and before is None and begin:
            one.unknown += 1  # it may repeat one that the log no longer has
        else:
            one.lost += 1
            one.examples = sorted([*one.examples, offset])[:NAMED]
