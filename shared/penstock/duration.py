"""Lengths of time as people write them: "20ms", "90s", "5m", "1h", "7d". Inside, integer microseconds everywhere."""

from __future__ import annotations

import re

from .mistake import mistake

__all__ = ["DAY", "HOUR", "MINUTE", "SECOND", "micros", "spoken"]

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

_UNITS = {"ms": 1_000, "s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}
_TEXT = re.compile(r"(\d+)\s*(ms|s|m|h|d)")


def micros(text: str) -> int:
    """Microseconds of a length of time; DefinitionError says how to write it.

    >>> micros("90s"), micros("1h")
    (90000000, 3600000000)
    """
    match = _TEXT.fullmatch(str(text).strip())
    if not match or int(match[1]) == 0:
        mistake(f'"{text}" is not a length of time', 'write a whole number and a unit: "20ms", "90s", "5m", "1h", "7d"')
        return DAY
    return int(match[1]) * _UNITS[match[2]]


def spoken(length: int) -> str:
    """The shortest way to write microseconds.

    >>> spoken(7 * DAY), spoken(90 * SECOND)
    ('7d', '90s')
    """
    for unit in ("d", "h", "m", "s"):
        if length % _UNITS[unit] == 0:
            return f"{length // _UNITS[unit]}{unit}"
    return f"{length // 1000}ms"
