"""Every topic once, in the order in which data flows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from . import records
from .event import Event
from .log import Topic
from .model import Model
from .project import Project

__all__ = ["Contract", "Topics"]


@dataclass(frozen=True)
class Contract:
    """A topic with its key, the record it carries, who writes and who reads it."""

    topic: Topic
    key: str
    record: type[msgspec.Struct] | Event | None
    writes: tuple[str, ...]
    reads: tuple[str, ...]


class Topics:
    """The names and contracts of a project's topics, for a number of partitions."""

    def __init__(self, project: Project, partitions: int = 1) -> None:
        self.project, self.partitions, self.prefix = project, partitions, project.name
        self.generation = project.topology.generation
        self.shadow = f"{self.prefix}.shadow.{self.generation}"
        """What this generation of views would have sent, had it been in charge; the header `shadow.of` names the topic."""
        self.generations = f"{self.prefix}.generations"
        self.clock = f"{self.prefix}.clock"
        self.alarms = f"{self.prefix}.alarms"
        self.notices = f"{self.prefix}.notices"
        self.silences = f"{self.prefix}.silences"
        self.flags = f"{self.prefix}.flags"
        self.reviews = f"{self.prefix}.reviews"
        self.queue = f"{self.prefix}.queue"
        self.reviewed = f"{self.prefix}.reviewed"
        self.runs = f"{self.prefix}.runs"
        self.candidates = f"{self.prefix}.candidates"
        self.inferences = f"{self.prefix}.inferences"
        self.models = f"{self.prefix}.models"
        self.commands = f"{self.prefix}.commands"
        self.quarantines = f"{self.prefix}.quarantines"
        self.archive = f"{self.prefix}.archive"
        self.late = f"{self.prefix}.late"
        self.passed = f"{self.prefix}.passed"
        self.partials = f"{self.prefix}.hops.statistics"
        self.quality = f"{self.prefix}.quality"
        self.surveys = f"{self.prefix}.hops.quality"

    @property
    def bounded(self) -> bool:
        """Whether some view bounds its lateness, so that there is a topic of what came later."""
        return any(view.lateness is not None for hop in self.project.topology.hops for view in hop.views)

    @property
    def reviewing(self) -> list[Model]:
        """The models whose answers people look at."""
        return [model for model in self.project.models if model.review is not None]

    def hop(self, key: str) -> str:
        return f"{self.prefix}.hops.{key.replace('+', '.')}.{self.generation}"

    def shard(self, number: int, generation: str = "") -> str:
        """The name of a partition of the feature store, as the online store knows it; of this generation or another."""
        return f"feature_store-{generation or self.generation}.{number}"

    def of_generation(self, generation: str, there: Iterable[str]) -> list[str]:
        """Of the topics that are there, those that a generation of the views keeps for itself: its shadow and its blocks. None:
        there is no such generation (a name may end like another topic's)."""
        known, shadow = set(there), f"{self.prefix}.shadow.{generation}"
        hops = [name for name in known if name.startswith(f"{self.prefix}.hops.") and name.endswith(f".{generation}")]
        return sorted([shadow, *hops]) if shadow in known else []

    def rows(self, event: Event) -> str:
        return f"{self.prefix}.rows.{event.topic}"

    def predictions(self, model: str) -> str:
        return f"{self.prefix}.predictions.{model}"

    def outcomes(self, model: str) -> str:
        return f"{self.prefix}.outcomes.{model}"

    def statistics(self, model: str) -> str:
        return f"{self.prefix}.statistics.{model}"

    def cohorts(self, model: str) -> str:
        return f"{self.prefix}.cohorts.{model}"

    @staticmethod
    def dead_letters(topic: str) -> str:
        return f"{topic}.dlq"

    def contracts(self) -> list[Contract]:
        """All of them; what `topics apply`, the schemas, the pictures and the tests are made from."""
        n, topology = self.partitions, self.project.topology
        labels = {model.label.event for model in self.project.models}
        decided = {model.label.event for model in self.reviewing}
        found = [
            _contract(
                e.topic,
                n,
                e.key.name,
                e,
                "you monitoring" if e in decided else "you",
                "feature_store monitoring" if e in labels else "feature_store",
            )
            for e in self.project.events
        ]
        publishers, readers = "you feature_store inference", "feature_store inference monitoring"
        found.append(_contract(self.clock, 1, "publisher", records.Clock, publishers, readers, compacted=True))
        found += [
            _contract(self.hop(hop.key), n, "none", None, "feature_store", "feature_store", max_bytes=16 << 20)
            for hop in topology.hops
            if hop.upstream
        ]
        found.append(_contract(self.shadow, n, "as it would be", None, "feature_store", "you", max_bytes=16 << 20))
        found.append(_contract(self.generations, 1, "none", records.Charge, "feature_store you", "feature_store you"))
        rows = "feature_store inference" if self.project.models else "feature_store"
        found += [_contract(self.rows(e), n, e.key.name, records.Row, "feature_store", rows) for e in topology.reads]
        found.append(_contract(self.passed, n, "topic", records.Passed, "feature_store", "feature_store you"))
        if self.bounded:
            found.append(_contract(self.late, n, "entity", records.LateEvent, "feature_store", "you"))
        for model in self.project.models:
            name = model.name
            found += [
                _contract(self.predictions(name), n, "event id", records.Prediction, "inference", "monitoring feature_store you"),
                _contract(self.outcomes(name), n, "event id", records.Outcome, "monitoring", "trainer feature_store you"),
                _contract(
                    self.statistics(name),
                    1,
                    "window",
                    records.Statistic,
                    "monitoring",
                    "trainer registry dashboard feature_store you",
                ),
                _contract(self.cohorts(name), 1, "cohort", records.Cohort, "monitoring", "feature_store you"),
            ]
        alarming = "feature_store monitoring trainer" if self.project.models else "feature_store"
        heard = "trainer monitoring dashboard feature_store you" if self.project.models else "monitoring feature_store you"
        found += [
            _contract(self.surveys, 1, "topic", None, "feature_store", "feature_store", max_bytes=16 << 20),
            _contract(self.quality, 1, "topic / day", records.DataQuality, "feature_store", "feature_store you"),
            _contract(self.alarms, 1, "model or topic", records.Alarm, alarming, heard),
            _contract(
                self.silences, 1, "subject / cause", records.Silence, "you", "monitoring feature_store you", compacted=True
            ),
            _contract(
                self.notices,
                1,
                "subject / cause",
                records.Notice,
                "monitoring",
                "monitoring feature_store you",
                max_bytes=4 << 20,
            ),
        ]
        if self.project.models:
            found += [
                _contract(self.inferences, n, "request id", records.Inference, "inference", "feature_store you"),
                _contract(
                    self.partials, 1, "model", records.Partial, "monitoring", "monitoring feature_store", max_bytes=16 << 20
                ),
                _contract(self.runs, 1, "run id", records.Run, "trainer", "trainer dashboard feature_store"),
                _contract(self.candidates, 1, "model", records.Candidate, "trainer", "registry", max_bytes=4 << 20),
                _contract(
                    self.models,
                    1,
                    "model / version",
                    records.Decision,
                    "registry",
                    "inference monitoring registry dashboard feature_store",
                    compacted=True,
                    max_bytes=4 << 20,
                ),
                _contract(self.commands, 1, "model", records.Command, "you", "registry trainer"),
                _contract(
                    self.quarantines, 1, "quarantine", records.Quarantine, "you", "trainer feature_store you", compacted=True
                ),
            ]
        if self.reviewing:
            people = "you inference dashboard"
            found += [
                _contract(self.flags, n, "event id", records.Flag, people, "monitoring feature_store you"),
                _contract(self.reviews, n, "event id", records.Review, people, "monitoring feature_store you"),
                _contract(
                    self.queue,
                    n,
                    "event id / model",
                    records.Queued,
                    "monitoring",
                    "dashboard feature_store you",
                    compacted=True,
                    max_bytes=4 << 20,
                ),
                _contract(self.reviewed, n, "event id", records.Reviewed, "monitoring", "dashboard feature_store you"),
            ]
        found.append(_contract(self.archive, 1, "table", records.Commit, "feature_store", "you"))
        passing = (f"{self.prefix}.hops.", f"{self.prefix}.shadow.")
        named = [c.topic for c in found if not c.topic.name.startswith(passing)]
        events = {event.topic for event in self.project.events}
        return found + [
            _contract(
                self.dead_letters(topic.name),
                topic.partitions,
                "as it came",
                None,
                "any",
                "feature_store you" if topic.name in events else "you",
                max_bytes=16 << 20,
            )
            for topic in named
        ]

    def groups(self) -> dict[str, list[str]]:
        """The consumer groups, and the topics of which each commits positions. What else a service reads, every process of it
        reads whole; and data quality is surveyed in the gaps of other work, so nobody waits for it, nor, where there is no model,
        for who tells people of its alarms: that need not run."""
        hops, models = self.project.topology.hops, self.project.models
        statistics = [self.statistics(model.name) for model in models]
        found = {
            "feature_store": [e.topic for h in hops for e in h.direct] + [self.hop(h.key) for h in hops if h.upstream],
            "inference": [self.rows(m.scores) for m in models],
            "monitoring": [self.predictions(m.name) for m in models] + [m.label.event.topic for m in models],
            "judge": [self.partials],
            "notifier": [self.alarms],
            "review": [*(self.predictions(m.name) for m in self.reviewing), self.flags, self.reviews] if self.reviewing else [],
            "trainer": [*statistics, self.commands],
            "registry": [self.candidates, *statistics, self.commands],
        }
        return {self.group(name): read for name, read in found.items() if read and (models or name == "feature_store")}

    def group(self, service: str) -> str:
        """The consumer group of a service; of the feature store, that of this generation."""
        return f"{self.prefix}.{service}" + (f".{self.generation}" if service == "feature_store" else "")

    def all(self) -> list[Topic]:
        return [contract.topic for contract in self.contracts()]


def _contract(
    name: str, partitions: int, key: str, record: type[msgspec.Struct] | Event | None, writes: str, reads: str, **more: Any
) -> Contract:
    """`writes` and `reads` name services; `more` is said of the topic."""
    return Contract(Topic(name, partitions, **more), key, record, tuple(writes.split()), tuple(reads.split()))
