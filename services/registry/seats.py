"""Seats: who is in charge, in rollout and on probation, and how versions come into them and out.

    champion     the version in charge                challenger   the version in rollout, with its evidence
    probation    the champion before, for a way back  online       the newest sound snapshot
    first        the version first in charge, for good: a baseline, see `keep_first` of a model
    v3, online-7 the last decision on a version       command-<digest of id> what became of a command

These are the keys of the compacted topic, which is the whole state of a model. Changes come in an order that any prefix
of them is safe to be left with: after a crash half-way the same record, taken again, finds what is missing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from penstock.errors import Refused
from penstock.model import Model
from penstock.records import Candidate, Decision

from .trial import Trial

__all__ = ["CHALLENGER", "CHAMPION", "FIRST", "ONLINE", "PROBATION", "Change", "Seats", "State", "carried", "number_of"]

CHAMPION, CHALLENGER, PROBATION, ONLINE, FIRST = "champion", "challenger", "probation", "online", "first"

State = Mapping[str, Decision]
Change = tuple[str, Decision | None]


class Seats:
    """One model while a record is taken: a copy of its state, and what changes in it. `cause`, `at` and `actor` are the
    record's; the id of a decision depends on the cause, the kind and the version only."""

    def __init__(self, state: State, model: Model, cause: str, at: datetime, actor: str) -> None:
        self.state, self.model, self.at = dict(state), model, at
        self.changes: list[Change] = []
        self._cause, self._actor = cause, actor
        self._tidy()

    def put(self, key: str, decision: Decision | None) -> None:
        if decision is not None:
            self.state[key] = decision
        elif self.state.pop(key, None) is None:
            return
        self.changes.append((key, decision))

    def strange(self, candidate: Candidate | None) -> str:
        """Why nobody can serve it: it was fitted with a function that the project does not have, or whose code is another."""
        for role, code in (candidate.functions if candidate else {}).items():
            now = self.model.codes.get(code.name)
            if now != code.sha256:
                is_now = f"is {now[:12]} now" if now else "is gone"
                return f"fitted with the function {code.name} {role} the model, of code {code.sha256[:12]}, which {is_now}"
        return ""

    def seat(self, alias: str, decision: Decision) -> None:
        """Put the version of a decision into a seat."""
        self.put(alias, decision)
        self.put(decision.version, decision)

    def progress(self, alias: str, trial: Trial) -> None:
        """The same decision with more evidence: id and time stay."""
        decision = self.state[alias]
        self.put(alias, msgspec.structs.replace(decision, evidence={**decision.evidence, **trial.evidence()}))

    def decision(
        self,
        kind: str,
        version: str,
        reason: str,
        candidate: Candidate | None = None,
        trial: Trial | None = None,
        share: float = 0.0,
        **evidence: Any,
    ) -> Decision:
        champion = self.state.get(CHAMPION)
        return Decision(
            id=hashlib.sha256(f"{self.model.name}/{self._cause}/{kind}/{version}".encode()).hexdigest()[:24],
            model=self.model.name,
            kind=kind,
            version=version,
            at=self.at,
            actor=self._actor,
            reason=reason,
            share=share,
            expected=champion.version if champion else "",
            evidence={"cause": self._cause, **(trial.evidence() if trial else {}), **evidence},
            candidate=candidate,
        )

    @property
    def made(self) -> Decision | None:
        """What this record has put into the first of the seats that it changed, now or before a crash."""
        held = (self.state.get(alias) for alias in (CHAMPION, CHALLENGER))
        return next((d for d in held if d is not None and d.evidence.get("cause") == self._cause), None)

    # ---- moves

    def start(self, candidate: Candidate) -> None:
        """Begin the rollout of a candidate; it is in charge at once where there are no stages."""
        self.retire_waiting(candidate.version)
        if self.model.rollout:
            trial = Trial(subject=candidate.version, against=self.state[CHAMPION].version, until=self.at)
            self._enter(candidate, trial, "next in line")
        else:
            self.promote(candidate, "the rollout has no stages")

    def _enter(self, candidate: Candidate, trial: Trial, reason: str) -> None:
        share = self.model.rollout[trial.stage].share
        kind = "canary" if share else "shadow"
        self.seat(CHALLENGER, self.decision(kind, candidate.version, reason, candidate, trial, share))

    def advance(self, trial: Trial, reason: str) -> None:
        """The challenger goes on to the next stage; after the last one it is in charge."""
        candidate, following = carried(self.state[CHALLENGER]), trial.stage + 1
        if following < len(self.model.rollout):
            later = msgspec.structs.replace(trial, stage=following, since=self.at, windows=0)
            self._enter(candidate, later, reason)
        else:
            self.promote(candidate, reason, trial)

    def promote(self, candidate: Candidate, reason: str, trial: Trial | None = None) -> None:
        """Put a candidate in charge, and whoever was there on probation."""
        old = self.state.get(CHAMPION)
        made = self.decision("champion", candidate.version, reason, candidate, trial, share=1.0)
        if old is not None:
            watched = Trial(subject=candidate.version, against=old.version, until=self.at)
            after = f"replaced by {candidate.version}, on probation"
            self.seat(PROBATION, self.decision("retired", old.version, after, old.candidate, watched))
        else:
            self.put(FIRST, made)
        self.seat(CHAMPION, made)
        self._vacate(candidate.version)

    def roll_back(self, target: Decision, reason: str, trial: Trial | None = None) -> None:
        """Put a version back in charge."""
        bad, version = self.state[CHAMPION], target.version
        why = f"rolled back from {bad.version}: {reason}"
        back = self.decision("champion", version, why, target.candidate, share=1.0, rolled_back=bad.version)
        self.put(bad.version, self.decision("rolled_back", bad.version, reason, bad.candidate, trial))
        self.seat(CHAMPION, back)
        self.put(PROBATION, None)
        self._vacate(version)

    def reject(self, trial: Trial, reason: str) -> None:
        """The challenger is not good enough, or nobody can tell."""
        held = self.state[CHALLENGER]
        self.put(held.version, self.decision("rejected", held.version, reason, held.candidate, trial))
        self._release()

    def retire_waiting(self, newer: str) -> None:
        for version in self._waiting():
            if version != newer:
                retired = self.decision("retired", version, f"{newer} is newer", self.state[version].candidate)
                self.put(version, retired)

    def _waiting(self) -> list[str]:
        """Versions that wait for the end of a rollout, oldest first; the newest is meant, the others are leftovers."""
        taken = {self.state[alias].version for alias in (CHAMPION, CHALLENGER) if alias in self.state}
        found = [v for v, d in self.state.items() if v == d.version and d.kind == "registered" and v not in taken]
        return sorted(found, key=number_of)

    def _vacate(self, version: str) -> None:
        challenger = self.state.get(CHALLENGER)
        if challenger is not None and challenger.version == version:
            self._release()

    def _release(self) -> None:
        """The place of the challenger is free: the candidate that waits takes it."""
        waiting = self._waiting()
        if waiting:
            self.start(carried(self.state[waiting[-1]]))
        else:
            self.put(CHALLENGER, None)

    def _tidy(self) -> None:
        """Finish what a crash left half-written: what the version in a seat lacks, then seats of who has left."""
        champion, challenger, probation = (self.state.get(alias) for alias in (CHAMPION, CHALLENGER, PROBATION))
        if champion is None:
            return
        if self._decided(champion) != champion.id:
            self.put(champion.version, champion)
        if probation is not None and probation.version == champion.version:
            self.put(PROBATION, None)
        if challenger is None:
            return
        left = self.state.get(challenger.version, challenger).kind in ("rejected", "rolled_back")
        if left or challenger.version == champion.version:
            self._release()
        elif self._decided(challenger) != challenger.id:
            self.put(challenger.version, challenger)

    def _decided(self, seated: Decision) -> str:
        """The id of the last decision on the version in a seat."""
        return self.state[seated.version].id if seated.version in self.state else ""


def carried(decision: Decision) -> Candidate:
    """The candidate of a decision on a version: every decision on one carries it on."""
    assert decision.candidate is not None, f"the decision {decision.id} on {decision.version} lost its candidate"
    return decision.candidate


def number_of(version: str) -> int:
    """The number of "v12" or "online-12".

    >>> number_of("v12"), number_of("online-7")
    (12, 7)
    """
    digits = version.removeprefix(f"{ONLINE}-").removeprefix("v")
    if not digits.isdigit():
        raise Refused("schema", f"{version!r} is not a version: v1, v2, ... or online-1, online-2, ...")
    return int(digits)
