"""Statistics: what monitoring counts of a window of answers, and of a cohort of them, and what it makes of the counts."""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec import UNSET, UnsetType

from .inputs import Contributed, Latency, LevelCounts, LevelStatistic, Moments, Population, Shift, Summed, Unseen
from .quality import Estimate, Group, Measure, Paired, Quality

__all__ = ["Cohort", "Mix", "Partial", "Scored", "Statistic", "Tally"]


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What labels of one kind add to the sums of a window."""

    labels: int = 0
    """Answered ones."""
    quality: dict[str, Quality] = {}
    paired: dict[str, dict[str, Paired]] = {}
    cohorts: dict[int, dict[str, Quality]] = {}
    """Start of the cohort (microseconds) -> quality of it that became known in this window."""
    groups: dict[int, dict[str, dict[str, Group]]] = {}
    """Start of the cohort -> segment -> level -> what this window adds; see statistics/groups.py for which levels."""
    against: dict[int, dict[str, Paired]] = {}
    """Start of the cohort -> each version that was asked -> what was served minus it."""


class Mix(msgspec.Struct, frozen=True, kw_only=True):
    """The labels of one source."""

    labels: int = 0
    """That met their answer in this window."""
    positives: int = 0
    """Of them, where a label is yes or no, those that were true."""
    due: int = 0
    """That were to be counted in this window: the same, or where labels wait for their horizon those for which it passed."""
    judged: int = 0
    """Of `labels`, those of answers that a model gave."""
    missed: int = 0
    """Of these, those that contradict the answer, taken as a yes from the threshold of `ps.value` on, else from 0.5 on."""


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """What a window adds to the counts of a cohort: the answers given in one span of time."""

    answers: int = 0
    silent: int = 0
    unanswered: int = 0
    delays: list[int] = []
    """Labels by how long they took, in bins up to the edges of services/monitoring/quality/cohorts.py."""
    scores: dict[str, list[int]] = {}
    """What models answered, in the bins of Quality, by the version that answered; of classes the probability of the one named."""
    sizes: dict[str, dict[int, int]] | UnsetType = UNSET
    """Where answers are numbers: what models answered, in the steps of Errors, by the version that answered."""


class Partial(msgspec.Struct, frozen=True, kw_only=True):
    """One shard's share of a window; internal, merged into a Statistic when every shard has reported."""

    model: str
    start: int
    end: int
    """Window in microseconds, end exclusive; by the time the label became known (quality) or of the event (inputs). Where it is
    empty or longer than a window the record says only how far time has come."""
    shard: int
    shards: int
    quality: dict[str, Quality]
    """By version; `served` is what was answered."""
    paired: dict[str, dict[str, Paired]]
    """Version -> each version of a greater name that was asked about the same event; the first minus the second."""
    inputs: dict[str, list[int]]
    """Counts per bin of the reference's edges, the last of missing values; `score` is the version's own answers."""
    reference: str
    """Version whose reference the bins belong to; empty when there is none yet."""
    counts: dict[str, int]
    """What became of predictions and labels; the words are explained in services/monitoring/answers/ledger.py."""
    part: int = 0
    parts: int = 1
    """A window in which several versions answered is reported in parts, one per reference; only part 0 has the sums."""
    baseline: dict[str, list[int]] = {}
    """The reference's own counts in the same bins, so that a verdict follows from partials alone."""
    contributions: dict[str, Contributed] = {}
    """By version that answered; of the share that the model says (`explain`)."""
    cohorts: dict[int, dict[str, Quality]] = {}
    """As in Tally."""
    scored: dict[int, Scored] = {}
    """By start of the cohort (microseconds)."""
    sources: dict[str, Mix] = {}
    capped: dict[str, dict[int, Tally]] = {}
    """Labels of sources with a cap, which are in none of the sums above: by source and level (see statistics/quota.py)."""
    expected: dict[str, list[int]] = {}
    """What the reference makes expect at the hours of these answers: for each answer the distribution of its part of the week, in
    units of 2**-20, added up. Empty where the reference has no hours; then `baseline` is what is expected."""
    hours: dict[int, list[int]] = {}
    """Part of the week -> answers in it, and rows of the reference that they are compared with."""
    spread: dict[str, float] = {}
    """As in Candidate, of the reference."""
    groups: dict[int, dict[str, dict[str, Group]]] = {}
    """As in Tally."""
    summed: dict[str, Summed] = {}
    """By input, of answers of the reference."""
    latency: dict[str, dict[int, int]] = {}
    """By variant, as in Latency."""
    novelty: Unseen | None = None
    """Of the version that the reference is of; where novelty is watched."""
    customs: dict[int, dict[str, float]] = {}
    """As in Candidate, of the reference."""
    levels: dict[str, dict[str, LevelCounts]] | UnsetType = UNSET
    """Where segments are declared: segment -> level -> what was counted of its answers, of the reference."""
    mix: dict[str, dict[str, int]] | UnsetType = UNSET
    """Segment -> level -> training rows of the reference."""
    latencies: dict[str, dict[str, dict[str, dict[int, int]]]] | UnsetType = UNSET
    """Segment -> level -> variant -> as in Latency."""
    against: dict[int, dict[str, Paired]] = {}
    """As in Tally."""


class Statistic(msgspec.Struct, frozen=True, kw_only=True):
    """A closed window of one model, merged over all shards."""

    id: str
    model: str
    start: datetime
    end: datetime
    quality: dict[str, Quality]
    paired: dict[str, dict[str, Paired]]
    """As in Partial."""
    log_loss: dict[str, float]
    """Mean loss by version; of labels that are numbers it is the loss that `loss` names."""
    auc: dict[str, float | None]
    prior: float | None
    """The label rate of the windows before, which the prior answers with; of numbers their mean, or the declared quantile; null
    for classes, see `priors`."""
    prior_loss: float | None
    """Mean loss of the prior on the outcomes that were served."""
    skill: float | None
    drift: dict[str, Shift]
    counts: dict[str, int]
    reference: str
    missing: dict[str, str] = {}
    """Why `prior`, `prior_loss` or `skill` is null, or the `first` model not measured, in words."""
    alarms: list[str] = []
    """Ids of the alarms that were raised, held or cleared with it; who acts on them reads these first, so that it does not
    matter which of the two topics comes first."""
    contributions: dict[str, Contributed] = {}
    """As in Partial."""
    measures: dict[str, dict[str, Measure]] = {}
    """Of what was `served`, and on the same outcomes of answering with the `prior`, with the label that was usual in the window
    before (`last`), and with the `first` model where it was asked about all of them; what each measure is says
    shared/penstock/statistics/binary.py."""
    sources: dict[str, Mix] = {}
    """Where sources of labels are declared."""
    loss: str = "log loss"
    """Which loss `log_loss`, `prior_loss`, `skill` and `paired` speak of: log loss, squared error, or pinball loss."""
    priors: dict[str, float] = {}
    """The shares of the classes in the windows before, which the prior answers with."""
    groups: dict[str, dict[str, Group]] = {}
    """Segment -> level -> sums, where segments are declared: answers given in this window, outcomes that became known in it."""
    moments: dict[str, dict[str, Moments]] = {}
    """By version that answered, and input; `score` is the version's own answers."""
    latency: dict[str, Latency] = {}
    """By variant (champion, canary, none)."""
    population: dict[str, Population] = {}
    """Segment -> how the answers of this window fall to its levels, against those of the weeks before, at any hour."""
    novelty: dict[str, Unseen] = {}
    """By version; where novelty is watched."""
    levels: dict[str, dict[str, LevelStatistic]] | UnsetType = UNSET
    """Where segments are declared: segment -> level -> how far the inputs have moved within it, and what they were."""
    mix: dict[str, Population] | UnsetType = UNSET
    """Segment -> how the answers of this window fall to its levels, against the training rows of `reference`."""
    first: str = ""
    """The version that was first in charge; empty before, and where an online learner answers alone."""

    def versus(self, version: str, other: str) -> Paired:
        """The differences in loss, `version` minus `other`, on the events that both were asked about."""
        turned = self.paired.get(other, {}).get(version, Paired())
        return self.paired.get(version, {}).get(other) or Paired(n=turned.n, sum=-turned.sum, squares=turned.squares)


class Cohort(msgspec.Struct, frozen=True, kw_only=True):
    """The answers given in one span of time, and what was known of them at another: published again while more becomes known.

    The newest of a start is what is known now; that with the greatest `known_until` up to a time is what was known then.
    """

    id: str
    model: str
    start: datetime
    end: datetime
    """Of the scored events, end exclusive."""
    known_until: datetime
    complete: bool
    """Whether the horizon of all answers has passed, so that nothing changes any more."""
    answers: int
    labels: int
    """Answers that somebody labelled."""
    silent: int
    """Answers whose horizon passed, and silence was taken as declared."""
    unanswered: int
    """Answers whose horizon passed, and nothing is known."""
    quality: dict[str, Quality]
    """By version; `served` is what was answered. Where silence means something or sources are declared, of those answers alone
    whose horizon has passed, as what comes earlier is one-sided; without labels that exceed the cap of their source."""
    measures: dict[str, dict[str, Measure]]
    """As in Statistic; the prior and the usual label are those of when the cohort began."""
    delays: list[int]
    """Labels that took up to each of `edges`, and longer than the edge before."""
    edges: list[float]
    """Seconds."""
    groups: dict[str, dict[str, Group]] = {}
    """Segment -> level -> sums, where segments are declared; the outcomes are those of `quality`."""
    estimated: dict[str, Estimate] = {}
    """What was served: measures as expected at the end of the cohort from its answers alone. Yes and no: `accuracy`, `auc`,
    `label_rate`, `log_loss`; classes: `accuracy`, `log_loss`; numbers: `mae`, and `rmse` or `pinball`. Empty before, of fewer
    than 30 answers of a model, of numbers by versions of which hardly a label has come, and in records older than the field."""
    first: str = ""
    """As in Statistic."""
    against: dict[str, Paired] = {}
    """What was served minus each baseline (`prior`, `last`) and each version, in loss, on the outcomes that both answered. Of a
    label that is a number, `squares` of the prior and of `last` are as if the two losses varied apart."""
