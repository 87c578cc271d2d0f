"""What the page shows of a model: a Picture as plain values, which /events and /picture send as JSON. Pure.

Long histories are shortened by adding windows together, never by leaving some out; sums of losses add, so a wider step is
the exact mean of what it covers. What is missing is null and drawn as a gap. Times are stream time, UTC.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

import msgspec

from penstock.evidence import facts
from penstock.model import Model
from penstock.picture import WINDOWS, Happening, Picture
from penstock.project import Project
from penstock.records import Alarm, Decision, Quality, Statistic

from .heat import Heat, heat_of

__all__ = ["STEPS", "Shown", "models_of"]

STEPS = 180
"""Steps of a line: one takes about four pixels."""
LATEST = 160
"""Happenings of a model that are sent."""
SERVED = "served"


class Step(msgspec.Struct, frozen=True, array_like=True):
    """A closed window, or several added together. Losses are log losses a label (natural logarithm)."""

    start: datetime
    end: datetime
    n: int
    served: float | None
    prior: float | None
    challenger: float | None
    first: float | None
    """Of the first model, where it was asked about all that was served."""


class Open(msgspec.Struct, frozen=True):
    """An alarm that lasts, with what it was raised for as of `at`."""

    signal: str
    since: str
    at: datetime
    facts: list[str]


class Shown(msgspec.Struct, frozen=True):
    """One model."""

    name: str
    champion: Decision | None
    """Of decisions everything but the candidate."""
    challenger: Decision | None
    online: Decision | None
    """The newest snapshot of the online learner, which answers too."""
    steps: list[Step]
    covers: int
    """Closed windows that a step adds together."""
    skill: float | None
    auc: float | None
    judged: int
    """Labels behind the newest window that had any."""
    heat: Heat
    alarms: list[Open]
    happenings: list[Happening]
    """The newest first."""


def models_of(picture: Picture, project: Project) -> list[Shown]:
    """Every model of the project, in the order of its declaration."""
    return [_shown(picture, model) for model in project.models]


def _shown(picture: Picture, model: Model) -> Shown:
    windows = [s for s in picture.statistics.get(model.name, []) if s.end.year < 9000]
    champion, online = picture.champions.get(model.name), picture.online.get(model.name)
    challenger = picture.challengers.get(model.name)
    if challenger is not None and champion is not None and challenger.version == champion.version:
        challenger = None  # promoted; its place is given up with the registry's next record
    steps, covers = _steps(windows, challenger.version if challenger else "")
    judged = next((s for s in reversed(windows) if _served(s).n > 0), None)
    said = sorted((h for h in picture.happenings if h.model == model.name), key=lambda h: h.at)
    return Shown(
        name=model.name,
        champion=_brief(champion),
        challenger=_brief(challenger),
        online=_brief(online),
        steps=steps,
        covers=covers,
        skill=None if judged is None else judged.skill,
        auc=None if judged is None else judged.auc.get(SERVED),
        judged=0 if judged is None else _served(judged).n,
        heat=heat_of(windows, model),
        alarms=[_open(alarm) for (name, _), alarm in sorted(picture.open_alarms.items()) if name == model.name],
        happenings=said[: -LATEST - 1 : -1],
    )


def _served(statistic: Statistic) -> Quality:
    return statistic.quality.get(SERVED, Quality())


def _steps(windows: Sequence[Statistic], challenger: str) -> tuple[list[Step], int]:
    """At most STEPS steps; neighbours in time are added together where there are more windows. Windows of before the label was
    declared of another kind have another loss, and are left out."""
    if not windows:
        return [], 1
    windows = [s for s in windows if s.loss == windows[-1].loss]
    length = min(s.end - s.start for s in windows)
    windows = [s for s in windows if s.end > windows[-1].end - WINDOWS * length]  # a stray event of 1970 must not set the scale
    span = math.ceil((windows[-1].end - windows[0].start) / length)
    covers = max(math.ceil(span / STEPS), 1)
    groups: dict[int, list[Statistic]] = {}
    for statistic in windows:
        groups.setdefault((statistic.start - windows[0].start) // (covers * length), []).append(statistic)
    return [_step(group, challenger) for group in groups.values()], covers


def _step(group: Sequence[Statistic], challenger: str) -> Step:
    priors = [(s.prior_loss, _served(s).n) for s in group if _served(s).n > 0]
    prior = [(loss, n) for loss, n in priors if loss is not None]
    firsts = [q for s in group if (q := s.quality.get(s.first))]
    complete = len(prior) == len(priors)  # else it would be the mean over other labels than those of the line beside it
    return Step(
        group[0].start,
        group[-1].end,
        max(sum(_served(s).n for s in group), 0),
        _mean([(_served(s).loss, _served(s).n) for s in group]),
        _mean([(loss * n, n) for loss, n in prior]) if complete else None,
        _mean([(q.loss, q.n) for s in group if (q := s.quality.get(challenger))]),
        _mean([(q.loss, q.n) for q in firsts]) if sum(q.n for q in firsts) == sum(n for _, n in priors) else None,
    )


def _mean(sums: Sequence[tuple[float, int]]) -> float | None:
    n = sum(n for _, n in sums)
    return round(sum(loss for loss, _ in sums) / n, 5) if n > 0 else None


def _brief(decision: Decision | None) -> Decision | None:
    """Without the candidate, and as short as people should have written it."""
    if decision is None:
        return None
    return msgspec.structs.replace(decision, candidate=None, actor=decision.actor[:100], reason=decision.reason[:300])


def _open(alarm: Alarm) -> Open:
    return Open(alarm.signal, str(alarm.evidence.get("since", alarm.at.isoformat())), alarm.at, facts(alarm.evidence))
