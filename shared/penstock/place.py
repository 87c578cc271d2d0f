"""The place of a record: which topic, which partition, which offset; and what offline tables call the columns that say so."""

from __future__ import annotations

from typing import Final

from .event import Column

__all__ = ["PLACE", "spelled"]

PLACE: Final = ("topic_id", "partition", "offset")
"""A table is split by the first, so that it costs nothing per row."""


def spelled(column: Column) -> str:
    """How an offline table calls a column of an event: by its name, but for one that is called like a part of the place, which
    gets its event's name before it: `Ride.offset`."""
    return repr(column) if column.name in PLACE else column.name
