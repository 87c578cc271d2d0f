"""Which alarms people are told of, and when: all in stream time, of the records alone. Pure.

Alarms of one subject (a model, or the topic of an event) and cause go together:

    raised     told at once, unless people were told of that cause within the last `window`; then with the first record after it.
               (An alarm that lasts is said again with each of its windows, so that record comes.)
    held       told again every `repeat`
    cleared    told, where the raising was; else the alarm came and went, and the next notice says how many did
    silenced   not told; what still lasts when the silence ends is told then. The end of what was told is told, silence or not

So one cause makes at most two notices a window and alarm, however it flaps.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from penstock.event import to_micros
from penstock.records import Alarm, Notice, Silence

__all__ = ["Board", "cause_of"]


def cause_of(alarm: Alarm) -> tuple[str, str]:
    """The subject and cause of an alarm.

    >>> from datetime import datetime
    >>> cause_of(Alarm(id="1", model="", signal="quality/trips/fare > 0", state="raised", at=datetime.min, evidence={}))
    ('trips', 'quality')
    """
    if alarm.model:
        return alarm.model, alarm.signal.partition("/")[0]
    cause, _, rest = alarm.signal.partition("/")
    return rest.partition("/")[0] or cause, cause


class _Open(msgspec.Struct):
    """An alarm that lasts: its newest record, and when people were told of it (None: not yet)."""

    alarm: Alarm
    told: int | None = None


class _Group(msgspec.Struct):
    """The alarms of one subject and cause, by signal."""

    open: dict[str, _Open] = {}
    told: int | None = None
    """When people were last told that something began."""
    missed: int = 0


class Board(msgspec.Struct):
    """What people know. `groups` are by subject, then cause; so are `silences`."""

    groups: dict[str, dict[str, _Group]] = {}
    silences: dict[str, dict[str, Silence]] = {}

    def silence(self, subject: str, cause: str, said: Silence | None) -> None:
        """Take what the topic of silences says of a subject and cause; None: nothing any more."""
        known = self.silences.setdefault(subject, {})
        if said is None:
            known.pop(cause, None)
        else:
            known[cause] = said

    def silenced(self, subject: str, cause: str, at: int) -> bool:
        known = self.silences.get(subject, {})
        return any(
            to_micros(said.since) <= at < to_micros(said.until) for said in (known.get(""), known.get(cause)) if said is not None
        )

    def hear(self, alarm: Alarm, window: int, repeat: int) -> Notice | None:
        """What people are to be told because of a record of the alarms topic. `window` and `repeat` are microseconds; with a
        `repeat` of 0 nothing is told again."""
        subject, cause = cause_of(alarm)
        group = self.groups.setdefault(subject, {}).setdefault(cause, _Group())
        at = to_micros(alarm.at)
        if alarm.state == "cleared":
            known = group.open.pop(alarm.signal, None)
            if known is not None and known.told is None:
                group.missed += 1
            return self._notice("cleared", alarm, group, [alarm]) if known is not None and known.told is not None else None
        found = group.open.setdefault(alarm.signal, _Open(alarm))
        found.alarm = alarm
        if self.silenced(subject, cause, at):
            return None
        if found.told is not None:
            if not repeat or at < found.told + repeat:
                return None
            found.told = at
            return self._notice("held", alarm, group, [alarm])
        if group.told is not None and group.told < at < group.told + window:
            return None
        waiting = [each for each in group.open.values() if each.told is None]
        for each in waiting:
            each.told = at
        group.told = at
        return self._notice("raised", alarm, group, [each.alarm for each in waiting])

    def _notice(self, state: str, alarm: Alarm, group: _Group, alarms: Iterable[Alarm]) -> Notice:
        subject, cause = cause_of(alarm)
        missed, group.missed = group.missed, 0
        return Notice(id=alarm.id, subject=subject, cause=cause, state=state, alarms=list(alarms), missed=missed)

    def lasting(self) -> dict[tuple[str, str], int]:
        """Subject and cause -> alarms that last."""
        return {(s, cause): len(group.open) for s, causes in self.groups.items() for cause, group in causes.items()}
