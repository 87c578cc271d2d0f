"""Case: one model before the judge. What the pairing shards report is added up, and said what it means. Pure.

A window is closed when every shard has reported up to its end. It becomes a Statistic, and each monitor whose period
ends with it gives a verdict, which raises, holds or clears an alarm. All follows from the partials alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from penstock.alarm import Watch, alarm
from penstock.duration import DAY, spoken
from penstock.event import from_micros
from penstock.fairness import Fairness
from penstock.label import Sources
from penstock.model import Model
from penstock.policy import Drift, Labels, Monitor, Novelty, Skill
from penstock.records import (
    Alarm,
    Cohort,
    Moments,
    Partial,
    Quality,
    Shift,
    Statistic,
    Summed,
)
from penstock.statistics.groups import Groups, added_groups
from penstock.statistics.groups import told as told_groups
from penstock.statistics.kinds import YES_NO, kind_of
from penstock.statistics.population import mixed, populations
from penstock.statistics.quality import added, area, mean_loss

from .counting.latencies import latency_of
from .counting.moments import moments_of
from .counting.window import NOBODY, SERVED, length_of
from .monitors.debut import labels
from .monitors.drifting import Habits, Period, drift
from .monitors.novelty import Noticed, noticed
from .monitors.parity import Standing, unequal
from .monitors.sources import excess
from .monitors.turning import REMEMBERED, turned
from .monitors.verdict import PRIOR_LEAST, Past, Verdict, incomparable, labels_of, prior_of, skill, skill_of
from .monitors.within import Within, leveled
from .quality.beside import first_of, measures_of
from .quality.cohorts import Cohorting, Cohorts
from .quality.punctuality import Custom
from .state import Declared, Open, State

__all__ = ["PRIOR_OVER", "Case", "Closed"]

PRIOR_OVER = 7 * DAY
"""The prior answers with the label rate of the outcomes that became known in this long before a window."""


UNWATCHED, SOURCES = -1, -2
"""Places among the monitors: of drift that is measured without an alarm, and of the sources of labels."""


def _lasting(monitor: Monitor | Sources) -> str:
    """What is remembered of a monitor, beside its limits, is of this alone."""
    return f"{monitor.signal} {getattr(monitor, 'every', '')} {getattr(monitor, 'segment', '')}"


class _Heard(NamedTuple):
    """A window that is closed, as monitors hear it. `left` are labels by source that do not count, `labels` false and true
    outcomes by version (where they are yes or no); `shifts` is what monitors of drift have measured."""

    start: int
    window: Open
    left: Mapping[str, int]
    groups: Groups
    labels: dict[str, list[int]]
    shifts: dict[str, Shift]
    within: Within

    def ends(self, every: int) -> bool:
        """Whether a period ends with it."""
        return self.window.end % every == 0


class Closed(NamedTuple):
    """What is said when a window is closed."""

    statistic: Statistic
    alarms: list[Alarm]
    cohorts: list[Cohort]


class Case:
    """One model before the judge."""

    def __init__(self, model: Model, state: State | None = None) -> None:
        self.name, self.length = model.name, length_of(model)
        self.state = state or State()
        self._monitors: dict[int, Monitor | Sources] = dict(enumerate(model.monitors))
        if model.label.sources is not None:
            self._monitors[SOURCES] = model.label.sources
        self._sources, self._value, self._kind = model.label.sources, model.value, kind_of(model.label)
        self._segments = model.segments
        self._advice = "" if model.keep_first else ": keep_first=True asks it for good"
        self._threshold = model.value.above if model.value else 0.5
        cohorting = Cohorting.of(model, self.length)
        self.state.fit(Declared(model.label.meaning, model.label.waits, cohorting), self.length)
        self._cohorts = Cohorts(model, cohorting, self.state.cohorts, self.state.estimator, self.state.since)
        if not any(isinstance(m, Drift) for m in model.monitors):  # measured all the same, without an alarm
            self._monitors[UNWATCHED] = Drift((), self.length, 0.1, 1.0)
        self.state.place({place: _lasting(monitor) for place, monitor in self._monitors.items()})
        self.state.cut({segment.name: str(segment) for segment in model.segments})
        self._judges: dict[type, Callable[[int, Any, _Heard], Verdict | None]] = {
            Drift: self._of_drift, Fairness: self._of_fairness, Labels: self._of_labels, Novelty: self._of_novelty,
            Skill: self._of_skill, Sources: self._of_sources,
        }  # fmt: skip
        for signal, watch in self.state.watches.items():  # of what is now declared elsewhere nobody would say that it is over
            watch.latest = {
                p: bad for p, bad in watch.latest.items() if p in self._monitors and self._monitors[p].signal == signal
            }
        self._over = next((m.over for m in model.monitors if isinstance(m, Skill)), PRIOR_OVER)
        self._least = next((m.least for m in model.monitors if isinstance(m, Skill)), 0)
        overs = [m.over for m in model.monitors if isinstance(m, Skill)]
        self._memory = max([PRIOR_OVER, *overs]) + self.length

    def hear(self, partial: Partial) -> list[Closed]:
        """Add a shard's report; returns the windows that it closes."""
        state = self.state
        if 0 < partial.end - partial.start <= self.length:  # else time passed, and nothing happened
            state.open.setdefault(partial.start, Open(partial.end)).add(partial)
        if partial.part == partial.parts - 1:
            state.reported[partial.shard] = max(partial.end, state.reported.get(partial.shard, partial.end))
        if len(state.reported) < partial.shards:
            return []
        until = min(state.reported.values())
        due = sorted(start for start, window in state.open.items() if window.end <= until)
        return [self._close(start, state.open.pop(start)) for start in due]

    def _close(self, start: int, window: Open) -> Closed:
        state, left = self.state, window.cap(self._sources) if self._sources else {}
        kind = self._kind
        quality = {version: kind.told(each) for version, each in window.quality.items()}
        paired = {one: {other: kind.paired(each) for other, each in found.items()} for one, found in window.paired.items()}
        served, before = quality.get(SERVED, Quality()), quality.get(NOBODY, Quality())
        labelled, positives = served.n + before.n, served.positives + before.positives
        prior, known = prior_of(state.past, start - PRIOR_OVER, kind)
        loss = None if prior is None else kind.prior_loss(prior, served)
        usual = next((p for p in reversed(state.past) if p.labels > 0), None)
        last = kind.usual(usual.labels, usual.positives, usual.known or Quality()) if usual else None
        self._cohorts.take(window.cohorts, window.scored, prior, last, window.groups, window.against)
        state.first = state.first or first_of(quality)
        groups = added_groups(*window.groups.values())
        state.past = [p for p in state.past if p.start >= window.end - self._memory]
        state.past.append(Past(start, served.n, served.loss, loss, labelled, positives, kind.labels(added(served, before))))
        recent = [p for p in state.past if p.start >= window.end - self._over]
        value, judged, *_ = skill_of(recent)
        missing = {}
        if value is not None and judged < self._least:
            missing["skill_monitor"] = f"{judged} of {self._least} labels in {spoken(self._over)}: on fewer it does not judge"
        seen, true, labels_known = labels_of(recent)
        if judged > 0 and kind.alike(seen, true, labels_known):
            value, missing["skill"] = None, f"all {seen} labels were alike, so there was nothing to be better at than the prior"
        if prior is None:
            missing["prior"] = f"{known} labels became known in the {spoken(PRIOR_OVER)} before; {PRIOR_LEAST} are needed"
        if loss is None or served.n <= 0:
            missing["prior_loss"] = incomparable([state.past[-1]])
        if value is None and "skill" not in missing:
            missing["skill"] = f"{incomparable(recent)} (of the last {spoken(self._over)})"
        if any(counts.inputs and counts.customs and not counts.expected for counts in window.drift.values()):
            missing["hours"] = (
                "the reference by hours could not be read: compared with all hours, as a replay that can read it is not"
            )
        if state.first and served.n > (asked := quality.get(state.first, Quality()).n):
            missing["first"] = f"{state.first} was asked about {asked} of {served.n} answers{self._advice}"
        for version, counts in window.drift.items():
            counts.contributed = window.contributions.get(version, counts.contributed)
        known_labels = {v: labels(q) for v, q in window.quality.items() if v not in (SERVED, NOBODY)} if kind is YES_NO else {}
        heard = _Heard(start, window, left, groups, known_labels, {}, Within())
        alarms = self._alarms(window.end, self._verdicts(heard))
        statistic = Statistic(
            id=f"{self.name}/{from_micros(start).isoformat()}",
            model=self.name,
            start=from_micros(start),
            end=from_micros(window.end),
            quality=quality,
            paired=paired,
            log_loss={v: mean for v, q in quality.items() if (mean := mean_loss(q)) is not None},
            auc={version: area(q) if kind is YES_NO else None for version, q in quality.items()},
            prior=None if isinstance(prior, dict) else prior,
            priors=prior if isinstance(prior, dict) else {},
            loss=kind.loss,
            prior_loss=None if loss is None or served.n <= 0 else loss / served.n,
            skill=value,
            drift=heard.shifts,
            counts=window.counts,
            reference=Period(counts=window.drift).reference,
            missing=missing,
            alarms=[alarm.id for alarm in alarms],
            contributions=window.contributions,
            measures=measures_of(served, prior, last, self._value, kind, quality.get(state.first)),
            first=state.first,
            sources=window.sources,
            groups=told_groups(groups, kind),
            population=populations(groups, state.usual, self.length),
            moments={v: found for v, by in sorted(window.summed.items()) if (found := _moments(by))},
            latency={variant: told for variant, by in window.latency.items() if (told := latency_of(by))},
            novelty=window.unseen,
            **self._by_level(heard),
        )
        return Closed(statistic, alarms, self._cohorts.restated(window.end, state.first))

    def _by_level(self, heard: _Heard) -> dict[str, Any]:
        """What is said of the levels of segments; nothing where none are declared."""
        if not self._segments:
            return {}
        window, reference = heard.window, Period(counts=heard.window.drift).reference
        levels = leveled(window.levels, window.latencies, heard.within)
        return {"levels": levels, "mix": mixed(heard.groups, window.mix.get(reference, {}))}

    def _verdicts(self, heard: _Heard) -> dict[int, Verdict]:
        """What the monitors say whose period ends with this window."""
        found = {place: self._judges[type(monitor)](place, monitor, heard) for place, monitor in self._monitors.items()}
        return {place: verdict for place, verdict in found.items() if verdict is not None and place != UNWATCHED}

    def _of_sources(self, place: int, sources: Sources, heard: _Heard) -> Verdict:
        mixes, state = heard.window.sources, self.state
        bad, evidence = excess(sources, mixes, heard.left)
        if moved := turned(mixes, state.mixes, self.length):
            bad, evidence = True, {**evidence, "turned": moved}
        elif bad is False:
            state.mixes = [*state.mixes, mixes][-REMEMBERED:]
        return Verdict(bad, {"start": from_micros(heard.start).isoformat(), **evidence})

    def _of_labels(self, place: int, monitor: Labels, heard: _Heard) -> Verdict:
        custom = self.state.customs.setdefault(place, Custom())
        return Verdict(*self._cohorts.punctual(place, monitor, custom, heard.window.end))

    def _of_novelty(self, place: int, monitor: Novelty, heard: _Heard) -> Verdict | None:
        memory = self.state.novelties.setdefault(place, Noticed())
        memory.add(heard.start // monitor.every, heard.window.unseen)
        return noticed(monitor, memory) if heard.ends(monitor.every) else None

    def _of_skill(self, place: int, monitor: Skill, heard: _Heard) -> Verdict | None:
        return skill(monitor, self.state.past, heard.window.end, self._kind) if heard.ends(monitor.every) else None

    def _of_fairness(self, place: int, monitor: Fairness, heard: _Heard) -> Verdict | None:
        standing = self.state.standings.setdefault(place, Standing())
        standing.add(heard.start // monitor.every, heard.groups.get(monitor.segment.name, {}), self._threshold)
        return unequal(monitor, standing) if heard.ends(monitor.every) else None

    def _of_drift(self, place: int, monitor: Drift, heard: _Heard) -> Verdict | None:
        state, index = self.state, heard.start // monitor.every
        period = state.periods.get(place)
        if period is None or period.index != index:  # what a jump cut off is not judged
            period = state.periods[place] = Period(index)
        period.add(heard.window.drift, heard.labels)
        if not heard.ends(monitor.every):
            return None
        watch, habits = state.watches.get(monitor.signal), state.habits.setdefault(place, Habits())
        verdict, shifts = drift(monitor, period, habits, active=watch is not None and watch.active, within=heard.within)
        heard.shifts.update(shifts)
        return verdict

    def _alarms(self, at: int, verdicts: Mapping[int, Verdict]) -> list[Alarm]:
        found = []
        for signal in sorted({self._monitors[place].signal for place in verdicts}):
            said = {p: v for p, v in verdicts.items() if self._monitors[p].signal == signal and v.bad is not None}
            if not said:
                continue
            watch = self.state.watches.setdefault(signal, Watch())
            again = any(verdict.again for verdict in said.values())
            word = watch.hear({place: bool(verdict.bad) for place, verdict in said.items()}, at, again)
            if word == "cleared":  # for all of its monitors, though the period of some goes on
                for place in (place for place, monitor in self._monitors.items() if monitor.signal == signal):
                    self.state.habits.get(place, Habits()).forget()
                    self.state.standings.get(place, Standing()).forget()
            if word is not None:
                worst = max(said.values(), key=lambda v: (v.again, v.bad))
                found.append(alarm(self.name, signal, word, at, watch.since, worst.evidence))
        watched = {monitor.signal for place, monitor in self._monitors.items() if place != UNWATCHED}
        for signal in sorted(self.state.watches.keys() - watched):  # else nobody would say that it is over
            if (watch := self.state.watches.pop(signal)).active:
                found.append(alarm(self.name, signal, "cleared", at, watch.since, {"why": "no monitor watches it any more"}))
        return found


def _moments(summed: Mapping[str, Summed]) -> dict[str, Moments]:
    return {name: moments for name, found in summed.items() if (moments := moments_of(found))}
