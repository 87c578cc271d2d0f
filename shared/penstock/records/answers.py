"""Answers: what was asked, what was said, and what became known of it."""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec import UNSET, UnsetType

__all__ = ["MIXED", "Inference", "Outcome", "Prediction", "Tensor", "served"]

MIXED = "served"
"""Among the versions of `probabilities`: what was answered, where that is the mixture of several."""


def served(probabilities: dict[str, dict[str, float]], version: str) -> dict[str, float]:
    """The probabilities of the classes that were answered, of those by version; empty where nobody answered."""
    return probabilities.get(MIXED) or probabilities.get(version, {})


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, with the inputs as used. `scores` has every version that was asked, `score` is what was answered: the
    probability that the label is true, or the number; of several classes the probability of the one that `answer` names."""

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
    answer: str | UnsetType = UNSET
    """The class that was answered, where the label is one of several; else absent."""
    probabilities: dict[str, dict[str, float]] | UnsetType = UNSET
    """Then also: by version the probability of each class; where several were mixed, the mixture as `served`."""
    segments: dict[str, str] | UnsetType = UNSET
    """Segment -> level of the event, where the model declares segments."""


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
    `corrects` set to the label it replaces.

    Of labels that are numbers or classes `truth` is the label, and `corrected` what it replaces; `label` is false then, and
    `corrects` only says that there was one."""

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
    truth: float | str | UnsetType = UNSET
    corrected: float | str | UnsetType = UNSET
    answer: str | UnsetType = UNSET
    """As in Prediction."""
    probabilities: dict[str, dict[str, float]] | UnsetType = UNSET
    segments: dict[str, str] | UnsetType = UNSET
    """As in Prediction."""
