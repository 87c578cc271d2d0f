"""Reviewer: one partition of what people are asked about. The answers, the flags and the reviews of an id lie in one partition.

    predictions + flags + reviews -> docket (one a model) -> queue, reviewed, label events

The stream's time is that of the newest answer read here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from penstock.errors import Refused
from penstock.event import to_micros
from penstock.log import Batch, Partition, Send, partition_of
from penstock.records import Flag, Review
from penstock.reviewing.word import meant
from penstock.runtime.deadletter import dead_letter
from penstock.runtime.lane import Effects
from penstock.runtime.outbox import Said
from penstock.store import Change, Saved
from penstock.topics import Topics

from .answers.intake import UNREADABLE
from .docket import Asked, Docket
from .reading import Reading

__all__ = ["ReviewShard"]


class _Position(msgspec.Struct):
    readings: dict[str, tuple[int, dict[str, int]]]
    """Topic -> where to read on, and the numbers that were seen."""
    times: dict[str, int]
    """Model -> the time of its docket."""
    queued: dict[str, list[str]]
    unknown: dict[str, list[str]] = {}
    """Model -> ids without an answer, the oldest first."""


class ReviewShard:
    """Partition `number` of `topics.partitions`."""

    def __init__(self, number: int, topics: Topics) -> None:
        self._number, self._topics = number, topics
        self._sends: list[Send] = []
        self._dockets = {model.name: Docket(model, topics, self._sends) for model in topics.reviewing}
        self._asked = {topics.predictions(name): docket for name, docket in self._dockets.items()}
        self._readings = {topic: Reading(Partition(topic, number)) for topic in (*self._asked, topics.flags, topics.reviews)}
        self._times = {"at", *(model.label.event.time.name for model in topics.reviewing)}
        self._said = Said(self._named)
        self._taken: list[Batch] = []

    def open(self, saved: Saved) -> Mapping[Partition, int]:
        if saved.position:
            position = msgspec.msgpack.decode(saved.position, type=_Position)
            for topic in self._readings.keys() & position.readings.keys():
                self._readings[topic] = Reading(Partition(topic, self._number), *position.readings[topic])
            for name, docket in self._dockets.items():
                if name in position.times:
                    queued, unknown = position.queued.get(name, ()), position.unknown.get(name, ())
                    docket.restore(saved.table.items(), queued, position.times[name], unknown)
        return self._positions()

    def recall(self, batch: Batch) -> None:
        self._said.recall(batch)

    def take(self, batches: Sequence[Batch], now: float) -> Sequence[bytes]:
        self._taken += [batch for batch in batches if batch.partition.topic in self._readings]
        return ()

    def step(self, loaded: Sequence[tuple[bytes, bytes]]) -> Effects | None:
        if not self._taken:
            return None
        for batch in self._taken:
            docket = self._asked.get(batch.partition.topic)
            if docket is None:
                self._hear(batch)
            else:
                self._answers(docket, batch)
        self._taken.clear()
        table: dict[bytes, bytes | None] = {}
        for docket in self._dockets.values():
            table.update(docket.table)
            docket.table = {}
        times = {name: docket.now for name, docket in self._dockets.items()}
        readings = {topic: (reading.next, reading.seen) for topic, reading in self._readings.items()}
        queued, unknown = ({name: of(docket) for name, docket in self._dockets.items()} for of in (Docket.queued, Docket.unknown))
        position = _Position(readings, times, queued, unknown)
        queue = self._topics.queue  # said again after a loss: the newest record of an answer is right, whatever was before
        sends = self._said.unsaid([send for send in self._sends if send.topic != queue])
        sends += [send for send in self._sends if send.topic == queue]
        self._sends.clear()
        return Effects(Change(msgspec.msgpack.encode(position), table=table), sends, positions=self._positions())

    def _positions(self) -> dict[Partition, int]:
        return {reading.at: reading.next for reading in self._readings.values()}

    def _answers(self, docket: Docket, batch: Batch) -> None:
        """Answers that cannot be read are dead-lettered by the lane that pairs them with labels."""
        for _, _, value, _ in self._readings[batch.partition.topic].new(batch):
            try:
                asked = _asked(value or b"")
                time = to_micros(asked.time)
            except UNREADABLE:
                continue
            docket.answer(asked, time)

    def _hear(self, batch: Batch) -> None:
        """Flags or reviews. What is none is dead-lettered."""
        topic = batch.partition.topic
        decode: Any = _flag if topic == self._topics.flags else _review
        for offset, key, value, head in self._readings[topic].new(batch):
            try:
                said = self._read(decode, value)
            except Refused as refused:
                self._sends.append(dead_letter(batch.partition, offset, key, value, head, refused, "monitoring"))
                continue
            docket = self._dockets[said.model]
            (docket.flag if topic == self._topics.flags else docket.hear)(said, to_micros(said.at))

    def _read(self, decode: Any, value: bytes | None) -> Any:
        """A Flag or a Review that concerns us. Raises Refused."""
        try:
            said = decode(value or b"")
            to_micros(said.at)
        except UNREADABLE as error:
            raise Refused("schema", str(error)) from None
        if said.model not in self._dockets:
            raise Refused("unknown", f"no answers of a model {said.model!r} are reviewed")
        if said.word is not None:
            meant(self._dockets[said.model].label, said.word)
        if partition_of(said.prediction.encode(), self._topics.partitions) != self._number:
            raise Refused("misplaced", f"what is said of {said.prediction!r} is keyed by it, and belongs to another partition")
        return said

    def _named(self, value: bytes | None) -> object:
        """What names a record of ours: its id, else (a label) all that it says but when, which depends on what was read first."""
        said = msgspec.json.decode(value or b"{}")
        return said["id"] if "id" in said else msgspec.json.encode({k: v for k, v in said.items() if k not in self._times})


_asked = msgspec.json.Decoder(Asked).decode
_flag = msgspec.json.Decoder(Flag).decode
_review = msgspec.json.Decoder(Review).decode
