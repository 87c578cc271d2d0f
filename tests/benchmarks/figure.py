"""A figure: what was measured of ours, beside a floor or peers in the same run, and the goal."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

__all__ = ["Figure"]


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a benchmark. A goal is a value in `unit`, or a ratio to the best of `beside`; None where nobody set one.

    >>> read = Figure(name="100 entities", unit="ms", better="lower", ours=0.3, beside={"bare MGET": 0.2}, goal_ratio=1.4)
    >>> round(read.ratio, 2), round(read.goal_value, 2), read.met
    (1.5, 0.28, False)
    """

    name: str
    unit: str
    better: Literal["higher", "lower"]
    ours: float
    beside: dict[str, float] = {}
    """Measured in the same run: a bare floor, or peers."""
    recorded: dict[str, float] = {}
    """Measured on such a machine another day, and not run here."""
    goal: float | None = None
    goal_ratio: float | None = None
    note: str = ""
    """What a reader must know of this run: a peer that could not be started, and why."""
    detail: dict[str, Any] = {}
    """Whatever else was measured."""

    @property
    def best(self) -> str | None:
        """Who did best of those beside ours."""
        choose = max if self.better == "higher" else min
        return choose(self.beside, key=self.beside.__getitem__) if self.beside else None

    @property
    def ratio(self) -> float | None:
        """Ours as a multiple of the best beside it; better above 1 where higher is better, else below."""
        return self.ours / self.beside[self.best] if self.best is not None else None

    @property
    def goal_value(self) -> float | None:
        """The goal in `unit`."""
        if self.goal_ratio is not None and self.best is not None:
            return self.goal_ratio * self.beside[self.best]
        return self.goal

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        goal = self.goal_value
        if goal is None:
            return None
        return self.ours >= goal if self.better == "higher" else self.ours <= goal
