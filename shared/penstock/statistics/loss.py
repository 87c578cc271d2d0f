"""Log loss: what a probability costs when the truth comes. Everything that speaks of it means this.

Probabilities are kept within [1e-6, 1 - 1e-6] first, so that one confident error costs at most 13.8 nats.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["CLIP", "clipped", "log_loss", "log_losses"]

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
