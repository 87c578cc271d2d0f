"""Explainers of the versions on duty, for answers that are asked to be explained. Opened when first needed.

Explainers.missing(duty)                                            # why some version cannot be explained; empty: all can
await asyncio.to_thread(explainers.explained, duty, version, row)   # an Explanation, or PenstockError in words
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from threading import Lock
from typing import Final

from penstock.artefact import Artefacts
from penstock.contributions.classes import Classes
from penstock.contributions.explainer import Explainer
from penstock.contributions.version import Explanation, explained, explainer_of
from penstock.errors import PenstockError
from penstock.records import Candidate
from penstock.scoring.roster import ALIASES

from .duty import Duty

__all__ = ["Explainers"]

KEPT: Final = 8
"""Open explainers; one of 100 trees takes some 0.5 MB."""


class Explainers:
    """Those of one process, by digest. May be used from several threads."""

    def __init__(self, artefacts: Artefacts) -> None:
        self._artefacts, self._lock = artefacts, Lock()
        self._open: collections.OrderedDict[str, Explainer | Classes] = collections.OrderedDict()

    def of(self, duty: Duty, version: str) -> Explainer | Classes:
        """What explains a version on duty. PenstockError where it is not on duty, or has no explainer that can be opened."""
        candidate, score = _candidate(duty, version), duty.serving.members[version].scorer.score
        digest = candidate.artefact.sha256
        with self._lock:
            found = self._open.get(digest)
            if found is None:
                found = self._open[digest] = explainer_of(self._artefacts, candidate, score)
                if len(self._open) > KEPT:
                    self._open.popitem(last=False)
            self._open.move_to_end(digest)
        return found

    @staticmethod
    def missing(duty: Duty) -> str:
        """Why one of those on duty cannot be explained, in a sentence; empty: all can be. Looks at records, and opens nothing."""
        for version in duty.serving.members:
            candidate = _candidate(duty, version)
            if candidate.explainer is None and candidate.artefact.format != "river":
                return f"version {version} of {duty.model.name} was fitted without an explainer, so its answers are not explained"
        return ""

    def explained(self, duty: Duty, version: str, values: Sequence[float | None], answer: str = "") -> Explanation:
        """One answer of a version, from `values` in the model's order of inputs; of classes to the one that was the `answer`.
        Takes milliseconds: not for the event loop."""
        candidate = _candidate(duty, version)
        known = dict(zip(duty.model.inputs, values, strict=True))
        row = [known[name] for name in candidate.inputs]
        return explained(self.of(duty, version), version, candidate.inputs, row, candidate.classes, answer)


def _candidate(duty: Duty, version: str) -> Candidate:
    """As it was registered; the champion in fact serving may be another than the roster's."""
    decisions = [getattr(duty.roster, alias) for alias in ALIASES] + [duty.served]
    for decision in decisions:
        if decision is not None and decision.version == version and decision.candidate and version in duty.serving.members:
            candidate: Candidate = decision.candidate
            return candidate
    raise PenstockError(f"model {duty.model.name} has no version {version} on duty", "ask again: duties have just changed")
