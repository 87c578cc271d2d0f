"""Verdicts: what each monitor of a model makes of the windows that have closed. Pure; state goes in as values.

A verdict is True (bad), False (clean) or None (nothing can be said: no reference, too few outcomes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from penstock.policy import Drift, Skill
from penstock.records import Shift
from penstock.statistics.quality import added
from penstock.statistics.shift import LEAST_VALUES, MOST_WINDOWS, alpha_of, habit_of, shift_of

__all__ = ["PRIOR_LEAST", "Habits", "Past", "Period", "Verdict", "drift", "incomparable", "prior_of", "skill", "skill_of"]

PRIOR_LEAST = 30
"""Fewer outcomes than this give no label rate: the prior would swing between sure and unsure."""
MOST_EVIDENCE = 10
"""An alarm names this many inputs, those first that exceed their threshold most."""


class Verdict(NamedTuple):
    bad: bool | None
    evidence: dict[str, Any]


class Past(msgspec.Struct, frozen=True, array_like=True):
    """What is remembered of a closed window: sums of what was served, and the labels that became known in all."""

    start: int
    n: int
    loss: float
    prior: float | None
    """The summed loss of the prior on the same outcomes; None where there was no prior."""
    labels: int
    positives: int


class Period(msgspec.Struct):
    """The bins of one drift monitor since its period began, by version, with each version's reference."""

    index: int = -1
    bins: dict[str, dict[str, list[int]]] = {}
    baseline: dict[str, dict[str, list[int]]] = {}

    def add(self, bins: Mapping[str, dict[str, list[int]]], baseline: Mapping[str, dict[str, list[int]]]) -> None:
        for version, inputs in bins.items():
            self.bins[version] = added(self.bins.get(version, {}), inputs)
            self.baseline[version] = baseline.get(version, {})

    @property
    def reference(self) -> str:
        """The version that gave most of the answers; the greater name of equals; "" when there is none."""
        return max(self.bins, key=lambda version: (answers(self.bins[version]), version), default="")


class Habits(msgspec.Struct):
    """Earlier distances by input, for one reference; another reference starts them anew."""

    reference: str = ""
    earlier: dict[str, list[float]] = {}


def answers(inputs: Mapping[str, list[int]]) -> int:
    """How many answers were counted: each input counts every one, missing values included."""
    return max((sum(counts) for counts in inputs.values()), default=0)


def drift(monitor: Drift, period: Period, habits: Habits) -> tuple[Verdict, dict[str, Shift]]:
    """One window of a drift monitor: significant beyond the budget, and material, for at least one input.

    The material floor of an input is the greater of the monitor's and its habit's (see shift.py).
    """
    version = period.reference
    if version != habits.reference:
        habits.reference, habits.earlier = version, {}
    now, then = period.bins.get(version, {}), period.baseline.get(version, {})
    names = sorted(name for name in (monitor.inputs or now) if name in now and name in then)
    alpha = alpha_of(monitor.false_alarms_per_month, monitor.every, len(monitor.inputs) or len(now))
    shifts: dict[str, Shift] = {}
    ranked: list[tuple[float, str, dict[str, Any]]] = []
    for name in names:
        earlier = habits.earlier.setdefault(name, [])
        floor = max(monitor.material, habit_of(earlier))
        shift = shift_of(now[name], then[name], alpha, floor)
        if shift is None:
            continue
        shifts[name] = shift
        if shift.n >= LEAST_VALUES:
            earlier.append(shift.ks)
            del earlier[:-MOST_WINDOWS]
        excess = shift.ks / max(shift.critical, floor)
        numbers = {"ks": shift.ks, "critical": shift.critical, "floor": floor, "psi": shift.psi, "n": shift.n}
        ranked.append((-excess, name, {"input": name, "excess": excess, **numbers}))
    ranked.sort(key=lambda one: one[:2])
    evidence = {
        "reference": version,
        "tested": len(ranked),
        "shifted": sum(excess < -1 for excess, _, _ in ranked),
        "inputs": [numbers for _, _, numbers in ranked[:MOST_EVIDENCE]],
    }
    return Verdict(ranked[0][0] < -1 if ranked else None, evidence), shifts


def prior_of(past: Sequence[Past], since: int) -> tuple[float | None, int]:
    """The label rate over the windows that began at `since` or later, None with too few labels; and how many there
    are."""
    n, positives = sum(p.labels for p in past if p.start >= since), sum(p.positives for p in past if p.start >= since)
    return (positives / n if n >= PRIOR_LEAST and 0 <= positives <= n else None), n


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


def skill(monitor: Skill, past: Sequence[Past], end: int) -> Verdict:
    """Skill below the floor on enough outcomes."""
    value, n, loss, prior = skill_of([p for p in past if p.start >= end - monitor.over])
    if value is None or n < monitor.least:
        return Verdict(None, {})
    evidence = {"skill": value, "floor": monitor.floor, "n": n, "log_loss": loss / n, "prior_loss": prior / n}
    return Verdict(value < monitor.floor, evidence)
