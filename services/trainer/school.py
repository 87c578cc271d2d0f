"""School: the online learner of one model, taught one outcome after the other in the order in which labels became
known.

Teaching the same outcomes in any number of lessons gives the same learner, so a restart teaches it again from the
first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from penstock.inputs import Floats, Matrix, squashed
from penstock.model import OnlineLearner
from penstock.statistics.loss import log_loss

from .examples import Rows
from .mixture import Mixture

__all__ = ["School"]


class School:
    """`taught` rows so far. `mixture` follows both members' losses on the way."""

    def __init__(self, learner: OnlineLearner | None, inputs: Sequence[str], sharpness: float, half_life: int) -> None:
        self.learner: Any = learner
        self.mixture = Mixture(sharpness, half_life)
        self.taught = 0
        self._inputs, self._fade = tuple(inputs), 2.0 ** (-1.0 / half_life)
        self._loss = self._weight = 0.0

    def teach(self, rows: Rows) -> None:
        """The rows that follow those taught before. Each is answered first, then learned."""
        labels: list[bool] = rows.label.tolist()
        self.mixture.learn(rows.batch.tolist(), rows.online.tolist(), labels)
        self.taught += len(rows)
        if self.learner is None:
            return
        predict, learn, names, fade = self.learner.predict_proba_one, self.learner.learn_one, self._inputs, self._fade
        for values, label in zip(squashed(rows.X).tolist(), labels, strict=True):
            x = dict(zip(names, values, strict=True))
            self._loss = self._loss * fade + log_loss(predict(x).get(True, 0.5), label)
            self._weight = self._weight * fade + 1.0
            learn(x, label)

    def answers(self, rows: Matrix) -> Floats:
        """What the learner answers to rows float32 (rows, inputs): probabilities (rows,)."""
        ask = self.learner.predict_proba_one
        asked = [dict(zip(self._inputs, values, strict=True)) for values in squashed(rows).tolist()]
        return np.array([ask(x).get(True, 0.5) for x in asked], np.float64)

    @property
    def recent_log_loss(self) -> float | None:
        """Faded mean log loss of answers given just before learning (no label delay, hence rosier than when
        serving)."""
        return self._loss / self._weight if self._weight else None
