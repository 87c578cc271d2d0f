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
from penstock.records import Cohort, Estimate, Measure, Quality, Scored
from penstock.statistics.groups import Groups, added_groups
from penstock.statistics.kinds import Baseline, Kind, kind_of
from penstock.statistics.quality import added
from penstock.value import Value

from .estimating import Estimator
from .punctuality import Custom, punctual

__all__ = ["MOST", "Cohorting", "Cohorts", "Known", "measures_of"]

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


class Cohorts:
    """The cohorts of one model whose horizon has not passed, by start; `known` is all of its state. Those that begin before
    `since` are not followed."""

    def __init__(self, model: Model, cohorting: Cohorting, known: dict[int, Known], estimator: Estimator, since: int = 0) -> None:
        self._since = since
        self._model, self._cohorting, self.known, self._kind = model, cohorting, known, kind_of(model.label)
        self._estimator, self._estimates = estimator, model.label.task == "binary"
        self._above = model.value.above if model.value else 0.5

    def take(
        self,
        quality: Mapping[int, dict[str, Quality]],
        scored: Mapping[int, Scored],
        prior: Baseline | None,
        last: Truth | None,
        groups: Mapping[int, Groups] = MappingProxyType({}),
    ) -> None:
        """Add what a closed window says. `prior` and `last` are the baselines of cohorts that begin with it."""
        for start in sorted(start for start in quality.keys() | scored.keys() if start >= self._since):
            known = self.known.get(start)
            if known is None:
                known = self.known[start] = Known(prior=prior, last=last)
            known.quality = added(known.quality, quality.get(start, {}))
            known.scored = added(known.scored, scored.get(start, Scored()))
            known.groups = added_groups(known.groups, groups.get(start, {}))
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

    def restated(self, until: int) -> list[Cohort]:
        """What is to be said at the end of a window; cohorts that are complete are forgotten."""
        found = []
        for start, known in sorted(self.known.items()):
            complete = until >= start + self._cohorting.length + self._cohorting.within
            if self._estimates and known.estimated is None and until >= start + self._cohorting.length:
                known.estimated = self._estimator.estimate(known.scored.scores, self._above)
            if complete or (known.changed and until % self._cohorting.length == 0 and until > start):
                found.append(self._cohort(start, known, until, complete))
                known.changed = False
            if complete:
                if self._estimates:
                    self._estimator.learn(known.quality, known.scored.scores, known.estimated or {}, self._above)
                del self.known[start]
        return found

    def _cohort(self, start: int, known: Known, until: int, complete: bool) -> Cohort:
        name, scored, kind = self._model.name, known.scored, self._kind
        quality = {version: kind.told(each) for version, each in known.quality.items()}
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
            measures=measures_of(quality.get("served", Quality()), known.prior, known.last, self._model.value, kind),
            delays=added(scored.delays, [0] * len(self._cohorting.edges)),
            edges=[edge / 1e6 for edge in self._cohorting.edges],
            groups=known.groups,
            estimated=known.estimated or {},
        )


def measures_of(
    served: Quality, prior: Baseline | None, last: Truth | None, value: Value | None, kind: Kind
) -> dict[str, dict[str, Measure]]:
    """The measures of what was served, and of the baselines on the same outcomes."""
    found = {"served": kind.measured(served, value, last)}
    if served.n > 0 and found["served"]:
        if prior is not None:
            found["prior"] = kind.measured(kind.answering(prior, served), value, last)
        if last is not None:
            found["last"] = kind.measured(kind.answering(kind.sure(last), served), value, last)
    return {name: each for name, each in found.items() if each}
