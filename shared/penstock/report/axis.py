"""The axis of time under the pictures of a report."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Final

from .records import Records

__all__ = ["span_of", "x_names"]

DAY_SECONDS: Final = 86_400
_ROUND: Final = (900, 3600, 3 * 3600, 6 * 3600, 12 * 3600, DAY_SECONDS)


def span_of(records: Records) -> tuple[float, float]:
    """The period as the two ends of an axis."""
    return records.start.timestamp(), records.until.timestamp()


def x_names(records: Records, most: int = 6) -> list[tuple[float, str]]:
    """Times under a chart, at round hours or days."""
    low, high = span_of(records)
    step = next((s for s in _ROUND if (high - low) / s <= most), math.ceil((high - low) / DAY_SECONDS / most) * DAY_SECONDS)
    form = "%d %b %H:%M" if step < DAY_SECONDS else "%d %b" if high - low < 300 * DAY_SECONDS else "%b %Y"
    first = math.ceil(low / step) * step if step < DAY_SECONDS else math.ceil(low / DAY_SECONDS) * DAY_SECONDS
    places = [float(first + step * at) for at in range(int((high - first) // step) + 1)]
    return [(at, f"{datetime.fromtimestamp(at, records.start.tzinfo):{form}}") for at in places]
