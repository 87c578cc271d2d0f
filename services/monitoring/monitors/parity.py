"""Parity: what a monitor of fairness makes of its periods. Pure; state goes in as values.

Two keys, as of drift. A gap counts when it is both significant (Benjamini and Hochberg 1995 over all groups and measures, at the
level of the budget of false alarms) and material (greater than the monitor's `gap`). The newest 1, 2, 4, 8 and 16 periods are
judged as one: a great gap shows at once, that of a small group when it has lasted. Groups that are too small are named, and not
judged.

While the alarm stands, limits are RELAXED, and it is asked of the gaps that raised it whether they have closed: of the span that
raised it, and where that cannot tell (too few, or still as wide, if no more beyond chance) of longer ones. Where none can tell
nothing is said, and the alarm stands. A group that joins later than SAME_CAUSE periods is another cause, and raises it anew.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from penstock.fairness import MEASURES, Fairness
from penstock.records import Group
from penstock.statistics.fairness import Gap, Treated, gaps, treated, wide
from penstock.statistics.groups import bounded
from penstock.statistics.quality import added
from penstock.statistics.shift import SPANS, level_of

from .drifting import MOST_EVIDENCE, RELAXED, SAME_CAUSE
from .verdict import Verdict

__all__ = ["Standing", "unequal"]

MOST_UNJUDGED: Final = 400
"""So many gaps that could not be judged are named in the evidence: all of them, but where there are dozens of classes."""


class Standing(msgspec.Struct):
    """What a monitor remembers: the period under way, and the newest before it, at most as many as the longest span."""

    index: int = -1
    period: dict[str, Treated] = {}
    spans: list[dict[str, Treated]] = []
    span: int = 1
    """How many periods raised the alarm that stands."""
    named: list[tuple[str, str]] = []
    """The gaps that have had a part in it, by group and measure; none while no alarm stands for this monitor."""
    age: int = 0
    """Periods since it was raised."""

    def add(self, index: int, groups: Mapping[str, Group], threshold: float) -> None:
        """Add a window of the period `index`; what a jump cut off is not judged."""
        if index != self.index:
            self.index, self.period = index, {}
        self.period = bounded(added(self.period, {level: treated(group, threshold) for level, group in groups.items()}))

    def forget(self) -> None:
        """An alarm was cleared: what raised it is not judged again."""
        self.spans, self.span, self.named, self.age = [], 1, [], 0

    def over(self, periods: int) -> dict[str, Treated]:
        """The groups of so many periods."""
        found: dict[str, Treated] = {}
        for each in self.spans[-periods:]:
            found = bounded(added(found, each))
        return found


class _Look(NamedTuple):
    """The newest `periods` as one."""

    periods: int
    gaps: list[Gap]
    wide: list[Gap]
    """Significant and material."""

    @property
    def judged(self) -> int:
        return sum(gap.p is not None for gap in self.gaps)

    def doubtful(self, named: Collection[tuple[str, str]], limit: float) -> bool:
        """Whether some of these gaps may not have closed."""
        return any(gap.p is None or gap.size > limit for gap in self.gaps if (gap.group, _key(gap)) in named)


def _key(gap: Gap) -> str:
    """The measure of a gap, and its class, as it is remembered."""
    return f"{gap.measure}/{gap.of}" if gap.of else gap.measure


def unequal(monitor: Fairness, standing: Standing) -> Verdict:
    """The verdict at the end of a period. One without answers says nothing and changes nothing; nor is anything said where no gap
    could be judged."""
    period, standing.index, standing.period = standing.period, -1, {}
    if not period:
        return Verdict(None, {})
    standing.spans = [*standing.spans, period][-SPANS[-1] :]
    named = set(standing.named)
    limit = monitor.gap * (RELAXED if named else 1.0)
    looks = [_look(monitor, standing, k, limit) for k in SPANS if standing.span <= k <= len(standing.spans)]
    look = next((each for each in looks if each.wide or (named and not each.doubtful(named, limit))), looks[-1])
    new = {gap.group for gap in look.wide} - {group for group, _ in named}
    again = bool(named and new) and standing.age > SAME_CAUSE
    standing.age += 1
    if look.wide:
        standing.named = sorted({*named, *((gap.group, _key(gap)) for gap in look.wide)})
        if again or not named:
            standing.span, standing.age = look.periods, 0
    unjudged = [gap for gap in look.gaps if gap.unjudged]
    ranked = sorted(look.wide, key=lambda gap: (again and gap.group not in new, -gap.size, gap.group, _key(gap)))
    evidence: dict[str, Any] = {
        "segment": monitor.segment.name,
        "against": monitor.against or "all others",
        "material": monitor.gap,
        "periods": look.periods,
        "tested": look.judged,
        "unequal": len(look.wide),
        "gaps": [gap.evidence for gap in ranked[:MOST_EVIDENCE]],
        "unjudged": {f"{_key(gap)} of {gap.group}": gap.unjudged for gap in unjudged[:MOST_UNJUDGED]},
    }
    told = look.judged and (look.wide or not look.doubtful(named, limit))
    return Verdict(bool(look.wide) if told else None, evidence, again)


def _look(monitor: Fairness, standing: Standing, periods: int, limit: float) -> _Look:
    """The gaps; wide are those that are greater than `limit`, and beyond chance."""
    found = gaps(standing.over(periods), monitor.against, monitor.measures or MEASURES)
    return _Look(periods, found, wide(found, level_of(monitor.false_alarms_per_month, monitor.every), limit))
