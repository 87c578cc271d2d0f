"""Levels: the level of each example in a segment, as eight bytes; names are kept of those alone that are counted apart, so that a
column of a million values costs no more than one of two.

Of learnt levels these are the ones of the least hashes (see penstock.statistics.groups), whatever the order in which rows come.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from zlib import crc32

import numpy as np
import numpy.typing as npt

from penstock.segment import MISSING, MOST, OTHERS, Segment

__all__ = ["LevelCoder"]

_MISSING, _OTHERS = -1, -2
_APART: Final = {MISSING: _MISSING, OTHERS: _OTHERS}


class LevelCoder:
    """Codes of the levels of one segment.

    >>> from types import SimpleNamespace
    >>> home = LevelCoder(Segment(SimpleNamespace(type=str), levels=("north", "south")))
    >>> home.levels(np.array([home.code({repr(home.segment.column): level}) for level in ("south", "east")] + [home.code({})]))
    ['south', 'others', 'missing']
    """

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self._names: dict[int, str] = {}

    def code(self, said: Mapping[str, str]) -> int:
        """Of an outcome that says its levels by segment."""
        level = self.segment.counted(said.get(self.segment.name, MISSING))
        if level in _APART:
            return _APART[level]
        code = crc32(level.encode())
        known = self._names.get(code)
        if known is None:
            self._names[code] = level
            if len(self._names) > MOST:
                del self._names[max(self._names)]
        elif level < known:
            self._names[code] = level
        return code

    def levels(self, codes: npt.NDArray[np.int64]) -> list[str]:
        """The levels of codes; what is not counted apart is OTHERS."""
        names = {**self._names, _MISSING: MISSING}
        return [names.get(code, OTHERS) for code in codes.tolist()]
