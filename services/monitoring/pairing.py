"""Pairing: one partition of monitoring. Labels find their predictions, and each window's counts are reported.

    predictions + labels -> intake (stream time) -> ledger (join by id) -> outcomes
                                                 -> window (sums, bins) -> partials

An answer's inputs are counted against the reference of the version that gave it. That version's registration is in the
log before its first answer, but may be read after it; the step then waits for it (at most `patience` seconds of wall
clock, as compaction may have removed it), so what is counted follows from the log and not from who was faster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from penstock.deadletter import dead_letter
from penstock.errors import Refused
from penstock.event import from_micros
from penstock.lane import FROM, SEQUENCE, Effects
from penstock.log import Batch, Partition, Send
from penstock.merge import NEVER
from penstock.model import Model
from penstock.records import Outcome
from penstock.store import Change, Saved
from penstock.topics import Topics

from .bins import Binner
from .intake import UNREADABLE, Intake, Item, SavedIntake
from .ledger import Ledger, Settled
from .window import SavedWindow, Window, length_of

__all__ = ["MOST_EMPTY", "PairingShard"]

MOST_EMPTY = 10_000
"""A jump over more empty windows than this is reported as one record."""


class _Reference(msgspec.Struct):
    edges: dict[str, list[float]]
    reference: dict[str, list[int]]


class _Registered(msgspec.Struct):
    """What a shard needs of a Decision."""

    model: str
    version: str
    candidate: _Reference | None = None


class _Position(msgspec.Struct):
    intake: SavedIntake
    windows: dict[str, SavedWindow]


class _Book:
    """One model here: its ledger, its window under way, the references it knows."""

    def __init__(self, model: Model, topics: Topics) -> None:
        self.model, self.name, self.length = model, model.name, length_of(model)
        self.predictions, self.outcomes = topics.predictions(model.name), topics.outcomes(model.name)
        self.ledger = Ledger(model.name, model.label.within, model.label.otherwise)
        self.window: Window | None = None
        self.binners: dict[str, Binner | None] = {}
        self.unbinned: dict[str, list[Any]] = {}

    @property
    def end(self) -> int:
        """The next border; a window that was begun under another length ends early."""
        assert self.window is not None
        return (self.window.start // self.length + 1) * self.length


class PairingShard:
    """Partition `number` of `topics.partitions`. `idle_after`: wall-clock seconds after which a silent label topic is
    passed (see intake.py). `patience`: seconds that a version's registration is waited for."""

    def __init__(
        self, number: int, models: Sequence[Model], topics: Topics, idle_after: float = 5.0, patience: float = 5.0
    ) -> None:
        self._number, self._topics, self._patience = number, topics, patience
        self._books = [_Book(model, topics) for model in models]
        self._by_model = {book.name: book for book in self._books}
        self._by_topic = {book.predictions: book for book in self._books}
        self._answers_to: dict[str, list[tuple[_Book, str, str]]] = {}
        for book in self._books:
            column = book.model.label.column
            self._answers_to.setdefault(column.event.topic, []).append((book, column.event.key.name, column.name))
        self._intake = Intake(
            number,
            topics.partitions,
            [book.predictions for book in self._books],
            [f"inference.{q}" for q in range(topics.partitions)],
            list(dict.fromkeys(model.label.event for model in models)),
            topics.clock,
            idle_after,
        )
        self._awaited: set[tuple[str, str]] = set()
        self._since: float | None = None
        self._now = 0.0
        self._border = NEVER
        self._sends: list[Send] = []
        self._encode = msgspec.json.Encoder().encode

    def open(self, saved: Saved) -> Mapping[Partition, int]:
        if not saved.position:
            return self._intake.restore(SavedIntake())
        position = msgspec.msgpack.decode(saved.position, type=_Position)
        for book in self._books:
            book.ledger.restore(saved.table.items())
            window = position.windows.get(book.name)
            if window is not None:
                book.window = Window.restored(window)
                self._awaited.update((book.name, version) for version in book.window.versions)
        for book in self._books:
            if book.window is None and position.intake.released > NEVER:  # a model that is new to this project
                book.window = Window(position.intake.released // book.length * book.length)
        self._border = min((book.end for book in self._books if book.window), default=NEVER)
        return self._intake.restore(position.intake)

    def take(self, batches: Sequence[Batch], now: float) -> Sequence[bytes]:
        self._now = now
        for batch in batches:
            if batch.partition.topic == self._topics.models:
                self._follow(batch)
        self._intake.take(batches, now)
        for topic, versions in self._intake.versions.items():
            book = self._by_topic[topic]
            self._awaited.update((book.name, version) for version in versions if version not in book.binners)
            versions.clear()
        if not self._awaited:
            self._since = None
        elif self._since is None:
            self._since = now
        return ()

    def step(self, loaded: Sequence[tuple[bytes, bytes]]) -> Effects | None:
        if self._since is not None:
            if self._now - self._since < self._patience:
                return None
            self._since = None
            for model, version in self._awaited:
                self._by_model[model].binners.setdefault(version, None)
            self._awaited.clear()
        released = self._intake.release()
        for time, item in zip(released.times.tolist(), *released.columns, strict=False):
            self._apply(time, item)
        first, frontier = self._border == NEVER, self._intake.time
        if frontier > NEVER:
            self._advance(frontier)
            for book in self._books:
                book.ledger.expire(frontier)
                self._drain(book)
        moved = len(released) or self._sends or any(book.ledger.table for book in self._books)
        return self._effects() if moved or first != (self._border == NEVER) else None

    def _effects(self) -> Effects:
        table: dict[bytes, bytes | None] = {}
        for book in self._books:
            table.update(book.ledger.table)
            book.ledger.table = {}
        windows = {book.name: book.window.saved() for book in self._books if book.window is not None}
        position = msgspec.msgpack.encode(_Position(self._intake.saved(), windows))
        sends, self._sends = self._sends, []
        return Effects(Change(position, table=table), sends, positions=self._intake.positions())

    def _apply(self, time: int, item: Item) -> None:
        feed, record = item.feed, item.record
        feed.track.apply(item.offset)
        if record is None:
            self._refuse(item)
            return
        if time >= self._border:
            self._advance(time)
        topic = feed.at.topic
        book = self._by_topic.get(topic)
        if book is not None:
            ledger = book.ledger
            ledger.expire(time)
            if ledger.answer(time, item.time, record, item.raw) and record.digest:
                book.unbinned.setdefault(record.version, []).append(record.inputs)
            if item.time < time:
                ledger.counts["disordered"] += 1
            return
        for book, key, column in self._answers_to[topic]:
            ledger, label = book.ledger, getattr(record, column)
            ledger.expire(time)
            if label is None:
                ledger.counts["blank"] += 1
            else:
                ledger.label(time, item.time, str(getattr(record, key)), label)
            if item.time < time:
                ledger.counts["disordered"] += 1

    def _refuse(self, item: Item) -> None:
        """Dead-letter a prediction that cannot be read. Label events are by the feature store, which reads them too."""
        topic = item.feed.at.topic
        book = self._by_topic.get(topic)
        for refused in [book] if book else [b for b, _, _ in self._answers_to[topic]]:
            refused.ledger.counts["malformed"] += 1
        if book:
            key, value, headers, cause = item.raw
            kept = tuple(header for header in headers if header[0] not in (FROM, SEQUENCE))
            letters, why = self._topics.dead_letters(topic), Refused("schema", cause)
            self._sends.append(dead_letter(letters, item.feed.at, item.offset, key, value, kept, why, "monitoring"))

    def _advance(self, to: int) -> None:
        """Close the windows of all models that end by `to`, in order."""
        for book in self._books:
            if book.window is None:
                book.window = Window(to // book.length * book.length)
        while (book := min(self._books, key=lambda b: b.end)).end <= to:
            self._close(book, to)
        self._border = book.end

    def _close(self, book: _Book, to: int) -> None:
        window, end = book.window, book.end
        assert window is not None
        book.ledger.expire(end)
        self._drain(book)
        self._report(book, window, end)
        book.window = Window(end)
        quiet = book.ledger.quiet(to)
        if (quiet - end) // book.length > MOST_EMPTY:
            until = quiet // book.length * book.length
            self._report(book, book.window, until)
            book.window = Window(until)

    def _report(self, book: _Book, window: Window, end: int) -> None:
        for partial in window.partials(book.name, end, self._number, self._topics.partitions, book.binners):
            self._sends.append(Send(self._topics.partials, book.name.encode(), self._encode(partial)))

    def _drain(self, book: _Book) -> None:
        """Count and publish what was settled, and count inputs, in the window under way."""
        window = book.window
        if window is None:
            return
        for settled in book.ledger.settled:
            window.judge(settled)
            self._sends.append(self._outcome(book, settled))
        book.ledger.settled.clear()
        for word, count in book.ledger.counts.items():
            if count:
                window.counts[word] += count
                book.ledger.counts[word] = 0
        for version, rows in book.unbinned.items():
            binner = book.binners.get(version)
            if binner is not None and binner.names:
                window.bin(version, binner, rows)
        book.unbinned.clear()

    def _outcome(self, book: _Book, settled: Settled) -> Send:
        answer = settled.answer
        outcome = Outcome(
            id=answer.id,
            key=answer.key,
            model=book.name,
            time=answer.time,
            labelled=from_micros(settled.labelled),
            label=settled.label,
            answered=settled.answered,
            inputs=answer.inputs,
            score=answer.score,
            scores=answer.scores,
            version=answer.version,
            variant=answer.variant,
            corrects=settled.corrects,
        )
        headers = (("traceparent", answer.traceparent.encode()),) if answer.traceparent else ()
        return Send(book.outcomes, answer.id.encode(), self._encode(outcome), headers, self._number)

    def _follow(self, batch: Batch) -> None:
        """Learn the references of versions; what is not a decision is passed by, a removed version has none."""
        for key, value in zip(batch.keys, batch.values, strict=True):
            if value is None:
                model, _, version = (key or b"").decode("utf-8", "replace").rpartition("/")
                self._learn(model, version, None)
                continue
            try:
                found = msgspec.json.decode(value, type=_Registered)
            except UNREADABLE:
                continue
            if found.candidate is not None:
                self._learn(found.model, found.version, Binner(found.candidate.edges, found.candidate.reference))

    def _learn(self, model: str, version: str, binner: Binner | None) -> None:
        book = self._by_model.get(model)
        if book is not None:
            if book.binners.get(version) is None:
                book.binners[version] = binner
            self._awaited.discard((model, version))
