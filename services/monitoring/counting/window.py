"""The window under way of one model on one partition: what has been counted in it so far, and how it is reported.

Outcomes count in the window in which their label became known (where labels wait: in which their horizon passed, see
ledger.py), inputs in the window of their event. Both run on the merged stream time, so there is one window at a time, aligned to
the epoch. An outcome counts once more in the cohort of its answer (cohorts.py), and apart from the others when its source has a
cap: the judge takes as many of these as the whole allows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import gcd
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import asdict

from penstock.duration import DAY
from penstock.label import Sources, Truth
from penstock.model import Model
from penstock.policy import Labels
from penstock.records import Contributed, Group, Mix, Paired, Partial, Quality, Scored, Summed, Tally, Unseen
from penstock.records.answers import MIXED, served
from penstock.segment import MISSING, Segment
from penstock.statistics.errors import step_of
from penstock.statistics.groups import Levels
from penstock.statistics.kinds import YES_NO, Kind, kind_of
from penstock.statistics.quality import BINS, Sums, added, place_of
from penstock.statistics.quota import level_of

from ..answers.ledger import Answer, Settled
from ..quality.cohorts import Cohorting
from .apart import Apart, folded, joined
from .bins import Binned, Binner
from .latencies import bin_of
from .moments import added_sums

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
    kind: Kind = YES_NO
    segments: tuple[Segment, ...] = ()
    cut: int = BINS // 2
    """The step of scores from which on an answer says yes."""
    numbers: bool = False
    """Whether answers are numbers."""

    @classmethod
    def of(cls, model: Model, window: int) -> Counting:
        """`window`: the length of the model's windows."""
        cut = round((model.value.above if model.value else 0.5) * BINS)
        numbers = model.label.task == "regression"
        return cls(Cohorting.of(model, window), model.label.sources, kind_of(model.label), model.segments, cut, numbers)

    def levels(self, answer: Answer) -> list[tuple[str, str]]:
        """The segments, each with the level of an answer that a version gave."""
        if answer.version == NOBODY:
            return []
        return [(each.name, each.counted(answer.segments.get(each.name, MISSING))) for each in self.segments]


class Scoring(msgspec.Struct):
    """A Scored under way."""

    answers: int = 0
    silent: int = 0
    unanswered: int = 0
    delays: list[int] = []
    scores: dict[str, list[int]] = {}
    sizes: dict[str, dict[int, int]] | UnsetType = UNSET

    def answer(self, version: str, score: float, number: bool = False) -> None:
        """Count an answer; `number`: it is one, no probability."""
        self.answers += 1
        if version != NOBODY and number:
            if self.sizes is UNSET:
                self.sizes = {}
            sizes, step = self.sizes.setdefault(version, {}), step_of(score)
            sizes[step] = sizes.get(step, 0) + 1
        elif version != NOBODY:
            if version not in self.scores:
                self.scores[version] = [0] * BINS
            self.scores[version][place_of(score)] += 1

    def delay(self, place: int) -> None:
        """Count a delay in a bin."""
        self.delays += [0] * (place + 1 - len(self.delays))
        self.delays[place] += 1


class Mixing(msgspec.Struct):
    """A Mix under way."""

    labels: int = 0
    positives: int = 0
    due: int = 0
    judged: int = 0
    missed: int = 0


class Tallied(msgspec.Struct):
    """A Tally under way."""

    labels: int = 0
    quality: dict[str, Sums] = {}
    paired: dict[str, dict[str, Paired]] = {}
    cohorts: dict[int, dict[str, Sums]] = {}
    groups: dict[int, dict[str, Levels]] = {}
    against: dict[int, dict[str, Paired]] = {}

    def levels(self, cohort: int, segment: str) -> Levels:
        """The groups of a segment in a cohort."""
        return self.groups.setdefault(cohort, {}).setdefault(segment, Levels())

    def judge(
        self,
        settled: Settled,
        label: Truth,
        cohort: int,
        sign: int,
        kind: Kind = YES_NO,
        levels: Sequence[tuple[str, str]] = (),
    ) -> None:
        answer, into, add = settled.answer, self.cohorts.setdefault(cohort, {}), kind.add
        self.labels += sign * settled.answered
        each: Mapping[str, float | dict[str, float]] = answer.probabilities if kind.many else answer.scores
        said = _said(answer, kind)
        if answer.version == NOBODY:
            for place in (self.quality, into):
                add(_sums(place, NOBODY, kind), said, label, sign)
            return
        for segment, level in levels:
            self.levels(cohort, segment).judge(level, said, label, sign, kind)
        mine, losses, against = 0.0, [], self.against.setdefault(cohort, {})
        asked = sorted(version for version in each if version != MIXED)
        for place in (self.quality, into):
            mine = add(_sums(place, SERVED, kind), said, label, sign)
            losses = [(version, add(_sums(place, version, kind), each[version], label, sign)) for version in asked]
        kind.spread(into[SERVED], said, label, mine, sign)
        for version, loss in losses:
            kind.spread(into[version], each[version], label, loss, sign)
        for (one, loss), (other, others) in combinations(losses, 2):
            known = self.paired.setdefault(one, {})
            known[other] = kind.pair(known.get(other, _NONE), loss - others, sign)
        for version, loss in losses:
            against[version] = kind.pair(against.get(version, _NONE), mine - loss, sign)

    def frozen(self) -> Tally:
        return Tally(
            labels=self.labels,
            quality=_frozen(self.quality),
            paired=dict(sorted(self.paired.items())),
            cohorts={start: _frozen(sums) for start, sums in sorted(self.cohorts.items())},
            groups={start: _levels(found) for start, found in sorted(self.groups.items())},
            against={start: dict(sorted(found.items())) for start, found in sorted(self.against.items())},
        )


def _said(answer: Answer, kind: Kind) -> float | dict[str, float]:
    """What was served."""
    return served(answer.probabilities, answer.version) if kind.many else answer.score


def _sums(place: dict[str, Sums], version: str, kind: Kind) -> Sums:
    found = place.get(version)
    if found is None:
        found = place[version] = kind.sums()
    return found


def _frozen(sums: Mapping[str, Sums]) -> dict[str, Quality]:
    return {version: found.frozen() for version, found in sorted(sums.items())}


def _levels(segments: Mapping[str, Levels]) -> dict[str, dict[str, Group]]:
    return {segment: levels.frozen() for segment, levels in sorted(segments.items())}


def _sorted(found: Any) -> Any:
    """Mappings of mappings in order of keys."""
    return {key: _sorted(each) for key, each in sorted(found.items())} if isinstance(found, dict) else found


class Window(msgspec.Struct):
    """Counts of one window, also as they are saved. `bins` and `summed` are by version and input, `parts` are answers by
    version and part of the week; the rest is as in Partial."""

    start: int
    tallied: Tallied = msgspec.field(default_factory=Tallied)
    bins: dict[str, dict[str, list[int]]] = {}
    parts: dict[str, dict[int, int]] = {}
    counts: dict[str, int] = {}
    contributions: dict[str, Contributed] = {}
    scored: dict[int, Scoring] = {}
    sources: dict[str, Mixing] = {}
    capped: dict[str, dict[int, Tallied]] = {}
    empty: int = 0
    """Empty windows in a row before this one."""
    summed: dict[str, dict[str, Summed]] = {}
    latency: dict[str, dict[int, int]] = {}
    unseen: dict[str, Unseen] = {}
    levels: dict[str, dict[str, dict[str, Apart]]] = {}
    """By version, segment and level."""
    latencies: dict[str, dict[str, dict[str, dict[int, int]]]] = {}
    """By segment, level and variant."""

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
            mix.positives += settled.label is True
            if isinstance(settled.label, bool) and settled.answer.version != NOBODY:
                mix.judged += 1
                mix.missed += settled.label != (place_of(settled.answer.score) >= counting.cut)

    def cohort(self, scored: int, counting: Counting) -> Scoring:
        """The counts of an answer's cohort."""
        start = counting.cohorting.start(scored)
        found = self.scored.get(start)
        if found is None:
            found = self.scored[start] = Scoring()
        return found

    def answer(self, answer: Answer, scored: int, counting: Counting) -> None:
        """Count an answer in its cohort, and in its groups."""
        self.cohort(scored, counting).answer(answer.version, answer.score, counting.numbers)
        said, kind = _said(answer, counting.kind), counting.kind
        for segment, level in counting.levels(answer):
            self.tallied.levels(counting.cohorting.start(scored), segment).answer(level, said, counting.cut, kind)

    def judge(self, settled: Settled, counting: Counting) -> None:
        """Count an outcome; a correction first takes the label back that it replaces, here and now."""
        if settled.corrects is not None:
            self._judge(settled, counting, settled.corrects, settled.corrected_rank, -1)
        self._judge(settled, counting, settled.label, settled.rank, 1)

    def _judge(self, settled: Settled, counting: Counting, label: Truth, rank: int, sign: int) -> None:
        tallied, sources = self.tallied, counting.sources
        if sources is not None and rank:
            source = sources.name(rank)
            self._mix(source).due += sign
            if source in sources.limits:
                levels = self.capped.setdefault(source, {})
                tallied = levels.setdefault(level_of(settled.answer.id), Tallied())
        start, groups = counting.cohorting.start(settled.scored), counting.levels(settled.answer)
        tallied.judge(settled, label, start, sign, counting.kind, groups)

    def _mix(self, source: str) -> Mixing:
        found = self.sources.get(source)
        if found is None:
            found = self.sources[source] = Mixing()
        return found

    def bin(self, version: str, binned: Binned) -> None:
        """Add inputs and scores answered by a version, counted against its reference."""
        self.bins[version] = added(self.bins.get(version, {}), binned.counts)
        self.parts[version] = added(self.parts.get(version, {}), binned.parts)
        self.summed[version] = added_sums(self.summed.get(version, {}), binned.summed)
        if binned.levels:
            self.levels[version] = joined(self.levels.get(version, {}), binned.levels, Apart.__add__)

    def took(self, variant: str, latency: float, levels: Mapping[str, str] = MappingProxyType({})) -> None:
        """Add the latency of an answer, in seconds; `levels` by segment."""
        counts, place = self.latency.setdefault(variant, {}), bin_of(latency)
        counts[place] = counts.get(place, 0) + 1
        for segment, level in levels.items():
            counts = self.latencies.setdefault(segment, {}).setdefault(level, {}).setdefault(variant, {})
            counts[place] = counts.get(place, 0) + 1

    def bound(self) -> None:
        """Hold what is counted by level within bounds, after a batch."""
        self.latencies = {segment: folded(levels, added) for segment, levels in self.latencies.items()}

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
            groups=tally.groups,
            against=tally.against,
            counts=self.counts,
            contributions=dict(sorted(self.contributions.items())),
            scored={start: Scored(**asdict(found)) for start, found in sorted(self.scored.items())},
            sources={source: Mix(**asdict(found)) for source, found in sorted(self.sources.items())},
            capped=capped,
            latency={variant: dict(sorted(counts.items())) for variant, counts in sorted(self.latency.items())},
            latencies=_sorted(self.latencies) if self.latencies else UNSET,
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
                    summed=self.summed.get(version, {}),
                    novelty=self.unseen.get(version),
                    customs=known.customs if known else {},
                    **(known.told(self.levels.get(version, {})) if known else {}),
                )
            )
        return found
