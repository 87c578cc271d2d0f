"""Turning: does a source of labels still say what it used to, beside the others of the same window? Pure.

Two rates are followed of each source: how often it says yes, and how often it contradicts what was answered; turned labels move
the second where they leave the first. A source has turned where its rate has moved

significantly   from what it was in the windows before (`rate_test`; Bonferroni over sources and rates, one false alarm a month)
materially      more than that of the others has: a bad season, or a model that ages, moves all of them. By MATERIAL, and by more
                than is its custom (`habit_of`)

A source without a custom yet is held against the others, for contradicting only: sources may well see different cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from penstock.records import Mix
from penstock.statistics.habit import habit_of
from penstock.statistics.quality import added
from penstock.statistics.shift import budget_of
from penstock.statistics.tests import rate_test

__all__ = ["REMEMBERED", "turned"]

LEAST: Final = 30
"""Labels, of a source and of the others, below which a window says nothing of it."""
LEAST_WINDOWS: Final = 3
MATERIAL: Final = 0.1
APART: Final = 0.25
"""How much more often than the others a source must contradict that has no custom yet."""
REMEMBERED: Final = 28
"""Windows without an alarm that are the custom."""
FALSE_ALARMS_PER_MONTH: Final = 1.0


class _Rate(NamedTuple):
    hits: int
    n: int

    @property
    def value(self) -> float:
        return self.hits / self.n


def turned(mixes: Mapping[str, Mix], earlier: Sequence[Mapping[str, Mix]], length: int) -> list[dict[str, Any]]:
    """The sources that have turned in a window of `length` microseconds, with the evidence; `earlier` are those before it."""
    usual: Mapping[str, Mix] = {}
    for window in earlier:
        usual = added(dict(usual), dict(window))
    alpha = budget_of(FALSE_ALARMS_PER_MONTH, length) / (2 * max(len(mixes), 1))
    found = []
    for name in sorted(mixes):
        for word in ("positive", "contradicts"):
            said = _told(word, name, mixes, usual, earlier, alpha)
            if said is not None:
                found.append({"source": name, "rate": word, **said})
    return found


def _told(
    word: str, name: str, mixes: Mapping[str, Mix], usual: Mapping[str, Mix], earlier: Sequence[Mapping[str, Mix]], alpha: float
) -> dict[str, Any] | None:
    now, rest = _rates(word, name, mixes)
    before, rest_before = _rates(word, name, usual)
    if min(now.n, rest.n) < LEAST:
        return None
    windows = sum(min(rate.n for rate in _rates(word, name, window)) >= LEAST for window in earlier)
    if windows < LEAST_WINDOWS:
        p = rate_test(now.hits, now.n, rest.hits, rest.n, more=True).p
        apart = now.value - rest.value
        if word == "positive" or p is None or p > alpha or apart <= APART:
            return None
        return {"now": now.value, "others": rest.value, "p": p, "labels": now.n}
    p = rate_test(now.hits, now.n, before.hits, before.n).p
    moved = _moved(now, before, rest, rest_before)
    floor = max(MATERIAL, habit_of(_moves(word, name, usual, earlier)))
    if p is None or p > alpha or moved <= floor:
        return None
    others = {"others": rest.value, "others_usually": rest_before.value}
    return {"now": now.value, "usually": before.value, **others, "moved": moved, "floor": floor, "p": p, "labels": now.n}


def _rates(word: str, name: str, mixes: Mapping[str, Mix]) -> tuple[_Rate, _Rate]:
    """Of a source, and of all others."""
    own, rest = _rate(word, mixes.get(name, Mix())), [_rate(word, mix) for other, mix in mixes.items() if other != name]
    return own, _Rate(sum(rate.hits for rate in rest), sum(rate.n for rate in rest))


def _rate(word: str, mix: Mix) -> _Rate:
    return _Rate(mix.positives, mix.labels) if word == "positive" else _Rate(mix.missed, mix.judged)


def _moved(now: _Rate, before: _Rate, rest: _Rate, rest_before: _Rate) -> float:
    """By how much more a source has moved than the others."""
    return abs((now.value - before.value) - (rest.value - rest_before.value))


def _moves(word: str, name: str, usual: Mapping[str, Mix], earlier: Sequence[Mapping[str, Mix]]) -> list[float]:
    """How much it moved in the windows before, from all of them."""
    before, rest_before = _rates(word, name, usual)
    pairs = [_rates(word, name, window) for window in earlier]
    return [_moved(now, before, rest, rest_before) for now, rest in pairs if min(now.n, rest.n) >= LEAST]
