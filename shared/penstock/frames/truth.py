"""What was known of the truth: which label answers each scored event, as of a time. The ledger of monitoring, over arrays.

A label counts for an event if it came by the event's deadline (its time plus the horizon, or its own arrival where that is
later). Those that came before their event are forgotten, together, one horizon after the first of them. Of several labels those
of the most trusted source count, of these the newest; one that says the same again changes nothing. Where labels wait
(`Label.waits`) nothing is known of an event until its deadline has passed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..label import Sources
from ..statistics.quota import Quota

__all__ = ["Asked", "Said", "Truths", "capped", "truths"]

Ints = npt.NDArray[np.int64]


class Asked(NamedTuple):
    """Scored events: whose (a number per id), when they happened and when they came; microseconds."""

    whose: Ints
    times: Ints
    came: Ints


class Said(NamedTuple):
    """Labels, in the order in which they were published."""

    whose: Ints
    times: Ints
    came: Ints
    labels: npt.NDArray[Any]
    """bool, or numbers; of classes their number."""
    ranks: Ints
    """Of their sources, see `Sources`; 0 where none are declared."""


class Truths(NamedTuple):
    """Per scored event: 0, 1, or -1 where nothing is known (numbers: float64, NaN where nothing is known); the time of
    that label, or when silence became one; whether somebody said so (else it was silence); and the rank of his source (0:
    silence, or no sources)."""

    labels: npt.NDArray[Any]
    labelled: Ints
    answered: npt.NDArray[np.bool_]
    ranks: Ints

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Whether there is a label."""
        found: npt.NDArray[np.bool_] = ~np.isnan(self.labels) if self.labels.dtype.kind == "f" else self.labels >= 0
        return found

    def at(self, rows: Ints) -> Truths:
        """Those of some events."""
        return Truths(self.labels[rows], self.labelled[rows], self.answered[rows], self.ranks[rows])


def truths(asked: Asked, said: Said, within: int, otherwise: float | None, before: int, waits: bool = False) -> Truths:
    """What is known of labels that came before `before`, when silence also counts up to there; with `waits`, of events alone
    whose deadline is before that.

    >>> day = np.array([1, 2, 3]) * 10
    >>> asked = Asked(np.array([0, 1, 2]), day, day)
    >>> said = Said(np.array([0, 0]), np.array([12, 14]), np.array([12, 14]), np.array([True, False]), np.array([0, 0]))
    >>> truths(asked, said, within=5, otherwise=False, before=26).labels.tolist()  # corrected, silent, not over yet
    [0, 0, -1]
    """
    n = len(asked.times)
    numbers = said.labels.dtype.kind == "f"
    labels = np.full(n, np.nan) if numbers else np.full(n, -1, np.int8)
    labelled, answered = np.zeros(n, np.int64), np.zeros(n, bool)
    ranks = np.zeros(n, np.int64)
    deadline = np.maximum(asked.times + within, asked.came)
    over = deadline < before
    if otherwise is not None:
        labels[over], labelled[over] = otherwise, asked.times[over] + within
    met = pd.merge(
        pd.DataFrame({"whose": said.whose, "label": np.arange(len(said.whose))}),
        pd.DataFrame({"whose": asked.whose, "row": np.arange(n)}),
        on="whose",
    )
    row, label = met["row"].to_numpy(np.int64), met["label"].to_numpy(np.int64)
    came = said.came[label]
    counts = (came <= deadline[row]) & (came < before) & (over[row] | (not waits))
    row, label = _remembered(asked, said, within, row[counts], label[counts])
    best = np.full(n, np.iinfo(np.int64).max)
    np.minimum.at(best, row, said.ranks[label])
    trusted = said.ranks[label] == best[row]
    row, label = row[trusted], label[trusted]
    order = np.lexsort((label, row))
    row, label = row[order], label[order]
    again = (row[1:] == row[:-1]) & (said.labels[label[1:]] == said.labels[label[:-1]])
    new = np.append(True, ~again)[: len(row)]
    row, label = row[new], label[new]
    labels[row], labelled[row], answered[row] = said.labels[label], said.times[label], True  # of several the last is kept
    ranks[row] = said.ranks[label]
    return Truths(labels, labelled, answered, ranks)


def _remembered(asked: Asked, said: Said, within: int, row: Ints, label: Ints) -> tuple[Ints, Ints]:
    """Pairs of event and label without the labels that had been forgotten when their event came."""
    first = np.empty(len(asked.times), np.int64)
    while True:  # one round per horizon that labels came ahead of their events
        first.fill(np.iinfo(np.int64).max)
        np.minimum.at(first, row, said.came[label])
        end = first[row] + within
        kept = (end >= asked.came[row]) | (said.came[label] > end)
        if kept.all():
            return row, label
        row, label = row[kept], label[kept]


def capped(known: Truths, asked: Asked, within: int, sources: Sources) -> Truths:
    """Without the labels beyond the caps of their sources: these events keep `answered` and `ranks`, and have no label. Labels
    are taken as the trainer takes them, in the order in which they count and of `whose`, from the first on."""
    labels = known.labels.copy()
    said = np.flatnonzero(known.answered)
    counts = np.maximum(known.labelled, asked.times + within)
    quota = Quota(sources.limits)
    for row in said[np.lexsort((asked.whose[said], counts[said]))].tolist():
        if not quota.take(sources.name(int(known.ranks[row]))):
            labels[row] = np.nan if labels.dtype.kind == "f" else -1
    return known._replace(labels=labels)
