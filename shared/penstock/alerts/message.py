"""A message: what people read about one cause. Made from notices alone, so that every route and every attempt says the same."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from ..records import Alarm, Notice

__all__ = ["Message", "facts", "line_of", "message_of", "messages"]

ALARMS: Final = 20
"""Alarms that a message describes; of more it says the number."""
FACTS: Final = 6
"""Lines of evidence for each."""
LINE: Final = 300
"""Characters of a line: evidence quotes what people sent, which may be a book."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What goes to people. `id` follows from its notices: whoever gets it twice may drop one."""

    id: str
    title: str
    lines: list[str]
    project: str
    subject: str
    cause: str
    state: str
    """raised, where people learn of something; else held or cleared."""
    at: datetime
    alarms: list[Alarm]


def messages(project: str, notices: Sequence[Notice]) -> list[Message]:
    """One message for each subject and cause, in the order in which they were first spoken of."""
    groups: dict[tuple[str, str], list[Notice]] = {}
    for notice in notices:
        groups.setdefault((notice.subject, notice.cause), []).append(notice)
    return [message_of(project, group) for group in groups.values()]


def message_of(project: str, notices: Sequence[Notice]) -> Message:
    """The message of notices about one subject and cause, oldest first. Of an alarm that is over by now it says only that."""
    last = notices[-1]
    newest = {alarm.signal: (notice.state, alarm) for notice in notices for alarm in notice.alarms}
    alarms, states = [alarm for _, alarm in newest.values()], {state for state, _ in newest.values()}
    state = next((s for s in ("raised", "held") if s in states), "cleared")
    number = "" if len(alarms) == 1 else f" ({len(alarms)} alarms)"
    lines = list(itertools.chain.from_iterable(_said(alarm) for alarm in alarms[:ALARMS]))
    if len(alarms) > ALARMS:
        lines.append(f"and {len(alarms) - ALARMS} more: penstock alerts list")
    if missed := sum(notice.missed for notice in notices):
        lines.append(f"since the last message {missed} more came and went")
    digest = hashlib.sha256("\n".join(notice.id for notice in notices).encode()).hexdigest()
    return Message(
        id=f"penstock_{digest[:32]}",
        title=line_of(f"[{project}] {last.subject}: {last.cause} {_WORDS[state]}{number}"),
        lines=lines,
        project=project,
        subject=last.subject,
        cause=last.cause,
        state=state,
        at=last.alarms[-1].at,
        alarms=alarms[:ALARMS],
    )


_WORDS: Final = {"raised": "alarm", "held": "alarm lasts", "cleared": "is over"}


def _said(alarm: Alarm) -> Iterator[str]:
    since = alarm.evidence.get("since")
    lasts = f", since {since}" if since and alarm.state != "raised" else ""
    yield line_of(f"{alarm.signal} {alarm.state} at {alarm.at:%Y-%m-%d %H:%M} UTC{lasts}")
    if alarm.state != "cleared":
        yield from (f"  {fact}" for fact in facts(alarm.evidence))


def facts(evidence: Mapping[str, Any]) -> list[str]:
    """Evidence, whatever it holds, as a few lines.

    >>> facts({"since": "2013", "skill": 0.01234, "inputs": [{"input": "delay", "ks": 0.31}, {"input": "wind", "ks": 0.2}]})
    ['input delay, ks 0.31', 'input wind, ks 0.2', 'skill 0.0123']
    """
    lists = {name: value for name, value in evidence.items() if isinstance(value, list) and value}
    rest = {name: value for name, value in evidence.items() if name not in lists and name != "since" and value is not None}
    lines = [_pairs(item) if isinstance(item, dict) else f"{name} {_plain(item)}" for name, v in lists.items() for item in v]
    lines = lines[: FACTS - bool(rest)] + ([_pairs(rest)] if rest else [])
    return [line_of(line) for line in lines]


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {_plain(value)}" for name, value in values.items())


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return f"({_pairs(value)})"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def line_of(text: str, most: int = LINE) -> str:
    """On one line, not longer than one, and nothing in it that steers a terminal or that a mail server refuses."""
    text = "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))
    return text if len(text) <= most else f"{text[: most - 3]}..."
