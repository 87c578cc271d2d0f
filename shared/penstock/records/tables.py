"""Tables: what the archive has committed, and the quality of the data in it."""

from __future__ import annotations

from datetime import datetime

import msgspec

__all__ = ["Commit", "DataQuality", "Described", "Frequent", "Met"]


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """A commit to an offline table: its version, and the next offset of each partition of its topic."""

    table: str
    version: int
    positions: dict[int, int]
    rows: int


class Frequent(msgspec.Struct, frozen=True, kw_only=True):
    value: float | str | bool
    count: int


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """One column of a profile. Of text, the numbers are of its lengths in characters; times are ISO-8601."""

    kind: str
    """bool, int, float, time, text, or empty where every value is missing."""
    rows: int
    missing: int
    infinite: int
    """Infinite numbers: in no other figure."""
    distinct: int
    distinct_exact: bool
    """Else an estimate with a standard error of 3.1 %."""
    least: float | str | bool | None
    greatest: float | str | bool | None
    mean: float | None
    std: float | None
    """Of a sample."""
    quantiles: dict[str, float | str | bool]
    """Share of the values -> the least value with at least that share at or below it."""
    error: float
    """How far a quantile may be off, as a share of its size; 0 where it is exact."""
    edges: list[float | str | bool]
    """Of the bins of the histogram, one more than there are counts."""
    counts: list[int]
    frequent: list[Frequent]
    """The most frequent values; empty for numbers of which more than 1,024 differ."""
    frequent_low_by: int
    """Their counts are low by at most this."""
    correlation: float | None
    """With the label (Pearson), over the `correlated` rows that have both; null where one of them does not vary."""
    correlated: int


class Met(msgspec.Struct, frozen=True, kw_only=True):
    """An expectation over a day: of how many records it was asked, and how many did not meet it."""

    asked: int
    broken: int
    otherwise: str
    """dead_letter, flag or alarm."""
    example: str = ""
    """Where the first that did not meet it lies, and why."""


class DataQuality(msgspec.Struct, frozen=True, kw_only=True):
    """A day of one event in stream time, over all partitions: a late record counts in the day in which it was processed."""

    id: str
    event: str
    """The topic."""
    start: datetime
    end: datetime
    part: int = 0
    """Above 0: of records alone that a partition told after the day had been published (the id ends with the number)."""
    records: int
    refused: dict[str, int]
    """Dead-lettered, by reason (duplicates and misplaced records are not known here)."""
    late: int
    """Behind the newest event of their partition."""
    delay: dict[str, float]
    """Quantiles of the seconds that records were behind it when they arrived."""
    accuracy: float | None
    """Share of the records that could be read and met every expectation."""
    completeness: float | None
    """Share of the values that are not missing."""
    consistency: float | None
    """Share of the records that met every rule across columns; null where none is declared."""
    timeliness: float | None
    """Share of the records that were not late."""
    expectations: dict[str, Met]
    columns: dict[str, Described]
    """Of the records that were taken."""
