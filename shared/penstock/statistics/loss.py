"""Log loss: what a probability costs when the truth comes. Everything that speaks of it means this.

Probabilities are kept within [1e-6, 1 - 1e-6] first, so that one confident error costs at most 13.8 nats.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ..label import Label

__all__ = ["CLIP", "clipped", "log_loss", "log_losses", "loss_of"]

CLIP = 1e-6


def clipped(score: float) -> float:
    """A probability that a logarithm can take."""
    return min(max(score, CLIP), 1.0 - CLIP)


def log_loss(score: float, label: bool) -> float:
    """-ln of the probability that was given to what happened, in nats.

    >>> log_loss(0.5, True) == log(2), round(log_loss(0.0, True), 1), round(log_loss(1.0, True), 6)
    (True, 13.8, 1e-06)
    """
    score = clipped(score)
    return -log(score if label else 1.0 - score)


def log_losses(label: npt.NDArray[np.bool_], score: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """The same of each pair of two arrays."""
    import numpy as np

    p = np.clip(score, CLIP, 1 - CLIP)
    return -np.where(label, np.log(p), np.log1p(-p))


def loss_of(label: Label) -> Callable[[float, Any], float]:
    """What an answer costs when the truth comes, in the loss of its label: of a probability its log loss (of classes it is the
    probability of the class that came true), of a number its squared error, or the pinball loss of the declared quantile."""
    if label.task == "binary":
        return log_loss
    if label.task == "multiclass":
        return lambda said, truth: log_loss(said, True)
    if (quantile := label.quantile) is None:
        return lambda said, truth: (said - truth) * (said - truth)
    from .errors import pinball

    return lambda said, truth: pinball(truth, said, quantile)
