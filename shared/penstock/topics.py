"""Every topic once, in the order in which data flows."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from . import records
from .event import Event
from .log import Topic
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
        self.clock = f"{self.prefix}.clock"
        self.alarms = f"{self.prefix}.alarms"
        self.runs = f"{self.prefix}.runs"
        self.candidates = f"{self.prefix}.candidates"
        self.models = f"{self.prefix}.models"
        self.commands = f"{self.prefix}.commands"
        self.archive = f"{self.prefix}.archive"
        self.partials = f"{self.prefix}.hops.statistics"

    def hop(self, key: str) -> str:
        return f"{self.prefix}.hops.{key.replace('+', '.')}"

    def rows(self, event: Event) -> str:
        return f"{self.prefix}.rows.{event.topic}"

    def predictions(self, model: str) -> str:
        return f"{self.prefix}.predictions.{model}"

    def outcomes(self, model: str) -> str:
        return f"{self.prefix}.outcomes.{model}"

    def statistics(self, model: str) -> str:
        return f"{self.prefix}.statistics.{model}"

    @staticmethod
    def dead_letters(topic: str) -> str:
        return f"{topic}.dlq"

    def contracts(self) -> list[Contract]:
        """All of them; what `topics apply`, the schemas, the pictures and the tests are made from."""
        n = self.partitions
        labels = {model.label.event for model in self.project.models}
        found = []
        for event in self.project.events:
            readers = ("feature_store", "monitoring") if event in labels else ("feature_store",)
            found.append(Contract(Topic(event.topic, n), event.key.name, event, ("you",), readers))
        found.append(
            Contract(
                Topic(self.clock, 1, compacted=True),
                "publisher",
                records.Clock,
                ("you", "feature_store", "inference"),
                ("feature_store", "monitoring"),
            )
        )
        found += [
            Contract(Topic(self.hop(hop.key), n, max_bytes=16 << 20), "none", None, ("feature_store",), ("feature_store",))
            for hop in self.project.topology.hops
            if hop.upstream
        ]
        found += [
            Contract(Topic(self.rows(e), n), e.key.name, records.Row, ("feature_store",), ("inference",))
            for e in self.project.topology.reads
        ]
        for model in self.project.models:
            found.append(
                Contract(
                    Topic(self.predictions(model.name), n),
                    "event id",
                    records.Prediction,
                    ("inference",),
                    ("monitoring", "you"),
                )
            )
            found.append(
                Contract(
                    Topic(self.outcomes(model.name), n),
                    "event id",
                    records.Outcome,
                    ("monitoring",),
                    ("trainer", "you"),
                )
            )
            found.append(
                Contract(
                    Topic(self.statistics(model.name), 1),
                    "window",
                    records.Statistic,
                    ("monitoring",),
                    ("trainer", "registry", "dashboard", "you"),
                )
            )
        if self.project.models:
            found += [
                Contract(Topic(self.partials, 1), "model", records.Partial, ("monitoring",), ("monitoring",)),
                Contract(Topic(self.alarms, 1), "model", records.Alarm, ("monitoring",), ("trainer", "registry", "dashboard")),
                Contract(Topic(self.runs, 1), "run id", records.Run, ("trainer",), ("registry", "dashboard")),
                Contract(
                    Topic(self.candidates, 1, max_bytes=4 << 20),
                    "model",
                    records.Candidate,
                    ("trainer",),
                    ("registry",),
                ),
                Contract(
                    Topic(self.models, 1, compacted=True, max_bytes=4 << 20),
                    "model / version",
                    records.Decision,
                    ("registry",),
                    ("inference", "monitoring", "trainer", "dashboard"),
                ),
                Contract(Topic(self.commands, 1), "model", records.Command, ("you",), ("registry", "trainer")),
            ]
        found.append(Contract(Topic(self.archive, 1), "table", records.Commit, ("feature_store",), ("trainer", "you")))
        named = [c.topic for c in found if not c.topic.name.startswith(f"{self.prefix}.hops.")]
        found += [
            Contract(
                Topic(self.dead_letters(t.name), t.partitions, max_bytes=16 << 20),
                "as it came",
                None,
                ("any",),
                ("you",),
            )
            for t in named
        ]
        return found

    def all(self) -> list[Topic]:
        return [contract.topic for contract in self.contracts()]
