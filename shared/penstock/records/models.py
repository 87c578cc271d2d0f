"""Models: how a version was made, what it is, what was decided about it, and what people ask for."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

__all__ = ["Artefact", "Candidate", "Code", "Command", "Compressed", "Decision", "Profile", "Run", "Tails", "Weighed"]


class Artefact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file by claim check. Readers verify size and digest before they open it."""

    uri: str
    sha256: str
    size: int
    format: str
    """onnx, river (a restricted snapshot), npz (arrays: what explains a version), or levels (its reference by segment)."""
    signature: str = ""
    """Ed25519 (base64) over digest, size and format, see `penstock.signing`; absent where nobody signs."""


class Weighed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model on the scales: bytes, and how it answers the rows that both were judged on."""

    size: int
    log_loss: float | None
    """Null where the label is a number, or it does not give a probability for every row."""
    auc: float | None
    """Null where the label is not of yes and no."""
    latency: float | None
    """Seconds for one row, the median of 100; null where nothing is timed (a replay)."""
    loss: float | None = None
    """Mean loss, see `Compressed.loss`; null where it does not answer every row."""
    measures: dict[str, float] = {}
    """All measures of its kind of label, as monitoring has them."""


class Compressed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a compression. The rows are of the training window, without those that calibration saw."""

    method: str
    """int8, int8_dynamic or float16."""
    within: float
    """By how much log loss was allowed to grow; where the label is a number, the loss as a share of `prior`."""
    served: bool
    """Whether the compressed model is the one offered; else the original is."""
    reason: str
    rows: int
    before: Weighed
    after: Weighed | None
    """Null where nothing could be compressed."""
    loss: str = "log loss"
    """Which loss was judged."""
    prior: float | None = None
    """Of labels that are numbers: the mean loss of the best constant answer to the same rows."""


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


class Tails(msgspec.Struct, frozen=True, kw_only=True):
    """The tails of one input in the training rows. A tail is halved again and again; the last halving leaves one row."""

    low: list[float]
    """Values beyond which fewer rows lie than each halving leaves, the least value first; empty where no row had a value."""
    high: list[float]
    """The greatest value last."""
    missing: int
    """Rows without a value."""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What a version was fitted on, as far as it tells what is new (see statistics/novelty.py)."""

    rows: int
    tails: dict[str, Tails]
    scores: list[int]
    """Of the rows' own scores the upper tail, from half of the rows on."""
    levels: list[int]
    """Rows by their level."""


class Code(msgspec.Struct, frozen=True, kw_only=True):
    """A function of the project, by its name and the sha256 of its code (see penstock.fingerprint)."""

    name: str
    sha256: str


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
    task: str = "binary"
    """What it answers: binary (a probability), regression (a number) or multiclass (a probability per class)."""
    classes: list[str] = []
    """Of multiclass: which classes, in the order of its columns."""
    grid: dict[str, list[float]] = {}
    """Centre and unit in which values of an input, and of its answers (`score`), are added up, so that sums are exact; absent in
    versions older than it."""
    scores: list[float] = []
    """Edges between bins of its answers, at quantiles of those to its training rows. These are no reference: a model is surer of
    rows that it has seen."""
    profile: Profile | None = None
    """What tells which inputs are new to it; null for snapshots and for versions older than these."""
    customs: dict[int, dict[str, float]] = {}
    """The same of windows of other lengths (microseconds): the spans that monitors judge as one. Lengths of which the training
    rows know nothing are left out."""
    functions: dict[str, Code] = {}
    """By role (before, after) the function that it was fitted with, and is asked with."""
    segments: Artefact | None = None
    """Its reference by level of each segment (see statistics/segmented.py); null where none is declared, for snapshots and for
    versions older than these."""


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
