"""What was known of the truth: which label answers each scored event, as of a time. The ledger of monitoring, over arrays.

A label counts for an event if it came by the event's deadline (its time plus the horizon, or its own arrival where that is
later) and at most one horizon before the event. Of several the newest counts; one that says the same again changes nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = ["Asked", "Said", "Truths", "truths"]

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
    labels: npt.NDArray[np.bool_]


class Truths(NamedTuple):
    """Per scored event: 0, 1, or -1 where nothing is known; since when; whether somebody said so (else it was silence)."""

    labels: npt.NDArray[np.int8]
    labelled: Ints
    answered: npt.NDArray[np.bool_]


def truths(asked: Asked, said: Said, within: int, otherwise: bool | None, before: int) -> Truths:
    """What is known of labels that came before `before`, when silence also counts up to there.

    >>> day = np.array([1, 2, 3]) * 10
    >>> asked = Asked(np.array([0, 1, 2]), day, day)
    >>> said = Said(np.array([0, 0]), np.array([12, 14]), np.array([12, 14]), np.array([True, False]))
    >>> truths(asked, said, within=5, otherwise=False, before=26).labels.tolist()  # corrected, silent, not over yet
    [0, 0, -1]
    """
    n = len(asked.times)
    labels, labelled, answered = np.full(n, -1, np.int8), np.zeros(n, np.int64), np.zeros(n, bool)
    deadline = np.maximum(asked.times + within, asked.came)
    if otherwise is not None:
        over = deadline < before
        labels[over], labelled[over] = int(otherwise), asked.times[over] + within
    met = pd.merge(
        pd.DataFrame({"whose": said.whose, "label": np.arange(len(said.whose))}),
        pd.DataFrame({"whose": asked.whose, "row": np.arange(n)}),
        on="whose",
    )
    row, label = met["row"].to_numpy(np.int64), met["label"].to_numpy(np.int64)
    came = said.came[label]
    counts = (came <= deadline[row]) & (asked.came[row] <= came + within) & (came < before)
    row, label = row[counts], label[counts]
    order = np.lexsort((label, row))
    row, label = row[order], label[order]
    again = (row[1:] == row[:-1]) & (said.labels[label[1:]] == said.labels[label[:-1]])
    new = np.append(True, ~again)[: len(row)]
    row, label = row[new], label[new]
    labels[row], labelled[row], answered[row] = said.labels[label], said.times[label], True  # of several the last is kept
    return Truths(labels, labelled, answered)
