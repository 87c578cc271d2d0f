"""The window under way of one model on one partition: what has been counted in it so far, and how it is reported.

Outcomes count in the window in which their label became known, inputs in the window of their event. Both run on the
merged stream time, so there is one window at a time, aligned to the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import gcd

import msgspec
import numpy as np

from penstock.duration import DAY
from penstock.model import Model
from penstock.records import Paired, Partial, Quality

from .bins import Binner, Counts
from .ledger import WORDS, Settled
from .quality import Sums, pair

__all__ = ["NOBODY", "SERVED", "SavedWindow", "Window", "length_of"]

SERVED, NOBODY = "served", "none"
"""Names in quality beside the versions: what was answered, whichever versions it came from; and answers given before
there was a model, which say nothing of one and are kept for the label rate only."""


def length_of(model: Model) -> int:
    """The length of a model's windows: the greatest that divides every monitor's period; without monitors a day."""
    return gcd(*(monitor.every for monitor in model.monitors)) if model.monitors else DAY


class SavedWindow(msgspec.Struct):
    """A window under way, as it is saved."""

    start: int
    quality: dict[str, Quality]
    paired: dict[str, Paired]
    bins: dict[str, dict[str, list[int]]]
    counts: dict[str, int]


class Window:
    """Counts of one window."""

    def __init__(self, start: int) -> None:
        self.start = start
        self._sums: dict[str, Sums] = {}
        self._paired: dict[str, Paired] = {}
        self._bins: dict[str, dict[str, Counts]] = {}
        self.counts = dict.fromkeys(WORDS, 0)

    def judge(self, settled: Settled) -> None:
        """Count an outcome; a correction first takes the label back that it replaces, here and now."""
        if settled.corrects is not None:
            self._count(settled, settled.corrects, -1)
        self._count(settled, settled.label, 1)

    def _count(self, settled: Settled, label: bool, sign: int) -> None:
        answer = settled.answer
        if answer.version == NOBODY:
            self._of(NOBODY).add(answer.score, label, sign)
            return
        served = self._of(SERVED).add(answer.score, label, sign)
        for version, score in answer.scores.items():
            loss = self._of(version).add(score, label, sign)
            self._paired[version] = pair(self._paired.get(version, _NONE), loss - served, sign)

    def _of(self, version: str) -> Sums:
        found = self._sums.get(version)
        if found is None:
            found = self._sums[version] = Sums()
        return found

    def bin(self, version: str, binner: Binner, rows: Sequence[bytes | memoryview]) -> None:
        """Count inputs answered by a version against its reference."""
        into = self._bins.get(version)
        if into is None:
            into = self._bins[version] = binner.empty()
        self.counts["unread"] += binner.add(into, rows)

    def partials(self, model: str, end: int, shard: int, shards: int, binners: Mapping[str, Binner | None]) -> list[Partial]:
        """The report: one record, or one per reference when several versions answered; only the first has the sums."""
        versions = sorted(self._bins) or [""]
        found = []
        for part, version in enumerate(versions):
            binner = binners.get(version)
            found.append(
                Partial(
                    model=model,
                    start=self.start,
                    end=end,
                    shard=shard,
                    shards=shards,
                    quality={} if part else {v: s.frozen() for v, s in sorted(self._sums.items())},
                    paired={} if part else dict(sorted(self._paired.items())),
                    inputs={name: c.tolist() for name, c in self._bins.get(version, {}).items()},
                    reference=version,
                    counts={} if part else {word: n for word, n in self.counts.items() if n},
                    part=part,
                    parts=len(versions),
                    baseline=binner.reference if binner else {},
                )
            )
        return found

    @property
    def versions(self) -> list[str]:
        """The versions whose references this window counts against."""
        return list(self._bins)

    def saved(self) -> SavedWindow:
        return SavedWindow(
            self.start,
            {v: s.frozen() for v, s in self._sums.items()},
            dict(self._paired),
            {v: {name: c.tolist() for name, c in bins.items()} for v, bins in self._bins.items()},
            dict(self.counts),
        )

    @classmethod
    def restored(cls, saved: SavedWindow) -> Window:
        window = cls(saved.start)
        window._sums = {v: Sums(q) for v, q in saved.quality.items()}
        window._paired = dict(saved.paired)
        window._bins = {v: {n: np.array(c, np.int64) for n, c in b.items()} for v, b in saved.bins.items()}
        window.counts.update(saved.counts)
        return window


_NONE = Paired()
