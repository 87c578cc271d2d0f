"""Drift: what is to be thought of columns that were counted against their references.

Each column is asked up to four questions: has its distribution moved, are values missing, infinite, of new levels more
often? The answer to one is drift when both keys turn:

Significant  q below `alpha` after Benjamini and Hochberg over all questions of all columns, so that a table in which
             nothing has changed is called drifted at most so often
Material     the effect is above its floor: a documented one, or what the reference does to itself where that is more.
             A reference that moves (weather, seasons, one customer a morning) shows it when its parts are compared with
             each other; this also covers rows that depend on their neighbours, for which no p-value is right

Where even two samples with nothing in common would not be significant, the verdict is "unknown", never "steady".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

from . import distances, tests
from .habit import habit_of
from .reference import Cells, Levels, Numbers, Reference

__all__ = [
    "ALPHA",
    "FLOORS",
    "Answer",
    "Asked",
    "Column",
    "Counted",
    "Floors",
    "Question",
    "Verdict",
    "asked",
    "judged",
    "learnt",
]

Verdict: TypeAlias = Literal["drift", "steady", "unknown"]
Question: TypeAlias = Literal["distribution", "missing", "infinite", "new levels"]
Floors: TypeAlias = Mapping[Question, float]

ALPHA: Final = 0.01
FLOORS: Final[Floors] = {"distribution": 0.05, "missing": 0.02, "infinite": 0.01, "new levels": 0.01}
"""The least effect that matters. Of a distribution: Kolmogorov-Smirnov distance of numbers (0.05: a normal column moves
by an eighth of its deviation), total variation of levels beyond chance; of the others: change in the share of rows."""
USUAL: Final = 0.05
"""The p-value at which a part of the reference differs from the rest: else its distance is chance, and teaches nothing."""


class Asked(NamedTuple):
    """One question with its effect and p-value, and the least p-value that was possible."""

    question: Question
    effect: float
    p: float
    least: float


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One question of one column. Drift: `q` below alpha, and `effect` above `floor`."""

    question: Question
    effect: float
    floor: float
    p: float
    q: float
    verdict: Verdict

    @property
    def excess(self) -> float:
        """The effect in floors."""
        return self.effect / self.floor


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict of one column, and from what. `why` is a sentence. Shares are of rows, None where there is no row."""

    name: str
    kind: str
    verdict: Verdict
    why: str
    effect: float | None = None
    """Of the question that decided: the one furthest above its floor among those that are drift, else among all."""
    floor: float | None = None
    p: float | None = None
    q: float | None = None
    rows_now: int = 0
    rows_then: float = 0
    """Rows that count: of the odd ones alone (see `reference`), or as much as weighted rows are worth."""
    missing_now: float | None = None
    missing_then: float | None = None
    answers: tuple[Answer, ...] = ()
    distances: dict[str, float | None] = {}

    @property
    def excess(self) -> float:
        return self.effect / self.floor if self.effect is not None and self.floor else 0.0


def asked(reference: Reference, now: Cells, then: Cells) -> list[Asked]:
    """The questions that these counts can be asked; `then` is the reference's own vector, or a weighted one."""
    body, before = reference.body(now), reference.body(then)
    present, were = float(body.sum()), float(before.sum())
    gone, lost = reference.missing(now), reference.missing(then)
    rows, past = present + gone, were + lost
    found: list[Asked] = []

    def ask(question: Question, tested: tests.Tested, least: float) -> None:
        if tested.effect is not None and tested.p is not None:
            found.append(Asked(question, tested.effect, tested.p, least))

    if present > 0 and were > 0:
        test = tests.ks_test if isinstance(reference, Numbers) else tests.chi_square
        ask("distribution", test(body, before), tests.least_p(present, were))
    if gone or lost:
        ask("missing", tests.missing_test(gone, rows, lost, past), _least(rows, past))
    if isinstance(reference, Numbers) and (now[-3] or then[-3]):
        ask("infinite", tests.rate_test(float(now[-3]), rows, float(then[-3]), past), _least(rows, past))
    if isinstance(reference, Levels) and (body[-1] or before[-1]):
        new = tests.new_test(float(body[-1]), present, float(before[-1]), were)
        ask("new levels", new, _least(present / (1 + present / were) if were else present, were))
    return found


def _least(n: float, m: float) -> float:
    p = tests.rate_test(n, n, 0, m).p
    return 1.0 if p is None else p


def learnt(reference: Reference, parts: Iterable[tuple[Cells, Cells]], floors: Floors = FLOORS) -> dict[Question, float]:
    """The floors of a column: what parts of its reference, each compared with other rows of it, exceed rarely
    (`habit.habit_of`)."""
    effects: dict[Question, list[float]] = {question: [] for question in floors}
    count = 0
    for part, rest in parts:
        count += 1
        for one in asked(reference, part, rest):
            if one.p < USUAL:
                effects[one.question].append(one.effect)
    return {q: max(floor, habit_of([*effects[q], *[0.0] * (count - len(effects[q]))])) for q, floor in floors.items()}


class Counted(NamedTuple):
    """One column, counted."""

    name: str
    reference: Reference
    now: Cells
    then: Cells
    floors: Floors = FLOORS


def judged(columns: Sequence[Counted], alpha: float = ALPHA) -> list[Column]:
    """The verdict of each column, in their order.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> height = Numbers.of(rng.normal(size=10_000))
    >>> [found] = judged([Counted("height", height, height.count(rng.normal(0.5, 1, 1000)), height.own)])
    >>> found.verdict, found.why
    ('drift', 'the distribution moved by 0.180, above its floor of 0.050')
    """
    questions = [asked(column.reference, column.now, column.then) for column in columns]
    told = [one for found in questions for one in found if one.least < alpha]
    q_of = dict(zip(map(id, told), tests.adjusted([one.p for one in told]), strict=True))
    return [
        _column(column, [_answer(one, column.floors[one.question], q_of.get(id(one)), alpha) for one in found])
        for column, found in zip(columns, questions, strict=True)
    ]


def _answer(one: Asked, floor: float, q: float | None, alpha: float) -> Answer:
    verdict: Verdict = "unknown" if q is None else "drift" if q < alpha and one.effect > floor else "steady"
    return Answer(question=one.question, effect=one.effect, floor=floor, p=one.p, q=1.0 if q is None else q, verdict=verdict)


def _column(column: Counted, answers: list[Answer]) -> Column:
    reference, now, then = column.reference, column.now, column.then
    rows, past = (float(c[: reference.missing_cell + 1].sum()) for c in (now, then))
    verdicts = {answer.verdict for answer in answers}
    blind = any(a.question == "distribution" and a.verdict == "unknown" for a in answers)  # the others are no excuse for it
    verdict: Verdict = "drift" if "drift" in verdicts else "steady" if "steady" in verdicts and not blind else "unknown"
    first = max((a for a in answers if a.verdict == verdict), key=lambda a: a.excess, default=None)
    both_missing = rows > 0 and past > 0 and reference.missing(now) == rows and reference.missing(then) == past
    if both_missing:
        verdict = "steady"
    return Column(
        name=column.name,
        kind="numbers" if isinstance(reference, Numbers) else "levels",
        verdict=verdict,
        why=_why(column, rows, past, answers, first, verdict, both_missing),
        effect=first.effect if first else None,
        floor=first.floor if first else None,
        p=first.p if first else None,
        q=first.q if first else None,
        rows_now=round(rows),
        rows_then=past,
        missing_now=reference.missing(now) / rows if rows else None,
        missing_then=reference.missing(then) / past if past else None,
        answers=tuple(answers),
        distances=_distances(reference, now, then),
    )


def _why(
    column: Counted,
    rows: float,
    past: float,
    answers: Sequence[Answer],
    first: Answer | None,
    verdict: Verdict,
    both_missing: bool,
) -> str:
    if not past:
        return "the reference has no rows"
    if not rows:
        return "there are no rows to compare"
    if both_missing:
        return "every value is missing on both sides"
    if first is None or verdict == "unknown":
        return f"{rows:,.0f} and {past:,.0f} rows are too few to tell drift from chance"
    if verdict == "drift":
        found = sorted((a for a in answers if a.verdict == "drift"), key=lambda a: -a.excess)
        return "; ".join(f"{_what(column, answer)}, above its floor of {answer.floor:.3f}" for answer in found)
    what = _what(column, first)
    return f"{what}, as chance may" if first.effect > first.floor else f"{what}, below its floor of {first.floor:.3f}"


def _what(column: Counted, answer: Answer) -> str:
    if answer.question == "distribution":
        return f"the distribution moved by {answer.effect:.3f}"
    before, after = _rates(column, answer.question)
    return f"{answer.question}: {after:.2%} of rows, {before:.2%} before"


def _rates(column: Counted, question: Question) -> tuple[float, float]:
    reference = column.reference
    cell = {"missing": reference.missing_cell, "infinite": -3, "new levels": reference.missing_cell - 1}[question]
    end = reference.missing_cell if question == "new levels" else reference.missing_cell + 1
    before, after = (float(c[cell]) / (float(c[:end].sum()) or 1.0) for c in (column.then, column.now))
    return before, after


def _distances(reference: Reference, now: Cells, then: Cells) -> dict[str, float | None]:
    body, before = reference.body(now), reference.body(then)
    if isinstance(reference, Levels):
        return {name: measure(body, before) for name, measure in distances.OF_CELLS.items() if name != "ks"}
    found = {name: measure(body, before) for name, measure in distances.OF_CELLS.items()}
    return found | {name: measure(body, before, reference.edges) for name, measure in distances.OF_VALUES.items()}
