"""Lifecycle: what becomes of each version, as a pure function of the compacted topic and one more record.

The state of a model is what its part of the topic holds, newest record per key:

    champion     the version in charge                challenger   the version in rollout, with its evidence
    probation    the champion before, for a way back  online       the newest sound snapshot
    v3, online-7 the last decision on a version       command-<digest of id> what became of a command

`decide(state, model, record)` returns the changes, in an order that any prefix of them is safe to be left with: after a
crash half-way the same record, taken again, finds what is missing. So the topic alone restores the registry completely.

    first full candidate            -> champion full candidate                  -> challenger, first stage (or queued
    behind a canary; or champion, without stages) closed window                   -> evidence; at a stage's end: next
    stage, champion, rejected, or up to 3 times longer closed window after a promotion -> roll back when the new
    champion is worse than the old one beyond chance snapshot                        -> online, unless its loss jumped
    command                         -> the same at a person's word, if the champion is still the one that the person saw
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from penstock import duration
from penstock.errors import Refused
from penstock.model import Model
from penstock.policy import LONGEST, Gate, Stage
from penstock.records import Candidate, Command, Decision, Statistic

from .trial import Trial

__all__ = ["CHALLENGER", "CHAMPION", "ONLINE", "PROBATION", "Change", "State", "decide"]

CHAMPION, CHALLENGER, PROBATION, ONLINE = "champion", "challenger", "probation", "online"

State = Mapping[str, Decision]
Change = tuple[str, Decision | None]

SAFETY = (Gate(margin=0.0, confidence=3.0),)
"""What a new champion is held to when the project declares no gate. Looked at once a window, hence three errors."""

JUMP = 1.5
"""A snapshot whose recent log loss is above so many times that of the one offered before is not served."""


def decide(state: State, model: Model, record: Candidate | Statistic | Command) -> list[Change]:
    """The changes that a record brings; none when it was taken before."""
    if isinstance(record, Statistic):
        turn = _Turn(state, model, record.id, record.end, "registry")
        turn.judge(record)
    elif isinstance(record, Command):
        turn = _Turn(state, model, record.id, record.at, record.actor)
        turn.obey(record)
    else:
        turn = _Turn(state, model, record.id, record.at, "registry")
        if record.kind == "full":
            turn.offer(record)
        elif record.kind == "incremental":
            turn.snapshot(record)
        else:
            raise Refused("unknown", f"a candidate is full or incremental, not {record.kind!r}")
    return turn.changes


class _Turn:
    """One record being taken: a copy of the state, and what changes in it."""

    def __init__(self, state: State, model: Model, cause: str, at: datetime, actor: str) -> None:
        self.state, self.model, self.cause, self.at, self.actor = dict(state), model, cause, at, actor
        self.changes: list[Change] = []

    # ---- records

    def offer(self, candidate: Candidate) -> None:
        version = candidate.version
        if version in self.state:
            return
        aliases = (self.state.get(a) for a in (CHAMPION, CHALLENGER, PROBATION))
        held = next((d for d in aliases if d is not None and d.version == version), None)
        if held is not None:  # a crash came between the alias and the version
            self.put(version, held)
        elif wrong := _not_finite(candidate):
            self.put(version, self.decision("rejected", version, wrong, candidate=candidate))
        elif CHAMPION not in self.state:
            first = self.decision("champion", version, "first", share=1.0, candidate=candidate)
            self.put(CHAMPION, first)
            self.put(version, first)
        elif not self.model.rollout:
            self.promote(candidate, "the rollout has no stages")
        elif (running := self.running) is None:
            self.start(candidate)
        elif running.share == 0:
            why = f"replaced by {version} while in shadow"
            self.put(running.version, self.decision("retired", running.version, why, was=running))
            self.start(candidate)
        else:
            self.retire_queued(version)
            why = f"waits until {running.version} is decided"
            self.put(version, self.decision("registered", version, why, candidate=candidate))

    def judge(self, statistic: Statistic) -> None:
        self.tidy()
        if CHAMPION not in self.state:
            return
        self.watch(statistic)
        champion, challenger = self.state[CHAMPION], self.state.get(CHALLENGER)
        if challenger is None:
            return
        trial = Trial.of(challenger)
        if trial.against != champion.version:
            trial = trial.anew(champion.version)
        grown = trial.grown(statistic)
        if grown is trial:
            return
        stage = self.model.rollout[min(grown.stage, len(self.model.rollout) - 1)]
        verdict = grown.verdict(self.model.gates) if _over(grown, stage.lasts) else "early"
        if verdict == "pass":
            self.advance(challenger, grown, _words(grown))
        elif verdict == "fail":
            self.reject(challenger, grown, f"worse than {grown.against}: {_words(grown)}")
        elif verdict == "inconclusive" and _spent(grown, stage.lasts):
            self.reject(challenger, grown, f"too few labels in {LONGEST} times the stage: {_words(grown)}")
        else:
            self.put(CHALLENGER, _progress(challenger, grown))

    def watch(self, statistic: Statistic) -> None:
        """Judge the champion against the one before."""
        probation = self.state.get(PROBATION)
        if probation is None:
            return
        trial = Trial.of(probation)
        grown = trial.grown(statistic)
        if grown is trial:
            return
        lasts = max(sum(stage.lasts for stage in self.model.rollout), duration.DAY)
        verdict = grown.verdict(self.model.gates or SAFETY)
        if verdict == "fail":
            self.roll_back(probation, f"worse than {grown.against}: {_words(grown)}", grown)
        elif (verdict == "pass" and _over(grown, lasts)) or _spent(grown, lasts):
            self.put(PROBATION, None)
        else:
            self.put(PROBATION, _progress(probation, grown))

    def snapshot(self, candidate: Candidate) -> None:
        version, online = candidate.version, self.state.get(ONLINE)
        known = {v for v in self.state if v.startswith(f"{ONLINE}-")} | ({online.version} if online else set())
        newest = max(known, key=_number, default="")
        if version in self.state or (newest and _number(version) < _number(newest)):
            return
        if online is not None and online.version == version:  # a crash came between the alias and the version
            said = online
        else:
            wrong = _not_finite(candidate) or _jumped(candidate, self.state.get(newest))
            kind = "rejected" if wrong else "snapshot"
            said = self.decision(kind, version, wrong or "newest", candidate=candidate)
            if not wrong:
                self.put(ONLINE, said)
        serving = self.state[ONLINE].version if ONLINE in self.state else ""
        for old in sorted((known & self.state.keys()) - {serving}, key=_number):
            self.put(old, None)  # candidates and runs keep their history; thousands of them are not state
        self.put(version, said)

    def obey(self, command: Command) -> None:
        marker = f"command-{hashlib.sha256(command.id.encode()).hexdigest()[:16]}"
        if marker in self.state:
            return
        aliases = [d for a in (CHAMPION, CHALLENGER) if (d := self.state.get(a)) is not None]
        made = next((d for d in aliases if d.evidence.get("cause") == command.id), None)
        self.tidy()
        if made is None:
            refusal = self.refusal(command)
            if refusal:
                made = self.decision("rejected", command.version, refusal)
            else:
                made = self.carry_out(command)
        self.put(marker, msgspec.structs.replace(made, candidate=None))

    def refusal(self, command: Command) -> str:
        champion = self.state[CHAMPION].version if CHAMPION in self.state else ""
        if command.expected != champion:
            return f"the champion is {champion or 'none'}, not {command.expected or 'none'} as the command expects"
        challenger = self.state.get(CHALLENGER)
        if command.action == "approve":
            if challenger is None:
                return "no version is in rollout"
            if command.version not in ("", challenger.version):
                return f"{challenger.version} is in rollout, not {command.version}"
            return ""
        if command.action not in ("promote", "roll_back"):
            raise Refused("unknown", f"{command.action!r} is no command of the registry: approve, promote, roll_back")
        version = self.target(command)
        if not version:
            return "no version to return to" if command.action == "roll_back" else "no version is named"
        if version == champion:
            return f"{version} is the champion already"
        if version not in self.state or self.state[version].candidate is None or version.startswith(ONLINE):
            return f"{version} is not a version of {self.model.name} that can be in charge"
        return ""

    def target(self, command: Command) -> str:
        """The version that a command means: as named, else for a roll back the champion before."""
        if command.version or command.action != "roll_back":
            return command.version
        if PROBATION in self.state:
            return self.state[PROBATION].version
        champion = self.state.get(CHAMPION)
        return champion.expected if champion is not None and "rolled_back" not in champion.evidence else ""

    def carry_out(self, command: Command) -> Decision:
        reason = command.reason or f"{command.action} by {command.actor}"
        if command.action == "approve":
            challenger = self.state[CHALLENGER]
            self.advance(challenger, msgspec.structs.replace(Trial.of(challenger), until=self.at), reason)
            kept = self.state.get(CHALLENGER)
            return kept if kept is not None and kept.version == challenger.version else self.state[CHAMPION]
        target = self.state[self.target(command)]
        if command.action == "promote" and target.candidate is not None:
            self.promote(target.candidate, reason)
        else:
            self.roll_back(target, reason)
        return self.state[CHAMPION]

    # ---- steps

    @property
    def running(self) -> Decision | None:
        """The challenger, unless it is one only because a crash left the alias behind."""
        held, champion = self.state.get(CHALLENGER), self.state.get(CHAMPION)
        if held is None or (champion is not None and held.version == champion.version):
            return None
        decided = self.state.get(held.version)
        return None if decided is not None and decided.kind in ("rejected", "rolled_back") else held

    def start(self, candidate: Candidate) -> None:
        """Begin the rollout of a candidate."""
        self.retire_queued(candidate.version)
        trial = Trial(subject=candidate.version, against=self.state[CHAMPION].version, until=self.at)
        self.enter(self.model.rollout[0], candidate, trial, "next in line")

    def enter(self, stage: Stage, candidate: Candidate | None, trial: Trial, reason: str) -> None:
        kind = "canary" if stage.share else "shadow"
        entered = self.decision(kind, trial.subject, reason, share=stage.share, candidate=candidate, trial=trial)
        self.put(CHALLENGER, entered)
        self.put(trial.subject, entered)

    def advance(self, challenger: Decision, trial: Trial, reason: str) -> None:
        following = trial.stage + 1
        if following < len(self.model.rollout):
            later = msgspec.structs.replace(trial, stage=following, since=self.at, windows=0)
            self.enter(self.model.rollout[following], challenger.candidate, later, reason)
        elif challenger.candidate is not None:
            self.promote(challenger.candidate, reason, trial)

    def promote(self, candidate: Candidate, reason: str, trial: Trial | None = None) -> None:
        old = self.state.get(CHAMPION)
        made = self.decision("champion", candidate.version, reason, share=1.0, candidate=candidate, trial=trial)
        if old is not None:
            watched = Trial(subject=candidate.version, against=old.version, until=self.at)
            after = f"replaced by {candidate.version}, on probation"
            retired = self.decision("retired", old.version, after, was=old, trial=watched)
            self.put(PROBATION, retired)
            self.put(old.version, retired)
        self.put(CHAMPION, made)
        self.put(candidate.version, made)
        challenger = self.state.get(CHALLENGER)
        if challenger is not None and challenger.version == candidate.version:
            self.release()

    def roll_back(self, target: Decision, reason: str, trial: Trial | None = None) -> None:
        bad = self.state[CHAMPION]
        why = f"rolled back from {bad.version}: {reason}"
        back = self.decision("champion", target.version, why, share=1.0, was=target, rolled_back=bad.version)
        self.put(bad.version, self.decision("rolled_back", bad.version, reason, was=bad, trial=trial))
        self.put(CHAMPION, back)
        self.put(target.version, back)
        if PROBATION in self.state:
            self.put(PROBATION, None)
        challenger = self.state.get(CHALLENGER)
        if challenger is not None and challenger.version == target.version:
            self.release()

    def reject(self, challenger: Decision, trial: Trial, reason: str) -> None:
        self.put(challenger.version, self.decision("rejected", challenger.version, reason, was=challenger, trial=trial))
        self.release()

    def release(self) -> None:
        """The place of the challenger is free: the candidate that waits takes it."""
        waiting = self.queued()
        candidate = self.state[waiting[-1]].candidate if waiting else None
        if candidate is not None:
            self.start(candidate)
        else:
            self.put(CHALLENGER, None)

    def queued(self) -> list[str]:
        """Versions that wait for the end of a rollout, oldest first; the newest one is meant, the others are
        leftovers."""
        taken = {self.state[a].version for a in (CHAMPION, CHALLENGER) if a in self.state}
        found = [v for v, d in self.state.items() if v == d.version and d.kind == "registered" and v not in taken]
        return sorted(found, key=_number)

    def retire_queued(self, newer: str) -> None:
        for version in self.queued():
            if version != newer:
                self.put(version, self.decision("retired", version, f"{newer} is newer", was=self.state[version]))

    def tidy(self) -> None:
        """Finish what a crash left half-written: version of the champion, then aliases that point to nothing any
        more."""
        champion = self.state.get(CHAMPION)
        if champion is None:
            return
        if self._said(champion.version) != champion.id:
            self.put(champion.version, champion)
        if PROBATION in self.state and self.state[PROBATION].version == champion.version:
            self.put(PROBATION, None)
        challenger = self.state.get(CHALLENGER)
        if challenger is not None and self.running is None:
            self.release()
        elif challenger is not None and self._said(challenger.version) != challenger.id:
            self.put(challenger.version, challenger)

    def _said(self, version: str) -> str:
        """The id of the last decision on a version."""
        return self.state[version].id if version in self.state else ""

    # ---- changes

    def put(self, key: str, decision: Decision | None) -> None:
        self.changes.append((key, decision))
        if decision is None:
            self.state.pop(key, None)
        else:
            self.state[key] = decision

    def decision(
        self,
        kind: str,
        version: str,
        reason: str,
        share: float = 0.0,
        candidate: Candidate | None = None,
        was: Decision | None = None,
        trial: Trial | None = None,
        **more: Any,
    ) -> Decision:
        """A decision by this record. Its id depends on the record, the kind and the version only."""
        return Decision(
            id=hashlib.sha256(f"{self.model.name}/{self.cause}/{kind}/{version}".encode()).hexdigest()[:24],
            model=self.model.name,
            kind=kind,
            version=version,
            at=self.at,
            actor=self.actor,
            reason=reason,
            share=share,
            expected=self.state[CHAMPION].version if CHAMPION in self.state else "",
            evidence={"cause": self.cause, **(trial.evidence() if trial else {}), **more},
            candidate=candidate or (was.candidate if was else None),
        )


def _progress(decision: Decision, trial: Trial) -> Decision:
    """The same decision with more evidence: id and time stay."""
    return msgspec.structs.replace(decision, evidence={**decision.evidence, **trial.evidence()})


def _over(trial: Trial, lasts: int, times: int = 1) -> bool:
    return trial.since is not None and trial.until >= trial.since + timedelta(microseconds=times * lasts)


def _spent(trial: Trial, lasts: int) -> bool:
    return trial.windows >= LONGEST and _over(trial, lasts, LONGEST)


def _words(trial: Trial) -> str:
    return f"log loss {trial.mean:+.5f} (error {trial.error:.5f}) against {trial.against} on {trial.n} outcomes"


def _number(version: str) -> int:
    """The number of "v12" or "online-12".

    >>> _number("v12"), _number("online-7")
    (12, 7)
    """
    digits = version.removeprefix(f"{ONLINE}-").removeprefix("v")
    if not digits.isdigit():
        raise Refused("schema", f"{version!r} is not a version: v1, v2, ... or online-1, online-2, ...")
    return int(digits)


def _not_finite(candidate: Candidate) -> str:
    wrong = sorted(name for name, value in candidate.metrics.items() if not math.isfinite(value))
    return f"not a finite number: {', '.join(wrong)}" if wrong else ""


def _jumped(candidate: Candidate, before: Decision | None) -> str:
    """Compared with the snapshot offered before, served or not: after a real change the second one passes."""
    loss = candidate.metrics.get("recent_log_loss")
    was = before.candidate.metrics.get("recent_log_loss") if before and before.candidate else None
    if loss is None or was is None or loss <= JUMP * was:
        return ""
    return f"its recent log loss {loss:.4f} is more than {JUMP} times the {was:.4f} of the snapshot before"
