"""Novelty: what a monitor of novelty makes of its periods, and how answers are counted for it. Pure.

Two things are asked of each period: are more answers novel than of the reference, and does some input lie outside the reference's
range more often. It alarms where one does, significantly (`rate_test`, of counts on both sides; Bonferroni over inputs and the
score) and materially: by more than the monitor's share of all answers, and than is its custom under this version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from penstock.inputs import InputsDecoder
from penstock.policy import Novelty as Monitor
from penstock.records import Profile, Unseen
from penstock.statistics.habit import habit_of
from penstock.statistics.novelty import NOVEL, Novelty, added_unseen, novel
from penstock.statistics.shift import budget_of
from penstock.statistics.tests import rate_test

from ..answers.ledger import Answer
from ..counting.bins import Binner
from .verdict import Verdict

__all__ = ["LEAST", "Counted", "Noticed", "noticed"]

LEAST: Final = 50
"""Answers of a period, or rows of the reference, below which nothing is said."""
REMEMBERED: Final = 28
"""Periods without an alarm that are the custom."""
OUTERMOST: Final = 3
"""Rows of the reference that lie at its borders, and of which the next might have lain beyond: the least, the greatest value, and
the one that might have been missing."""
MOST_EVIDENCE: Final = 10
SCORE: Final = ""
"""Among names of inputs: all of them together."""


class Counted:
    """Counts answers of one version."""

    def __init__(self, profile: Profile) -> None:
        self._novelty = Novelty(profile)
        self._decoder = InputsDecoder(self._novelty.names)

    def count(self, answers: Sequence[Answer], binner: Binner | None = None) -> Unseen:
        """Those that cannot be read are counted elsewhere (`unread`). Where a `binner` of the same inputs has just counted these
        answers, they are not decoded again."""
        names = list(binner.reference) if binner is not None else []
        if binner is not None and set(names) == set(self._novelty.names):
            matrix, readable = binner.read
            matrix = matrix[:, [names.index(name) for name in self._novelty.names]]
        else:
            matrix, readable = self._decoder.readable([answer.inputs for answer in answers])
        return self._novelty.unseen([answers[at].id for at in readable], matrix)


class Noticed(msgspec.Struct):
    """What a monitor remembers: its period under way, and what is custom under one version."""

    index: int = -1
    unseen: dict[str, Unseen] = {}
    """By version."""
    version: str = ""
    periods: int = 0
    custom: dict[str, list[float]] = {}
    """Input -> excess share in the newest periods; those that were never outside are not named."""

    def add(self, index: int, window: Mapping[str, Unseen]) -> None:
        """A window; what a jump cut off of a period before is not judged."""
        if index != self.index:
            self.index, self.unseen = index, {}
        self.unseen = added_unseen(self.unseen, window)

    def learn(self, excess: Mapping[str, float]) -> None:
        """A period that is custom from now on."""
        for name in {*self.custom, *(name for name, share in excess.items() if share > 0)}:
            earlier = self.custom.get(name, [0.0] * self.periods)
            self.custom[name] = [*earlier, max(excess.get(name, 0.0), 0.0)][-REMEMBERED:]
        self.custom = {name: earlier for name, earlier in sorted(self.custom.items()) if any(earlier)}
        self.periods = min(self.periods + 1, REMEMBERED)


def noticed(monitor: Monitor, memory: Noticed) -> Verdict:
    """The verdict of a period that is over, on the version that gave most of its answers; the memory learns from it."""
    version = max(memory.unseen, key=lambda name: (memory.unseen[name].answers, name), default="")
    unseen = memory.unseen.get(version, Unseen())
    n, m = unseen.answers, sum(unseen.expected)
    if min(n, m) < LEAST:
        return Verdict(None, {})
    if version != memory.version:
        memory.version, memory.periods, memory.custom = version, 0, {}
    counts = {SCORE: (novel(unseen.levels), novel(unseen.expected))}
    counts |= {name: (sum(outside), OUTERMOST) for name, outside in unseen.outside.items()}
    budget = budget_of(monitor.false_alarms_per_month, monitor.every) / (unseen.inputs + 1)
    excess = {name: k / n - r / m for name, (k, r) in counts.items()}
    found: list[dict[str, Any]] = []
    for name, (k, r) in counts.items():
        p = rate_test(k, n, r, m, more=True).p
        floor = max(monitor.material, habit_of(memory.custom.get(name, ())))
        if p is not None and p <= budget and excess[name] > floor:
            said: dict[str, Any] = {"share": k / n, "expected": r / m, "floor": floor, "p": p}
            if name != SCORE:
                said |= dict(zip(("below", "above", "missing"), unseen.outside[name], strict=True))
            found.append({"input": name, **said} if name != SCORE else {"score": f"one in {1 << NOVEL} expected", **said})
    if not found:
        memory.learn(excess)
    found.sort(key=lambda each: (-each["share"] / each["floor"], each.get("input", "")))
    return Verdict(
        bool(found),
        {
            "version": version,
            "answers": n,
            "novel": counts[SCORE][0] / n,
            "expected": counts[SCORE][1] / m,
            "found": found[:MOST_EVIDENCE],
            "oddest": msgspec.to_builtins(unseen.oddest),
        },
    )
