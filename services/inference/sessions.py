"""The versions that one process has open. What cannot be opened is never served, and that is said."""

from __future__ import annotations

import collections
import threading
from collections.abc import Sequence

import structlog

from penstock.artefact import Artefacts
from penstock.canaries import Canary, ask
from penstock.errors import PenstockError, Unreachable
from penstock.label import Label
from penstock.records import Candidate, Decision
from penstock.scoring.around import NOTHING, Functions, Plan
from penstock.scoring.roster import ALIASES
from penstock.scoring.scorers import Member, OnnxScorer, RiverScorer, Scorer, opened

from .meters import Meters

__all__ = ["Member", "OnnxScorer", "RiverScorer", "Scorer", "Sessions"]

KEPT = 32
"""Scorers kept for reuse beyond those on duty; a boosted model of 150 trees takes some 5 MB."""
RETRY_SECONDS = 5.0
"""A file that cannot be read is looked for again this often; one that is wrong only when a decision names it again."""


class Sessions:
    """The scorers of one process, by digest; used by several threads. Opening one takes 5 to 50 ms and happens when a version is
    registered, ahead of need. Whoever serves keeps the `Member`; here only the newest `KEPT` are remembered."""

    def __init__(self, artefacts: Artefacts, meters: Meters) -> None:
        self.artefacts, self._meters = artefacts, meters
        self._open: collections.OrderedDict[tuple[object, ...], Scorer] = collections.OrderedDict()
        self._functions: dict[Plan, Functions] = {}
        self._opening, self._saying = threading.Lock(), threading.Lock()
        self._told: set[tuple[str, str, str]] = set()
        self._on_duty: dict[str, dict[str, str]] = {}
        self._logger = structlog.get_logger(service="inference")

    def member(
        self,
        decision: Decision,
        inputs: Sequence[str],
        label: Label | None = None,
        canaries: Sequence[Canary] = (),
        alone: bool = False,
        plan: Plan = NOTHING,
    ) -> Member | None:
        """The version of a decision, ready to score rows of `inputs` for a model of `label` with functions of `plan`; None when
        it cannot be served, or does not know its `canaries` and is not `alone`, with nobody to answer in its place. Either is
        said once. Canaries are asked each time: also of a version that comes back.

        Raises Unreachable when its file cannot be read now, which may pass.
        """
        candidate = decision.candidate
        try:
            if candidate is None:
                raise PenstockError("its decision carries no candidate", "register it again")
            member = Member.of(decision.version, candidate, self._scorer(candidate, plan), inputs, label)
            try:
                ask(canaries, inputs, member.score, member.classes)
            except PenstockError as missed:
                if not alone:
                    raise
                self._say("version served for want of another", decision, missed)
            return member
        except PenstockError as error:
            passing = isinstance(error, Unreachable)
            if self._say("version not served", decision, error):
                self._meters.artefacts.labels(decision.model, "unreachable" if passing else "refused").inc()
            if passing:
                raise
            return None

    def _say(self, what: str, decision: Decision, error: PenstockError) -> bool:
        """Whether it was not said before."""
        with self._saying:
            told = (what, decision.id, str(error))
            if told in self._told:
                return False
            self._told.add(told)
        self._logger.error(what, model=decision.model, version=decision.version, cause=str(error), fix=error.fix)
        return True

    def announce(self, model: str, duties: dict[str, str]) -> None:
        """Say who is on duty, version by duty, once a change, however many shards follow it."""
        with self._saying:
            before = self._on_duty.get(model, {})
            if duties == before:
                return
            self._on_duty[model] = duties
            for name, version in before.items() - duties.items():
                self._meters.serving.remove(model, name, version)
            for name, version in duties.items():
                self._meters.serving.labels(model, name, version).set(1)
        lasting = {name: duties.get(name, "none") for name in ALIASES if name != "online"}
        if lasting != {name: before.get(name, "none") for name in lasting}:  # snapshots come all day: no line
            self._logger.info("on duty", model=model, **lasting)

    def close(self) -> None:
        """End the processes of functions."""
        for functions in list(self._functions.values()):
            functions.close()

    def _scorer(self, candidate: Candidate, plan: Plan) -> Scorer:
        codes = tuple((role, code.sha256) for role, code in sorted(candidate.functions.items()))
        key = (candidate.artefact.sha256, tuple(candidate.inputs), codes, plan if codes else NOTHING)
        with self._opening:  # also while one is opened: whoever else wants it finds it open
            if key not in self._open:
                self._open[key] = opened(self.artefacts, candidate, self._functions.setdefault(plan, Functions(plan)))
                while len(self._open) > KEPT:
                    self._open.popitem(last=False)
            self._open.move_to_end(key)
            return self._open[key]
