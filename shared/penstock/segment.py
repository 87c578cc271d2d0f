"""Segments: groups of scored events that are counted apart, by a column of the event that need not be an input of the model.

An answer carries its levels, not the values of the columns: what a model must not learn from is neither in its inputs nor in its
records, but for the group.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import isfinite
from typing import Any

from .event import Column, column_of
from .mistake import mistake

__all__ = [
    "MISSING", "MOST", "MOST_OF_CLASSES", "MOST_SEGMENTS", "OTHERS", "Segment", "at_level", "called", "input_of", "segment",
]  # fmt: skip

MISSING, OTHERS = "missing", "others"
"""The levels of events without a value, and of all values that are counted together. A value that is called so falls to them."""
MOST = 64
"""Levels of a segment, beside those two; see `penstock.statistics.groups` for what becomes of more."""
MOST_SEGMENTS, MOST_OF_CLASSES = 6, 50
"""Segments of a model, and segments times classes: the counts of a window stay below the 16 MB of a record, however many levels
and cohorts there are."""
LONGEST = 100
"""Characters of a level; a longer value names no group, and falls to OTHERS."""


@dataclass(frozen=True)
class Segment:
    """`column` of the scored event; its `levels` (none: learnt), or the `edges` between which numbers belong together."""

    column: Column
    levels: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        return repr(self.column)

    @cached_property
    def declared(self) -> tuple[str, ...]:
        """The levels that are known beforehand, in order; none where they are learnt.

        >>> Segment(None, edges=(30.0, 60.5)).declared
        ('< 30', '30 to 60.5', '>= 60.5')
        """
        if self.edges:
            said = [str(int(edge)) if edge.is_integer() else str(edge) for edge in self.edges]
            between = [f"{low} to {high}" for low, high in pairwise(said)]
            return (f"< {said[0]}", *between, f">= {said[-1]}")
        return ("false", "true") if self.column.type is bool else self.levels

    def level(self, value: Any) -> str:
        """The level of a value of the column.

        >>> age = Segment(None, edges=(30.0, 60.0))
        >>> [age.level(value) for value in (29.9, 30, 60, None)]
        ['< 30', '30 to 60', '>= 60', 'missing']
        """
        if value is None or value != value:
            return MISSING
        if self.edges:
            return self.declared[bisect_right(self.edges, value)]
        return self.counted(value if type(value) is str else "true" if value else "false")

    def counted(self, level: str) -> str:
        """Under which level an answer counts that carries one; the answer may be older than this declaration."""
        if self.declared:
            return level if level in self._declared or level == MISSING else OTHERS
        return level if len(level) <= LONGEST else OTHERS

    @cached_property
    def _declared(self) -> frozenset[str]:
        return frozenset(self.declared)

    def ordered(self, levels: Iterable[str]) -> list[str]:
        """Levels as they are shown: as declared, else by name; OTHERS and MISSING last."""
        known = {level: at for at, level in enumerate(self.declared)}
        return sorted(levels, key=lambda level: (level == MISSING, level == OTHERS, known.get(level, len(known)), level))


def segment(column: object, *, levels: Sequence[str] = (), edges: Sequence[float] = ()) -> Segment:
    """Count the answers to scored events apart, by the value of a column of theirs.

        segments=[Applicant.sex, ps.segment(Applicant.home, levels=("north", "south")), ps.segment(Applicant.age, edges=(25, 60))]

    Of a str column the `levels` that matter, all others are counted together; without, they are learnt, up to 64: of more, those
    of the least hashes of their names are counted apart (name yours if it has more). A bool column has two. A number is cut at
    `edges`, each of which belongs to the level above it. What is missing is a level of its own.

    The column need not be an input of the model, as it often must not be. DefinitionError where it is a time, or where levels or
    edges do not fit it.
    """
    found = Segment(column_of(column), tuple(levels), tuple(float(edge) for edge in edges))
    said, kind = f"segment({found.column!r})", found.column.type
    if found.levels and (kind is not str or any(not isinstance(level, str) for level in levels)):
        mistake(f"{said}: levels= are the texts of a str column", "leave it out, or cut a number with edges=")
    if len(set(found.levels)) != len(found.levels) or {MISSING, OTHERS} & set(found.levels):
        mistake(f"{said}: {list(levels)}", f'name each level once, and none "{MISSING}" or "{OTHERS}"')
    if any(isinstance(level, str) and len(level) > LONGEST for level in found.levels):
        mistake(f"{said}: a level of more than {LONGEST} characters", "shorten it where events are made")
    if max(len(found.levels), len(found.edges) + 1) > MOST:
        mistake(f"{said}: more than {MOST} levels", f"declare at most {MOST}; all others are counted together")
    if found.edges and (kind not in (int, float) or not all(map(isfinite, found.edges))):
        mistake(f"{said}: edges= cut a column of numbers", "write finite numbers, of an int or float column")
    if list(found.edges) != sorted(set(found.edges)):
        mistake(f"{said}: edges={list(edges)} do not ascend", "write each once, the least first")
    return found


_WHERE = " where "


def at_level(name: str, segment: str, level: str) -> str:
    """What an input within a level of a segment is called.

    >>> at_level("Picked.weight", "Picked.variety", "gala")
    'Picked.weight where Picked.variety is gala'
    """
    return f"{name}{_WHERE}{segment} is {level}"


def input_of(name: str) -> str:
    """The input that is meant by its own name, or within a level."""
    return name.partition(_WHERE)[0]


def called(wanted: object) -> Segment:
    """A segment, or a column as one with what its type says; model() sees to it that numbers have edges."""
    return wanted if isinstance(wanted, Segment) else Segment(column_of(wanted))
