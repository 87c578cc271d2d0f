"""Verdicts: what monitors make of the windows that have closed, and the verdict of a skill monitor. Pure; state goes in as
values.

A verdict is True (bad), False (clean) or None (nothing can be said: no reference, too few outcomes).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from penstock.policy import Skill
from penstock.records import Quality
from penstock.statistics.kinds import YES_NO, Baseline, Kind
from penstock.statistics.quality import added

__all__ = ["PRIOR_LEAST", "Past", "Verdict", "incomparable", "labels_of", "prior_of", "skill", "skill_of"]

PRIOR_LEAST = 30
"""Fewer outcomes than this give no label rate: the prior would swing between sure and unsure."""


class Verdict(NamedTuple):
    bad: bool | None
    evidence: dict[str, Any]
    again: bool = False
    """Bad for another cause than that for which an alarm stands."""


class Past(msgspec.Struct, frozen=True, array_like=True):
    """What is remembered of a closed window: sums of what was served, and the labels that became known in all."""

    start: int
    n: int
    loss: float
    prior: float | None
    """The summed loss of the prior on the same outcomes; None where there was no prior."""
    labels: int
    positives: int
    known: Quality | None = None
    """The labels themselves, where they are not yes or no."""


def prior_of(past: Sequence[Past], since: int, kind: Kind = YES_NO) -> tuple[Baseline | None, int]:
    """What the labels say that became known in the windows that began at `since` or later, None with too few of them; and how
    many there are."""
    n, positives, known = labels_of([p for p in past if p.start >= since])
    return (kind.prior(n, positives, known) if n >= PRIOR_LEAST and 0 <= positives <= n else None), n


def labels_of(past: Sequence[Past]) -> tuple[int, int, Quality]:
    """How many labels became known in windows, how many of them were true, and which they were where they are not yes or no."""
    known = Quality()
    for p in past:
        known = added(known, p.known) if p.known else known
    return sum(p.labels for p in past), sum(p.positives for p in past), known


class Skillfulness(NamedTuple):
    """1 - loss / prior's loss, and the outcomes and summed losses behind it. `value` is None where nothing is known, or
    the prior was never wrong."""

    value: float | None
    n: int
    loss: float
    prior: float


def skill_of(past: Sequence[Past]) -> Skillfulness:
    """The skill over windows. Those without a prior count on neither side."""
    known = [p for p in past if p.prior is not None]
    n, loss, prior = sum(p.n for p in known), sum(p.loss for p in known), sum(p.prior or 0.0 for p in known)
    return Skillfulness(1.0 - loss / prior if n > 0 and prior > 0 else None, n, loss, prior)


def incomparable(past: Sequence[Past]) -> str:
    """Why windows say nothing of how the model and the prior compare."""
    labels = sum(p.labels for p in past)
    if sum(p.n for p in past) > 0:
        return "no prior to compare with"
    if labels > 0:
        return f"no label of a model's answer: {labels} became known, all of answers given before there was a model"
    return "no label became known"


def skill(monitor: Skill, past: Sequence[Past], end: int, kind: Kind = YES_NO) -> Verdict:
    """Skill below the floor on enough outcomes. The evidence names the loss: `log_loss`, `squared_error`, `pinball_loss`."""
    value, n, loss, prior = skill_of([p for p in past if p.start >= end - monitor.over])
    if value is None or n < monitor.least:
        return Verdict(None, {})
    mean = {kind.loss.replace(" ", "_"): loss / n, "prior_loss": prior / n}
    evidence = {"skill": value, "floor": monitor.floor, "n": n, **mean}
    return Verdict(value < monitor.floor, evidence)
