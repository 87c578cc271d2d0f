"""Alarms: what is wrong, what people are told of it, and what they want not to hear."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

__all__ = ["Alarm", "Notice", "Silence"]


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """raised, held or cleared, with its evidence. The id is derived from the window, so a replay gives the same."""

    id: str
    model: str
    signal: str
    """drift, skill, labels, novelty, sources, fairness, canaries/<kind of version>, or quality/<topic>/<expectation> (then
    `model` is empty)."""
    state: str
    at: datetime
    evidence: dict[str, Any]


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """What people are to be told about alarms of one cause; the id is that of the alarm that gave rise to it."""

    id: str
    subject: str
    """The model, or the topic of an event."""
    cause: str
    """drift, skill, quality: what tells alarms of one subject apart."""
    state: str
    """raised: people learn of these alarms now; held: they still last; cleared: they are over."""
    alarms: list[Alarm]
    missed: int = 0
    """Alarms that were raised and cleared since the last notice, without one."""


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """People want to hear nothing of a subject between two stream times. The newest of a subject and cause counts."""

    subject: str
    since: datetime
    until: datetime
    actor: str
    cause: str = ""
    """Empty: whatever it is."""
    reason: str = ""
