"""A message: what people read about one cause. Made from notices alone, so that every route and every attempt says the same."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from ..evidence import facts, line_of
from ..records import Alarm, Notice

__all__ = ["Message", "message_of", "messages"]

ALARMS: Final = 20
"""Signals whose alarms a message describes; of more it says the number."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What goes to people. `id` follows from its notices: whoever gets it twice may drop one."""

    id: str
    title: str
    lines: list[str]
    project: str
    subject: str
    cause: str
    state: str
    """raised, where people learn of something that lasts; else held or cleared."""
    at: datetime
    alarms: list[Alarm]
    """The newest of each signal; where it came and went, the raised one before it."""


def messages(project: str, notices: Sequence[Notice]) -> list[Message]:
    """One message for each subject and cause, in the order in which they were first spoken of."""
    groups: dict[tuple[str, str], list[Notice]] = {}
    for notice in notices:
        groups.setdefault((notice.subject, notice.cause), []).append(notice)
    return [message_of(project, group) for group in groups.values()]


def message_of(project: str, notices: Sequence[Notice]) -> Message:
    """The message of notices about one subject and cause, oldest first: how things stand by now. What began and ended in them,
    so that nobody was told of it, came and went."""
    last = notices[-1]
    courses, missed = _courses(notices)
    word = next(word for word in _WORDS if any(course.word == word for course in courses))
    number = "" if len(courses) == 1 else f" ({len(courses)} alarms)"
    lines = list(itertools.chain.from_iterable(_said(course) for course in courses[:ALARMS]))
    if len(courses) > ALARMS:
        lines.append(f"and {len(courses) - ALARMS} more: penstock alerts list")
    if missed:
        lines.append(f"since the last message {missed} more came and went")
    digest = hashlib.sha256("\n".join(notice.id for notice in notices).encode()).hexdigest()
    return Message(
        id=f"penstock_{digest[:32]}",
        title=line_of(f"[{project}] {last.subject}: {last.cause} {_WORDS[word]}{number}"),
        lines=lines,
        project=project,
        subject=last.subject,
        cause=last.cause,
        state="cleared" if word == "gone" else word,
        at=last.alarms[-1].at,
        alarms=[alarm for course in courses[:ALARMS] for alarm in course.alarms],
    )


_WORDS: Final = {"raised": "alarm", "held": "alarm lasts", "cleared": "is over", "gone": "came and went"}
"""What a title says; of several the first."""


class _Course(NamedTuple):
    """What notices say of one signal: its newest alarm."""

    last: Alarm
    over: bool
    known: bool
    """People were told of the signal before these notices."""
    began: Alarm | None
    """Where these notices have its beginning."""

    @property
    def word(self) -> str:
        if self.over:
            return "cleared" if self.known else "gone"
        return "held" if self.began is None else "raised"

    @property
    def alarms(self) -> list[Alarm]:
        return [self.began, self.last] if self.over and self.began is not None else [self.last]


def _courses(notices: Sequence[Notice]) -> tuple[list[_Course], int]:
    """Of each signal how its newest alarm went; and how many others began and ended meanwhile."""
    found, missed = dict[str, _Course](), sum(notice.missed for notice in notices)
    for notice in notices:
        for alarm in notice.alarms:
            before = found.get(alarm.signal)
            known = notice.state != "raised" if before is None else before.known
            began = None if before is None else before.began
            if before is not None and before.over:
                missed += began is not None
                began = None
            if notice.state == "raised":
                began = alarm
            found[alarm.signal] = _Course(alarm, notice.state == "cleared", known, began)
    return list(found.values()), missed


def _said(course: _Course) -> Iterator[str]:
    last, began = course.last, course.began
    at = f"at {last.at:%Y-%m-%d %H:%M} UTC"
    since = last.evidence.get("since")
    if began is None or began is last:
        lasts = f", since {since}" if since and last.state != "raised" else ""
        yield line_of(f"{last.signal} {last.state} {at}{lasts}")
    else:
        first = f"raised at {began.at:%Y-%m-%d %H:%M} UTC"
        yield line_of(f"{last.signal} came and went: {first}, over {at}" if course.over else f"{last.signal} {first}, held {at}")
    if not course.over or began is not None:
        yield from (f"  {fact}" for fact in facts((began if course.over and began is not None else last).evidence))
