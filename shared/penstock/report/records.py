"""What was recorded of a model in a period, as far as it was known at a time. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from msgspec import UNSET

from ..errors import PenstockError
from ..records import Alarm, Cohort, Decision, Partial, Quality, Quarantine, Reviewed, Run, Statistic

if TYPE_CHECKING:
    from ..label import Label, Task
    from ..model import Model

__all__ = [
    "DAYS",
    "NOBODY",
    "SERVED",
    "Answered",
    "Found",
    "Records",
    "Restated",
    "Slice",
    "Slices",
    "Wrong",
    "as_known",
    "day",
    "kin",
    "period_of",
]

T = TypeVar("T")

DAYS: Final = 30
"""Of a report that is not told where to begin."""
SERVED, NOBODY = "served", "none"
"""Names beside the versions, see services/monitoring/counting/window.py."""
FOREVER: Final = 9000
"""A year in which no real window ends: publishers close all time at the end of a stream."""
_SNAPSHOT: Final = re.compile(r"-\d+$")


class Restated(NamedTuple):
    """A cohort as it was known first, and as it was known last."""

    first: Cohort
    known: Cohort


@dataclass
class Found:
    """All records of a model, in the order of their topics; what is there twice counts as it was said last."""

    statistics: list[Statistic] = field(default_factory=list)
    cohorts: list[Cohort] = field(default_factory=list)
    alarms: list[Alarm] = field(default_factory=list)
    """Of all models."""
    runs: list[Run] = field(default_factory=list)
    """Of all models."""
    decisions: list[Decision] = field(default_factory=list)
    """Of all models."""
    partials: list[Partial] = field(default_factory=list)
    """Of all models."""
    reviewed: list[Reviewed] = field(default_factory=list)
    """Of all models."""
    quarantines: list[Quarantine] = field(default_factory=list)
    """Of all models, those by alarms among them."""


@dataclass(frozen=True)
class Slice:
    """Inputs for which answers were worse than for the rest, as `frames.slices` finds them."""

    conditions: Sequence[str]
    """In words; all hold."""
    rows: int
    share: float
    loss: float
    rest: float
    low: float
    high: float
    """Of the difference of the two."""
    expected: float | None
    """The loss that the scores made expect; None where they are no probabilities."""


@dataclass(frozen=True)
class Slices:
    """What was looked for and found; `why` says it in a sentence."""

    why: str
    loss_is: str
    found: Sequence[Slice]
    tried: int


@dataclass(frozen=True)
class Wrong:
    """An answer that was far from its label."""

    id: str
    key: str
    time: datetime
    version: str
    score: float
    label: float | str
    inputs: dict[str, float | None]
    answer: str = ""
    """The class that was answered, where labels are classes; `score` is its probability."""


@dataclass(frozen=True)
class Answered:
    """What archived answers of the period say."""

    outcomes: int
    wrong: Sequence[Wrong]
    """Those furthest from their label, the worst first."""
    latency: dict[str, float]
    """Seconds, by quantile ("0.5", "0.99"); empty where nothing was timed."""
    predictions: int


@dataclass(frozen=True, kw_only=True)
class Records:
    """`statistics` are the windows that lie in the period, `cohorts` those that begin in it; alarms, runs and decisions are all
    until its end, as those before say how things stood when it began. All are in order of time."""

    project: str
    model: Model
    start: datetime
    until: datetime
    known_at: datetime | None
    statistics: Sequence[Statistic]
    cohorts: Sequence[Restated]
    alarms: Sequence[Alarm]
    runs: Sequence[Run]
    decisions: Sequence[Decision]
    partials: Sequence[Partial]
    reviewed: Sequence[Reviewed] = ()
    quarantines: Sequence[Quarantine] = ()
    heard: datetime
    """The end of the newest window that was closed by then: what came later is not in here."""
    answered: Answered | None = None
    unanswered: str = ""
    """Why there are no archived answers."""
    slices: Slices | None = None
    """What was found in archived answers; None where `unanswered` or `known_at` says why."""
    later: Sequence[Statistic] = ()
    """Windows after the period, in which labels of its answers became known."""
    told: datetime | None = None
    """Until when alarms, fits and decisions are told: by default until now, maybe after the newest answers; None: `until`."""

    @classmethod
    def of(
        cls,
        project: str,
        model: Model,
        found: Found,
        start: datetime | None = None,
        until: datetime | None = None,
        known_at: datetime | None = None,
    ) -> Records:
        """Of what is found. PenstockError as of `period_of`."""
        asked = until
        start, until = period_of(model.name, found.statistics, start, until, known_at)
        end = min(until, known_at or until)
        every = [s for s in _newest(found.statistics) if start <= s.start]
        windows = [s for s in every if s.end <= end]
        heard = max(s.end for s in found.statistics if s.end.year < FOREVER and (known_at is None or s.end <= known_at))
        now = end if asked else max(end, heard)  # what stands, and who is in charge, is told as of the newest window
        return cls(
            heard=heard,
            later=sorted((s for s in every if end < s.end <= now), key=lambda s: s.start),
            told=now,
            project=project,
            model=model,
            start=start,
            until=until,
            known_at=known_at,
            statistics=sorted(windows, key=lambda s: s.start),
            cohorts=[pair for pair in as_known(found.cohorts, model.label, known_at) if start <= pair.known.start < until],
            alarms=_ours(found.alarms, model.name, now),
            runs=_ours(found.runs, model.name, now),
            decisions=_ours(found.decisions, model.name, now),
            reviewed=_ours(found.reviewed, model.name, now),
            quarantines=_ours(found.quarantines, model.name, now),
            partials=[
                p
                for p in {(p.model, p.start, p.shard, p.part): p for p in found.partials}.values()
                if p.model == model.name and _micros(start) <= p.start and p.end <= _micros(end)
            ],
        )

    @cached_property
    def champions(self) -> list[Decision]:
        """The decisions that put a version in charge, oldest first."""
        return [decision for decision in self.decisions if decision.kind == "champion"]

    @property
    def champion(self) -> str:
        """The version in charge at the end of the period (by default now), or the online learner that answers alone; "" before
        the first."""
        if self.champions:
            return self.champions[-1].version
        return next((kin(decision.version) for decision in self.decisions if decision.kind == "snapshot"), "")

    def inside(self, at: datetime) -> bool:
        """Whether a moment belongs to what is told; what is decided at the end of its last window does."""
        return self.start < at <= (self.told or self.until) or at == self.start

    def quality(self) -> dict[str, Quality]:
        """The sums over the cohorts of the period as they are known, by version; snapshots of one learner together."""
        from ..statistics.quality import added

        total: dict[str, Quality] = {}
        for _, known in self.cohorts:
            for version, quality in known.quality.items():
                name = kin(version)
                total[name] = added(total[name], quality) if name in total else quality
        return total


def period_of(
    model: str,
    statistics: Iterable[Statistic],
    start: datetime | None = None,
    until: datetime | None = None,
    known_at: datetime | None = None,
) -> tuple[datetime, datetime]:
    """The period of a report: by default the last DAYS of stream time up to the newest answers, as far as it was known: labels
    come when their answers are long given, and days without an answer are no period of a model. PenstockError where no window was
    closed, or where it would end before it begins."""
    windows = [s for s in statistics if s.end.year < FOREVER and (known_at is None or s.end <= known_at)]
    if not windows:
        when = f" by {known_at.isoformat()}" if known_at else " yet"
        raise PenstockError(
            f"no window of {model} was closed{when}",
            "a window closes when time has passed all partitions: publish events, then labels   (penstock status)",
        )
    if until is None:
        until = max(s.end for s in windows)
        answered = max((s.end for s in windows if s.counts.get("predictions")), default=until)
        until = answered if start is None or start < answered else until
    start = start or max(until - timedelta(days=DAYS), min(s.start for s in windows))
    if start >= until:
        raise PenstockError(f"the period ends ({day(until)}) before it begins ({day(start)})", "exchange --from and --until")
    return start, until


def kin(version: str) -> str:
    """Snapshots of one learner by the name of the learner, other versions by theirs.

    >>> kin("online-12"), kin("v3")
    ('online', 'v3')
    """
    return _SNAPSHOT.sub("", version)


def as_known(records: Iterable[Cohort], label: Label, until: datetime | None = None) -> list[Restated]:
    """Of each cohort, in order, what was known of it first, and what by a time (None: now). Cohorts of before the label was
    declared of this kind are left out: their sums are of something else."""
    first: dict[datetime, Cohort] = {}
    last: dict[datetime, Cohort] = {}
    for record in records:
        if until is not None and record.known_until > until:
            continue
        if any(quality.n and _task(quality) != label.task for quality in record.quality.values()):
            continue
        if record.start not in first or record.known_until < first[record.start].known_until:
            first[record.start] = record
        if record.start not in last or record.known_until >= last[record.start].known_until:
            last[record.start] = record
    return [Restated(first[start], last[start]) for start in sorted(last)]


def _task(quality: Quality) -> Task:
    """Of what kind the labels were that were counted."""
    return "regression" if quality.errors is not UNSET else "multiclass" if quality.confusion is not UNSET else "binary"


def day(moment: datetime) -> str:
    """A moment of stream time, which is UTC; of midnight the day alone.

    >>> day(datetime(2013, 2, 8)), day(datetime(2013, 2, 8, 6, 30))
    ('2013-02-08', '2013-02-08 06:30')
    """
    return f"{moment:%Y-%m-%d}" if not (moment.hour or moment.minute) else f"{moment:%Y-%m-%d %H:%M}"


def _micros(moment: datetime) -> int:
    from ..event import to_micros

    return to_micros(moment)


def _newest(records: Iterable[T]) -> list[T]:
    """Each id once, as it was said last, at the place where it was said first."""
    found: dict[object, T] = {}
    for record in records:
        found[getattr(record, "id")] = record  # noqa: B009  # every record that comes here has one
    return list(found.values())


def _ours(records: Iterable[T], model: str, end: datetime) -> list[T]:
    """Those of a model, or of no model, until the end of the period."""
    ours = [(getattr(r, "at"), r) for r in _newest(records) if getattr(r, "model") in (model, "")]  # noqa: B009
    return [r for at, r in sorted(ours, key=lambda pair: pair[0]) if at <= end]
