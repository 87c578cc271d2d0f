"""Sources of labels: what of each counts in a window, and whether one says more than its share.

The labels of a source with a cap are counted apart, by a level that follows from their id (see `statistics/quota`), so that the
choice is made here, of all partitions together, and does not depend on how many there are. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from penstock.label import Sources
from penstock.records import Mix, Tally
from penstock.statistics.binary import wilson
from penstock.statistics.quality import added
from penstock.statistics.quota import allowed, taken

__all__ = ["LEAST", "Capping", "capping", "excess"]

LEAST = 30
"""Labels of a window below which the shares of its sources say nothing: of one label some source always has all."""


class Capping(NamedTuple):
    """What counts of the sources with a cap, and how many labels of each do not."""

    tally: Tally
    left: dict[str, int]


def capping(sources: Sources, mixes: Mapping[str, Mix], capped: Mapping[str, Mapping[int, Tally]]) -> Capping:
    """The labels that are counted of a window's sources with a cap."""
    most = allowed({name: mix.due for name, mix in mixes.items()}, sources.limits)
    tally, left = Tally(), dict[str, int]()
    for source, levels in sorted(capped.items()):
        found = taken({level: each.labels for level, each in levels.items()}, most.get(source, 0))
        for level in found:
            tally = added(tally, levels[level])
        if count := sum(each.labels for level, each in levels.items() if level not in found):
            left[source] = count
    return Capping(tally, left)


def excess(sources: Sources, mixes: Mapping[str, Mix], left: Mapping[str, int]) -> tuple[bool | None, dict[str, Any]]:
    """Whether some source surely gave more than its share of a window's labels (the 95 % interval of its share lies above the
    cap); None where there were fewer labels than LEAST. And what each gave."""
    whole = sum(mix.labels for mix in mixes.values())
    if whole < LEAST:
        return None, {}
    found: list[dict[str, Any]] = []
    for name, cap in sources.limits.items():
        mix = mixes.get(name, Mix())
        share = wilson(mix.labels, whole)
        if share is not None and share.low > cap:
            rate = mix.positives / mix.labels
            found.append({"source": name, "share": share.value, "cap": cap, "labels": mix.labels, "positive": rate})
    rest = [mix for name, mix in mixes.items() if name not in {each["source"] for each in found}]
    others = sum(mix.labels for mix in rest)
    evidence = {"sources": found, "labels": whole, "left_out": dict(left)}
    if others:
        evidence["positive_of_the_rest"] = sum(mix.positives for mix in rest) / others
    return bool(found), evidence
