"""The result of a policy: what it decided over a range, how soon it found what is known to have changed, and what it cost.

Everything follows from the records of one run. A change counts as found by the first alarm raised within `within` after it,
before the next change; every alarm that is raised at another time is false, as far as the changes are known. Alarms about labels
(`labels`, `sources`) are not about the world, and those about groups (`fairness`) not about a change of it: they are neither.
An alarm that stands when the range begins is one of it, though not false, as it was raised before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from ..duration import DAY
from ..event import from_micros, to_micros
from ..records import Alarm, Decision, Measure, Quality, Run, Statistic
from ..report.alarms import episodes
from ..statistics.kinds import YES_NO, Kind
from ..statistics.quality import added
from ..value import Value

__all__ = ["Change", "Raised", "Records", "Result", "Window", "result"]

NEITHER: Final = frozenset({"labels", "sources", "fairness"})
"""Signals that find no change and are not false."""
SHOWN: Final = 2
"""Measures of a policy that stand beside its alarms, fits and cost."""
NAMED: Final = 5
"""Inputs of an alarm that are named."""


class Raised(msgspec.Struct, frozen=True, kw_only=True):
    """An alarm. `cleared` is None where it stands at the end; `change` is what it found first, "" where it did not."""

    signal: str
    at: datetime
    cleared: datetime | None
    inputs: list[str]
    """Drift: those beyond their limits, the worst first."""
    change: str
    false: bool | None
    """None where no change is known, where it is about labels or groups, and where it stood before the range."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A known change, and how many seconds later it was found; None: not at all."""

    name: str
    at: datetime
    delay: float | None
    signal: str = ""
    standing: bool = False
    """Whether an alarm of before stood at the time: another is then raised for other inputs only."""


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """A closed window: outcomes known in it, their mean loss and that of the prior."""

    end: datetime
    n: int
    loss: float | None
    prior_loss: float | None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Of one policy over `since` to `until`."""

    policy: str
    since: datetime
    until: datetime
    changes: list[Change]
    alarms: list[Raised]
    alarms_per_month: float
    false_alarms: int | None
    """None where no change is known: then nobody can say which are false."""
    false_per_month: float | None
    """Over the time that is not within reach of a change; None as above, or where there is none."""
    fits: int
    fits_by_alarm: int
    snapshots: int
    promotions: int
    rollbacks: int
    seconds: float | None
    """Processor seconds that the trainer worked in the whole run, what came before `since` included; None where nothing ran.
    The only figure here that differs from run to run."""
    outcomes: int
    measures: dict[str, dict[str, Measure]]
    """Of what was `served`, over all outcomes that became known in the range."""
    skill: float | None
    """1 - loss / that of the prior, over the windows that had a prior."""
    value: float | None
    """What the answers were worth together, where the model declares `ps.value`."""
    windows: list[Window]
    promoted: list[datetime]
    fitted: list[datetime]
    decisions: str
    """sha256 over all alarms, runs, candidates and decisions of the run, byte for byte."""
    loss: str = YES_NO.loss
    """What the loss is called that windows and skill speak of."""
    shown: tuple[str, ...] = ()
    """The measures that say most of this kind of label, that of the loss first."""


class Records(msgspec.Struct, frozen=True, kw_only=True):
    """What a run has said, in the order in which it was said."""

    alarms: Sequence[Alarm]
    statistics: Sequence[Statistic]
    runs: Sequence[Run] = ()
    decisions: Sequence[Decision] = ()
    raw: Iterable[bytes | None] = ()
    """The alarms, runs, candidates and decisions as they are in the log."""
    seconds: float | None = None


def result(
    policy: str,
    told: Records,
    since: int,
    until: int,
    changes: Mapping[str, datetime],
    within: int = 30 * DAY,
    value: Value | None = None,
    kind: Kind = YES_NO,
) -> Result:
    """Of records of one model; times in microseconds, `until` exclusive for windows."""
    first, last = from_micros(since), from_micros(until)
    known = [(name, at) for name, at in changes.items() if first <= at < last]
    after = [at for _, at in known[1:]] + [last]
    ends = [min(at + timedelta(microseconds=within), then) for (_, at), then in zip(known, after, strict=False)]
    spans = _spans(told.alarms)
    alarms, found = list[Raised](), dict[str, Raised]()
    for alarm, cleared in spans:
        if alarm.at > last or (alarm.at <= first and cleared is not None and cleared <= first):
            continue
        about = alarm.signal not in NEITHER
        change = next((name for (name, at), end in zip(known, ends, strict=True) if about and at < alarm.at <= end), None)
        alarms.append(
            Raised(
                signal=alarm.signal,
                at=alarm.at,
                cleared=cleared,
                inputs=_inputs(alarm),
                change=change if change is not None and change not in found else "",
                false=change is None if known and about and alarm.at > first else None,
            )
        )
        if change is not None:
            found.setdefault(change, alarms[-1])
    standing = {
        name for name, at in known if any(a.at <= at and (c is None or c > at) for a, c in spans if a.signal not in NEITHER)
    }
    quiet = until - since - sum(to_micros(end) - to_micros(at) for (_, at), end in zip(known, ends, strict=True))
    false = sum(alarm.false is True for alarm in alarms)
    windows = [s for s in told.statistics if since <= to_micros(s.start) and to_micros(s.end) <= until]
    served = Quality()
    for window in windows:
        served = added(served, window.quality.get("served", Quality()))
    served = kind.told(served)
    measures = kind.measured(served, value, None)
    compared = [(s.quality["served"].n, s.log_loss.get("served"), s.prior_loss) for s in windows if "served" in s.quality]
    ours = sum(n * loss for n, loss, prior in compared if loss is not None and prior is not None)
    theirs = sum(n * prior for n, loss, prior in compared if loss is not None and prior is not None)
    fits = [run for run in told.runs if run.kind == "full" and first <= run.at <= last]
    said = {d.id: d for d in told.decisions}.values()  # each is there under its version and under its alias
    mine = [d for d in said if d.kind == "champion" and first <= d.at <= last]
    digest = hashlib.sha256()
    for record in told.raw:
        digest.update(b"%d:" % len(record or b"") + (record or b""))
    return Result(
        policy=policy,
        since=first,
        until=last,
        changes=[
            Change(
                name=name,
                at=at,
                delay=(found[name].at - at).total_seconds() if name in found else None,
                signal=found[name].signal if name in found else "",
                standing=name in standing,
            )
            for name, at in known
        ],
        alarms=alarms,
        alarms_per_month=_monthly(len(alarms), until - since) or 0.0,
        false_alarms=false if known else None,
        false_per_month=_monthly(false, quiet) if known else None,
        fits=len(fits),
        fits_by_alarm=sum(run.cause.startswith("alarm:") for run in fits),
        snapshots=sum(run.kind == "incremental" and first <= run.at <= last for run in told.runs),
        promotions=sum(bool(d.expected) and not d.evidence.get("rolled_back") for d in mine),
        rollbacks=sum(bool(d.evidence.get("rolled_back")) for d in mine),
        seconds=told.seconds,
        outcomes=served.n,
        measures={"served": measures} if measures else {},
        skill=1 - ours / theirs if theirs > 0 else None,
        value=measures["value"].value * served.n if "value" in measures else None,
        windows=[_window(s) for s in windows],
        promoted=[d.at for d in mine],
        fitted=[run.at for run in fits],
        decisions=digest.hexdigest(),
        loss=kind.loss,
        shown=tuple(name for name in kind.shown if name != "value")[:SHOWN],
    )


def _spans(alarms: Sequence[Alarm]) -> list[tuple[Alarm, datetime | None]]:
    """Each alarm that was raised, with when it was cleared, or raised anew for another cause."""
    told = episodes(sorted(alarms, key=lambda alarm: alarm.at))
    spans = [(one.raised, one.end) for one in told if one.raised.state == "raised"]
    return sorted(spans, key=lambda span: (span[0].at, span[0].signal))


def _inputs(alarm: Alarm) -> list[str]:
    named: list[Any] = alarm.evidence.get("inputs") or []
    return [each["input"] for each in named if isinstance(each, dict) and each.get("excess", 0) > 1][:NAMED]


def _monthly(count: int, length: int) -> float | None:
    return count * 30 * DAY / length if length > 0 else None


def _window(statistic: Statistic) -> Window:
    served = statistic.quality.get("served", Quality())
    return Window(end=statistic.end, n=served.n, loss=statistic.log_loss.get("served"), prior_loss=statistic.prior_loss)
