"""The notifier: one shard that decides which alarms people are told of (`notices`). Couriers carry what it says (`courier`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import structlog

from penstock.duration import DAY, HOUR
from penstock.log import Batch, Partition, Send
from penstock.records import Alarm, Notice, Silence
from penstock.runtime.lane import Effects
from penstock.runtime.outbox import Said
from penstock.store import Change, Saved
from penstock.topics import Topics

from .meters import lasting
from .notices import Board
from .reading import Reading

__all__ = ["NotifierShard"]


_LARGEST: Final = 2 << 20
"""Bytes of a notice with all evidence, half of what its topic takes; each alarm has its own on the alarms topic."""


class _Position(msgspec.Struct):
    next: int
    seen: dict[str, int]
    board: Board


class NotifierShard:
    """The only shard of the notifier: partition 0 of the alarms. See `Board.hear` for `window` and `repeat`."""

    def __init__(self, topics: Topics, window: int = HOUR, repeat: int = 7 * DAY) -> None:
        self._topics, self._window, self._repeat = topics, window, repeat
        self._reading = Reading(Partition(topics.alarms, 0))
        self._board, self._said = Board(), Said()
        self._taken: list[Alarm] = []
        self._lasting = lasting()  # there before the first alarm: who watches it tells none from a service that is gone
        self._logger = structlog.get_logger(service="monitoring")

    def open(self, saved: Saved) -> Mapping[Partition, int]:
        if saved.position:
            position = msgspec.msgpack.decode(saved.position, type=_Position)
            self._reading, self._board = Reading(self._reading.at, position.next, position.seen), position.board
        return self._reading.positions

    def recall(self, batch: Batch) -> None:
        self._said.recall(batch)

    def take(self, batches: Sequence[Batch], now: float) -> Sequence[bytes]:
        for batch in batches:
            silences = batch.partition.topic == self._topics.silences
            records = zip(batch.offsets, batch.keys, batch.values, strict=True)
            for offset, key, value in records if silences else (found[:3] for found in self._reading.new(batch)):
                try:
                    if silences:
                        self._silence(key, value)
                    else:
                        self._taken.append(msgspec.json.decode(value or b"", type=Alarm))
                except (msgspec.MsgspecError, UnicodeDecodeError) as error:  # what writes these topics is ours
                    self._logger.error("unreadable", topic=batch.partition.topic, offset=offset, cause=str(error))
        return ()

    def _silence(self, key: bytes | None, value: bytes | None) -> None:
        subject, _, cause = (key or b"").decode().partition("/")
        self._board.silence(subject, cause, None if value is None else msgspec.json.decode(value, type=Silence))

    def step(self, loaded: Sequence[tuple[bytes, bytes]]) -> Effects | None:
        if not self._reading.moved():
            return None
        notices = [self._board.hear(alarm, self._window, self._repeat) for alarm in self._taken]
        self._taken.clear()
        sends = [
            Send(self._topics.notices, f"{said.subject}/{said.cause}".encode(), _encoded(said))
            for said in notices
            if said is not None
        ]
        for (subject, cause), number in self._board.lasting().items():
            self._lasting.labels(subject, cause).set(number)
        position = msgspec.msgpack.encode(_Position(self._reading.next, self._reading.seen, self._board))
        return Effects(Change(position), self._said.unsaid(sends), positions=self._reading.positions)


def _encoded(notice: Notice) -> bytes:
    """The notice; where it would be larger than its topic takes, without evidence: that its alarms last is what people need."""
    value = msgspec.json.encode(notice)
    if len(value) <= _LARGEST:
        return value
    bare = [msgspec.structs.replace(each, evidence={"evidence": "too large to be told"}) for each in notice.alarms]
    return msgspec.json.encode(msgspec.structs.replace(notice, alarms=bare))
