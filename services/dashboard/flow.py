"""The flow: records per stage, how fast they come, what waits between two stages, and what fell out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from penstock.picture import Picture
from penstock.topics import Topics

__all__ = ["Flow", "Place", "flow_of", "stages_of"]


class Letters(msgspec.Struct, frozen=True):
    """Dead letters of one topic."""

    topic: str
    count: int


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
    dead: list[Letters]
    dead_total: int
    read: int
    behind: int
    unreadable: int
    flaw: str
    log: str
    """Why the log cannot be read just now; empty when it can."""
    until: datetime | None
    """The end of the newest closed window."""


def stages_of(topics: Topics) -> dict[str, list[str]]:
    """The topics behind each stage of the flow, in the order in which data flows."""
    project = topics.project
    return {
        "events": [event.topic for event in project.events],
        "rows": [topics.rows(event) for event in project.topology.reads],
        "predictions": [topics.predictions(model.name) for model in project.models],
        "outcomes": [topics.outcomes(model.name) for model in project.models],
    }


def flow_of(picture: Picture, rates: Mapping[str, float], log: str) -> Flow:
    """The flow; `rates` are records a second by stage, `log` is why the log cannot be read (empty: it can)."""
    topics, ends = picture.topics, picture.ends
    project = topics.project
    refused = {topic: ends.get(topics.dead_letters(topic), 0) for topic in ends if topics.dead_letters(topic) in ends}
    waiting: dict[str, int] = {
        "rows": sum(_left(ends, e.topic, topics.rows(e), refused) for e in project.topology.reads),
        "predictions": sum(_left(ends, topics.rows(m.scores), topics.predictions(m.name), refused) for m in project.models),
        "outcomes": sum(_left(ends, topics.predictions(m.name), topics.outcomes(m.name), refused) for m in project.models),
    }
    counts = picture.counts
    places = [Place(name, counts.get(name, 0), rates.get(name), waiting.get(name)) for name in stages_of(topics)]
    dead = [Letters(topics.dead_letters(topic), count) for topic, count in refused.items() if count]
    return Flow(
        places=places,
        scored=counts.get("scored", 0),
        dead=dead,
        dead_total=sum(refused.values()),
        read=picture.read,
        behind=picture.behind,
        unreadable=picture.unreadable,
        flaw=picture.flaw,
        log=log,
        until=picture.now,
    )


def _left(ends: Mapping[str, int], taken: str, made: str, refused: Mapping[str, int]) -> int:
    """Records of one topic that have not become a record of the next, nor a dead letter."""
    return max(ends.get(taken, 0) - ends.get(made, 0) - refused.get(taken, 0), 0)
