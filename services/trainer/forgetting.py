"""Forgetting: an alarm that stands while what is fitted no longer knows its canaries. Pure; it follows from the runs.

    a version was offered -> a fit fails its canaries: raised -> another: held -> a version is offered: cleared

Before the first version of a kind nothing is raised: it is still learning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from penstock.alarm import alarm
from penstock.event import to_micros
from penstock.records import Alarm, Run

__all__ = ["SIGNAL", "Forgetting"]

SIGNAL: Final = "canaries"


@dataclass(frozen=True)
class Forgetting:
    """Kinds of which a version was offered, and those whose alarm stands since when."""

    offered: frozenset[str] = frozenset()
    since: Mapping[str, int] = field(default_factory=dict)

    def take(self, run: Run) -> tuple[Forgetting, Alarm | None]:
        """The next state, and what a run says. One that offers nothing for another reason says nothing of canaries."""
        at, known = to_micros(run.at), self.since.get(run.kind)
        failed = run.data.get("canaries", [])
        said = {"kind": run.kind, "run": run.id, "canaries": failed}
        if run.version:
            rest = {kind: since for kind, since in self.since.items() if kind != run.kind}
            cleared = None if known is None else alarm(run.model, f"{SIGNAL}/{run.kind}", "cleared", at, known, said)
            return Forgetting(self.offered | {run.kind}, rest), cleared
        if not failed or (known is None and run.kind not in self.offered):
            return self, None
        since = at if known is None else known
        state = "raised" if known is None else "held"
        return Forgetting(self.offered, {**self.since, run.kind: since}), alarm(
            run.model, f"{SIGNAL}/{run.kind}", state, at, since, said
        )
