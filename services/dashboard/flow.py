"""The flow: records per stage, how fast they come, what waits between two stages, and what fell out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from penstock.picture import Picture

__all__ = ["Flow", "Place", "flow_of"]


class Place(msgspec.Struct, frozen=True):
    """A stage of the flow: records so far, records a second (null: not known yet), and how many wait in front of it."""

    name: str
    count: int
    rate: float | None
    waiting: int | None


class Flow(msgspec.Struct, frozen=True):
    places: list[Place]
    scored: int
    """Events of kinds that are scored; the others only feed features and labels."""
    dead: dict[str, int]
    """Topic -> its dead letters, where there are any."""
    behind: int
    unreadable: int
    flaw: str
    log: str
    """Why the log cannot be read just now; empty when it can."""
    until: datetime | None
    """The end of the newest closed window."""


def flow_of(picture: Picture, rates: Mapping[str, float], log: str) -> Flow:
    """The flow; `rates` are records a second by stage, `log` is why the log cannot be read (empty: it can)."""
    topics, ends, counts = picture.topics, picture.ends, picture.counts
    project = topics.project

    def left(taken: str, made: str) -> int:
        """Records of one topic that have not become a record of the next, nor a dead letter."""
        return max(ends.get(taken, 0) - ends.get(made, 0) - ends.get(topics.dead_letters(taken), 0), 0)

    waiting = {
        "rows": sum(left(e.topic, topics.rows(e)) for e in project.topology.reads),
        "predictions": sum(left(topics.rows(m.scores), topics.predictions(m.name)) for m in project.models),
        "outcomes": sum(left(topics.predictions(m.name), topics.outcomes(m.name)) for m in project.models),
    }
    stages = ("events", "rows", "predictions", "outcomes")
    return Flow(
        places=[Place(name, counts.get(name, 0), rates.get(name), waiting.get(name)) for name in stages],
        scored=counts.get("scored", 0),
        dead={topic: count for topic, count in ends.items() if topic.endswith(".dlq") and count},
        behind=picture.behind,
        unreadable=picture.unreadable,
        flaw=picture.flaw,
        log=log,
        until=picture.now,
    )
