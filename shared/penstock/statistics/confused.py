"""The confusion matrix of answers: of what was true, how often each answer was given; shares with 95 % intervals (Wilson)."""

from __future__ import annotations

import msgspec

from ..label import Label
from ..records import Measure, Quality
from ..value import Value
from .binary import confusion, wilson
from .classes import cells
from .quality import BINS

__all__ = ["Cell", "confused"]


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One answer to one truth."""

    n: int
    share: Measure
    """Of all outcomes with this truth."""


def confused(label: Label, quality: Quality, value: Value | None = None) -> dict[str, dict[str, Cell]]:
    """Truth -> answer -> how often. An answer says yes from the threshold of `value` on, else from 0.5 on. Empty where the label
    is a number, and where corrections took back more than there is.

    >>> from ..records import Confusion
    >>> from types import SimpleNamespace
    >>> label = SimpleNamespace(task="multiclass", classes=("bug", "question"))
    >>> found = confused(label, Quality(n=4, confusion=Confusion(cells=[1, 0, 1, 2])))
    >>> found["bug"]["bug"].share.value, found["question"]["bug"].n
    (1.0, 1)
    """
    if label.task == "multiclass":
        names, found = label.classes, cells(quality)
    elif label.task == "binary" and len(quality.bins_true) == len(quality.bins_false) == BINS:
        hits, alarms, silent, misses = confusion(quality, value.above if value else 0.5)
        names, found = ("yes", "no"), [hits, misses, alarms, silent]
    else:
        return {}
    k = len(names)
    if len(found) != k * k or min(found) < 0:
        return {}
    rows = {truth: found[at * k : (at + 1) * k] for at, truth in enumerate(names)}
    return {
        truth: {answer: Cell(n=n, share=share) for answer, n in zip(names, row, strict=True) if (share := wilson(n, sum(row)))}
        for truth, row in rows.items()
        if sum(row)
    }
