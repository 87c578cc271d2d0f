"""What crosses the wire: one typed record per topic. The JSON Schemas in schemas/ are generated from these.

Times are ISO-8601 UTC; probabilities are of the label being true; a missing number is null.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

__all__ = [
    "Alarm",
    "Artefact",
    "Candidate",
    "Clock",
    "Cohort",
    "Command",
    "Commit",
    "Compressed",
    "Contributed",
    "DataQuality",
    "Decision",
    "Described",
    "Frequent",
    "Inference",
    "LateEvent",
    "Measure",
    "Met",
    "Mix",
    "Notice",
    "Outcome",
    "Partial",
    "Passed",
    "Prediction",
    "Quality",
    "Row",
    "Run",
    "Scored",
    "Shift",
    "Silence",
    "Statistic",
    "Tally",
    "Tensor",
    "Weighed",
]


class Clock(msgspec.Struct, frozen=True, kw_only=True):
    """A closed time: everything before `before` is out, up to these positions (topic -> next offset per partition)."""

    publisher: str
    before: int
    """Integer microseconds since 1970 UTC."""
    ends: dict[str, dict[int, int]]


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """Which generation of the views is in charge: whose rows are the rows. Each record follows the one that counted before it:
    `number` is one more, `previous` was in charge. What does not follow is void, so of two swaps at once one counts."""

    number: int
    generation: str
    previous: str = ""
    views: dict[str, str] = {}
    """View -> fingerprint."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """An event with the values of its views as they were before it."""

    id: str
    time: datetime
    event: msgspec.Raw
    features: msgspec.Raw
    cursor: dict[str, list[int]]
    """Hop -> [partition, events of that hop processed before this one]; `source` -> [partition, offset]."""
    views: dict[str, str] = {}
    """View -> fingerprint of the definition that made its values; empty in rows of before these were written."""
    late: bool = False
    """Whether the event came too late to change some view (see `LateEvent`)."""
    as_of: datetime | None = None
    """Where its windows end, if that is after `time`: the event came late, and the values know newer events of its entities."""


class LateEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event that came later than its view allows: it changed nothing in that view."""

    event: str
    """Its topic."""
    id: str
    time: datetime
    view: str
    entity: str
    as_of: datetime
    """The entity's effective time when it came."""
    partition: int
    offset: int
    value: msgspec.Raw
    """As published."""


class Passed(msgspec.Struct, frozen=True, kw_only=True):
    """A source had been passed when this event came: the stream had gone on without it, as it was silent, or as somebody had
    closed its time. With it `before` becomes the effective time of its partition, if that was less (see `order`)."""

    event: str
    """Its topic."""
    partition: int
    offset: int
    before: int
    """Everything before this had been processed. Integer microseconds since 1970 UTC."""


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, with the inputs as used. `scores` has every version that was asked, `score` is what was answered."""

    id: str
    key: str
    model: str
    time: datetime
    inputs: msgspec.Raw
    score: float
    scores: dict[str, float]
    weights: dict[str, float]
    """How much each version of `scores` counts in `score`; versions in shadow are absent."""
    version: str
    variant: str
    digest: str
    bucket: int
    """0 to 9,999, by the entity: which share of a canary it falls to."""
    latency: float
    """Seconds from reading the row to the answer."""
    trace: str = ""


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """Values row by row, in a datatype of the Open Inference Protocol."""

    datatype: str
    shape: list[int]
    """Of all rows, whether they are here or not."""
    data: list[int | float | bool | str | None]
    """Of the rows that are here. NaN and the infinities are null."""


class Inference(msgspec.Struct, frozen=True, kw_only=True):
    """An answer to tensors (Open Inference Protocol), with what was asked. Of many rows the first `recorded` are here."""

    id: str
    """As the request said it, else that of this record."""
    model: str
    version: str
    digest: str
    time: datetime
    """Of the answer, by the clock of who gave it."""
    rows: int
    recorded: int
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    latency: float
    """Seconds from the request to the answer."""
    trace: str = ""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A prediction and its truth. `answered` is false where silence was taken as declared. A correction repeats the id with
    `corrects` set to the label it replaces."""

    id: str
    key: str
    model: str
    time: datetime
    labelled: datetime
    label: bool
    answered: bool
    inputs: msgspec.Raw
    score: float
    scores: dict[str, float]
    version: str
    variant: str
    corrects: bool | None = None
    source: str = ""
    """Who said so, where sources are declared; then a more trusted one that says the same repeats the id, too."""


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the outcomes of a window; they add across partitions and windows."""

    n: int = 0
    positives: int = 0
    loss: float = 0.0
    """Sum of log losses (natural logarithm)."""
    squares: float = 0.0
    """Sum of squared errors (Brier)."""
    bins_true: list[int] = []
    """Scores of true outcomes in 200 equal bins from 0 to 1; the area under the curve comes from these."""
    bins_false: list[int] = []


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """A measure with its 95 % interval."""

    value: float
    low: float
    high: float


class Paired(msgspec.Struct, frozen=True, kw_only=True):
    """Differences in log loss between two answers to the same events: sums that add across partitions and windows."""

    n: int = 0
    sum: float = 0.0
    squares: float = 0.0


class Contributed(msgspec.Struct, frozen=True, kw_only=True):
    """What moved a sample of a version's answers: contributions by input, on the scale of its explainer (log-odds or probability,
    as the run of the version says). Sums add across partitions and windows; absolute / n is the mean size of a contribution."""

    n: int = 0
    absolute: dict[str, float] = {}
    signed: dict[str, float] = {}


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What labels of one kind add to the sums of a window."""

    labels: int = 0
    """Answered ones."""
    quality: dict[str, Quality] = {}
    paired: dict[str, dict[str, Paired]] = {}
    cohorts: dict[int, dict[str, Quality]] = {}
    """Start of the cohort (microseconds) -> quality of it that became known in this window."""


class Mix(msgspec.Struct, frozen=True, kw_only=True):
    """The labels of one source."""

    labels: int = 0
    """That met their answer in this window."""
    positives: int = 0
    due: int = 0
    """That were to be counted in this window: the same, or where labels wait for their horizon those for which it passed."""


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """What a window adds to the counts of a cohort: the answers given in one span of time."""

    answers: int = 0
    silent: int = 0
    unanswered: int = 0
    delays: list[int] = []
    """Labels by how long they took, in bins up to the edges of services/monitoring/cohorts.py."""


class Partial(msgspec.Struct, frozen=True, kw_only=True):
    """One shard's share of a window; internal, merged into a Statistic when every shard has reported."""

    model: str
    start: int
    end: int
    """Window in microseconds, end exclusive; by the time the label became known (quality) or of the event (inputs)."""
    shard: int
    shards: int
    quality: dict[str, Quality]
    """By version; `served` is what was answered."""
    paired: dict[str, dict[str, Paired]]
    """Version -> each version of a greater name that was asked about the same event; the first minus the second."""
    inputs: dict[str, list[int]]
    """Counts per bin of the champion's reference edges; the last bin counts missing values."""
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
    auc: dict[str, float | None]
    prior: float | None
    """The label rate of the windows before, which the prior answers with."""
    prior_loss: float | None
    """Mean log loss of the prior on the outcomes that were served."""
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

    def versus(self, version: str, other: str) -> Paired:
        """The differences in log loss, `version` minus `other`, on the events that both were asked about."""
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


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """raised, held or cleared, with its evidence. The id is derived from the window, so a replay gives the same."""

    id: str
    model: str
    signal: str
    """drift, skill, labels, sources, or quality/<topic>/<expectation> (then `model` is empty)."""
    state: str
    at: datetime
    evidence: dict[str, Any]


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """What people are to be told about alarms of one cause; the id is that of the alarm that gave rise to it."""

    id: str
    subject: str
    """The model, or the topic of an event."""
    cause: str
    """drift, skill, quality: what tells alarms of one subject apart."""
    state: str
    """raised: people learn of these alarms now; held: they still last; cleared: they are over."""
    alarms: list[Alarm]
    missed: int = 0
    """Alarms that were raised and cleared since the last notice, without one."""


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """People want to hear nothing of a subject between two stream times. The newest of a subject and cause counts."""

    subject: str
    since: datetime
    until: datetime
    actor: str
    cause: str = ""
    """Empty: whatever it is."""
    reason: str = ""


class Artefact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file by claim check. Readers verify size and digest before they open it."""

    uri: str
    sha256: str
    size: int
    format: str
    """onnx, river (a restricted snapshot), or npz (arrays: what explains a version)."""
    signature: str = ""
    """Ed25519 (base64) over digest, size and format, see `penstock.signing`; absent where nobody signs."""


class Weighed(msgspec.Struct, frozen=True, kw_only=True):
    """A model on the scales: bytes, and how it answers the rows that both were judged on."""

    size: int
    log_loss: float | None
    """Null where it does not give a probability for every row."""
    auc: float | None
    latency: float | None
    """Seconds for one row, the median of 100; null where nothing is timed (a replay)."""


class Compressed(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a compression. The rows are of the training window, without those that calibration saw."""

    method: str
    """int8, int8_dynamic or float16."""
    within: float
    """By how much log loss was allowed to grow."""
    served: bool
    """Whether the compressed model is the one offered; else the original is."""
    reason: str
    rows: int
    before: Weighed
    after: Weighed | None
    """Null where nothing could be compressed."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One training job: what went in, what came out, and enough to repeat it."""

    id: str
    model: str
    kind: str
    """full or incremental."""
    cause: str
    at: datetime
    parameters: dict[str, Any]
    seed: int
    data: dict[str, Any]
    code: str
    environment: dict[str, str]
    metrics: dict[str, float]
    seconds: float
    version: str = ""
    """What it offered; empty when it offered nothing, and then `data` says why (refused)."""
    compression: Compressed | None = None
    """Where the learner declares one."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A fitted version offered to the registry. `edges` and `reference` are the bins of its training inputs."""

    id: str
    model: str
    version: str
    kind: str
    at: datetime
    artefact: Artefact
    inputs: list[str]
    weights: dict[str, float]
    """Mixture weights by member (batch, online) as of the data's end."""
    edges: dict[str, list[float]]
    reference: dict[str, list[int]]
    metrics: dict[str, float]
    run: str
    fingerprint: str
    explainer: Artefact | None = None
    """What explains its answers; null for snapshots, which explain themselves, and for versions older than explanations."""
    hours: Artefact | None = None
    """Its reference by hour of the week (npz, see statistics/hours.py); null for snapshots and for versions older than these."""
    spread: dict[str, float] = {}
    """How much each input moves by its own custom: the standard deviation of its Kolmogorov-Smirnov distance that sampling does
    not explain, from windows of the training rows against the others. Inputs that do not are left out."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What the registry decided. The compacted topic of these is the registry's state and what every server follows."""

    id: str
    model: str
    kind: str
    """registered, snapshot, shadow, canary, champion, retired, rejected, rolled_back."""
    version: str
    at: datetime
    actor: str
    reason: str
    share: float
    expected: str
    """The champion that the decision assumed; a decision on another one is refused."""
    evidence: dict[str, Any]
    candidate: Candidate | None = None


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What a person asks: approve, promote, roll_back, retrain."""

    id: str
    model: str
    action: str
    at: datetime
    actor: str
    reason: str = ""
    version: str = ""
    expected: str = ""


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """A commit to an offline table: its version, and the next offset of each partition of its topic."""

    table: str
    version: int
    positions: dict[int, int]
    rows: int


class Frequent(msgspec.Struct, frozen=True, kw_only=True):
    value: float | str | bool
    count: int


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """One column of a profile. Of text, the numbers are of its lengths in characters; times are ISO-8601."""

    kind: str
    """bool, int, float, time, text, or empty where every value is missing."""
    rows: int
    missing: int
    infinite: int
    """Infinite numbers: in no other figure."""
    distinct: int
    distinct_exact: bool
    """Else an estimate with a standard error of 3.1 %."""
    least: float | str | bool | None
    greatest: float | str | bool | None
    mean: float | None
    std: float | None
    """Of a sample."""
    quantiles: dict[str, float | str | bool]
    """Share of the values -> the least value with at least that share at or below it."""
    error: float
    """How far a quantile may be off, as a share of its size; 0 where it is exact."""
    edges: list[float | str | bool]
    """Of the bins of the histogram, one more than there are counts."""
    counts: list[int]
    frequent: list[Frequent]
    """The most frequent values; empty for numbers of which more than 1,024 differ."""
    frequent_low_by: int
    """Their counts are low by at most this."""
    correlation: float | None
    """With the label (Pearson), over the `correlated` rows that have both; null where one of them does not vary."""
    correlated: int


class Met(msgspec.Struct, frozen=True, kw_only=True):
    """An expectation over a day: of how many records it was asked, and how many did not meet it."""

    asked: int
    broken: int
    otherwise: str
    """dead_letter, flag or alarm."""
    example: str = ""
    """Where the first that did not meet it lies, and why."""


class DataQuality(msgspec.Struct, frozen=True, kw_only=True):
    """A day of one event in stream time, over all partitions: a late record counts in the day in which it was processed."""

    id: str
    event: str
    """The topic."""
    start: datetime
    end: datetime
    part: int = 0
    """Above 0: of records alone that a partition told after the day had been published (the id ends with the number)."""
    records: int
    refused: dict[str, int]
    """Dead-lettered, by reason (duplicates and misplaced records are not known here)."""
    late: int
    """Behind the newest event of their partition."""
    delay: dict[str, float]
    """Quantiles of the seconds that records were behind it when they arrived."""
    accuracy: float | None
    """Share of the records that could be read and met every expectation."""
    completeness: float | None
    """Share of the values that are not missing."""
    consistency: float | None
    """Share of the records that met every rule across columns; null where none is declared."""
    timeliness: float | None
    """Share of the records that were not late."""
    expectations: dict[str, Met]
    columns: dict[str, Described]
    """Of the records that were taken."""
