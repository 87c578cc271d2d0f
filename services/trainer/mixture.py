"""Mixture: how much the batch and the online member each count, by their faded loss under the true label delay.

For each outcome, in the order in which labels became known, both members' losses are taken from the answers that
they gave at the time. A faded mean with half-life h outcomes is S/W with S <- S d + loss, W <- W d + 1, d = 2^(-1/h);
the weights are softmax(-sharpness x faded loss). Sharpness 0 is the plain mean of both, infinity the hard choice of the
better one (exponentially weighted forecasters: Cesa-Bianchi and Lugosi 2006, chapter 2; fading for drift as in Gama et
al. 2013). Losses of numbers have a unit, and are therefore taken relative to the mean of both: sharpness means the same
for minutes and for seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from penstock.statistics.loss import log_loss

__all__ = ["Mixture"]


@dataclass
class Mixture:
    """Faded losses of both members. One addition after the other: the same outcomes in the same order give the same
    bits, however they are cut into calls. `loss` is of an answer and what came true, `relative` where it has a unit."""

    sharpness: float
    half_life: int
    loss: Callable[[float, Any], float] = log_loss
    relative: bool = False
    batch: float = 0.0
    online: float = 0.0
    weight: float = 0.0

    def learn(self, batch: Iterable[float], online: Iterable[float], labels: Iterable[Any]) -> None:
        """Answers of both members and what happened; rows where one of them did not answer (NaN) say nothing of who is
        better."""
        d = 2.0 ** (-1.0 / self.half_life)
        b, o, w = self.batch, self.online, self.weight
        for p, q, label in zip(batch, online, labels, strict=True):
            if p == p and q == q:
                b, o, w = b * d + self.loss(p, label), o * d + self.loss(q, label), w * d + 1.0
        self.batch, self.online, self.weight = b, o, w

    @property
    def weights(self) -> dict[str, float]:
        """The members' shares, which add to 1; halves before anything is known.

        >>> Mixture(sharpness=50.0, half_life=100).weights
        {'batch': 0.5, 'online': 0.5}
        """
        if not self.weight:
            return {"batch": 0.5, "online": 0.5}
        unit = (self.batch + self.online) / 2 if self.relative else self.weight
        exponent = self.sharpness * (self.batch - self.online) / unit if unit else 0.0
        share = 1.0 / (1.0 + math.exp(min(exponent, 700.0)))
        return {"batch": share, "online": 1.0 - share}
