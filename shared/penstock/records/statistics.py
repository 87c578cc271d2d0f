"""Statistics: what monitoring counts of answers, and what it makes of the counts."""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec import UNSET, UnsetType

__all__ = [
    "Cohort",
    "Confusion",
    "Contributed",
    "Errors",
    "Estimate",
    "Group",
    "Latency",
    "Measure",
    "Mix",
    "Moments",
    "Oddity",
    "Paired",
    "Partial",
    "Population",
    "Quality",
    "Scored",
    "Shift",
    "Statistic",
    "Summed",
    "Tally",
    "Unseen",
]


class Errors(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Sums over answers that are numbers, and their truths. Each is exact: {place: number} means the sum of
    number x 2**(24 x place). An error is the answer minus the truth."""

    signed: dict[int, int] = {}
    absolute: dict[int, int] = {}
    squares: dict[int, int] = {}
    fourth: dict[int, int] = {}
    """Fourth powers, for the interval of the root mean square."""
    truths: dict[int, int] = {}
    truth_squares: dict[int, int] = {}
    pinball: dict[int, int] = {}
    """Of the quantile that the label declares; empty where it declares none."""
    pinball_squares: dict[int, int] = {}
    sizes: dict[int, int] = {}
    """Truths counted by size, in steps of 1 % (statistics/errors.py)."""


class Confusion(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Counts of answers that name one of several classes, in the order in which the label declares them."""

    cells: list[int] = []
    """Truth by truth: how often each class was the answer."""
    true: list[int] = []
    """Class by class: probabilities that were given to it where it was true, in 40 equal bins from 0 to 1."""
    false: list[int] = []
    """The same where it was not true."""
    loss_squares: float = 0.0


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the outcomes of a window; they add across partitions and windows."""

    n: int = 0
    positives: int = 0
    """Outcomes that were true; of classes, answers that were right."""
    loss: float = 0.0
    """Sum of log losses (natural logarithm); of numbers, of squared errors or of the declared pinball loss."""
    squares: float = 0.0
    """Sum of squared errors (Brier); of classes, over all of them."""
    bins_true: list[int] = []
    """Scores of true outcomes in 200 equal bins from 0 to 1; the area under the curve comes from these. Of classes, the
    probabilities of answers that were right."""
    bins_false: list[int] = []
    errors: Errors | UnsetType = UNSET
    """Where the label is a number; else absent."""
    confusion: Confusion | UnsetType = UNSET
    """Where the label is one of several classes; else absent."""


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """A measure with its 95 % interval."""

    value: float
    low: float
    high: float


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What a measure was expected to be before the labels came, and what earlier estimates justify to say of it; how, and what it
    cannot see (concept drift, above all), says services/monitoring/estimating.py."""

    value: float
    low: float | None = None
    """The interval that held 9 of 10 truths before; null while there are too few of them to know."""
    high: float | None = None
    error: float | None = None
    """By how much earlier estimates were wrong in the mean, newer ones counting more; null before the first truth."""
    compared: int = 0
    """Earlier estimates whose truth is known."""


class Paired(msgspec.Struct, frozen=True, kw_only=True):
    """Differences in loss between two answers to the same events: sums that add across partitions and windows."""

    n: int = 0
    sum: float = 0.0
    squares: float = 0.0
    exact: dict[int, int] | UnsetType = UNSET
    """Where the label is a number: the sum, as in Errors; `sum` and `squares` follow from these when a window is closed."""
    exact_squares: dict[int, int] | UnsetType = UNSET


class Contributed(msgspec.Struct, frozen=True, kw_only=True):
    """What moved a sample of a version's answers: contributions by input, on the scale of its explainer (log-odds or probability,
    as the run of the version says). Sums add across partitions and windows; absolute / n is the mean size of a contribution."""

    n: int = 0
    absolute: dict[str, float] = {}
    signed: dict[str, float] = {}


class Group(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Sums over the answers of one level of a segment, of those that a version gave; they add across partitions and windows."""

    answers: int = 0
    selected: int = 0
    """Answers that said yes, at the threshold of the model (see `ps.value`; without, 0.5)."""
    scores: float = 0.0
    """Sum of the scores of the outcomes."""
    quality: Quality = Quality()
    """Of the outcomes, of what was served."""


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
    """Of these, those that contradict the answer, taken as a yes from 0.5 on."""


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """What a window adds to the counts of a cohort: the answers given in one span of time."""

    answers: int = 0
    silent: int = 0
    unanswered: int = 0
    delays: list[int] = []
    """Labels by how long they took, in bins up to the edges of services/monitoring/cohorts.py."""
    scores: dict[str, list[int]] = {}
    """What models answered, in the bins of Quality, by the version that answered."""


class Summed(msgspec.Struct, frozen=True, kw_only=True):
    """Finite values of one input, added up: in whole steps of `unit` from `centre`, so that sums add exactly over partitions. A
    value more than 65,536 steps away counts as so many."""

    n: int
    steps: int
    squares: int
    least: float | None
    greatest: float | None
    centre: float
    unit: float


class Moments(msgspec.Struct, frozen=True, kw_only=True):
    """The finite values of one input. Mean and variance are of values rounded to 1/256 of the reference's standard deviation, and
    held 256 of these from its median at most; they are the same over any partitions. Windows join as Chan, Golub and LeVeque
    (1979) say."""

    n: int
    mean: float
    variance: float | None
    """Unbiased; null of one value."""
    least: float
    greatest: float


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """How long answers of one variant took, in seconds: quantiles to 9 %, from counts that add."""

    n: int
    p50: float
    p90: float
    p99: float
    counts: dict[int, int]
    """Answers by eighths of doublings of a microsecond: those of bin b took at most 2**(b / 8) microseconds."""


class Population(msgspec.Struct, frozen=True, kw_only=True):
    """How far the shares of the levels of a segment have moved: of `n` answers, against `m` before them."""

    stability: float
    """Population stability index."""
    chance: float
    """What chance alone exceeds once in twenty times."""
    n: int
    m: int


class Oddity(msgspec.Struct, frozen=True, kw_only=True):
    """One of the most novel answers, or of those outside the range of the reference: an example."""

    id: str
    level: int
    """Answers like the reference reach it once in 2**level."""
    bits: int
    inputs: dict[str, list[float | int | None]]
    """What is new about it: input -> value (null: missing or infinite) and its part of the bits, the most first."""


class Unseen(msgspec.Struct, frozen=True, kw_only=True):
    """How new the inputs of answers were to the version that gave them (see statistics/novelty.py). Counts add."""

    answers: int = 0
    levels: list[int] = []
    """By level; an answer is novel from level 7 on."""
    expected: list[int] = []
    """Rows that the version was fitted on, by level."""
    outside: dict[str, list[int]] = {}
    """Input -> answers with a value below all rows, above all rows, and without one where no row lacked it."""
    oddest: list[Oddity] = []
    inputs: int = 0
    """How many inputs there are."""


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
    """What became of predictions and labels; the words are explained in services/monitoring/ledger.py."""
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


class Shift(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far one input has moved from its reference."""

    ks: float
    """Greatest distance between the distribution functions (0 to 1), missing values as a bin of their own."""
    psi: float
    critical: float
    """The distance that chance and the input's own custom exceed as often as the false-alarm budget allows."""
    n: int
    floor: float | None = None
    """The distance below which the shift is not material: the monitor's, more for inputs that have less than an equal share of
    the influence on the answers. An input alarms when `ks` is above both `critical` and this; absent in records older than it."""
    p: float | None = None
    """How rarely chance and the input's own custom give a distance as great; absent in records older than the field."""
    spread: float = 0.0
    """The part of `ks` that is the input's own custom, as a standard deviation (see statistics/shift.py)."""


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
    """Why `prior`, `prior_loss` or `skill` is null, in words."""
    alarms: list[str] = []
    """Ids of the alarms that were raised, held or cleared with it; who acts on them reads these first, so that it does not
    matter which of the two topics comes first."""
    contributions: dict[str, Contributed] = {}
    """As in Partial."""
    measures: dict[str, dict[str, Measure]] = {}
    """Of what was `served`, and on the same outcomes of answering with the `prior`, and with the label that was usual in the
    window before (`last`); what each measure is says shared/penstock/statistics/binary.py."""
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
    """As in Statistic; the prior and the last label are those of when the cohort began."""
    delays: list[int]
    """Labels that took up to each of `edges`, and longer than the edge before."""
    edges: list[float]
    """Seconds."""
    groups: dict[str, dict[str, Group]] = {}
    """Segment -> level -> sums, where segments are declared; the outcomes are those of `quality`."""
    estimated: dict[str, Estimate] = {}
    """What was served: `accuracy`, `auc`, `label_rate` and `log_loss` as expected at the end of the cohort from its scores alone;
    empty before, of fewer than 30 answers of a model, and in records older than the field."""
