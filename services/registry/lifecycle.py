"""Lifecycle: what becomes of each version, as a pure function of the compacted topic and one more record.

    first full candidate    champion
    full candidate          challenger, first stage; waits behind a canary; champion at once where there are no stages
    closed window           evidence; at a stage's end: next stage, champion or rejected; a stage with too few labels lasts
                            up to 3 times longer, and as long as labels may come; then rejected
                            after a promotion: roll back when the champion is worse than the one before beyond chance
    snapshot                online, unless its loss jumped
    command                 the same at a person's word, if the champion is still the one that the person saw

`decide` returns the changes to the seats (see seats.py), and none for a record that was taken before: so the topic alone
restores the registry, and a record that comes again, in whatever order with others, changes nothing.

The order in which windows, candidates and commands first arrive is not in their topics, and a replay without
`<p>.models` may meet another one. Times and ids come from the records, so these stay the same; and windows taken before
a candidate was offered cost it nothing, so it may be offered earlier or later between the windows in which it was not
scored. What may differ:

    candidate    one that comes before instead of after the window that decides the running rollout meets a challenger
                 that is still there: it replaces it in shadow, or waits behind it
    command      is carried out or refused by the champion, the challenger and the versions known when it is read
    snapshot     none differs: snapshots are compared among themselves, in the order of their topic
"""

from __future__ import annotations

import math
from datetime import timedelta

from penstock import duration
from penstock.errors import Refused
from penstock.model import Model
from penstock.policy import LONGEST, Gate
from penstock.records import Candidate, Command, Decision, Statistic

from .orders import obey
from .seats import CHALLENGER, CHAMPION, ONLINE, PROBATION, Change, Seats, State, number_of
from .trial import Trial

__all__ = ["decide"]

SAFETY = (Gate(margin=0.0, confidence=3.0),)
"""What a new champion is held to when the project declares no gate. Looked at once a window, hence three errors."""

JUMP = 1.5
"""A snapshot whose recent loss is above so many times that of the one offered before is not served."""


def decide(state: State, model: Model, record: Candidate | Statistic | Command) -> list[Change]:
    """The changes that a record brings; none when it was taken before."""
    at = record.end if isinstance(record, Statistic) else record.at
    seats = Seats(state, model, record.id, at, record.actor if isinstance(record, Command) else "registry")
    if isinstance(record, Statistic):
        _watch(seats, record)
        _judge(seats, record)
    elif isinstance(record, Command):
        obey(seats, record)
    elif record.kind == "full":
        _offer(seats, record)
    elif record.kind == "incremental":
        _snapshot(seats, record)
    else:
        raise Refused("unknown", f"a candidate is full or incremental, not {record.kind!r}")
    return seats.changes


def _offer(seats: Seats, candidate: Candidate) -> None:
    version, running = candidate.version, seats.state.get(CHALLENGER)
    if version in seats.state:
        return
    if wrong := _not_finite(candidate) or seats.strange(candidate):
        seats.put(version, seats.decision("rejected", version, wrong, candidate))
    elif CHAMPION not in seats.state:
        seats.promote(candidate, "first")
    elif running is None or not seats.model.rollout:
        seats.start(candidate)
    elif running.share == 0:
        why = f"replaced by {version} while in shadow"
        seats.put(running.version, seats.decision("retired", running.version, why, running.candidate))
        seats.start(candidate)
    else:
        seats.retire_waiting(version)
        seats.put(version, seats.decision("registered", version, f"waits until {running.version} is decided", candidate))


def _judge(seats: Seats, statistic: Statistic) -> None:
    """Judge the challenger against the champion."""
    challenger, model = seats.state.get(CHALLENGER), seats.model
    if challenger is None:
        return
    trial, champion = Trial.of(challenger), seats.state[CHAMPION].version
    if trial.against != champion:
        trial = trial.anew(champion)
    grown = trial.grown(statistic)
    if grown is trial:
        return
    if wrong := seats.strange(challenger.candidate):
        seats.reject(grown, wrong)
        return
    lasts = model.rollout[min(grown.stage, len(model.rollout) - 1)].lasts if model.rollout else 0
    verdict = grown.verdict(model.gates, model.label.quantile) if grown.lasted(lasts) else "early"
    if verdict == "pass":
        seats.advance(grown, grown.words)
    elif verdict == "fail":
        seats.reject(grown, f"{grown.fault(model.gates, model.label.quantile)}: {grown.words}")
    elif _spent(challenger, grown, model, lasts):
        needed = max((gate.least for gate in model.gates), default=1)
        seats.reject(grown, f"{grown.n} of the {needed} labels needed (least=) in {LONGEST} times the stage: {grown.words}")
    else:
        seats.progress(CHALLENGER, grown)


def _watch(seats: Seats, statistic: Statistic) -> None:
    """Judge the champion against the one before."""
    probation, model = seats.state.get(PROBATION), seats.model
    if probation is None:
        return
    trial = Trial.of(probation)
    grown = trial.grown(statistic)
    if grown is trial:
        return
    if seats.strange(probation.candidate):  # there is no way back to it
        seats.put(PROBATION, None)
        return
    lasts = max(sum(stage.lasts for stage in model.rollout), duration.DAY)
    verdict = grown.verdict([gate for gate in model.gates if isinstance(gate, Gate)] or SAFETY)
    if verdict == "fail":
        seats.roll_back(probation, f"worse than {grown.against}: {grown.words}", grown)
    elif (verdict == "pass" and grown.lasted(lasts)) or _spent(probation, grown, model, lasts):
        seats.put(PROBATION, None)
    else:
        seats.progress(PROBATION, grown)


def _spent(decision: Decision, trial: Trial, model: Model, lasts: int) -> bool:
    """Whether a trial has had its time: its stage several times over, and the labels of its first answers theirs."""
    most = timedelta(microseconds=LONGEST * lasts + model.label.within)
    return trial.windows >= LONGEST and trial.until >= (trial.since or decision.at) + most


def _snapshot(seats: Seats, candidate: Candidate) -> None:
    version, online = candidate.version, seats.state.get(ONLINE)
    known = {v for v in seats.state if v.startswith(f"{ONLINE}-")} | ({online.version} if online else set())
    newest = max(known, key=number_of, default="")
    if version in seats.state or (newest and number_of(version) < number_of(newest)):
        return
    if online is not None and online.version == version:  # a crash came between the alias and the version
        said = online
    elif wrong := _not_finite(candidate) or _jumped(candidate, seats.state.get(newest)):
        said = seats.decision("rejected", version, wrong, candidate)
    else:
        said = seats.decision("snapshot", version, "newest", candidate)
        seats.put(ONLINE, said)
    serving = seats.state[ONLINE].version if ONLINE in seats.state else ""
    for old in sorted(known - {serving}, key=number_of):
        seats.put(old, None)  # candidates and runs keep their history; thousands of them are not state
    seats.put(version, said)


def _not_finite(candidate: Candidate) -> str:
    wrong = sorted(name for name, value in candidate.metrics.items() if not math.isfinite(value))
    return f"not a finite number: {', '.join(wrong)}" if wrong else ""


def _jumped(candidate: Candidate, before: Decision | None) -> str:
    """Compared with the snapshot offered before, served or not: after a real change the second one passes."""
    name = next((each for each in candidate.metrics if each.startswith("recent_")), "")
    loss = candidate.metrics.get(name)
    was = before.candidate.metrics.get(name) if before and before.candidate else None
    if loss is None or was is None or loss <= JUMP * was:
        return ""
    return f"its {name.replace('_', ' ')} {loss:.4f} is more than {JUMP} times the {was:.4f} of the snapshot before"
