"""Shadow: what a generation of views would have said, beside what was said, feature by feature. Pure.

Rows are of the same event when their cursors have the same source. Features that both have are compared; of a view defined
the same every value must be the same, to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

__all__ = ["Compared", "Comparison"]


class _Cursor(msgspec.Struct):
    source: tuple[int, int]


class _Row(msgspec.Struct):
    cursor: _Cursor
    features: dict[str, float | None]
    views: dict[str, str] = {}


_decode = msgspec.json.Decoder(_Row).decode


@dataclass(slots=True)
class Compared:
    """One feature: values compared, how many differ, by how much at most (NaN counts as infinitely far from a number)."""

    values: int = 0
    different: int = 0
    most: float = 0.0

    def take(self, shown: float | None, said: float | None) -> None:
        self.values += 1
        if shown != said:
            self.different += 1
            self.most = max(self.most, abs(shown - said) if shown is not None and said is not None else math.inf)


@dataclass(slots=True)
class Comparison:
    """Rows of one event's topic.

    >>> found = Comparison()
    >>> found.said(b'{"cursor":{"source":[0,7]},"features":{"Card.n":1.0},"views":{"Card":"a"}}')
    >>> found.shown(b'{"cursor":{"source":[0,7]},"features":{"Card.n":3.0,"Card.m":1.0},"views":{"Card":"b"}}')
    >>> found.features["Card.n"], found.changed, found.new
    (Compared(values=1, different=1, most=2.0), {'Card'}, {'Card.m'})
    """

    rows: int = 0
    features: dict[str, Compared] = field(default_factory=dict)
    views: dict[str, str] = field(default_factory=dict)
    """View -> fingerprint, in the shadow."""
    changed: set[str] = field(default_factory=set)
    """Views that both have, with another definition."""
    new: set[str] = field(default_factory=set)
    """Features that only the shadow has."""
    gone: set[str] = field(default_factory=set)
    """Features that it no longer has."""
    _said: dict[tuple[int, int], tuple[Mapping[str, float | None], dict[str, str]]] = field(default_factory=dict)

    def said(self, value: bytes) -> None:
        """A row that was said; those of the generation that is compared are not told from others: they agree."""
        row = _decode(value)
        self._said[row.cursor.source] = row.features, row.views

    def shown(self, value: bytes) -> None:
        """A row of the shadow."""
        row = _decode(value)
        self.views |= row.views
        found = self._said.pop(row.cursor.source, None)
        if found is None or found[1] == row.views:
            return
        self.rows += 1
        features, views = found
        self.changed |= {name for name, made in row.views.items() if views.get(name, made) != made}
        self.new |= row.features.keys() - features.keys()
        self.gone |= features.keys() - row.features.keys()
        for name in row.features.keys() & features.keys():
            self.features.setdefault(name, Compared()).take(row.features[name], features[name])

    @property
    def wrong(self) -> list[str]:
        """Features that differ although their view says the same."""
        return sorted(name for name, of in self.features.items() if of.different and name.partition(".")[0] not in self.changed)
