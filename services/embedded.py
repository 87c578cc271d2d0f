"""All services in one process on the log and store in memory: `penstock simulate`, and `penstock demo --embedded`.

The same lanes and controls as on Kafka, turned one after the other in a fixed order until nothing moves, so that a run is a
pure function of its input: two runs give byte-identical decisions. What this cannot do: survive its process, or use several.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import process_time
from typing import Any

import msgspec
import numpy as np

from penstock.artefact import Artefacts
from penstock.log import Send
from penstock.log.memory import MemoryLog
from penstock.offline import Location
from penstock.project import Project
from penstock.publish import FOREVER
from penstock.records import Clock, Decision
from penstock.runtime.control import ControlLoop
from penstock.runtime.lane import Lane
from penstock.scoring.around import Plan
from penstock.scoring.decisions import held, keep
from penstock.store import Store
from penstock.store.memory import MemoryStore
from penstock.topics import Topics

from .feature_store import quality
from .feature_store import service as feature_store
from .feature_store.archive import Archive
from .inference import service as inference
from .inference.meters import Meters
from .inference.sessions import Sessions
from .monitoring import service as monitoring
from .registry.service import Registry
from .trainer.service import Trainer

__all__ = ["Embedded", "Event", "scoring", "slices"]

Event = tuple[str, bytes, bytes, int]


class Embedded:
    """A running project. Publish events in order of time, `settle`, look at the log. `tables` is where all of it is archived."""

    def __init__(
        self,
        project: Project,
        folder: Path,
        partitions: int = 1,
        store: Store | None = None,
        tables: Location | Path | None = None,
        seed: int = 0,
    ) -> None:
        self.project, self.topics = project, Topics(project, partitions)
        self.log = MemoryLog()
        self.store: Store = store or MemoryStore()
        self.artefacts = Artefacts(folder / "models")
        meters = Meters()
        self.sessions = Sessions(self.artefacts, meters)
        self.lanes: list[Lane] = [
            *feature_store.lanes(self.topics, self.log, self.store, None),
            *inference.lanes(self.topics, self.log, self.store, self.sessions, meters, None),
            *monitoring.lanes(project, self.topics, self.log, self.store, math.inf, artefacts=self.artefacts),
            *quality.lanes(self.topics, self.log, self.store, every=math.inf, idle_after=None),
        ]
        self.controls: list[ControlLoop] = []
        if project.models:
            self.controls = [
                ControlLoop(Trainer(self.topics, self.log, self.artefacts, seed=seed), self.log, "trainer"),
                ControlLoop(Registry(self.topics), self.log, "registry"),
            ]
        self.archive = Archive(self.topics, self.log, tables) if tables is not None else None
        self._said = Archive(self.topics, self.log, tables, whole=True) if tables is not None else None
        self.learning = 0.0
        """Processor seconds that the trainer has worked: what it fitted, taught, and read for that."""

    async def start(self) -> None:
        await self.log.create(self.topics.all())

    async def publish(self, events: Sequence[Event], before: int) -> None:
        """Publish events (topic, key, JSON, microseconds) and close all time before `before`."""
        ends = await self.log.ends([e.topic for e in self.project.events])
        ends |= await self.log.send([Send(topic, key, value) for topic, key, value, _ in events])
        closed: dict[str, dict[int, int]] = {}
        for partition, end in ends.items():
            closed.setdefault(partition.topic, {})[partition.number] = end
        said = Clock(publisher="publisher", before=before, ends=closed)
        await self.log.send([Send(self.topics.clock, b"publisher", msgspec.json.encode(said))])

    async def settle(self) -> None:
        """Turn every service until nothing moves."""
        moved = True
        while moved:
            moved = False
            turns = [(lane.name, lane.turn) for lane in self.lanes] + [(control.name, control.turn) for control in self.controls]
            for name, turn in turns:
                began = process_time()
                while await turn(0.0):
                    moved = True
                if name == "trainer":
                    self.learning += process_time() - began
        if self.archive is not None:
            while await self.archive.turn():
                pass

    async def close(self) -> None:
        if self.project.models:  # so that they can be loaded when the log is gone
            keep(self.artefacts.root, self.topics.models, (await held(self.log, self.topics.models))[0])
        for lane in self.lanes:
            await lane.close()
        self.sessions.close()
        if self.archive is not None and self._said is not None:
            await self.archive.close()
            while await self._said.turn():
                pass
            await self._said.close()


def scoring(artefacts: Artefacts, project: Project) -> Any:
    """Scores by the version of a decision, for the audit."""
    sessions = Sessions(artefacts, Meters())

    def score(decision: Decision, inputs: Any) -> Any:
        model = project.model(decision.model)
        member = sessions.member(decision, model.inputs, plan=Plan.of(model))
        return np.full(len(inputs), 0.5) if member is None else member.score(inputs)

    return score


def slices(events: Sequence[Event], length: int) -> Iterator[tuple[Sequence[Event], int]]:
    """Events in order of time, cut at multiples of `length` microseconds, each with the time that it closes."""
    first = 0
    while first < len(events):
        before = events[first][3] // length * length + length
        last = first
        while last < len(events) and events[last][3] < before:
            last += 1
        yield events[first:last], before if last < len(events) else FOREVER
        first = last
