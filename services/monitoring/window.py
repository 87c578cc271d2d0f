"""The window under way of one model on one partition: what has been counted in it so far, and how it is reported.

Outcomes count in the window in which their label became known (where labels wait: in which their horizon passed, see
ledger.py), inputs in the window of their event. Both run on the merged stream time, so there is one window at a time, aligned to
the epoch. An outcome counts once more in the cohort of its answer (cohorts.py), and apart from the others when its source has a
cap: the judge takes as many of these as the whole allows.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from math import gcd

import msgspec
from msgspec.structs import asdict

from penstock.duration import DAY
from penstock.label import Sources
from penstock.model import Model
from penstock.policy import Labels
from penstock.records import Contributed, Mix, Paired, Partial, Quality, Scored, Tally
from penstock.statistics.quality import Sums, added, pair
from penstock.statistics.quota import level_of

from .bins import Binner
from .cohorts import Cohorting
from .ledger import Settled

__all__ = ["NOBODY", "SERVED", "Counting", "Window", "length_of"]

SERVED, NOBODY = "served", "none"
"""Names in quality beside the versions: what was answered, whichever versions it came from; and answers given before
there was a model, which say nothing of one and are kept for the label rate only."""

_NONE = Paired()


def length_of(model: Model) -> int:
    """The length of a model's windows: the greatest that divides every monitor's period; without monitors a day."""
    return gcd(*(monitor.every for monitor in model.monitors if not isinstance(monitor, Labels))) or DAY


class Counting(msgspec.Struct, frozen=True):
    """How a model's outcomes are counted."""

    cohorting: Cohorting
    sources: Sources | None


class Scoring(msgspec.Struct):
    """A Scored under way."""

    answers: int = 0
    silent: int = 0
    unanswered: int = 0
    delays: list[int] = []

    def delay(self, place: int) -> None:
        """Count a delay in a bin."""
        self.delays += [0] * (place + 1 - len(self.delays))
        self.delays[place] += 1


class Mixing(msgspec.Struct):
    """A Mix under way."""

    labels: int = 0
    positives: int = 0
    due: int = 0


class Tallied(msgspec.Struct):
    """A Tally under way."""

    labels: int = 0
    quality: dict[str, Sums] = {}
    paired: dict[str, dict[str, Paired]] = {}
    cohorts: dict[int, dict[str, Sums]] = {}

    def judge(self, settled: Settled, label: bool, cohort: int, sign: int) -> None:
        answer, into = settled.answer, self.cohorts.setdefault(cohort, {})
        self.labels += sign * settled.answered
        if answer.version == NOBODY:
            for place in (self.quality, into):
                _sums(place, NOBODY).add(answer.score, label, sign)
            return
        losses = []
        for place in (into, self.quality):
            _sums(place, SERVED).add(answer.score, label, sign)
            losses = [
                (version, _sums(place, version).add(score, label, sign)) for version, score in sorted(answer.scores.items())
            ]
        for (one, loss), (other, others) in combinations(losses, 2):
            known = self.paired.setdefault(one, {})
            known[other] = pair(known.get(other, _NONE), loss - others, sign)

    def frozen(self) -> Tally:
        return Tally(
            labels=self.labels,
            quality=_frozen(self.quality),
            paired=dict(sorted(self.paired.items())),
            cohorts={start: _frozen(sums) for start, sums in sorted(self.cohorts.items())},
        )


def _sums(place: dict[str, Sums], version: str) -> Sums:
    found = place.get(version)
    if found is None:
        found = place[version] = Sums()
    return found


def _frozen(sums: Mapping[str, Sums]) -> dict[str, Quality]:
    return {version: found.frozen() for version, found in sorted(sums.items())}


class Window(msgspec.Struct):
    """Counts of one window, also as they are saved. `bins` are by version and input, `parts` are answers by version and part of
    the week; the rest is as in Partial."""

    start: int
    tallied: Tallied = msgspec.field(default_factory=Tallied)
    bins: dict[str, dict[str, list[int]]] = {}
    parts: dict[str, dict[int, int]] = {}
    counts: dict[str, int] = {}
    contributions: dict[str, Contributed] = {}
    scored: dict[int, Scoring] = {}
    sources: dict[str, Mixing] = {}
    capped: dict[str, dict[int, Tallied]] = {}

    def meet(self, settled: Settled, counting: Counting) -> None:
        """Count that a label met its answer, or that silence was taken for one."""
        if settled.corrects is None:
            cohort = self.cohort(settled.scored, counting)
            if settled.answered:
                cohort.delay(counting.cohorting.place(settled.labelled - settled.scored))
            else:
                cohort.silent += 1
        if counting.sources is not None and settled.answered:
            mix = self._mix(counting.sources.name(settled.rank))
            mix.labels += 1
            mix.positives += settled.label

    def cohort(self, scored: int, counting: Counting) -> Scoring:
        """The counts of an answer's cohort."""
        start = counting.cohorting.start(scored)
        found = self.scored.get(start)
        if found is None:
            found = self.scored[start] = Scoring()
        return found

    def judge(self, settled: Settled, counting: Counting) -> None:
        """Count an outcome; a correction first takes the label back that it replaces, here and now."""
        if settled.corrects is not None:
            self._judge(settled, counting, settled.corrects, settled.corrected_rank, -1)
        self._judge(settled, counting, settled.label, settled.rank, 1)

    def _judge(self, settled: Settled, counting: Counting, label: bool, rank: int, sign: int) -> None:
        tallied, sources = self.tallied, counting.sources
        if sources is not None and rank:
            source = sources.name(rank)
            self._mix(source).due += sign
            if source in sources.limits:
                levels = self.capped.setdefault(source, {})
                tallied = levels.setdefault(level_of(settled.answer.id), Tallied())
        tallied.judge(settled, label, counting.cohorting.start(settled.scored), sign)

    def _mix(self, source: str) -> Mixing:
        found = self.sources.get(source)
        if found is None:
            found = self.sources[source] = Mixing()
        return found

    def bin(self, version: str, counts: dict[str, list[int]], parts: dict[int, int]) -> None:
        """Add inputs answered by a version, counted against its reference."""
        self.bins[version] = added(self.bins.get(version, {}), counts)
        self.parts[version] = added(self.parts.get(version, {}), parts)

    def explain(self, version: str, contributed: Contributed) -> None:
        """Add what moved answers of a version."""
        self.contributions[version] = added(self.contributions.get(version, Contributed()), contributed)

    def partials(self, model: str, end: int, shard: int, shards: int, references: Mapping[str, Binner]) -> list[Partial]:
        """The report: one record, or one per reference when several versions answered; only the first has the sums.
        `references` are by version."""
        versions = sorted(self.bins) or [""]
        bare = Partial(
            model=model,
            start=self.start,
            end=end,
            shard=shard,
            shards=shards,
            quality={},
            paired={},
            inputs={},
            reference="",
            counts={},
            parts=len(versions),
        )
        tally = self.tallied.frozen()
        capped = {
            source: {level: found.frozen() for level, found in sorted(levels.items())}
            for source, levels in sorted(self.capped.items())
        }
        first = msgspec.structs.replace(
            bare,
            quality=tally.quality,
            paired=tally.paired,
            cohorts=tally.cohorts,
            counts=self.counts,
            contributions=dict(sorted(self.contributions.items())),
            scored={start: Scored(**asdict(found)) for start, found in sorted(self.scored.items())},
            sources={source: Mix(**asdict(found)) for source, found in sorted(self.sources.items())},
            capped=capped,
        )
        found = []
        for part, version in enumerate(versions):
            known = references.get(version)
            expected, hours = known.expected(self.parts.get(version, {})) if known else ({}, {})
            found.append(
                msgspec.structs.replace(
                    bare if part else first,
                    part=part,
                    inputs=self.bins.get(version, {}),
                    reference=version,
                    baseline=known.reference if known and not expected else {},
                    expected=expected,
                    hours=hours,
                    spread=known.spread if known else {},
                    customs=known.customs if known else {},
                )
            )
        return found
