"""Labels: which later event answers a scored event, until when, and what silence means."""

from __future__ import annotations

from dataclasses import dataclass

from . import duration
from .event import Column, Event, column_of
from .mistake import mistake

__all__ = ["Label", "label"]


@dataclass(frozen=True)
class Label:
    """`column` of the answering event, which is keyed by the id of what it answers.

    `within` is the horizon in microseconds after the scored event. `otherwise` is what silence until then means; None
    means that nothing is known (the outcome is counted as unanswered and teaches nothing).
    """

    column: Column
    within: int
    otherwise: bool | None

    @property
    def event(self) -> Event:
        return self.column.event


def label(column: bool | float, within: str, otherwise: bool | None = None) -> Label:
    """The truth about a scored event: a yes/no column of the event that answers it."""
    found = column_of(column)
    if found.type is not bool:
        mistake(f"label({found!r}): the column holds {found.type.__name__}", "a label is a bool column")
    return Label(found, duration.micros(within), otherwise)
