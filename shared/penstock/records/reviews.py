"""Reviews: what people say of answers, which answers they are asked about, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import UNSET, UnsetType

if TYPE_CHECKING:
    from ..label import Truth

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
    truth: float | str | UnsetType = UNSET
    """What would be right, of labels that are numbers or classes; `says` is false then."""

    @property
    def word(self) -> Truth | None:
        """What would be right; None where it was not said."""
        return self.says if self.truth is UNSET else self.truth


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """What one reviewer says is true of what was asked. It may become a label."""

    prediction: _Id
    model: str
    by: _Name
    at: datetime
    """When it was said, by the clock of who took it down."""
    says: bool
    why: _Why = ""
    truth: float | str | UnsetType = UNSET
    """What is true, of labels that are numbers or classes; `says` is false then."""

    @property
    def word(self) -> Truth:
        """What is true."""
        return self.says if self.truth is UNSET else self.truth


class Queued(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that waits for reviewers. What those said who have decided is not here: the next one is to judge for himself."""

    prediction: str
    model: str
    key: str
    time: datetime
    score: float
    version: str
    distance: float
    """Of the score from the threshold of decision; of classes half of that between the two most probable; of numbers 0."""
    flags: int
    """How many people have flagged it."""
    notes: list[str]
    """What the first of them said."""
    not_for: list[str]
    """Who may not decide: who flagged it, or has decided already."""
    have: int
    """Reviewers who have decided."""
    want: int
    """Reviewers who are to: 1, or 2 where agreement is measured, or one more than have while these contradict each other."""
    unfamiliar: bool = False
    """Whether the model knew little: half of the inputs or more were missing."""
    inputs: msgspec.Raw
    """As used; null where only a flag brought it here (`penstock review show` finds them)."""
    answer: str | UnsetType = UNSET
    """The class that was answered, where the label is one of several; `score` is its probability."""


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
    truth: float | str | UnsetType = UNSET
    """The label, where it is a number or a class; `label` is null then."""
    truths: list[float | str] | UnsetType = UNSET
    """Then also: what each of them said; `said` is empty."""

    @property
    def decided(self) -> Truth | None:
        """The label; None where there is none."""
        return self.label if self.truth is UNSET else self.truth

    @property
    def words(self) -> Sequence[Truth]:
        """What each of those said who decided."""
        return self.said if self.truths is UNSET else self.truths
