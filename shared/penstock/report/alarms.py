"""Alarms: what was raised, how long it stood, and what it went by, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..evidence import facts, summary
from ..pages.words import escape
from ..records import Alarm
from .records import Records, day
from .section import Cell, Missing, Section, Table, Tone

__all__ = ["Episode", "alarms", "episodes"]


@dataclass
class Episode:
    """An alarm from when it was raised until it was cleared, or raised anew for another cause; `end` is None while it stands."""

    raised: Alarm
    last: Alarm
    since: datetime
    """When it was raised first: earlier than `raised`, where that was for another cause of an alarm that stood."""
    held: int = 0
    end: datetime | None = None
    again: bool = False
    """It was followed by another cause of the same signal, before it was cleared."""

    @property
    def told(self) -> str:
        """The signal and since when it stands, as `penstock alerts list` has it."""
        anew = f" (raised again {day(self.raised.at)})" if self.raised.at > self.since else ""
        return f"{self.raised.signal} since {day(self.since)}{anew}"


def episodes(found: Sequence[Alarm]) -> list[Episode]:
    """The alarms as stories, in the order in which they began. What begins with a held alarm was raised before the records do."""
    told: list[Episode] = []
    standing: dict[tuple[str, str], Episode] = {}
    for alarm in found:
        name = (alarm.model, alarm.signal)
        one = standing.get(name)
        if alarm.state == "raised" or one is None:
            if one is not None:
                one.end, one.again = alarm.at, True
            if alarm.state == "cleared":
                continue
            one = standing[name] = Episode(alarm, alarm, alarm.at if one is None else one.since)
            told.append(one)
        elif alarm.state == "held":
            one.held, one.last = one.held + 1, alarm
        else:
            one.end, one.last = alarm.at, alarm
            del standing[name]
    return told


def standing(records: Records) -> list[Episode]:
    """Those that stand at the end of the period."""
    return [one for one in episodes(records.alarms) if one.end is None]


def alarms(records: Records) -> Section:
    """Every alarm that stood in the period."""
    title = "Alarms"
    found = [one for one in episodes(records.alarms) if one.end is None or one.end > records.start]
    if not found:
        if not records.model.monitors:
            what = "Nothing is watched, so nothing was raised."
            return Section(
                "alarms", title, what, [Missing("Declare what to watch:", "monitors=[ps.drift(), ps.skill(floor=0.0)]")]
            )
        return Section("alarms", title, "No alarm was raised or stood in this period.", tone="good")
    rows = []
    for one in reversed(found):
        open_ = one.end is None
        until = "stands" if one.end is None else f"{day(one.end)}{' (another cause)' if one.again else ''}"
        rows.append(
            (
                one.raised.signal if one.raised.model else f"{one.raised.signal} (data)",
                day(one.raised.at),
                Cell(until, "bad" if open_ else ""),
                _lasted((one.end or max(records.until, one.last.at)) - one.raised.at),
                Cell(summary(one.raised.evidence), html=_lines(facts(one.raised.evidence))),
                Cell(summary(one.last.evidence), html=_lines(facts(one.last.evidence))) if open_ and one.held else "",
            )
        )
    still = [one for one in found if one.end is None]
    tone: Tone = "warn" if still else ""
    names = ", ".join(one.told for one in still)
    said = f"{len(found)} in this period; " + (
        f"{len(still)} still {_stand(len(still))}: {names}." if still else "none stands any more."
    )
    return Section(
        "alarms", title, said, [Table(("signal", "raised", "until", "stood", "because", "by the newest window"), rows, 9)], tone
    )


def _stand(n: int) -> str:
    return "stands" if n == 1 else "stand"


def _lasted(span: timedelta) -> str:
    hours = span.total_seconds() / 3600
    return f"{hours / 24:.3g} d" if hours >= 24 else f"{hours:.2g} h"


def _lines(said: Sequence[str]) -> str:
    return '<ul class="lines">' + "".join(f"<li>{escape(line)}</li>" for line in said) + "</ul>"
