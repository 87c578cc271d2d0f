"""Cohorts: the answers of one span of time, whose quality is said again while their labels come, until the horizon has passed.

A cohort is as long as a window, or several where the horizon spans more than MOST windows. It is restated at the end of each
cohort in which something became known of it, and when it is complete: at most MOST + 2 times, whatever comes.

    deltas of each closed window, over all shards -> Cohorts -> Cohort records; punctuality of labels (ps.labels)

An answer that was processed long after its event belongs to the cohort whose horizon passes with its own. Cohorts under way when
another label, horizon or length of windows is declared stay as they were said last, incomplete.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from penstock.event import from_micros
from penstock.label import Truth
from penstock.model import Model
from penstock.policy import Labels
from penstock.records import Cohort, Estimate, Paired, Quality, Scored
from penstock.statistics.groups import Groups, added_groups
from penstock.statistics.groups import told as told_groups
from penstock.statistics.kinds import Baseline, kind_of
from penstock.statistics.quality import added

from .beside import against, measures_of
from .estimating import Estimator
from .expecting import way_of
from .punctuality import Custom, punctual

__all__ = ["MOST", "Cohorting", "Cohorts", "Known"]

MOST = 32
"""A horizon is at most so many cohorts long."""
HALVINGS = 20
"""Delays are counted up to the horizon, to half of it, and so on: of a week to 1.2 s."""


class Cohorting(msgspec.Struct, frozen=True):
    """How the answers of a model fall into cohorts: `length` in microseconds, and the edges of the bins of delays."""

    length: int
    within: int
    edges: tuple[int, ...]

    @classmethod
    def of(cls, model: Model, window: int) -> Cohorting:
        """`window`: the length of the model's windows."""
        within = model.label.within
        halves = {max(within >> k, 1) for k in range(HALVINGS)}
        asked = {monitor.within for monitor in model.monitors if isinstance(monitor, Labels) and monitor.within}
        return cls(-(-within // (MOST * window)) * window, within, tuple(sorted(halves | asked)))

    def start(self, scored: int) -> int:
        """The start of the cohort of an answer."""
        return scored // self.length * self.length

    def place(self, delay: int) -> int:
        """The bin of a delay; a label that came before its answer took no time."""
        return min(bisect_left(self.edges, delay), len(self.edges) - 1)


class Known(msgspec.Struct):
    """What is known of a cohort. `changed`: since it was last published."""

    quality: dict[str, Quality] = {}
    scored: Scored = Scored()
    prior: Baseline | None = None
    last: Truth | None = None
    changed: bool = True
    judged: list[int] = []
    """Places of the monitors of labels that have judged it."""
    groups: Groups = {}
    estimated: dict[str, Estimate] | None = None
    """None until its end."""
    against: dict[str, Paired] = {}


class Cohorts:
    """The cohorts of one model whose horizon has not passed, by start; `known` is all of its state. Those that begin before
    `since` are not followed."""

    def __init__(self, model: Model, cohorting: Cohorting, known: dict[int, Known], estimator: Estimator, since: int = 0) -> None:
        self._since = since
        self._model, self._cohorting, self.known, self._kind = model, cohorting, known, kind_of(model.label)
        self._estimator, self._way = estimator, way_of(model)

    def take(
        self,
        quality: Mapping[int, dict[str, Quality]],
        scored: Mapping[int, Scored],
        prior: Baseline | None,
        last: Truth | None,
        groups: Mapping[int, Groups] = MappingProxyType({}),
        against: Mapping[int, dict[str, Paired]] = MappingProxyType({}),
    ) -> None:
        """Add what a closed window says. `prior` and `last` are the baselines of cohorts that begin with it."""
        for start in sorted(start for start in quality.keys() | scored.keys() if start >= self._since):
            known = self.known.get(start)
            if known is None:
                known = self.known[start] = Known(prior=prior, last=last)
            known.quality = added(known.quality, quality.get(start, {}))
            known.scored = added(known.scored, scored.get(start, Scored()))
            known.groups = added_groups(known.groups, groups.get(start, {}))
            known.against = added(known.against, against.get(start, {}))
            known.changed = True

    def punctual(self, place: int, monitor: Labels, custom: Custom, until: int) -> tuple[bool | None, dict[str, Any]]:
        """What a monitor of labels makes of the cohorts whose time has passed at `until`: of the worst of them."""
        worst: tuple[bool | None, dict[str, Any]] = (None, {})
        for start, known in sorted(self.known.items()):
            if place in known.judged or until < start + self._cohorting.length + (monitor.within or self._cohorting.within):
                continue
            known.judged.append(place)
            bad, evidence = punctual(monitor, known.scored, self._cohorting.edges, self._cohorting.length, custom)
            if bad is not None and not worst[0]:
                worst = bad, {"cohort": from_micros(start).isoformat(), **evidence}
        return worst

    def restated(self, until: int, first: str = "") -> list[Cohort]:
        """What is to be said at the end of a window; cohorts that are complete are forgotten. `first`: see beside.py."""
        found = []
        for start, known in sorted(self.known.items()):
            complete = until >= start + self._cohorting.length + self._cohorting.within
            if known.estimated is None and until >= start + self._cohorting.length:
                known.estimated = self._estimator.estimate(known.scored, self._way)
            if complete or (known.changed and until % self._cohorting.length == 0 and until > start):
                found.append(self._cohort(start, known, until, complete, first))
                known.changed = False
            if complete:
                self._estimator.learn(known.quality, known.scored, known.estimated or {}, self._way)
                del self.known[start]
        return found

    def _cohort(self, start: int, known: Known, until: int, complete: bool, first: str) -> Cohort:
        name, scored, kind = self._model.name, known.scored, self._kind
        quality = {version: kind.told(each) for version, each in known.quality.items()}
        served = quality.get("served", Quality())
        return Cohort(
            id=f"{name}/{from_micros(start).isoformat()}/{from_micros(until).isoformat()}",
            model=name,
            start=from_micros(start),
            end=from_micros(start + self._cohorting.length),
            known_until=from_micros(until),
            complete=complete,
            answers=scored.answers,
            labels=sum(scored.delays),
            silent=scored.silent,
            unanswered=scored.unanswered,
            quality=quality,
            measures=measures_of(served, known.prior, known.last, self._model.value, kind, quality.get(first)),
            delays=added(scored.delays, [0] * len(self._cohorting.edges)),
            edges=[edge / 1e6 for edge in self._cohorting.edges],
            groups=told_groups(known.groups, kind),
            estimated=known.estimated or {},
            first=first,
            against=against(served, known.prior, known.last, kind, known.against),
        )
