"""The window under way of one model on one partition: what has been counted in it so far, and how it is reported.

Outcomes count in the window in which their label became known, inputs in the window of their event. Both run on the
merged stream time, so there is one window at a time, aligned to the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from math import gcd

import msgspec

from penstock.duration import DAY
from penstock.model import Model
from penstock.records import Contributed, Paired, Partial
from penstock.statistics.quality import Sums, added, pair

from .bins import Binner
from .ledger import Settled

__all__ = ["NOBODY", "SERVED", "Window", "length_of"]

SERVED, NOBODY = "served", "none"
"""Names in quality beside the versions: what was answered, whichever versions it came from; and answers given before
there was a model, which say nothing of one and are kept for the label rate only."""

_NONE = Paired()


def length_of(model: Model) -> int:
    """The length of a model's windows: the greatest that divides every monitor's period; without monitors a day."""
    return gcd(*(monitor.every for monitor in model.monitors)) if model.monitors else DAY


class Window(msgspec.Struct):
    """Counts of one window, also as they are saved. `bins` are by version and input, `parts` are answers by version and part of
    the week; the rest is as in Partial."""

    start: int
    quality: dict[str, Sums] = {}
    paired: dict[str, dict[str, Paired]] = {}
    bins: dict[str, dict[str, list[int]]] = {}
    parts: dict[str, dict[int, int]] = {}
    counts: dict[str, int] = {}
    contributions: dict[str, Contributed] = {}

    def judge(self, settled: Settled) -> None:
        """Count an outcome; a correction first takes the label back that it replaces, here and now."""
        if settled.corrects is not None:
            self._judge(settled, settled.corrects, -1)
        self._judge(settled, settled.label, 1)

    def _judge(self, settled: Settled, label: bool, sign: int) -> None:
        answer = settled.answer
        if answer.version == NOBODY:
            self._sums(NOBODY).add(answer.score, label, sign)
            return
        self._sums(SERVED).add(answer.score, label, sign)
        losses = [(version, self._sums(version).add(score, label, sign)) for version, score in sorted(answer.scores.items())]
        for (one, loss), (other, others) in combinations(losses, 2):
            known = self.paired.setdefault(one, {})
            known[other] = pair(known.get(other, _NONE), loss - others, sign)

    def _sums(self, version: str) -> Sums:
        found = self.quality.get(version)
        if found is None:
            found = self.quality[version] = Sums()
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
        first = Partial(
            model=model,
            start=self.start,
            end=end,
            shard=shard,
            shards=shards,
            quality={version: sums.frozen() for version, sums in sorted(self.quality.items())},
            paired=dict(sorted(self.paired.items())),
            inputs={},
            reference="",
            counts=self.counts,
            parts=len(versions),
            contributions=dict(sorted(self.contributions.items())),
        )
        other = msgspec.structs.replace(first, quality={}, paired={}, counts={}, contributions={})
        found = []
        for part, version in enumerate(versions):
            known = references.get(version)
            expected, hours = known.expected(self.parts.get(version, {})) if known else ({}, {})
            found.append(
                msgspec.structs.replace(
                    other if part else first,
                    part=part,
                    inputs=self.bins.get(version, {}),
                    reference=version,
                    baseline=known.reference if known and not expected else {},
                    expected=expected,
                    hours=hours,
                    spread=known.spread if known else {},
                )
            )
        return found
