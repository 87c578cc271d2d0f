"""What to watch, when to retrain, what a candidate must show, and how it is rolled out: all in stream time, all values.

monitors   drift, skill, labels, fairness, novelty(...)    raise alarms
retrain    on_alarm(...) | every(...) | incremental(...)
gates      no_worse(...)                          judged on labels, paired with the champion
rollout    shadow(...), canary(...)               stages, in order

`Policy(...)` names another set of these for a model, which `penstock replay` tries on what has been.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from . import duration
from .fairness import Fairness
from .feature import columns_of, references
from .mistake import mistake

__all__ = [
    "ANSWERS",
    "CONTRIBUTIONS",
    "LABEL",
    "LONGEST",
    "SCORE",
    "Drift",
    "Every",
    "Gate",
    "Incremental",
    "Labels",
    "Monitor",
    "Novelty",
    "OnAlarm",
    "Policy",
    "Retrain",
    "Skill",
    "Stage",
    "canary",
    "drift",
    "every",
    "incremental",
    "labels",
    "no_worse",
    "novelty",
    "on_alarm",
    "shadow",
    "skill",
]


SCORE, LABEL, CONTRIBUTIONS = ANSWERS = ("score", "label", "contributions")
"""What a drift monitor watches beside inputs: how the champion's own scores fall, how often the label is true, and what share of
what moves the answers each input has."""


@dataclass(frozen=True)
class Drift:
    """Do the inputs still look like those that the champion was fitted on, and its answers, their labels and what moves them like
    those of its first week? One verdict a window of `every`.

    `inputs` are names of model inputs and of ANSWERS (none: all). A window alarms when some distribution, of an input against
    that of the same hours of the week, differs both significantly (so rarely by chance and by its own custom that it costs about
    `false_alarms_per_month`, over all and over windows) and materially (Kolmogorov-Smirnov distance above `material`, more for
    inputs that hardly move the answers).
    """

    inputs: tuple[str, ...]
    every: int
    material: float
    false_alarms_per_month: float
    signal: ClassVar[str] = "drift"


@dataclass(frozen=True)
class Skill:
    """Is the model still better than guessing the recent label rate (of numbers the recent mean or quantile, of classes their
    recent shares)? Skill = 1 - loss / loss of the prior, over the outcomes that became known in the last `over`; alarms below
    `floor`, judged every `every`, from `least` outcomes on."""

    floor: float
    over: int
    every: int
    least: int = 500
    signal: ClassVar[str] = "skill"


@dataclass(frozen=True)
class Labels:
    """Do labels come as they used to? Of the answers of each cohort the share labelled `within` microseconds of their event (0:
    the model's horizon), and how long labels took. Alarms when labels come later or fewer, by more than chance would have it
    (`false_alarms_per_month`), than `material`, and than they usually vary."""

    within: int
    material: float
    false_alarms_per_month: float
    signal: ClassVar[str] = "labels"


@dataclass(frozen=True)
class Novelty:
    """Are answers asked about what their version has not seen? Judged every `every`: alarms when more of them lie where fewer
    than one training row in 128 does, or have some input outside the range of the training rows, by more than chance would have
    it (`false_alarms_per_month`), than `material` as a share of all answers, and than usual."""

    every: int
    material: float
    false_alarms_per_month: float
    signal: ClassVar[str] = "novelty"


Monitor = Drift | Skill | Labels | Fairness | Novelty


def drift(*inputs: object, every: str = "1d", material: float = 0.1, false_alarms_per_month: float = 1.0) -> Drift:
    """Watch the distribution of inputs (views, features, columns), of the answers ("score"), of what becomes known of them
    ("label") and of what moves them ("contributions", where the model has `explain=`); without any named, of all."""
    if not 0 < material < 1 or false_alarms_per_month <= 0:
        mistake(
            f"drift(material={material}, false_alarms_per_month={false_alarms_per_month})",
            "material lies between 0 and 1, false_alarms_per_month above 0",
        )
    names = tuple(name for item in inputs for name in _watched(item))
    return Drift(names, duration.micros(every), material, false_alarms_per_month)


def _watched(item: object) -> list[str]:
    if isinstance(item, str) and item in ANSWERS:
        return [item]
    return [name for found in references(item) for name in columns_of(found)]


def skill(floor: float, over: str = "7d", every: str = "1d", least: int = 500) -> Skill:
    """Watch the answers against the prior, once the labels are known."""
    if not -1 <= floor < 1:
        mistake(f"skill(floor={floor})", "the floor lies between -1 and 1; 0 is as good as the prior")
    return Skill(floor, duration.micros(over), duration.micros(every), least)


def labels(within: str | None = None, material: float = 0.1, false_alarms_per_month: float = 1.0) -> Labels:
    """Watch whether labels come, and how soon: a feed that has stopped looks like a world in which nothing happens.

    `within` is at most the model's horizon, which it is by default. An alarm of this monitor starts no refit.
    """
    if not 0 < material < 1 or false_alarms_per_month <= 0:
        mistake(
            f"labels(material={material}, false_alarms_per_month={false_alarms_per_month})",
            "material lies between 0 and 1, false_alarms_per_month above 0",
        )
    return Labels(duration.micros(within) if within else 0, material, false_alarms_per_month)


def novelty(every: str = "1d", material: float = 0.05, false_alarms_per_month: float = 1.0) -> Novelty:
    """Watch for inputs that are new to the version that answers: outside its training rows, or far out in their tails. The most
    novel answers of each window are named."""
    if not 0 < material < 1 or false_alarms_per_month <= 0:
        mistake(
            f"novelty(material={material}, false_alarms_per_month={false_alarms_per_month})",
            "material lies between 0 and 1, false_alarms_per_month above 0",
        )
    return Novelty(duration.micros(every), material, false_alarms_per_month)


@dataclass(frozen=True)
class Every:
    """Refit in full every `period` on the outcomes of the last `window` microseconds (0: all so far), first after `first`."""

    period: int
    window: int
    first: int


@dataclass(frozen=True)
class OnAlarm:
    """Refit in full when an alarm is raised, at most every `period`."""

    period: int
    window: int


@dataclass(frozen=True)
class Incremental:
    """The online learner goes on from the newest outcomes and offers a snapshot every `period`."""

    period: int


Trigger = Every | OnAlarm | Incremental


@dataclass(frozen=True)
class Retrain:
    """Triggers, any of which starts a job; joined with `|`."""

    triggers: tuple[Trigger, ...]

    def __or__(self, other: Retrain) -> Retrain:
        return Retrain(self.triggers + other.triggers)


def _window(on: str) -> int:
    return 0 if on == "all" else duration.micros(on)


def every(period: str, on: str = "all", first: str | None = None) -> Retrain:
    """Refit on a schedule of stream time. `on` is how far back ("60d", or "all"); `first` when the first fit is due."""
    return Retrain((Every(duration.micros(period), _window(on), duration.micros(first or period)),))


def on_alarm(at_most_every: str, on: str = "all") -> Retrain:
    """Refit when an alarm is raised, but not more often than said."""
    return Retrain((OnAlarm(duration.micros(at_most_every), _window(on)),))


def incremental(period: str) -> Retrain:
    """Let the online learner go on from the newest outcomes, and serve its snapshot."""
    return Retrain((Incremental(duration.micros(period)),))


@dataclass(frozen=True)
class Gate:
    """Mean loss of the candidate minus the champion's, paired on the same events, is at most `margin`; `confidence` standard
    errors are allowed for."""

    margin: float
    confidence: float = 1.64
    least: int = 200


def no_worse(by: float, least: int = 200) -> Gate:
    """A candidate passes when it is not worse than the champion by more than `by`, on `least` labels or more.

    `by` is in the unit of the loss: log loss in nats; where the label is a number its squared error, or the pinball loss of the
    quantile that it declares.
    """
    return Gate(by, least=least)


@dataclass(frozen=True)
class Coverage:
    """The share of truths that are at most the candidate's answers lies within `margin` of the declared quantile; `confidence`
    standard errors are allowed for."""

    margin: float
    confidence: float = 1.64
    least: int = 200


def covers(within: float, least: int = 200) -> Coverage:
    """A candidate that answers with a quantile passes when the share of truths that are at most its answers is not farther from
    that quantile than `within`, on `least` labels or more: pinball loss alone may fall while an interval holds less than it says.

        label=ps.label(Arrived.delay, within="48h", quantile=0.9), gates=[ps.no_worse(by=0.2), ps.covers(within=0.03)]
    """
    if not 0 < within < 1:
        mistake(f"covers(within={within}): not a share", "write a number between 0 and 1, such as covers(within=0.03)")
    return Coverage(within, least=least)


LONGEST = 3
"""A stage with too few labels is extended up to this many times its length, and this many windows, then given up."""


@dataclass(frozen=True)
class Stage:
    """One step of a rollout: the share of entities answered by the candidate (0: shadow), for how long."""

    share: float
    lasts: int


def shadow(lasts: str) -> Stage:
    """Score everything with the candidate too, answer with the champion."""
    return Stage(0.0, duration.micros(lasts))


def canary(share: float, lasts: str) -> Stage:
    """Answer a fixed share of the entities with the candidate."""
    if not 0 < share < 1:
        mistake(f"canary({share}): not a share", "write a number between 0 and 1, such as canary(0.05, '1h')")
    return Stage(share, duration.micros(lasts))


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What a model is watched, retrained, gated and rolled out by; what is left out (None) stays as the model declares it.

    A policy file of `penstock replay` is Python whose top-level names are policies:

        weekly = ps.Policy(retrain=ps.every("7d", on="60d"))
        unwatched = ps.Policy(monitors=[], retrain=ps.every("28d"))
    """

    monitors: Sequence[Monitor] | None = None
    retrain: Retrain | None = None
    gates: Sequence[Gate | Coverage] | None = None
    rollout: Sequence[Stage] | None = None
