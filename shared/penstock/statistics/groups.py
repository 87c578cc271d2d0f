"""Groups: what is counted of the levels of a segment, exactly, whatever they are and however many, in any order and over any
partitions.

Of more than MOST levels those are counted apart whose names have the least hashes, all others together. As more levels are seen
the bar only falls, so a level that is counted apart in the end was so in every share that is added, and its counts are whole
(the bottom-k sample of Bar-Yossef et al. 2002). Which levels are frequent, no partition knows before it is too late.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar
from zlib import crc32

import msgspec

from ..label import Truth
from ..records import Classed, Group, Measure, Quality
from ..segment import MISSING, MOST, OTHERS
from ..value import Value
from .kinds import YES_NO, Kind
from .quality import Sums, added

__all__ = ["Grouped", "Groups", "Levels", "added_groups", "bounded", "measures_of", "told"]

Groups = dict[str, dict[str, Group]]
"""By segment and level."""
Said = Any
"""A probability, a number, or the probability of each class by name, as the kind has it."""
T = TypeVar("T")
_SET_APART = (MISSING, OTHERS)


def _rank(level: str) -> tuple[int, str]:
    return crc32(level.encode()), level


class Grouped(msgspec.Struct):
    """A Group under way; kinds of labels count in it (kinds.py)."""

    answers: int = 0
    selected: int = 0
    scores: float = 0.0
    sums: Sums | None = None
    given: dict[int, int] = {}
    given_squares: dict[int, int] = {}
    classes: dict[str, Classed] = {}

    def frozen(self) -> Group:
        return Group(
            answers=self.answers,
            selected=self.selected,
            scores=self.scores,
            quality=self.sums.frozen() if self.sums else Quality(),
            given=dict(sorted(self.given.items())),
            given_squares=dict(sorted(self.given_squares.items())),
            classes=dict(sorted(self.classes.items())),
        )


class Levels(msgspec.Struct):
    """The groups of one segment under way. `bar`: beyond it a level is one of the others."""

    groups: dict[str, Grouped] = {}
    bar: tuple[int, str] | None = None

    def answer(self, level: str, said: Said, cut: int, kind: Kind = YES_NO) -> None:
        """Count an answer; a probability says yes from the step `cut` of scores on."""
        group = self._group(level)
        group.answers += 1
        kind.answer(group, said, cut)

    def judge(self, level: str, said: Said, truth: Truth, sign: int, kind: Kind = YES_NO) -> None:
        """Count an outcome, or take it back (`sign` -1)."""
        kind.judge(self._group(level), said, truth, sign)

    def _group(self, level: str) -> Grouped:
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
        found = self.groups[level] = Grouped()
        return found

    def _fold(self, level: str) -> None:
        folded, others = self.groups.pop(level), self._group(OTHERS)
        others.answers += folded.answers
        others.selected += folded.selected
        others.scores += folded.scores
        others.sums = added(others.sums, folded.sums) if others.sums and folded.sums else others.sums or folded.sums
        for name in ("given", "given_squares", "classes"):
            setattr(others, name, added(getattr(others, name), getattr(folded, name)))

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


def told(groups: Groups, kind: Kind) -> Groups:
    """With the losses that follow from their sums."""
    return {
        segment: {level: msgspec.structs.replace(group, quality=kind.told(group.quality)) for level, group in levels.items()}
        for segment, levels in groups.items()
    }


def measures_of(group: Group, kind: Kind, value: Value | None) -> dict[str, Measure]:
    """What the outcomes of a group say of the answers to it."""
    return kind.measured(group.quality, value, None)
