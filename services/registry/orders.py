"""Orders: what a person asks of the registry: approve, promote, roll_back. Each is answered once, and the answer kept.

Answers are forgotten when a command comes that is KEPT younger, so that the topic does not grow with every word ever said; a
command that much older than the newest answer is refused, because nobody knows any more whether it was carried out.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Final

import msgspec

from penstock.errors import Refused
from penstock.records import Command

from .seats import CHALLENGER, CHAMPION, ONLINE, PROBATION, Seats, carried
from .trial import Trial

__all__ = ["obey"]


KEPT: Final = timedelta(days=30)
"""Of stream time. A command comes again after a crash or from a reader that begins anew, within days."""

ANSWER: Final = "command-"


def obey(seats: Seats, command: Command) -> None:
    """Carry a command out, or say in words why not. Raises Refused for one that is no command, or too old."""
    answers = {key: said.at for key, said in seats.state.items() if key.startswith(ANSWER)}
    marker = f"{ANSWER}{hashlib.sha256(command.id.encode()).hexdigest()[:16]}"
    if marker in answers:
        return
    if answers and command.at <= max(answers.values()) - KEPT:
        raise Refused(
            "duplicate", f"a command of {command.at:%Y-%m-%d}: answers are kept for {KEPT.days} days, and its may be forgotten"
        )
    refusal = ""
    if seats.made is None:  # else a crash came between what was done and the answer
        refusal = _refusal(seats, command)
        if not refusal:
            _carry_out(seats, command)
    answer = seats.made or seats.decision("rejected", command.version, refusal)
    seats.put(marker, msgspec.structs.replace(answer, candidate=None))
    for old in sorted(key for key, at in answers.items() if at <= command.at - KEPT):
        seats.put(old, None)


def _refusal(seats: Seats, command: Command) -> str:
    state = seats.state
    champion, challenger = (state[a].version if a in state else "" for a in (CHAMPION, CHALLENGER))
    if command.action not in ("approve", "promote", "roll_back"):
        raise Refused("unknown", f"{command.action!r} is no command of the registry: approve, promote, roll_back")
    if command.expected != champion:
        return f"the champion is {champion or 'none'}, not {command.expected or 'none'} as the command expects"
    if command.action == "approve":
        if not challenger:
            return "no version is in rollout"
        if command.version not in ("", challenger):
            return f"{challenger} is in rollout, not {command.version}"
        return seats.strange(state[CHALLENGER].candidate)
    version = _target(seats, command)
    if not version:
        return "no version to return to" if command.action == "roll_back" else "no version is named"
    if version == champion:
        return f"{version} is the champion already"
    candidate = state[version].candidate if version in state else None
    if candidate is None or version.startswith(ONLINE):
        return f"{version} is not a version of {seats.model.name} that can be in charge"
    return seats.strange(candidate)


def _target(seats: Seats, command: Command) -> str:
    """The version that a command means: as named, else for a roll back the champion before."""
    if command.version or command.action != "roll_back":
        return command.version
    if PROBATION in seats.state:
        return seats.state[PROBATION].version
    champion = seats.state.get(CHAMPION)
    return champion.expected if champion is not None and "rolled_back" not in champion.evidence else ""


def _carry_out(seats: Seats, command: Command) -> None:
    reason = command.reason or f"{command.action} by {command.actor}"
    if command.action == "approve":
        trial = Trial.of(seats.state[CHALLENGER])
        seats.advance(msgspec.structs.replace(trial, until=seats.at), reason)
        return
    target = seats.state[_target(seats, command)]
    if command.action == "promote":
        seats.promote(carried(target), reason)
    else:
        seats.roll_back(target, reason)
