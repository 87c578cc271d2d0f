"""Expectations: conditions on the records of an event, judged one by one or a batch at a time, with the same verdict.

They are declared with `ps.expect` (see `expect`). What becomes of a record that does not meet one is its `otherwise`:

    dead_letter   it is refused (reason "expectation") before it changes any window, wherever events are decoded
    flag          it goes on, and is counted in <p>.quality
    alarm         as flag, and an alarm stands while the share of a day that does not meet it is above a bound

A missing value meets everything but `Present`. Those that remember (Unique, Rising) cannot dead-letter: their verdict depends on
what was processed before, which a reader who begins later does not know.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal

from . import duration
from .errors import Refused
from .event import Column, Event
from .mistake import mistake
from .source import source_of

if TYPE_CHECKING:  # `import penstock` stays light
    import numpy as np
    import numpy.typing as npt

    Bools = npt.NDArray[np.bool_]
    Columns = Mapping[str, Sequence[Any]]

__all__ = [
    "REMEMBERED",
    "Among",
    "Between",
    "Expectation",
    "Gate",
    "Matches",
    "Otherwise",
    "Present",
    "Remembering",
    "Rising",
    "Rule",
    "Unique",
    "spelled",
]

Otherwise = Literal["dead_letter", "flag", "alarm"]

REMEMBERED = 16_384
"""Values (unique) or keys (rising) that are remembered in a partition, the newest; what comes again after more than that many
others is taken as new."""


class Expectation:
    """One condition. `columns` are what it is about; it is asked of records in which all of them are present."""

    said = ""
    """What is expected, in words."""

    def __init__(self, event: Event, columns: Sequence[Column]) -> None:
        self.event, self.columns = event, tuple(columns)
        self.otherwise: Otherwise = "flag"
        self.above = 0.0

    @property
    def name(self) -> str:
        """Unique within the event; also how it is spelled in fingerprints."""
        return f"{self.columns[0].name} {self.said}"

    def __repr__(self) -> str:
        return f"{self.event!r}.{self.name}"

    def holds(self, value: Any) -> bool:
        """Of one value that is present."""
        raise NotImplementedError

    def why(self, record: Any) -> str:
        """Why a record does not meet it."""
        return f"{self.columns[0]!r} is {_short(getattr(record, self.columns[0].name))}; expected {self.said}"

    def one(self, record: Any) -> bool | None:
        """Whether one record meets it; None when it is not asked."""
        value = getattr(record, self.columns[0].name)
        return None if value is None else self.holds(value)

    def judge(self, records: Sequence[Any], columns: Columns | None = None) -> tuple[Bools, Bools]:
        """Of which records it is asked, and which do not meet it; the same as `one` of each, in arrays. `columns` are theirs,
        for whoever has them."""
        import numpy as np

        values = _values(self.columns[0], records, columns)
        asked = np.ones(len(values), np.bool_)
        if None in values:
            asked = np.fromiter((v is not None for v in values), np.bool_, len(values))
            broken = np.zeros(len(values), np.bool_)
            broken[asked] = self._broken([v for v in values if v is not None])
            return asked, broken
        return asked, self._broken(values)

    def _broken(self, values: Sequence[Any]) -> Bools:
        """Which of the values, all present, it does not hold of: here asked once for each that differs."""
        import numpy as np

        known = {value: not self.holds(value) for value in set(values)}
        return np.fromiter(map(known.__getitem__, values), np.bool_, len(values))


class Between(Expectation):
    """Both ends included; None is open."""

    def __init__(self, column: Column, low: Any, high: Any) -> None:
        super().__init__(column.event, [column])
        self.low, self.high = low, high
        self.said = f"at most {high}" if low is None else f"at least {low}" if high is None else f"between {low} and {high}"

    @property
    def bounds(self) -> tuple[Any, Any]:
        """Of whole numbers whole ones, so that nothing is rounded when arrays are compared with them."""
        low, high = self.low, self.high
        if self.columns[0].type is float or self.columns[0].kind == "time":
            return low, high
        return (
            low if low is None or math.isinf(low) else math.ceil(low),
            high if high is None or math.isinf(high) else math.floor(high),
        )

    def holds(self, value: Any) -> bool:
        return (self.low is None or self.low <= value) and (self.high is None or value <= self.high)

    def _broken(self, values: Sequence[Any]) -> Bools:
        import numpy as np

        column = self.columns[0]
        if column.kind == "time":
            return np.fromiter((not self.holds(value) for value in values), np.bool_, len(values))
        low, high = self.bounds
        array = np.array(values, np.float64 if column.type is float else np.int64)
        broken = np.zeros(len(values), np.bool_)
        if low is not None and low > -math.inf:
            broken |= ~(array >= low)
        if high is not None and high < math.inf:
            broken |= ~(array <= high)
        return broken


class Among(Expectation):
    def __init__(self, column: Column, values: Collection[Any]) -> None:
        super().__init__(column.event, [column])
        self.values = frozenset(values)
        self.said = f"among {', '.join(map(str, sorted(self.values)))}"

    def holds(self, value: Any) -> bool:
        return value in self.values


class Matches(Expectation):
    """The whole text matches the regular expression."""

    def __init__(self, column: Column, pattern: str) -> None:
        super().__init__(column.event, [column])
        self.pattern, self.said = pattern, f"matching {pattern}"
        try:
            self._matched = re.compile(pattern).fullmatch
        except re.error as error:
            mistake(f"{pattern!r} is no regular expression: {error}", "correct it; for a full stop write \\.")
            self._matched = re.compile("").fullmatch

    def holds(self, value: Any) -> bool:
        return self._matched(value) is not None


class Present(Expectation):
    """The value is there, in a column that may be missing."""

    said = "present"

    def __init__(self, column: Column) -> None:
        super().__init__(column.event, [column])

    def one(self, record: Any) -> bool | None:
        return getattr(record, self.columns[0].name) is not None

    def why(self, record: Any) -> str:
        return f"{self.columns[0]!r} is missing"

    def judge(self, records: Sequence[Any], columns: Columns | None = None) -> tuple[Bools, Bools]:
        import numpy as np

        values = _values(self.columns[0], records, columns)
        return np.ones(len(records), np.bool_), np.fromiter((v is None for v in values), np.bool_, len(records))


class Remembering(Expectation):
    """Asked in the order in which a partition was processed; `memory` holds what it needs of the records before."""

    def __init__(self, column: Column) -> None:
        super().__init__(column.event, [column])

    def follow(self, memory: dict[int, Any], records: Sequence[Any], times: Sequence[int]) -> tuple[Bools, Bools]:
        """Judge records at their effective times (microseconds, never falling), and remember them."""
        import numpy as np

        asked, broken = np.zeros(len(records), np.bool_), np.zeros(len(records), np.bool_)
        for i, (record, time) in enumerate(zip(records, times, strict=True)):
            value = getattr(record, self.columns[0].name)
            if value is not None:
                asked[i], broken[i] = True, not self._next(memory, record, value, time)
        while len(memory) > REMEMBERED:
            del memory[next(iter(memory))]
        return asked, broken

    def _next(self, memory: dict[int, Any], record: Any, value: Any, time: int) -> bool:
        raise NotImplementedError


class Unique(Remembering):
    """No value comes twice within `over` in one partition."""

    def __init__(self, column: Column, over: str) -> None:
        super().__init__(column)
        self.over = duration.micros(over)
        self.said = f"unique within {duration.spoken(self.over)}"

    def _next(self, memory: dict[int, Any], record: Any, value: Any, time: int) -> bool:
        name = _named(value)
        before = memory.pop(name, None)
        memory[name] = time
        return before is None or time - before >= self.over


class Rising(Remembering):
    """The value never falls from one record of a key to the next."""

    said = "rising"

    def _next(self, memory: dict[int, Any], record: Any, value: Any, time: int) -> bool:
        name = _named(getattr(record, self.event.key.name))
        now = value.timestamp() if isinstance(value, datetime) else value
        before = memory.pop(name, None)
        memory[name] = now if before is None else max(now, before)
        return before is None or now >= before


class Rule(Expectation):
    """What must be true of the columns of one record together. Asked where every column that it reads is present; a rule that
    raises is not met."""

    def __init__(self, event: Event, body: Callable[[Any], bool], columns: Sequence[Column], straight: bool) -> None:
        super().__init__(event, columns)
        self.body, self.said = body, body.__name__
        self._straight = straight
        """Whether it is arithmetic and comparisons alone, so that whole columns can pass through it."""

    @property
    def name(self) -> str:
        return self.said

    def one(self, record: Any) -> bool | None:
        if any(getattr(record, column.name) is None for column in self.columns):
            return None
        try:
            return bool(self.body(record))
        except Exception:
            return False

    def why(self, record: Any) -> str:
        values = ", ".join(f"{column.name}={_short(getattr(record, column.name))}" for column in self.columns)
        try:
            self.body(record)
        except Exception as error:
            return f"rule {self.said} raises {type(error).__name__}: {_cut(str(error))} ({values})"
        return f"rule {self.said} is not met ({values})"

    def judge(self, records: Sequence[Any], columns: Columns | None = None) -> tuple[Bools, Bools]:
        import numpy as np

        n = len(records)
        own = {column.name: _values(column, records, columns) for column in self.columns}
        asked = np.ones(n, np.bool_)
        for values in own.values():
            if None in values:
                asked &= np.fromiter((v is not None for v in values), np.bool_, n)
        if self._straight and n > 1:
            arrays = {}
            for column in self.columns:
                values = own[column.name]
                found = np.array(values, np.float64) if column.type is float else np.fromiter(values, object, n)
                arrays[column.name] = found[asked]
            try:
                with np.errstate(all="raise", under="ignore"):
                    met = np.asarray(self.body(_Row(arrays)))
                broken = np.zeros(n, np.bool_)
                broken[asked] = ~met.astype(np.bool_)
                return asked, broken
            except Exception:  # some record makes it raise: ask each by itself
                pass
        verdicts = [self.one(record) for record in records]
        return asked, np.fromiter((verdict is False for verdict in verdicts), np.bool_, n)


class _Row:
    """Whole columns in the place of one record."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self.__dict__.update(columns)


class Gate:
    """The expectations of an event that dead-letter, asked of decoded records; None has none."""

    def __init__(self, event: Event | None) -> None:
        self._asked = [
            expectation for expectation in (event.expectations if event else ()) if expectation.otherwise == "dead_letter"
        ]

    def __bool__(self) -> bool:
        return bool(self._asked)

    def check(self, record: Any) -> None:
        """Refused when one record does not meet one of them."""
        for expectation in self._asked:
            if expectation.one(record) is False:
                raise Refused("expectation", expectation.why(record))

    def refused(self, records: Sequence[Any]) -> dict[int, Refused]:
        """The refusals among records, by index."""
        found: dict[int, Refused] = {}
        for expectation in self._asked:
            _, broken = expectation.judge(records)
            for at in broken.nonzero()[0].tolist():
                found.setdefault(at, Refused("expectation", expectation.why(records[at])))
        return found


def _values(column: Column, records: Sequence[Any], columns: Columns | None) -> Sequence[Any]:
    return list(map(attrgetter(column.name), records)) if columns is None else columns[column.name]


def _named(value: Hashable) -> int:
    """64 bits for a value, so that memory does not grow with its length."""
    text = value.isoformat() if isinstance(value, datetime) else repr(value)
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")


def _short(value: Any) -> str:
    return _cut(value.isoformat() if isinstance(value, datetime) else repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:90]}... ({len(text):,} characters)"


def spelled(event: Event) -> list[list[Any]]:
    """The expectations of an event, for fingerprints."""
    found: list[list[Any]] = []
    for expectation in event.expectations:
        code = source_of(expectation.body) if isinstance(expectation, Rule) else ""
        found.append([expectation.name, expectation.otherwise, expectation.above, code])
    return found
