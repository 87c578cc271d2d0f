"""Surveys: the quality of an event's records over some time, as a value that merges over batches, partitions and days.

accuracy      share of the records that could be read and met every expectation
completeness  share of the values that are not missing
consistency   share of the records that met every rule across columns, of those that one was asked of
timeliness    share of the records that were not late: behind the newest event of their partition (stream time: no clock is asked)

Records that are dead-lettered for what they hold count in all four as far as they could be read; the profile has only those that
were taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ..event import Column, Event, from_micros, to_micros
from ..expectation import Expectation, Remembering, Rule
from ..records import DataQuality, Met
from .column import Values
from .profile import Profile
from .summary import Numbers

__all__ = ["Memories", "Survey", "values_of"]

DELAYS = (0.5, 0.95, 0.99)
NEAR = 512
"""Records whose cells are taken at once."""

Ints = npt.NDArray[np.int64]
Memories = dict[str, dict[int, Any]]
"""What the expectations that remember need of the past, by name."""


class _Asked:
    """An expectation so far; `example` is where the first record lies that did not meet it, and why."""

    __slots__ = ("asked", "broken", "example")

    def __init__(self, asked: int = 0, broken: int = 0, example: str = "") -> None:
        self.asked, self.broken, self.example = asked, broken, example


class Survey:
    """What came of one event. Merging is associative and commutative but for examples (the first is kept) and for what the
    profile says of texts with more than 256 values."""

    def __init__(self, event: Event) -> None:
        self.event = event
        self.records = self.read = self.accurate = self.late = self.ruled = self.consistent = 0
        """Published; readable; as in `accuracy`; late; asked by a rule; as in `consistency`."""
        self.values = self.present = 0
        self.refused: dict[str, int] = {}
        self.asked: dict[str, _Asked] = {e.name: _Asked() for e in event.expectations}
        self.delay, self.profile = Numbers(), Profile()

    def take(
        self,
        decoded: Sequence[Any],
        own: Ints,
        effective: Ints,
        unread: Mapping[int, str],
        memories: Memories,
        place: Callable[[int], str] = lambda at: "",
    ) -> None:
        """Add records in the order of their partition: decoded without their expectations (None where one could not be read, and
        `unread` says why), own and effective times in microseconds. `place` says where the record of an index lies."""
        self.records += len(decoded)
        for reason, count in Counter(unread.values()).items():
            self.refused[reason] = self.refused.get(reason, 0) + count
        at = [i for i in range(len(decoded)) if i not in unread] if unread else range(len(decoded))
        readable = [decoded[i] for i in at] if unread else decoded
        if not readable:
            return
        behind = (effective - own)[list(at)] if unread else effective - own
        self.read += len(readable)
        self.late += int(np.count_nonzero(behind))
        self.delay.add(behind / 1e6)
        columns = _columns(self.event, readable)
        flawed, dead, ruled, unruly = (np.zeros(len(readable), np.bool_) for _ in range(4))
        for expectation in self.event.expectations:
            times = effective[list(at)] if unread else effective
            asked, broken = _judged(expectation, readable, columns, times, memories)
            self._count(expectation, asked, broken, readable, lambda i: place(at[i]))
            flawed |= broken
            if expectation.otherwise == "dead_letter":
                dead |= broken
            if isinstance(expectation, Rule):
                ruled |= asked
                unruly |= broken
        self.accurate += int(np.count_nonzero(~flawed))
        self.ruled += int(np.count_nonzero(ruled))
        self.consistent += int(np.count_nonzero(ruled & ~unruly))
        if dead.any():
            self.refused["expectation"] = self.refused.get("expectation", 0) + int(np.count_nonzero(dead))
        missing = {name: self.event.columns[name].optional and None in values for name, values in columns.items()}
        self.values += len(readable) * len(columns)
        self.present += len(readable) * len(columns) - sum(columns[name].count(None) for name, some in missing.items() if some)
        kept = None if not dead.any() else np.flatnonzero(~dead)
        profiled: dict[str, Values] = {}
        for column in self.event.columns.values():
            values: Any = own[list(at)] if column == self.event.time else columns[column.name]
            if column == self.event.time:
                profiled[column.name] = "time", values if kept is None else values[kept]
            else:
                values = values if kept is None else [values[i] for i in kept.tolist()]
                profiled[column.name] = values_of(column, values, missing[column.name])
        self.profile.add(profiled)

    def _count(
        self, expectation: Expectation, asked: Any, broken: Any, records: Sequence[Any], place: Callable[[int], str]
    ) -> None:
        so_far = self.asked[expectation.name]
        so_far.asked += int(np.count_nonzero(asked))
        failed = int(np.count_nonzero(broken))
        so_far.broken += failed
        if failed and not so_far.example:
            first = int(np.argmax(broken))
            so_far.example = f"{place(first)}: {expectation.why(records[first])}".removeprefix(": ")

    def merge(self, other: Survey) -> Survey:
        """Of all records of both; neither is changed."""
        made = Survey(self.event)
        for name in ("records", "read", "accurate", "late", "ruled", "consistent", "values", "present"):
            setattr(made, name, getattr(self, name) + getattr(other, name))
        made.refused = dict(Counter(self.refused) + Counter(other.refused))
        for name in made.asked:
            one, two = self.asked[name], other.asked[name]
            made.asked[name] = _Asked(one.asked + two.asked, one.broken + two.broken, one.example or two.example)
        made.delay, made.profile = self.delay.merge(other.delay), self.profile.merge(other.profile)
        return made

    def described(self, start: int, end: int) -> DataQuality:
        """The record of a time, in microseconds."""
        topic, when = self.event.topic, from_micros(start)
        return DataQuality(
            id=f"{topic}/{when.date().isoformat()}",
            event=topic,
            start=when,
            end=from_micros(end),
            records=self.records,
            refused=dict(sorted(self.refused.items())),
            late=self.late,
            delay=dict(zip(map(str, DELAYS), self.delay.quantiles(DELAYS), strict=False)),
            accuracy=_share(self.accurate, self.records),
            completeness=_share(self.present, self.values),
            consistency=_share(self.consistent, self.ruled),
            timeliness=_share(self.read - self.late, self.read),
            expectations={
                e.name: Met(
                    asked=self.asked[e.name].asked,
                    broken=self.asked[e.name].broken,
                    otherwise=e.otherwise,
                    example=self.asked[e.name].example,
                )
                for e in self.event.expectations
            },
            columns=self.profile.described(),
        )

    def pack(self) -> bytes:
        numbers = [self.records, self.read, self.accurate, self.late, self.ruled, self.consistent, self.values, self.present]
        asked = [(name, a.asked, a.broken, a.example) for name, a in self.asked.items()]
        return msgspec.msgpack.encode([numbers, self.refused, asked, self.delay.state(), self.profile.pack()])

    @classmethod
    def unpack(cls, event: Event, stored: bytes) -> Survey:
        """The inverse; counts of expectations that are no longer declared are left out."""
        made = cls(event)
        numbers, made.refused, asked, delay, profile = msgspec.msgpack.decode(stored)
        (
            made.records, made.read, made.accurate, made.late, made.ruled, made.consistent, made.values, made.present,
        ) = numbers  # fmt: skip
        made.asked |= {name: _Asked(n, broken, example) for name, n, broken, example in asked if name in made.asked}
        made.delay, made.profile = Numbers.of_state(delay), Profile.unpack(profile)
        return made


def _columns(event: Event, records: Sequence[Any]) -> dict[str, list[Any]]:
    """The values of each column; a few records at a time, while they are in the processor's cache."""
    names = list(event.columns)
    found: dict[str, list[Any]] = {name: [] for name in names}
    cells = attrgetter(*names) if len(names) > 1 else lambda record: (getattr(record, names[0]),)
    for first in range(0, len(records), NEAR):
        for values, part in zip(found.values(), zip(*map(cells, records[first : first + NEAR]), strict=True), strict=True):
            values += part
    return found


def _judged(
    expectation: Expectation, records: Sequence[Any], columns: Mapping[str, Sequence[Any]], times: Ints, memories: Memories
) -> tuple[Any, Any]:
    if isinstance(expectation, Remembering):
        return expectation.follow(memories.setdefault(expectation.name, {}), records, times.tolist())
    return expectation.judge(records, columns)


def values_of(column: Column, values: Sequence[Any], missing: bool) -> Values:
    """The decoded values of a column as a profile takes them; `missing`: some may be None."""
    if column.kind == "text":
        return "text", values if column.type is str else [None if v is None else str(v) for v in values]
    if column.type is datetime:
        moments = [None if v is None else to_micros(v) for v in values]
        return "time", np.array(moments, np.float64 if missing else np.int64)
    if column.type is float:
        return "float", np.array(values, np.float64)
    if column.type is bool:
        return "bool", np.array(values, np.float64 if missing else np.bool_)
    return "int", np.array(values, np.float64 if missing else np.int64)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
