"""Segmented: the reference of a version by level of its model's segments, so that an input can be held against what it used to be
within a level; the whole may stand still while one of its parts moves.

A level is compared like with like, as the whole is: with the same hour of the week where the level has enough days of it, else
coarser (see hours.py). A level of fewer than LEAST_ROWS training rows has no
reference here; the first week of the version in charge is one then (services/monitoring/monitors/within.py).

Levels times inputs are at most MOST_CELLS: of more inputs the first that the model names are counted by level.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Final

import msgspec
import numpy as np

from ..errors import PenstockError
from ..segment import MISSING, MOST, OTHERS, Segment
from .groups import bounded
from .hours import LARGEST, Hours, Ints, customs_of, hours_of

__all__ = ["LEAST_ROWS", "MOST_CELLS", "LevelReference", "Segmented", "affordable", "most_levels", "segmented"]

MOST_CELLS: Final = 1_024
"""Levels times inputs, the score among them: 23,000 counts in a window, 15 MB of shares by hour for a version."""
LEAST_ROWS: Final = 200


class LevelReference(msgspec.Struct, frozen=True, array_like=True):
    """Of one level: how many training rows, their `hours` (see Hours.dumped; empty: too few rows), and the customs of its inputs
    by length of window."""

    rows: int
    hours: bytes = b""
    customs: dict[int, dict[str, float]] = {}


class Segmented(msgspec.Struct, frozen=True, array_like=True):
    """Of one version; `inputs` are those that are counted by level, `levels` are by segment."""

    inputs: list[str]
    levels: dict[str, dict[str, LevelReference]]

    def dumped(self) -> bytes:
        """The file. The same reference gives the same bytes."""
        return zlib.compress(msgspec.msgpack.encode(self))

    @classmethod
    def opened(cls, data: bytes) -> Segmented:
        """What was dumped; PenstockError where it is something else."""
        try:
            unpacking = zlib.decompressobj()
            unpacked = unpacking.decompress(data, LARGEST)
            if not unpacking.eof:
                raise PenstockError("truncated, or too large")
            found = msgspec.msgpack.decode(unpacked, type=cls)
            for levels in found.levels.values():
                for level in levels.values():
                    if level.hours:
                        Hours.opened(level.hours)
        except (zlib.error, msgspec.MsgspecError, UnicodeDecodeError, PenstockError) as error:
            cause = f"the reference by segment is damaged ({type(error).__name__}: {error}): not opened"
            raise PenstockError(cause, "restore the file, or fit a new version") from None
        return found


def affordable(inputs: Sequence[str], levels: int) -> list[str]:
    """Those that can be counted in so many levels, the score being counted in any case.

    >>> affordable(["a", "b", "c"], 400), affordable(["a", "b", "c"], 10)
    (['a'], ['a', 'b', 'c'])
    """
    return list(inputs[: max(MOST_CELLS // max(levels, 1) - 1, 0)])


def most_levels(segments: Sequence[Segment]) -> int:
    """How many levels segments can have in all."""
    return sum((len(segment.declared) or MOST) + 2 for segment in segments)


def segmented(
    times: Ints,
    places: Mapping[str, Ints],
    widths: Mapping[str, int],
    levels: Mapping[str, Sequence[str]],
    customs: Mapping[int, Mapping[str, float]],
) -> Segmented:
    """Of rows at `times` (microseconds) whose values fall to bins `places`, of `widths` bins, by input; `levels` says for each
    segment the level of each row, `customs` those of the whole, by length of window."""
    rows = {segment: bounded(Counter(found)) for segment, found in levels.items()}
    inputs = affordable(list(places), sum(len(found.keys() | {MISSING, OTHERS}) for found in rows.values()))
    made: dict[str, dict[str, LevelReference]] = {}
    for segment, found in rows.items():
        made[segment], places_of = {}, {level: at for at, level in enumerate(found)}
        codes = np.array([places_of.get(level, places_of.get(OTHERS, -1)) for level in levels[segment]], np.int64)
        for level, n in found.items():
            inside = codes == places_of[level]
            if n < LEAST_ROWS:
                made[segment][level] = LevelReference(n)
                continue
            then, here = times[inside], {name: places[name][inside] for name in inputs}
            hours, own = hours_of(then, here, widths), customs_of(then, here, widths, list(customs))
            made[segment][level] = LevelReference(n, hours.dumped() if inputs else b"", own)
        made[segment] = _pooled(made[segment], customs)
    return Segmented(inputs, made)


def _pooled(levels: Mapping[str, LevelReference], whole: Mapping[int, Mapping[str, float]]) -> dict[str, LevelReference]:
    """With customs that are no less than the usual of all levels (root of the mean square), and than that of the whole. A level
    has few rows in a window, so its own custom is known badly; and of many levels some would seem to have none, and alarm."""
    found = dict(levels)
    for length, of_whole in whole.items():
        known = {level: of.customs[length] for level, of in levels.items() if length in of.customs}
        names = {name for own in (of_whole, *known.values()) for name in own}
        usual = {name: sqrt(sum(own.get(name, 0.0) ** 2 for own in known.values()) / len(known)) for name in names if known}
        for level, own in known.items():
            least = {name: max(own.get(name, 0.0), usual[name], of_whole.get(name, 0.0)) for name in sorted(names)}
            customs = found[level].customs | {length: {name: round(spread, 4) for name, spread in least.items()}}
            found[level] = msgspec.structs.replace(found[level], customs=customs)
    return found
