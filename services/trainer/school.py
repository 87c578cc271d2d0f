"""School: the online learner of one model, taught one outcome after the other in the order in which labels became
known.

Teaching the same outcomes in any number of lessons gives the same learner, so a restart teaches it again from the
first. A learner of numbers gives `predict_one`, one of yes and no or of classes `predict_proba_one`; classes are taught
by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from penstock.inputs import Floats, Matrix, squashed
from penstock.label import Label
from penstock.model import OnlineLearner
from penstock.statistics.loss import log_loss, loss_of

from .examples import Rows
from .mixture import Mixture

__all__ = ["School"]


class School:
    """`taught` rows so far. `mixture` follows both members' losses on the way; they are of `label`, else of yes and no."""

    def __init__(
        self,
        learner: OnlineLearner | None,
        inputs: Sequence[str],
        sharpness: float,
        half_life: int,
        label: Label | None = None,
    ) -> None:
        self.learner: Any = learner
        self._task, self._classes = (label.task, label.classes) if label else ("binary", ())
        self._loss_of: Callable[[float, Any], float] = loss_of(label) if label else log_loss
        self.mixture = Mixture(sharpness, half_life, self._loss_of, self._task == "regression")
        self.taught = 0
        self._inputs, self._fade = tuple(inputs), 2.0 ** (-1.0 / half_life)
        self._loss = self._weight = 0.0

    def teach(self, rows: Rows) -> None:
        """The rows that follow those taught before. Each is answered first, then learned."""
        labels: list[Any] = rows.label.tolist()
        truths = [self._classes[at] for at in labels] if self._classes else labels
        self.mixture.learn(rows.batch.tolist(), rows.online.tolist(), truths)
        self.taught += len(rows)
        if self.learner is None:
            return
        said, learn, names, fade, loss = self._said(), self.learner.learn_one, self._inputs, self._fade, self._loss_of
        for values, truth in zip(squashed(rows.X).tolist(), truths, strict=True):
            x = dict(zip(names, values, strict=True))
            self._loss = self._loss * fade + loss(said(x, truth), truth)
            self._weight = self._weight * fade + 1.0
            learn(x, truth)

    def _said(self) -> Callable[[dict[str, float], Any], float]:
        """What the learner answers to a row: a number, the probability of yes, or that of the class that came true."""
        if self._task == "regression":
            ask = self.learner.predict_one
            return lambda x, truth: float(ask(x))
        ask = self.learner.predict_proba_one
        if self._task == "binary":
            return lambda x, truth: float(ask(x).get(True, 0.5))
        unknown = 1.0 / len(self._classes)  # before the first class is known
        return lambda x, truth: float(shares.get(truth, 0.0)) if (shares := ask(x)) else unknown

    def answers(self, rows: Matrix, classes: Sequence[str] = ()) -> Floats:
        """What the learner answers to rows float32 (rows, inputs): numbers or probabilities (rows,), of `classes` (rows,
        classes)."""
        asked = [dict(zip(self._inputs, values, strict=True)) for values in squashed(rows).tolist()]
        if classes:
            each = [self.learner.predict_proba_one(x) for x in asked]
            return np.array([[shares.get(name, 0.0) for name in classes] for shares in each], np.float64).reshape(
                -1, len(classes)
            )
        said = self._said()
        return np.array([said(x, None) for x in asked], np.float64)

    @property
    def recent_loss(self) -> float | None:
        """Faded mean loss of answers given just before learning (no label delay, hence rosier than when serving)."""
        return self._loss / self._weight if self._weight else None
