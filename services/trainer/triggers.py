"""Triggers: when a model is fitted, as a pure function of what has been seen and one more record.

The clock is the end of the newest closed window. A schedule is due at origin + first + k x period, where the origin is
the start of the first window; however many of these moments a window passes, it starts one job. An alarm is heard before
the window that it is about is taken, at any time before; it is answered once, by the first window that finds the cool-down
over, if it still stands then and no full fit came since. Alarms about labels start nothing, as what is wrong is what would be
learned; nor do those that say that it was.

    (triggers, model, Statistic | Command) -> (triggers, jobs)

What was started is recalled from the runs, so a job is started once per cause and never again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

from penstock.event import to_micros
from penstock.fairness import Fairness
from penstock.label import Sources
from penstock.model import Model
from penstock.policy import Every, Incremental, Labels, OnAlarm
from penstock.records import Alarm, Command, Run, Statistic

from .forgetting import SIGNAL as CANARIES

__all__ = ["Job", "Triggers"]


UNHEARD = frozenset({Labels.signal, Sources.signal, Fairness.signal, CANARIES})
"""Alarms that start no fit: it would learn from labels that are in doubt, or again what was unfair."""


@dataclass(frozen=True)
class Job:
    """Work to do. `at` is its stream time in microseconds: it learns from what was known before. `window` is how far
    back (0: everything)."""

    id: str
    model: str
    kind: str
    """full or incremental."""
    cause: str
    """schedule.<number of the trigger>:, alarm:, increment: or command:, and the id of the record."""
    at: int
    window: int


@dataclass(frozen=True)
class Standing:
    """An alarm: raised at, and when cleared (None: it stands)."""

    id: str
    signal: str
    at: int
    cleared: int | None = None


@dataclass(frozen=True)
class Triggers:
    """One model's past, as far as triggers ask for it. Times in microseconds."""

    origin: int | None = None
    clock: int | None = None
    fired: dict[str, int] = field(default_factory=dict)
    """Trigger (the part of a cause before the colon) -> time of its last job."""
    full: int | None = None
    """Time of the last full fit, whatever its cause."""
    alarms: tuple[Standing, ...] = ()
    """In order of `at`; what was cleared before the clock is forgotten."""
    done: frozenset[str] = frozenset()
    """Ids of jobs."""

    def recall(self, record: Run | Statistic | Alarm) -> Triggers:
        """With what this record tells, nothing started. A window sets the origin only: it may yet have to be taken."""
        if isinstance(record, Run):
            return self.ran(record.id, record.kind, record.cause, to_micros(record.at))
        if isinstance(record, Alarm):
            return self._heard(record)
        return self._begun(record)

    def ran(self, job: str, kind: str, cause: str, at: int) -> Triggers:
        """With a job done."""
        trigger = cause.partition(":")[0]
        fired = {**self.fired, trigger: max(at, self.fired.get(trigger, at))}
        full = max(at, self.full or at) if kind == "full" else self.full
        return replace(self, fired=fired, full=full, done=self.done | {job})

    def take(self, model: Model, record: Statistic | Command) -> tuple[Triggers, list[Job]]:
        """The next state and the jobs that this record starts. A job counts as done in the state returned."""
        found = _Found(self, model)
        if isinstance(record, Command):
            found.command(record)
        else:
            end = to_micros(record.end)
            found.triggers = replace(self._begun(record), clock=max(end, self.clock or end))
            if self.clock is None or end > self.clock:
                found.schedules(record)
                found.alarms(end)
                found.increments(record)
        return found.triggers, found.jobs

    def _begun(self, statistic: Statistic) -> Triggers:
        start = to_micros(statistic.start)
        return replace(self, origin=start if self.origin is None else min(start, self.origin))

    def _heard(self, alarm: Alarm) -> Triggers:
        if alarm.signal.partition("/")[0] in UNHEARD:
            return self
        at, known = to_micros(alarm.at), self.alarms
        if alarm.state == "raised" and alarm.id not in {a.id for a in known}:
            known = tuple(sorted((*known, Standing(alarm.id, alarm.signal, at)), key=lambda a: (a.at, a.id)))
        elif alarm.state == "cleared":
            known = tuple(
                replace(a, cleared=at) if a.signal == alarm.signal and a.cleared is None and a.at < at else a for a in known
            )
        return replace(self, alarms=tuple(a for a in known if a.cleared is None or a.cleared > (self.clock or 0)))


class _Found:
    """The jobs of one record, as they are found."""

    def __init__(self, triggers: Triggers, model: Model) -> None:
        self.triggers, self.model, self.jobs = triggers, model, list[Job]()

    def start(self, kind: str, trigger: str, cause: str, at: int, window: int) -> None:
        cause = f"{trigger}:{cause}"
        job = hashlib.sha256(f"{self.model.name}/{cause}".encode()).hexdigest()[:24]
        if job not in self.triggers.done:
            self.jobs.append(Job(job, self.model.name, kind, cause, at, window))
        self.triggers = self.triggers.ran(job, kind, cause, at)

    def schedules(self, statistic: Statistic) -> None:
        now = to_micros(statistic.end)
        for number, trigger in enumerate(_schedules(self.model)):
            if self.due(f"schedule.{number}", trigger.first, trigger.period, now):
                self.start("full", f"schedule.{number}", statistic.id, now, trigger.window)

    def increments(self, statistic: Statistic) -> None:
        now, trigger = to_micros(statistic.end), self.model.incremental
        if trigger is not None and self.due("increment", trigger.period, trigger.period, now):
            self.start("incremental", "increment", statistic.id, now, 0)

    def due(self, name: str, first: int, period: int, now: int) -> bool:
        """Whether a moment of the schedule lies after the last job and not after now."""
        passed = now - (self.triggers.origin or 0) - first
        newest = now - passed % period
        return passed >= 0 and newest > self.triggers.fired.get(name, newest - 1)

    def alarms(self, now: int) -> None:
        triggers = self.triggers
        on_alarm = next((t for t in self.model.retrain.triggers if isinstance(t, OnAlarm)), None)
        if on_alarm is None:
            return
        answered = -1 if triggers.full is None else triggers.full
        ready = [a for a in triggers.alarms if answered < a.at <= now and (a.cleared is None or a.cleared > now)]
        last = triggers.fired.get("alarm")
        if ready and (last is None or now - last >= on_alarm.period):
            self.start("full", "alarm", ready[0].id, now, on_alarm.window)

    def command(self, command: Command) -> None:
        at = to_micros(command.at)
        if self.triggers.clock is not None:
            at = min(at, self.triggers.clock)
        first = next((t for t in self.model.retrain.triggers if not isinstance(t, Incremental)), None)
        self.start("full", "command", command.id, at, first.window if first is not None else 0)


def _schedules(model: Model) -> list[Every]:
    """The declared ones. A model that is refitted on alarms only gets its first fit when one would be allowed."""
    triggers = model.retrain.triggers
    found = [t for t in triggers if isinstance(t, Every)]
    on_alarm = next((t for t in triggers if isinstance(t, OnAlarm)), None)
    if found or on_alarm is None:
        return found
    return [Every(period=1 << 62, window=on_alarm.window, first=on_alarm.period)]
