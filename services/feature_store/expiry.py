"""Expiry: which entities of one hop partition have been quiet for so long that nothing of them can be in a row any more. Pure.

Stream time is cut into periods as long as the hop's lifetime, the longest of its views' (`freshness.lifetime`). An entity is
noted in each period in which it has an event and was in no later one; notes are fields of the shard's table, so they change
with the state in one write. When a period has been over for a lifetime, those of its entities that are in no later one are let
go: one to two lifetimes after their newest event. By then windows are empty and values without a window are forgotten, so no
row of an event that is in time can tell when exactly that was. (An event later than a lifetime can: it finds its entity new.)

The store holds each name at most three times, beside its state. A step looks at about `SWEPT` of them. In memory an entity of
the last two or three lifetimes costs 130 bytes (measured, with a name of 13 characters): a key of one dictionary, and the notes,
packed as in the store.
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
        self._newest: dict[str, int] = {}
        """The newest period in which an entity is noted."""
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
            self._note(number, named)

    def _note(self, number: int, entities: Iterable[str | None]) -> None:
        self.now, newest = max(self.now, number), self._newest
        new = [e for e in dict.fromkeys(entities) if e is not None and newest.get(e, -1) < number]
        newest.update(dict.fromkeys(new, number))
        self._periods.setdefault(number, _Period()).new += new

    def sweep(self, version: int) -> tuple[list[str], dict[str, bytes | None]]:
        """The entities to let go with write `version`, and the fields of the table that change with it (None: deleted)."""
        fields: dict[str, bytes | None] = {}
        gone: list[str] = []
        looked = 0
        for number, period in sorted(self._periods.items()):
            if period.new:
                fields |= period.packed(f"{number}/{version}")
            while period.fields and number + 2 <= self.now and looked < SWEPT:
                field = next(iter(period.fields))
                names = _decode(period.fields.pop(field))
                over = [name for name in names if self._newest.get(name) == number]
                for name in over:
                    del self._newest[name]
                gone += over
                looked += len(names)
                fields[field] = None
            if not period.fields:
                del self._periods[number]
        return gone, fields

    def recall(self, field: str, value: bytes) -> None:
        """Take back a field that `sweep` gave."""
        number, names = int(field.partition("/")[0]), _decode(value)
        self._newest.update((name, number) for name in names if self._newest.get(name, -1) < number)
        self._periods.setdefault(number, _Period()).fields[field] = value
        self.now = max(self.now, number)


class _Period:
    """The names noted in it: those since the last write, and each field that was written; the last one may have room."""

    def __init__(self) -> None:
        self.new: list[str] = []
        self.fields: dict[str, bytes] = {}
        self._open: list[str] = []
        """The names of the last field."""

    def packed(self, field: str) -> dict[str, bytes]:
        """The new names in a field: the last one where it has room, else the one that is given."""
        last = next(reversed(self.fields), "")
        if last and not self._open:  # recalled
            self._open = _decode(self.fields[last])
        if not last or len(self._open) >= TOGETHER:
            last, self._open = field, []
        self._open += self.new
        self.new, self.fields[last] = [], _encode(self._open)
        return {last: self.fields[last]}
