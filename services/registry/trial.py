"""Trial: one version against another on the same events, as sums that grow by one closed window at a time.

A statistic has the differences in loss of any two versions that were asked about the same events, so their mean and its
standard error are exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from penstock.policy import Coverage, Gate
from penstock.records import Decision, Errors, Paired, Quality, Statistic

__all__ = ["Trial"]


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What is known so far of `subject` minus `against`, and how long the present stage has lasted."""

    subject: str
    against: str
    until: datetime
    """Windows that end later than this are still to come; the others are inside."""
    since: datetime | None = None
    """When the stage began: with the first window in which both were scored, so that neither a slow fit nor labels that
    come late cost the candidate its time, and it does not matter how many windows were taken before it was offered."""
    stage: int = 0
    windows: int = 0
    """Windows closed in this stage; until both were scored, since the decision."""
    n: int = 0
    """Outcomes that the subject was scored on, in all stages."""
    sum: float = 0.0
    squares: float = 0.0
    loss: str = "log loss"
    """Of which the sums are."""
    covered: int = 0
    """Truths that were at most the subject's answers, where these are a quantile."""
    above: int = 0
    """Truths above them."""

    @classmethod
    def of(cls, decision: Decision) -> Trial:
        """The trial that a published decision carries."""
        return msgspec.convert(decision.evidence, cls)

    def evidence(self) -> dict[str, Any]:
        """As published: the sums, and in words for people the mean and the error, in the unit of the loss."""
        said: dict[str, Any] = msgspec.to_builtins(self)
        share = {} if self.coverage is None else {"coverage": self.coverage}
        return {**said, "mean": self.mean, "error": self.error, **share}

    @property
    def mean(self) -> float:
        """Mean loss of the subject minus the other's; above 0 the subject is worse."""
        return self.sum / self.n if self.n else 0.0

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return math.sqrt(max(self.squares / self.n - self.mean**2, 0.0) / self.n) if self.n else 0.0

    @property
    def coverage(self) -> float | None:
        """The share of truths that are at most the subject's answers; None where they are no quantile."""
        return self.covered / n if (n := self.covered + self.above) > 0 else None

    @property
    def words(self) -> str:
        said = f"{self.loss} {self.mean:+.5f} (error {self.error:.5f}) against {self.against} on {self.n} outcomes"
        return said if self.coverage is None else f"{said}, coverage {self.coverage:.3f}"

    def grown(self, statistic: Statistic) -> Trial:
        """With one more closed window; itself when that window is inside already.

        A window without either is no evidence. Where it is of another loss, as the label became another kind, what was summed up
        before counts no more: sums of two units say nothing.
        """
        if statistic.end <= self.until:
            return self
        if self.n and statistic.loss != self.loss:
            return self.anew(self.against).grown(statistic)
        found = statistic.versus(self.subject, self.against)
        if self.since is None and found.n <= 0:  # corrections alone: of what was counted before
            found = Paired()
        errors = statistic.quality.get(self.subject, Quality()).errors if found.n or self.since else None
        covered = errors.covered if isinstance(errors, Errors) else {}
        begins = found.n > 0 and self.since is None
        return msgspec.structs.replace(
            self,
            until=statistic.end,
            since=max(self.until, statistic.start) if begins else self.since,
            windows=1 if begins else self.windows + 1,
            n=self.n + found.n,
            sum=self.sum + found.sum,
            squares=self.squares + found.squares,
            loss=statistic.loss,
            covered=self.covered + covered.get(1, 0),
            above=self.above + covered.get(0, 0),
        )

    def anew(self, against: str) -> Trial:
        """The same stage against another version: what was learned about the old one does not count."""
        return Trial(subject=self.subject, against=against, until=self.until, stage=self.stage)

    def lasted(self, length: int) -> bool:
        """Whether the stage began so many microseconds ago."""
        return self.since is not None and self.until >= self.since + timedelta(microseconds=length)

    def verdict(self, gates: Sequence[Gate | Coverage], quantile: float | None = None) -> str:
        """pass, fail or inconclusive. It fails where `fault` finds one."""
        if self.fault(gates, quantile):
            return "fail"
        return "inconclusive" if any(self.n < gate.least for gate in gates) else "pass"

    def fault(self, gates: Sequence[Gate | Coverage], quantile: float | None = None) -> str:
        """Where the subject is off a margin by more than chance explains, in words; "" where it is not. `quantile` is what the
        answers of the model are meant to be."""
        for gate in gates:
            if self.n < gate.least:
                continue
            if isinstance(gate, Gate):
                if self.mean - gate.confidence * self.error > gate.margin:
                    return f"worse than {self.against}"
            elif quantile is not None and self.coverage is not None:
                chance = gate.confidence * math.sqrt(quantile * (1 - quantile) / (self.covered + self.above))
                if abs(self.coverage - quantile) - chance > gate.margin:
                    return f"its answers cover {self.coverage:.3f} of the truths, not {quantile:g} within {gate.margin:g}"
        return ""
