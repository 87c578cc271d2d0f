"""The answer to a row: every version on duty is asked, one mixture is served. Pure; the stream and HTTP both call this.

For a model with an online learner beside its batch versions, served = w_batch p_batch + w_online p_online, with the
weights that came with the newest snapshot. A canary answers the buckets below its share, mixed in the same way. A
version that gives no probability for a row (an error, NaN) has no say in it: the next on duty answers. Before the first
version there is no model: version "none", variant "none", score 0.5, no weights.

A number is answered in the same way, and of classes the probability of each; the class with the greatest is the answer, and its
probability the score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from penstock.errors import PenstockError
from penstock.inputs import Floats, Matrix
from penstock.label import GREATEST, Label
from penstock.records.answers import MIXED, served

from .around import Unanswered
from .roster import BUCKETS, bucket
from .scorers import Member

__all__ = ["NOBODY", "Answer", "Scored", "Serving", "answers", "score"]


@dataclass(frozen=True)
class Serving:
    """The members on duty. `online_weight` is the share of the online learner in the mixture, None when unknown: then
    it is scored, and counts only where there is no batch version."""

    champion: Member | None = None
    challenger: Member | None = None
    share: float = 0.0
    probation: Member | None = None
    online: Member | None = None
    online_weight: float | None = None
    first: Member | None = None
    """Asked for comparison; it answers only where all others fail."""

    @property
    def members(self) -> dict[str, Member]:
        """By version, in order of who answers."""
        duties = (self.champion, self.challenger, self.probation, self.online, self.first)
        found: dict[str, Member] = {}
        for member in duties:
            if member is not None:
                found.setdefault(member.version, member)
        return found

    @property
    def apart(self) -> bool:
        """Whether to ask is to wait for other processes, which may hang: not for an event loop."""
        return any(member.apart for member in self.members.values())


@dataclass(frozen=True)
class Answer:
    """What rows answered alike have in common."""

    version: str
    variant: str
    digest: str
    weights: dict[str, float]


NOBODY = Answer("none", "none", "", {})
_UNKNOWN = 0.5


@dataclass
class Scored:
    """Parallel columns, one entry a row. `failed` counts the rows that a version gave no probability for; `causes` says
    why."""

    score: list[float]
    scores: list[dict[str, float]]
    answers: list[Answer]
    buckets: list[int]
    failed: dict[str, int] = field(default_factory=dict)
    causes: dict[str, str] = field(default_factory=dict)
    named: list[str] = field(default_factory=list)
    """The class that was answered, "" where nobody answered; empty for models that name none."""
    probabilities: list[dict[str, dict[str, float]]] = field(default_factory=list)
    """Then also by version the probability of each class."""
    why: dict[int, PenstockError] = field(default_factory=dict)
    """By row what a function around the model says of it: Refused in the words of the function, or FunctionFailed."""

    @property
    def unanswered(self) -> dict[int, PenstockError]:
        """Of those the rows that nobody answers."""
        return {row: error for row, error in self.why.items() if self.answers[row] is NOBODY}


def score(model: str, X: Matrix, entities: Sequence[str], serving: Serving) -> Scored:  # noqa: N803
    """Answer rows of `X`, float32 (rows, inputs), about `entities`."""
    buckets = [bucket(model, entity) for entity in entities]
    scored = Scored([], [], [], buckets)
    members = serving.members
    if not members or not len(X):
        scored.score, scored.scores = [_UNKNOWN] * len(X), [{} for _ in buckets]
        scored.answers = [NOBODY] * len(X)
        return scored
    lead = serving.champion or serving.online or serving.challenger or serving.probation or serving.first
    assert lead is not None
    if lead.task == "multiclass":
        return _named(X, scored, serving, lead)
    columns = {version: _ask(member, X, scored) for version, member in members.items()}
    champion = _answer(lead, "champion", serving)
    whole = _mixture(champion, columns)
    limit = round(serving.share * BUCKETS)
    scored.answers = [champion] * len(X)
    if limit and serving.challenger is not None:
        canary = _answer(serving.challenger, "canary", serving)
        mine = np.array(buckets) < limit
        whole = np.where(mine, _mixture(canary, columns), whole)
        scored.answers = [canary if yes else champion for yes in mine.tolist()]
    scored.score = whole.tolist()
    versions = tuple(columns)
    lists = [column.tolist() for column in columns.values()]
    if len(versions) == 1:  # as mostly; a third of the time
        scored.scores = [{versions[0]: p} for p in lists[0]]
    else:
        scored.scores = [dict(zip(versions, row, strict=True)) for row in zip(*lists, strict=True)]
    if scored.failed:
        broken = np.flatnonzero(np.isnan(np.stack(list(columns.values()))).any(axis=0))
        for row in broken.tolist():
            _mend(scored, row, serving)
    return scored


def answers(label: Label, scored: Scored) -> Floats:
    """What was answered as numbers: float64 (rows,), of classes (rows, classes) in their declared order; NaN where no version
    gave an answer."""
    if label.classes:
        found = np.full((len(scored.score), len(label.classes)), np.nan)
        for row, each in enumerate(scored.probabilities):
            shares = served(each, scored.answers[row].version)
            found[row] = [shares.get(name, 0.0) for name in label.classes]
    else:
        found = np.array(scored.score, np.float64)
    if scored.failed:
        found[[answer is NOBODY for answer in scored.answers]] = np.nan
    return found


def _ask(member: Member, X: Matrix, scored: Scored) -> Floats:  # noqa: N803
    """One version's probabilities or numbers, NaN where it gives none."""
    try:
        found = _heard(member, X, scored)
    except Exception as error:  # of whatever kind: a version that breaks must not break the answer
        found = np.full(len(X), np.nan)
        scored.causes[member.version] = f"{type(error).__name__}: {error}"[:300]
    number = member.task == "regression"
    bad = ~(np.abs(found) <= GREATEST) if number else ~((found >= 0.0) & (found <= 1.0))
    if bad.any():
        near = bad & (np.abs(found - 0.5) <= 0.5 + 1e-6) & (not number)
        found = np.where(near, np.clip(found, 0.0, 1.0), np.where(bad, np.nan, found))
        missing = int(np.count_nonzero(np.isnan(found)))
        if missing:
            scored.failed[member.version] = missing
            scored.causes.setdefault(member.version, f"no {'number' if number else 'probability'} for some rows")
    return found


def _heard(member: Member, X: Matrix, scored: Scored) -> Floats:  # noqa: N803
    """What a version says, NaN where its functions leave a row without an answer."""
    try:
        return member.score(X)
    except Unanswered as error:
        scored.causes[member.version] = str(error)[:300]
        scored.why = error.why | scored.why
        return error.found


def _named(X: Matrix, scored: Scored, serving: Serving, lead: Member) -> Scored:  # noqa: N803
    """Answer rows with a class. A version that knows a class less gives it 0; where one of a mixture says nothing of a row, the
    next on duty answers alone, as of numbers."""
    members, challenger = serving.members, serving.challenger
    columns = {v: (member.classes, _shares(member, X, scored)) for v, member in members.items() if member.task == "multiclass"}
    champion = canary = _answer(lead, "champion", serving)
    if challenger is not None:
        canary = _answer(challenger, "canary", serving)
    limit = round(serving.share * BUCKETS)
    for row, at in enumerate(scored.buckets):
        said = {v: dict(zip(names, rows[row], strict=True)) for v, (names, rows) in columns.items() if rows[row]}
        answer = canary if at < limit else champion
        if said and any(version not in said for version in answer.weights):
            first = members[answer.version if answer.version in said else next(iter(said))]
            variant = answer.variant if first.version == answer.version else "champion"
            answer = Answer(first.version, variant, first.digest, {first.version: 1.0})
        mine = said.get(answer.version, {})
        asked = dict(said)
        if said and len(answer.weights) > 1:
            parts = [(weight, said[version]) for version, weight in answer.weights.items()]
            known = dict.fromkeys(name for _, each in parts for name in each)
            mine = said[MIXED] = {name: sum(weight * each.get(name, 0.0) for weight, each in parts) for name in known}
        name = max(mine, key=mine.__getitem__, default="")
        scored.answers.append(answer if said else NOBODY)
        scored.named.append(name)
        scored.probabilities.append(said)
        scored.score.append(mine.get(name, _UNKNOWN))
        scored.scores.append({v: each.get(name, 0.0) for v, each in asked.items()})
    return scored


def _shares(member: Member, X: Matrix, scored: Scored) -> list[list[float]]:  # noqa: N803
    """One version's probabilities by row and class; an empty list where it gives none."""
    shape = len(X), len(member.classes)
    try:
        found = _heard(member, X, scored)
        if found.shape != shape:
            raise ValueError(f"answers of shape {found.shape}, not {shape}")
    except Exception as error:  # of whatever kind: a version that breaks must not break the answer
        found = np.full(shape, np.nan)
        scored.causes[member.version] = f"{type(error).__name__}: {error}"[:300]
    good = np.all((found >= -1e-6) & (found <= 1.0 + 1e-6), axis=1)
    if not good.all():
        scored.failed[member.version] = int((~good).sum())
        scored.causes.setdefault(member.version, "no probability for some rows")
    rows = np.clip(found, 0.0, 1.0).tolist()
    return [row if well else [] for row, well in zip(rows, good.tolist(), strict=True)]


def _answer(member: Member, variant: str, serving: Serving) -> Answer:
    """The member alone, or mixed with the online learner."""
    online, share = serving.online, serving.online_weight
    if online is None or share is None or online.version == member.version:
        return Answer(member.version, variant, member.digest, {member.version: 1.0})
    return Answer(member.version, variant, member.digest, {member.version: 1.0 - share, online.version: share})


def _mixture(answer: Answer, columns: dict[str, Floats]) -> Floats:
    parts = [weight * columns[version] for version, weight in answer.weights.items()]
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def _mend(scored: Scored, row: int, serving: Serving) -> None:
    """Answer one row without the versions that failed on it: the mixture without them, else the next on duty."""
    scores = {version: p for version, p in scored.scores[row].items() if p == p}
    scored.scores[row] = scores
    answer = scored.answers[row]
    if all(version in scores for version in answer.weights):
        return
    able = [m for m in serving.members.values() if m.version in scores]
    if not able:
        scored.score[row], scored.answers[row] = _UNKNOWN, NOBODY
        return
    first = next((m for m in able if m.version == answer.version), able[0])
    canary = first is serving.challenger and answer.variant == "canary"
    scored.answers[row] = Answer(first.version, "canary" if canary else "champion", first.digest, {first.version: 1.0})
    scored.score[row] = scores[first.version]
