"""State: all that is remembered of one model, and what of it fits what is declared now. Pure."""

from __future__ import annotations

import msgspec

from penstock.alarm import Watch
from penstock.label import Sources
from penstock.records import Contributed, Mix, Paired, Partial, Quality, Scored, Summed, Tally, Unseen
from penstock.statistics.groups import Groups
from penstock.statistics.novelty import added_unseen
from penstock.statistics.quality import added

from .counting.apart import joined
from .counting.moments import added_sums
from .monitors.drifting import Counts, Habits, Period
from .monitors.novelty import Noticed
from .monitors.parity import Standing
from .monitors.sources import capping
from .monitors.verdict import Past
from .monitors.within import Sums, sums_of
from .quality.cohorts import Cohorting, Known
from .quality.estimating import Estimator
from .quality.punctuality import Custom

__all__ = ["Declared", "Open", "State"]


class Open(msgspec.Struct):
    """A window for which not every shard has reported; `drift` is by version."""

    end: int
    quality: dict[str, Quality] = {}
    paired: dict[str, dict[str, Paired]] = {}
    counts: dict[str, int] = {}
    drift: dict[str, Counts] = {}
    contributions: dict[str, Contributed] = {}
    cohorts: dict[int, dict[str, Quality]] = {}
    scored: dict[int, Scored] = {}
    sources: dict[str, Mix] = {}
    capped: dict[str, dict[int, Tally]] = {}
    groups: dict[int, Groups] = {}
    summed: dict[str, dict[str, Summed]] = {}
    latency: dict[str, dict[int, int]] = {}
    unseen: dict[str, Unseen] = {}
    levels: dict[str, Sums] = {}
    """By version: sums by segment, level and input."""
    latencies: dict[str, dict[str, dict[str, dict[int, int]]]] = {}
    mix: dict[str, dict[str, dict[str, int]]] = {}
    """By version, segment and level."""
    against: dict[int, dict[str, Paired]] = {}

    def add(self, partial: Partial) -> None:
        for name in (
            "quality", "paired", "counts", "contributions", "cohorts", "scored", "sources", "capped", "groups", "latency",
            "against",
        ):  # fmt: skip
            setattr(self, name, added(getattr(self, name), getattr(partial, name)))
        if partial.inputs:
            self.drift.setdefault(partial.reference, Counts()).add(partial)
            self.summed[partial.reference] = added_sums(self.summed.get(partial.reference, {}), partial.summed)
            self.mix[partial.reference] = partial.mix or self.mix.get(partial.reference, {})
        if partial.levels:
            self.levels[partial.reference] = joined(self.levels.get(partial.reference, {}), sums_of(partial), added_sums)
        if partial.latencies:
            self.latencies = joined(self.latencies, partial.latencies, added)
        if partial.novelty is not None:
            self.unseen = added_unseen(self.unseen, {partial.reference: partial.novelty})

    def cap(self, sources: Sources) -> dict[str, int]:
        """Add what counts of the sources with a cap; returns how many labels of each do not."""
        tally, left = capping(sources, self.sources, self.capped)
        self.quality = added(self.quality, tally.quality)
        self.paired = added(self.paired, tally.paired)
        self.cohorts = added(self.cohorts, tally.cohorts)
        self.groups = added(self.groups, tally.groups)
        self.against = added(self.against, tally.against)
        if left:
            self.counts = added(self.counts, {"capped": sum(left.values())})
        return left


class Declared(msgspec.Struct, frozen=True, array_like=True):
    """What labels and cohorts are counted by."""

    meaning: str
    waits: bool
    cohorting: Cohorting


class State(msgspec.Struct):
    """All that is remembered of one model."""

    reported: dict[int, int] = {}
    open: dict[int, Open] = {}
    past: list[Past] = []
    periods: dict[int, Period] = {}
    habits: dict[int, Habits] = {}
    watches: dict[str, Watch] = {}
    cohorts: dict[int, Known] = {}
    customs: dict[int, Custom] = {}
    standings: dict[int, Standing] = {}
    estimator: Estimator = msgspec.field(default_factory=Estimator)
    usual: dict[str, dict[str, float]] = {}
    """Answers by segment and level, faded."""
    novelties: dict[int, Noticed] = {}
    mixes: list[dict[str, Mix]] = []
    """What the sources of labels said in the newest windows without an alarm about them."""
    first: str = ""
    """The version that was first in charge, once an outcome of it is known."""
    declared: Declared | None = None
    since: int = 0
    """Cohorts that begin before are of another declaration."""
    monitors: dict[int, str] = {}
    """By place, what is remembered of each monitor hangs on."""
    segments: dict[str, str] = {}
    """By name, how each is cut."""

    def cut(self, segments: dict[str, str]) -> None:
        """Forget what is usual of segments that are cut otherwise now, or not at all."""
        odd = {name for name, found in self.segments.items() if segments.get(name) != found}
        self.usual, self.segments = {name: each for name, each in self.usual.items() if name not in odd}, segments

    def place(self, monitors: dict[int, str]) -> None:
        """Let what is remembered follow each monitor to where it stands now; of what is declared no more nothing is kept."""
        before, self.monitors = self.monitors, monitors
        if not before or before == monitors:
            return
        left: dict[str, list[int]] = {}
        for place, found in sorted(before.items(), reverse=True):
            left.setdefault(found, []).append(place)
        to = {left[found].pop(): place for place, found in sorted(monitors.items()) if left.get(found)}
        for name in ("periods", "habits", "customs", "standings", "novelties"):
            setattr(self, name, {to[place]: each for place, each in getattr(self, name).items() if place in to})
        for watch in self.watches.values():
            watch.latest = {to[place]: bad for place, bad in watch.latest.items() if place in to}
        for known in self.cohorts.values():
            known.judged = [to[place] for place in known.judged if place in to]

    def fit(self, declared: Declared, window: int) -> None:
        """Drop what does not fit what is declared now, where it was another."""
        before, self.declared = self.declared, declared
        if before is None or before == declared:
            return
        self.cohorts, self.since = {}, max(self.reported.values(), default=0) + window  # the one under way is of both
        if before.meaning != declared.meaning:
            self.past, self.mixes, self.standings, self.estimator = [], [], {}, Estimator()
            for each in self.open.values():
                each.quality, each.paired, each.groups, each.sources, each.capped = {}, {}, {}, {}, {}
                each.against = {}
