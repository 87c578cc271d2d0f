"""Reviews: what people say of answers, which answers they are asked about, and what came of it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

__all__ = ["NAMED", "WHY", "Flag", "Queued", "Review", "Reviewed"]

NAMED, WHY = 80, 500
"""Characters of a person's name, and of a reason."""

_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAMED)]
_Why = Annotated[str, msgspec.Meta(max_length=WHY)]


class Flag(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody says that an answer is wrong. It is no label: reviewers look at it."""

    prediction: _Id
    """Its id: that of the event that was answered."""
    model: str
    by: _Name
    at: datetime
    """When it was said, by the clock of who took it down."""
    says: bool | None = None
    """What would be right; null where it was not said."""
    why: _Why = ""


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """What one reviewer says is true of what was asked. It may become a label."""

    prediction: _Id
    model: str
    by: _Name
    at: datetime
    """When it was said, by the clock of who took it down."""
    says: bool
    why: _Why = ""


class Queued(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that waits for reviewers. What those said who have decided is not here: the next one is to judge for himself."""

    prediction: str
    model: str
    key: str
    time: datetime
    score: float
    version: str
    distance: float
    """Of the score from the threshold of decision."""
    flags: int
    """How many people have flagged it."""
    notes: list[str]
    """What the first of them said."""
    not_for: list[str]
    """Who may not decide: who flagged it, or has decided already."""
    have: int
    """Reviewers who have decided."""
    want: int
    """Reviewers who are to: 1, or 2 where agreement is measured, or 3 where those two contradict each other."""
    unfamiliar: bool = False
    """Whether the model knew little: half of the inputs or more were missing."""
    inputs: msgspec.Raw
    """As used; null where only a flag brought it here (`penstock review show` finds them)."""


class Reviewed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a flag or a review. `state`:

    contradicted    two who were asked on purpose did not say the same; it goes on with a third
    labelled        reviewers decided, and the label event is published
    refused         somebody's word does not count, or the label event was refused: `reason` says why
    expired         the horizon of the label passed before enough reviewers decided
    orphan          the words are of an answer that nobody gave, or not within the horizon
    """

    id: str
    """Derived from model, prediction, state and who said it: a repeat has the same."""
    prediction: str
    model: str
    state: str
    at: datetime
    """Stream time."""
    label: bool | None = None
    reason: str = ""
    reviewers: list[str] = []
    """Who decided, in that order."""
    said: list[bool] = []
    """What each of them said."""
    flags: int = 0
    paired: bool = False
    """Whether it was given to two on purpose, so that their agreement can be measured."""
    score: float | None = None
