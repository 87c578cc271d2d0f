"""Trial: one version against another on the same events, as sums that grow by one closed window at a time.

A statistic has the differences in log loss of any two versions that were asked about the same events: their mean and
its standard error are exact.

Statistics older than that pair each version with what was served only, d(v) = log loss of v - log loss of the answer
served. There the difference is d(subject) - d(against), and its standard error is bounded by the sum of both standard
errors (the triangle inequality for standard deviations: the covariance is not in the statistic), hence never too small.
A trial may hold windows of both kinds: the exact ones add nothing to the sums of the other version.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from penstock.policy import Gate
from penstock.records import Decision, Paired, Statistic

__all__ = ["Trial"]


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What is known so far of `subject` minus `against`, and how long the present stage has lasted."""

    subject: str
    against: str
    until: datetime
    """Windows that end later than this are still to come; the others are inside."""
    since: datetime | None = None
    """When the stage began: with the first window that closed after the decision, so that a late candidate has its
    time."""
    stage: int = 0
    windows: int = 0
    """Windows closed in this stage."""
    n: int = 0
    """Outcomes that the subject was scored on, in all stages."""
    sum: float = 0.0
    squares: float = 0.0
    other_sum: float = 0.0
    other_squares: float = 0.0

    @classmethod
    def of(cls, decision: Decision) -> Trial:
        """The trial that a published decision carries."""
        return msgspec.convert(decision.evidence, cls)

    def evidence(self) -> dict[str, Any]:
        """As published: the sums, and in words for people the mean and the error (log loss, natural logarithm)."""
        said: dict[str, Any] = msgspec.to_builtins(self)
        return {**said, "mean": self.mean, "error": self.error}

    @property
    def mean(self) -> float:
        """Mean log loss of the subject minus the other's; above 0 the subject is worse."""
        return (self.sum - self.other_sum) / self.n if self.n else 0.0

    @property
    def error(self) -> float:
        """Standard error of the mean; from above where old statistics are inside."""
        mine = _deviation(self.n, self.sum, self.squares)
        other = _deviation(self.n, self.other_sum, self.other_squares)
        return (mine + other) / math.sqrt(max(self.n, 1))

    def grown(self, statistic: Statistic) -> Trial:
        """With one more closed window; itself when that window is inside already.

        A window without either version adds time and no evidence. Of an old statistic, where the other version may have
        been scored on more events, its sums are scaled down to the subject's count, so that no window weighs more for
        one than for the other.
        """
        if statistic.end <= self.until:
            return self
        if statistic.between is None:
            mine = statistic.paired.get(self.subject, Paired())
            other = statistic.paired.get(self.against, Paired())
            n = mine.n if mine.n > 0 and other.n > 0 else 0  # corrections alone may leave a window below 0
        else:
            mine, other = statistic.versus(self.subject, self.against), Paired()
            n = max(mine.n, 0)
        share = n / other.n if n and other.n else 0.0
        return msgspec.structs.replace(
            self,
            until=statistic.end,
            since=self.since or max(self.until, statistic.start),
            windows=self.windows + 1,
            n=self.n + n,
            sum=self.sum + (mine.sum if n else 0.0),
            squares=self.squares + (mine.squares if n else 0.0),
            other_sum=self.other_sum + share * other.sum,
            other_squares=self.other_squares + share * other.squares,
        )

    def anew(self, against: str) -> Trial:
        """The same stage against another version: what was learned about the old one does not count."""
        return Trial(subject=self.subject, against=against, until=self.until, stage=self.stage)

    def verdict(self, gates: Sequence[Gate]) -> str:
        """pass, fail or inconclusive. It fails when it is worse than a margin by more than chance explains."""
        if any(self.n >= gate.least and self.mean - gate.confidence * self.error > gate.margin for gate in gates):
            return "fail"
        return "inconclusive" if any(self.n < gate.least for gate in gates) else "pass"


def _deviation(n: int, total: float, squares: float) -> float:
    return math.sqrt(max(squares / n - (total / n) ** 2, 0.0)) if n else 0.0
