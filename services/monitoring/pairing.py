"""Pairing: one partition of monitoring. Labels find their predictions, and each window's counts are reported.

    predictions + labels -> intake (stream time) -> book: ledger (join by id) -> outcomes
                                                          window (sums, bins) -> partials

An answer's inputs are counted against the reference of the version that gave it. That version's registration is in the
log before its first answer, but may be read after it; the step then waits for it (at most PATIENCE seconds of wall
clock, as compaction may have removed it), so what is counted follows from the log and not from who was faster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import structlog

from penstock.artefact import Artefacts
from penstock.errors import PenstockError
from penstock.log import Batch, Partition, Send
from penstock.model import Model
from penstock.records import Candidate, Decision
from penstock.runtime.deadletter import dead_letter
from penstock.runtime.lane import Effects
from penstock.runtime.merge import NEVER
from penstock.runtime.outbox import Said
from penstock.scoring.around import Plan
from penstock.statistics.hours import Hours
from penstock.statistics.segmented import Segmented
from penstock.store import Change, Saved
from penstock.topics import Topics

from .answers.intake import UNREADABLE, Intake, Item, SavedIntake
from .book import Book
from .counting.apart import Aside
from .counting.bins import Binner
from .counting.explaining import Explaining
from .counting.window import Window
from .monitors.novelty import Counted

__all__ = ["PairingShard"]

PATIENCE = 5.0


class _Position(msgspec.Struct):
    intake: SavedIntake
    windows: dict[str, Window]
    declared: dict[str, tuple[str, int, bool]] = {}
    """As of the books, when this was saved."""


class PairingShard:
    """Partition `number` of `topics.partitions`. `idle_after`: wall-clock seconds after which a silent label topic is
    passed (see intake.py). `artefacts`: where versions lie whose answers are to be explained; without, none is."""

    def __init__(
        self, number: int, models: Sequence[Model], topics: Topics, idle_after: float = 5.0, artefacts: Artefacts | None = None
    ) -> None:
        self._topics, self._now, self._artefacts = topics, 0.0, artefacts
        self._elsewhere = {event.topic for hop in topics.project.topology.hops for event in hop.direct}
        """Label events that a view takes, too: the feature store dead-letters those."""
        self._explained = {model.name: Plan.of(model) for model in models if model.explain}
        self._sends: list[Send] = []
        self._said = Said()
        self._books = {model.name: Book(model, topics, number, self._sends) for model in models}
        self._readers: dict[str, list[Book]] = {topics.predictions(name): [book] for name, book in self._books.items()}
        self._intake = Intake(
            number,
            topics.partitions,
            list(self._readers),
            [f"inference.{q}" for q in range(topics.partitions)],
            list(dict.fromkeys(model.label.event for model in models)),
            topics.clock,
            idle_after,
        )
        for model in models:
            self._readers.setdefault(model.label.event.topic, []).append(self._books[model.name])
        self._awaited: dict[tuple[str, str], float] = {}
        """Model and version whose registration is still to be read -> since when."""

    def open(self, saved: Saved) -> Mapping[Partition, int]:
        if not saved.position:
            return self._intake.positions()
        position = msgspec.msgpack.decode(saved.position, type=_Position)
        for name, book in self._books.items():
            book.restore(saved.table.items(), position.windows.get(name), position.declared.get(name, book.declared))
        return self._intake.restore(position.intake)

    def recall(self, batch: Batch) -> None:
        self._said.recall(batch)

    def take(self, batches: Sequence[Batch], now: float) -> Sequence[bytes]:
        self._now = now
        for batch in batches:
            if batch.partition.topic == self._topics.models:
                self._follow(batch)
        self._intake.take(batches, now)
        for name, book in self._books.items():
            read = self._intake.versions[self._topics.predictions(name)]
            for version in read | (book.window.bins.keys() if book.window else set()):
                if version not in book.references:
                    self._awaited.setdefault((name, version), now)
            read.clear()
        return ()

    def step(self, loaded: Sequence[tuple[bytes, bytes]]) -> Effects | None:
        if any(self._now - since < PATIENCE for since in self._awaited.values()):
            return None
        for name, version in self._awaited:
            self._books[name].references.setdefault(version, None)
        self._awaited.clear()
        released, frontier = self._intake.release(), self._intake.time
        if frontier == NEVER:
            return None
        begun = [book for book in self._books.values() if book.window is None]
        first = next((time for time in released.times.tolist() if time > NEVER), frontier)
        for book in begun:
            book.window = Window(first // book.length * book.length, empty=book.most_empty)
        for time, item in zip(released.times.tolist(), *released.columns, strict=False):
            self._apply(time, item)
        table: dict[bytes, bytes | None] = {}
        for book in self._books.values():
            book.elapse(frontier)
            book.drain()
            table.update(book.ledger.table)
            book.ledger.table = {}
        if not (begun or len(released) or self._sends or table):
            return None
        windows = {name: book.window for name, book in self._books.items() if book.window is not None}
        declared = {name: book.declared for name, book in self._books.items()}
        position = msgspec.msgpack.encode(_Position(self._intake.saved(), windows, declared))
        sends = self._said.unsaid(self._sends.copy())
        self._sends.clear()
        return Effects(Change(position, table=table), sends, positions=self._intake.positions())

    def _apply(self, time: int, item: Item) -> None:
        feed = item.feed
        feed.track.apply(item.offset)
        for book in self._readers[feed.at.topic]:
            if item.record is None:
                book.ledger.counts["malformed"] += 1
                continue
            book.elapse(time)
            if feed.decoder is None:
                book.answer(time, item)
            else:
                book.label(time, item)
            if item.time < time:
                book.ledger.counts["disordered"] += 1
        if item.record is None and feed.at.topic not in self._elsewhere:
            key, value, headers, refusal = item.raw
            self._sends.append(dead_letter(feed.at, item.offset, key, value, headers, refusal, "monitoring"))

    def _follow(self, batch: Batch) -> None:
        """Learn the references of versions; what is not a decision is passed by, a removed version has none."""
        for key, value in zip(batch.keys, batch.values, strict=True):
            if value is None:
                name, _, version = (key or b"").decode("utf-8", "replace").rpartition("/")
                self._learn(name, version, None)
                continue
            try:
                found = msgspec.json.decode(value, type=Decision)
            except UNREADABLE:
                continue
            if found.candidate is not None:
                self._explain(found.candidate)
                self._profile(found.candidate)
                self._learn(found.model, found.version, self._binner(found.candidate))

    def _binner(self, candidate: Candidate) -> Binner | None:
        """The reference of a version. Where its hours cannot be read it is said, and all hours are compared with all of it."""
        book, hours = self._books.get(candidate.model), None
        if book is None or book.references.get(candidate.version) is not None:
            return None
        try:
            if candidate.hours is not None and self._artefacts is not None:
                hours = Hours.opened(self._artefacts.get(candidate.hours))
        except PenstockError as error:
            about = {"model": candidate.model, "version": candidate.version}
            structlog.get_logger(service="monitoring").warning("reference without hours", **about, cause=str(error))
        grid = candidate.grid, candidate.scores, candidate.customs
        return Binner(candidate.edges, candidate.reference, hours, candidate.spread, *grid, self._aside(book, candidate))

    def _aside(self, book: Book, candidate: Candidate) -> Aside | None:
        """How its answers are counted by level. Where its reference by level cannot be read it is said, and levels are learnt."""
        if not book.segments:
            return None
        reference = None
        try:
            if candidate.segments is not None and self._artefacts is not None:
                reference = Segmented.opened(self._artefacts.get(candidate.segments))
        except PenstockError as error:
            about = {"model": candidate.model, "version": candidate.version}
            structlog.get_logger(service="monitoring").warning("reference without segments", **about, cause=str(error))
        return Aside(book.segments, candidate.inputs, reference)

    def _profile(self, candidate: Candidate) -> None:
        """Be ready to tell what is new to a version."""
        book = self._books.get(candidate.model)
        if book is not None and book.watched and candidate.profile is not None:
            book.profiles.setdefault(candidate.version, Counted(candidate.profile))

    def _explain(self, candidate: Candidate) -> None:
        """Be ready to explain a version's answers."""
        if candidate.model in self._explained and self._artefacts is not None:
            explaining = Explaining(self._artefacts, candidate, self._explained[candidate.model])
            self._books[candidate.model].explaining.setdefault(candidate.version, explaining)

    def _learn(self, name: str, version: str, binner: Binner | None) -> None:
        """What was known of a removed version stays: answers of it may still be read."""
        book = self._books.get(name)
        if book is not None:
            if book.references.get(version) is None:
                book.references[version] = binner if binner and binner.reference else None
            self._awaited.pop((name, version), None)
