"""Expiry: which entities of one hop partition have been quiet for so long that nothing of them can be in a row any more. Pure.

Stream time is cut into periods as long as the hop's lifetime, the longest of its views' (`freshness.lifetime`). An entity is
noted once in each period in which it has an event; notes are fields of the shard's table, so they change with the state in one
write. When a period has been over for a lifetime, those of its entities that are in no later one are let go: one to two lifetimes
after their newest event. By then windows are empty and values without a window are forgotten, so no row of an event that is in
time can tell when exactly that was. (An event later than a lifetime can: it finds its entity new.)

The store holds each name twice at most, beside its state; a step looks at about `SWEPT` of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from penstock.online.freshness import lifetime
from penstock.topology import Hop

__all__ = ["Expiry"]

SWEPT = 4_096
"""Entities looked at per step: 1 ms, beside a step's 40."""

TOGETHER = 512
"""Names in a field before the next one begins: a field for each name would cost five times as much, in a stream that trickles."""

_encode, _decode = msgspec.msgpack.encode, msgspec.msgpack.Decoder(list[str]).decode


class Expiry:
    """Notes of one hop partition. `take` events in order; `sweep` once per write; `recall` what was saved, at the start."""

    def __init__(self, hop: Hop) -> None:
        lifetimes = [lifetime(view) for view in hop.views]
        self._length = 0 if None in lifetimes else max((life or 0 for life in lifetimes), default=0)
        """Microseconds of a period; 0: some view of the hop never forgets."""
        self.now = 0
        """The newest period of any event; a part of the hop's position."""
        self._periods: dict[int, _Period] = {}

    def take(self, entities: Sequence[str | None], times: npt.NDArray[np.int64]) -> None:
        """Note the entities of events (None: nobody) at these times (microseconds)."""
        if not self._length or not len(times):
            return
        numbers = times // self._length
        if numbers.min() == numbers.max():  # as nearly always
            found = [(int(numbers[0]), entities)]
        else:
            found = [(n, [entities[i] for i in np.flatnonzero(numbers == n).tolist()]) for n in np.unique(numbers).tolist()]
        for number, named in found:
            self._periods.setdefault(number, _Period()).note(named)
            self.now = max(self.now, number)

    def sweep(self, version: int) -> tuple[list[str], dict[str, bytes | None]]:
        """The entities to let go with write `version`, and the fields of the table that change with it (None: deleted)."""
        fields: dict[str, bytes | None] = {}
        gone: list[str] = []
        looked = 0
        for number, period in sorted(self._periods.items()):
            if period.new:
                field = next(reversed(period.fields), "")
                if not field or len(period.fields[field]) >= TOGETHER:
                    field = f"{number}/{version}"
                noted = period.fields[field] = period.fields.get(field, []) + period.new
                fields[field], period.new = _encode(noted), []
            while period.fields and number + 2 <= self.now and looked < SWEPT:
                field, names = next(iter(period.fields.items()))
                later = [other.seen for at, other in self._periods.items() if at > number]
                gone += [name for name in names if not any(name in seen for seen in later)]
                looked += len(names)
                period.seen.difference_update(names)
                del period.fields[field]
                fields[field] = None
            if not period.fields:
                del self._periods[number]
        return gone, fields

    def recall(self, field: str, value: bytes) -> None:
        """Take back a field that `sweep` gave."""
        number = int(field.partition("/")[0])
        names = _decode(value)
        period = self._periods.setdefault(number, _Period())
        period.seen.update(names)
        period.fields[field] = names
        self.now = max(self.now, number)


class _Period:
    """Entities that had an event in it: all, those noted since the last write, and those of each field that was written."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.new: list[str] = []
        self.fields: dict[str, list[str]] = {}

    def note(self, entities: Iterable[str | None]) -> None:
        new = [entity for entity in dict.fromkeys(entities) if entity is not None and entity not in self.seen]
        self.new += new
        self.seen.update(new)
