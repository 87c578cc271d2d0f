"""Habit: what something that keeps moving exceeds by its own custom only rarely. To move as usual tells nothing.

It is 1.25 times the 0.9 quantile of the earlier distances, from five windows on; at most half-way from that quantile to 1, the
distance of distributions that have nothing in common.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .shift import LEAST_WINDOWS

__all__ = ["habit_of"]


def habit_of(earlier: Sequence[float]) -> float:
    """The distance that is beyond custom; 0 while there are too few windows to know.

    >>> habit_of([0.1] * 4), habit_of([0.1] * 5)
    (0.0, 0.125)
    """
    if len(earlier) < LEAST_WINDOWS:
        return 0.0
    usual = float(np.quantile(earlier, 0.9))
    return min(1.25 * usual, (1.0 + usual) / 2)
