"""Labels: which later event answers a scored event, until when, what silence means, and whose word counts how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from typing import ClassVar, Literal

from . import duration
from .event import Column, Event, column_of
from .mistake import mistake

__all__ = ["GREATEST", "OTHERS", "Label", "Sources", "Task", "Truth", "label", "sources"]

Truth = bool | float | str
"""A label: yes or no, a number, or the name of a class."""
Task = Literal["binary", "regression", "multiclass"]

OTHERS = "others"
"""All sources that are not declared, together: whoever invents names gains nothing by it."""
MOST = 61
"""So many sources may be named, as the ledger of monitoring has six bits for them."""


MOST_CLASSES = 50
"""Answers are counted in tables of truths times answers."""
GREATEST = 1e70
"""A number beyond it is no label, and no answer: fourth powers of errors would leave float64."""


@dataclass(frozen=True)
class Sources:
    """`column` of the label event says who labelled. `caps`: the greatest share of the labels that count which may be each
    source's, by trust, the most trusted first; the last is OTHERS. `quarantine`: what a source says while it is above its cap is
    not learned at all.

    A source has a rank: its place in `caps`, from 1 on. Rank 0 is silence, and every label where no sources are declared.
    """

    column: Column
    caps: tuple[tuple[str, float], ...]
    quarantine: bool = False
    signal: ClassVar[str] = "sources"

    @cached_property
    def _ranks(self) -> dict[str, int]:
        return {name: rank for rank, (name, _) in enumerate(self.caps, 1)}

    def rank(self, name: object) -> int:
        """The rank of a source as a label event names it; that of OTHERS where it is not declared, or missing."""
        return self._ranks.get(name if isinstance(name, str) else OTHERS, len(self.caps))

    def name(self, rank: int) -> str:
        """The source of a rank; "" of silence."""
        return self.caps[rank - 1][0] if rank else ""

    @cached_property
    def limits(self) -> dict[str, float]:
        """The caps of those that have one."""
        return {name: cap for name, cap in self.caps if cap < 1}


@dataclass(frozen=True)
class Label:
    """`column` of the answering event, which is keyed by the id of what it answers.

    `within` is the horizon in microseconds after the scored event. `otherwise` is what silence until then means; None
    means that nothing is known (the outcome is counted as unanswered and teaches nothing). `classes` are those of a label that
    names one; `quantile` is which one a model of numbers answers with (None: the mean).
    """

    column: Column
    within: int
    otherwise: Truth | None
    sources: Sources | None = None
    classes: tuple[str, ...] = ()
    quantile: float | None = None

    @property
    def task(self) -> Task:
        """What a model answers: the probability of yes, a number, or a probability per class."""
        return "multiclass" if self.classes else "binary" if self.column.type is bool else "regression"

    @property
    def meaning(self) -> str:
        """The task, then which quantile, or which classes in which order. Counts of outcomes add up while it is the same."""
        which = self.classes or self.quantile
        return self.task if not which else f"{self.task} {which!r}"

    @property
    def kept(self) -> str:
        """The column of archived outcomes that holds labels of this kind; null of those of before it was declared so."""
        return "label" if self.task == "binary" else "truth"

    @property
    def event(self) -> Event:
        return self.column.event

    @property
    def waits(self) -> bool:
        """Whether a label counts only when the horizon of its event has passed: where silence means something, as before that the
        labels known are those that somebody hurried to tell; and where sources are declared, as a more trusted one may yet
        contradict."""
        return self.otherwise is not None or self.sources is not None

    def declares(self, said: Truth) -> bool:
        """Whether what a label event says is a label of this model: one of its classes, a number up to GREATEST."""
        if self.classes:
            return said in self.classes
        return self.column.type is bool or (isfinite(said) and abs(said) <= GREATEST)  # type: ignore[arg-type]


def label(
    column: Truth,
    within: str,
    otherwise: Truth | None = None,
    sources: Sources | None = None,
    classes: Sequence[str] = (),
    quantile: float | None = None,
) -> Label:
    """The truth about a scored event: a column of the event that answers it. Its type says what the model answers:

        ps.label(Chargeback.fraudulent, within="30d")                    bool: the probability of yes, judged by log loss
        ps.label(Arrived.delay, within="48h")                            float or int: the number, judged by squared error
        ps.label(Arrived.delay, within="48h", quantile=0.9)              that quantile of it, judged by pinball loss
        ps.label(Ticket.kind, within="7d", classes=("bug", "question"))  str: the probability of each class, judged by log loss

    With `otherwise`, silence until the horizon `within` is an answer, and then every label counts when the horizon of its event
    has passed, in quality and in training alike: before, only those would be known that somebody hurried to tell. The outcome
    itself is published as soon as it is known. `sources`: who may label, see `ps.sources`; with them labels wait, too.

    A label event that names another class, or a number beyond 1e70, is counted as `undeclared`, and teaches nothing.
    """
    found = column_of(column)
    made = Label(found, duration.micros(within), otherwise, sources, tuple(classes), quantile)
    if (wrong := _misfit(made)) is not None:
        mistake(f"label({found!r}): {wrong[0]}", wrong[1])
        return Label(found, made.within, None, None)
    if sources is not None and sources.column.event is not found.event:
        mistake(f"label({found!r}): {sources.column!r} is a column of another event", "name a column of the label event")
    return made


def _misfit(label: Label) -> tuple[str, str] | None:
    """What of a label does not fit its column, and what to write."""
    kind, otherwise, classes, quantile = label.column.type, label.otherwise, label.classes, label.quantile
    if kind not in (bool, int, float, str):
        return f"the column holds {kind.__name__}", "a label is a bool, int or float column, or a str column with classes="
    if kind is str and not 2 <= len(set(classes)) == len(classes) <= MOST_CLASSES:
        said = f"{len(classes)} classes" if len(set(classes)) == len(classes) else "a class twice"
        return f"a str column with {said}", f'name 2 to {MOST_CLASSES} different ones: classes=("bug", "question")'
    if kind is str and not all(isinstance(each, str) and each for each in classes):
        return "a class is a text that is not empty", 'write classes=("bug", "question")'
    if kind is not str and classes:
        return f"classes= of a column that holds {kind.__name__}", "leave classes= out, or name a str column"
    if quantile is not None and (kind not in (int, float) or not 0 < quantile < 1):
        return f"quantile={quantile}", "it lies between 0 and 1, and is of a column of numbers"
    if otherwise is None:
        return None
    if kind is bool and not isinstance(otherwise, bool):
        return f"otherwise={otherwise!r} is neither yes nor no", "write otherwise=False"
    if kind is str and otherwise not in classes:
        return f"otherwise={otherwise!r} is none of the classes", f"write otherwise={classes[0]!r}"
    number = isinstance(otherwise, int | float) and not isinstance(otherwise, bool)
    if kind in (int, float) and not (number and isfinite(otherwise) and abs(otherwise) <= GREATEST):  # type: ignore[arg-type]
        return f"otherwise={otherwise!r} is no number", "write otherwise=0.0"
    return None


def sources(column: str | None, caps: Mapping[str, float], others: float = 0.05, quarantine: bool = False) -> Sources:
    """Who may label: `column` of the label event names the source; `caps` is the greatest share of the labels that count which
    may come from each, the most trusted first; `others` that of all sources not named, together, which are trusted least.

        sources=ps.sources(Chargeback.reporter, {"bank": 1, "support": 0.3, "merchant": 0.1})

    Where sources contradict each other, the more trusted one is right, whoever came first; of equals the newer. What exceeds a
    cap (of the answered labels of a window, and of a training set) is left out, counted, and raises the alarm `sources` (in
    windows of 30 labels or more). So does a source that says yes, or contradicts what was answered, more or less often than it
    used to, while the others do not (see services/monitoring/monitors/turning.py).

    With `quarantine`, nothing is learned of what a source above its cap said from then until the alarm is cleared, until somebody
    lifts it (`penstock quarantine lift`). The trainer holds caps to what is left; the alarm is about all that was said.
    """
    found = column_of(column)
    said = f"sources({found!r})"
    if found.type is not str:
        mistake(f"{said}: the column holds {found.type.__name__}", "a source is named by a str column")
    if not caps or len(caps) > MOST or OTHERS in caps:
        mistake(f"{said}: {len(caps)} sources", f'name 1 to {MOST}, none of them "{OTHERS}"')
    if not all(0 <= cap <= 1 for cap in (*caps.values(), others)):
        mistake(f"{said}: a cap is a share", "write numbers between 0 and 1, such as 0.2")
    elif not any(cap == 1 for cap in caps.values()):
        mistake(
            f"{said}: every source has a cap, so that one alone would never count", "write 1 for the source that you trust most"
        )
    return Sources(found, (*caps.items(), (OTHERS, others)), quarantine)
