"""The commits of a table, read from its log: what deltalake's own history mistakes for others at an older version."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import msgspec

from .location import Location

__all__ = ["Commits", "Version"]


@dataclass(frozen=True, slots=True)
class Version:
    """One commit of a table: its number, when it was made, what it did (Delta's word) and how many rows that wrote."""

    number: int
    at: datetime
    operation: str
    rows: int | None


class Commits:
    """The commits of one table, by number. Those older than `delta.logRetentionDuration` are cleaned away."""

    def __init__(self, location: Location, name: str) -> None:
        self._location, self._log = location, f"{name}/_delta_log"

    def version(self, number: int) -> Version | None:
        """A commit; None when its entry has been cleaned away."""
        found = self._location.read(f"{self._log}/{number:020}.json")
        for line in (found or b"").splitlines():
            action: dict[str, Any] = msgspec.json.decode(line)
            if said := action.get("commitInfo"):
                rows = (said.get("operationMetrics") or {}).get("num_added_rows") if said["operation"] == "WRITE" else None
                at = datetime.fromtimestamp(said["timestamp"] / 1000, UTC)
                return Version(number, at, said["operation"], None if rows is None else int(rows))
        return None

    def until(self, newest: int, limit: int | None = None) -> Iterator[Version]:
        """The commits up to one, newest first."""
        numbers = range(newest, -1, -1)
        for number in numbers if limit is None else islice(numbers, limit):
            found = self.version(number)
            if found is None:
                return
            yield found

    def at(self, moment: datetime, newest: int) -> int | None:
        """The newest version that was there at a moment; None where none was, or it is not known any more.

        By the times that commits state, not those of their files, which copying changes and S3 rounds to seconds.
        """
        place = bisect_right(range(newest + 1), moment, key=self._made) - 1
        return place if place >= 0 and self.version(place) is not None else None

    def _made(self, number: int) -> datetime:
        found = self.version(number)
        return datetime.fromtimestamp(0, UTC) if found is None else found.at
