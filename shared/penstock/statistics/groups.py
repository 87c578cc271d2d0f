"""Groups: what is counted of the levels of a segment, exactly, whatever they are and however many, in any order and over any
partitions.

Of more than MOST levels those are counted apart whose names have the least hashes, all others together. As more levels are seen
the bar only falls, so a level that is counted apart in the end was so in every share that is added, and its counts are whole
(the bottom-k sample of Bar-Yossef et al. 2002). Which levels are frequent, no partition knows before it is too late.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar
from zlib import crc32

import msgspec

from ..records import Group, Quality
from ..segment import MISSING, MOST, OTHERS
from .loss import clipped
from .quality import GRAIN, Sums, added, place_of

__all__ = ["Groups", "Levels", "added_groups", "bounded"]

Groups = dict[str, dict[str, Group]]
"""By segment and level."""
T = TypeVar("T")
_SET_APART = (MISSING, OTHERS)


def _rank(level: str) -> tuple[int, str]:
    return crc32(level.encode()), level


class _Grouped(msgspec.Struct):
    """A Group under way."""

    answers: int = 0
    selected: int = 0
    scores: float = 0.0
    sums: Sums | None = None

    def frozen(self) -> Group:
        quality = self.sums.frozen() if self.sums else Quality()
        return Group(answers=self.answers, selected=self.selected, scores=self.scores, quality=quality)


class Levels(msgspec.Struct):
    """The groups of one segment under way. `bar`: beyond it a level is one of the others."""

    groups: dict[str, _Grouped] = {}
    bar: tuple[int, str] | None = None

    def answer(self, level: str, score: float, cut: int) -> None:
        """Count an answer; it says yes from the step `cut` of scores on."""
        group = self._group(level)
        group.answers += 1
        group.selected += place_of(score) >= cut

    def judge(self, level: str, score: float, label: bool, sign: int) -> None:
        """Count an outcome, or take it back (`sign` -1)."""
        group = self._group(level)
        if group.sums is None:
            group.sums = Sums()
        group.sums.add(score, label, sign)
        group.scores += sign * (round(clipped(score) * GRAIN) / GRAIN)

    def _group(self, level: str) -> _Grouped:
        found = self.groups.get(level)
        if found is not None:
            return found
        if level not in _SET_APART:
            if self.bar is not None and _rank(level) > self.bar:
                return self._group(OTHERS)
            named = [known for known in self.groups if known not in _SET_APART]
            if len(named) == MOST:
                self._fold(max(named, key=_rank))
                self.bar = max(_rank(known) for known in (*self.groups, level) if known not in _SET_APART)
            elif len(named) == MOST - 1:
                self.bar = max(map(_rank, (*named, level)))
        found = self.groups[level] = _Grouped()
        return found

    def _fold(self, level: str) -> None:
        folded, others = self.groups.pop(level), self._group(OTHERS)
        others.answers += folded.answers
        others.selected += folded.selected
        others.scores += folded.scores
        if folded.sums is not None:
            others.sums = added(others.sums or Sums(), folded.sums)

    def frozen(self) -> dict[str, Group]:
        return {level: group.frozen() for level, group in sorted(self.groups.items())}


def bounded(levels: Mapping[str, T]) -> dict[str, T]:
    """At most MOST levels, and the others, of sums that `added` can add."""
    named = sorted((level for level in levels if level not in _SET_APART), key=_rank)
    folded = dict.fromkeys(named[MOST:])
    found = {level: group for level, group in levels.items() if level not in folded}
    for level in folded:
        found[OTHERS] = added(found[OTHERS], levels[level]) if OTHERS in found else levels[level]
    return dict(sorted(found.items()))


def added_groups(*shares: Mapping[str, Mapping[str, Group]]) -> Groups:
    """The groups of all shares together."""
    found: Groups = {}
    for share in shares:
        for segment, levels in share.items():
            found[segment] = bounded(added(found.get(segment, {}), dict(levels)))
    return dict(sorted(found.items()))
