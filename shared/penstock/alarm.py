"""Alarms: one a model and signal, raised once, held while it lasts, cleared when it is over.

    quiet --bad--> raised --bad or one clean--> held --two clean in a row--> cleared
                     <--------another cause--------

A window that decides nothing (too few outcomes, no reference) changes nothing.
"""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.event import from_micros
from penstock.records import Alarm

__all__ = ["CLEAN", "Watch", "alarm"]

CLEAN = 2
"""Clean windows in a row that clear an alarm: one may be luck."""


class Watch(msgspec.Struct):
    """The state of one signal. `latest` has the newest verdict of each of its monitors, by their place in the model."""

    active: bool = False
    clean: int = 0
    since: int = 0
    latest: dict[int, bool] = {}

    def hear(self, verdicts: dict[int, bool], at: int, again: bool = False) -> str | None:
        """Take verdicts (True: bad) as of `at`; returns raised, held, cleared, or None when there is nothing to say. `again`: bad
        for another cause, which raises an alarm that stands once more.

        >>> watch = Watch()
        >>> [watch.hear({0: bad}, at) for at, bad in enumerate([False, True, True, False, True, False, False, False])]
        [None, 'raised', 'held', 'held', 'held', 'held', 'cleared', None]
        """
        self.latest = {**self.latest, **verdicts}
        bad = any(self.latest.values())
        if bad and (again or not self.active):
            self.active, self.clean, self.since = True, 0, at
            return "raised"
        if not self.active:
            return None
        self.clean = 0 if bad else self.clean + 1
        if self.clean < CLEAN:
            return "held"
        self.active = False
        return "cleared"


def alarm(model: str, signal: str, state: str, at: int, since: int, evidence: dict[str, Any]) -> Alarm:
    """The record of a verdict as of the end of a window; its id follows from what it says."""
    when = from_micros(at)
    return Alarm(
        id=f"{model}/{signal}/{when.isoformat()}/{state}",
        model=model,
        signal=signal,
        state=state,
        at=when,
        evidence={"since": from_micros(since).isoformat(), **evidence},
    )
