"""The judge: the one shard that hears what all pairing shards report, and says what each model's case makes of it (`case`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import structlog

from penstock.log import Batch, Partition, Send
from penstock.model import Model
from penstock.records import Partial
from penstock.runtime.lane import Effects
from penstock.runtime.outbox import Said
from penstock.store import Change, Saved
from penstock.topics import Topics

from .case import Case
from .reading import Reading
from .state import State

__all__ = ["JudgeShard"]


class _Position(msgspec.Struct):
    next: int
    seen: dict[str, int]
    states: dict[str, State]


class JudgeShard:
    """The only shard of the judge: partition 0 of the partials."""

    def __init__(self, models: Sequence[Model], topics: Topics) -> None:
        self._models, self._topics = models, topics
        self._cases = {model.name: Case(model) for model in models}
        self._said = Said()
        self._reading = Reading(Partition(topics.partials, 0))
        self._taken: list[Partial] = []
        self._logger = structlog.get_logger(service="monitoring")
        self._decode = msgspec.json.Decoder(Partial).decode
        self._encode = msgspec.json.Encoder().encode

    def open(self, saved: Saved) -> Mapping[Partition, int]:
        if saved.position:
            position = msgspec.msgpack.decode(saved.position, type=_Position)
            self._reading = Reading(self._reading.at, position.next, position.seen)
            self._cases = {model.name: Case(model, position.states.get(model.name)) for model in self._models}
        return self._reading.positions

    def recall(self, batch: Batch) -> None:
        self._said.recall(batch)

    def take(self, batches: Sequence[Batch], now: float) -> Sequence[bytes]:
        for batch in batches:
            for offset, _, value, _ in self._reading.new(batch):
                try:
                    self._taken.append(self._decode(value or b""))
                except (msgspec.MsgspecError, UnicodeDecodeError) as error:  # this topic is ours alone
                    self._logger.error("not a partial", topic=batch.partition.topic, offset=offset, cause=str(error))
        return ()

    def step(self, loaded: Sequence[tuple[bytes, bytes]]) -> Effects | None:
        if not self._reading.moved():
            return None
        sends: list[Send] = []
        for partial in self._taken:
            case = self._cases.get(partial.model)
            for statistic, alarms, cohorts in case.hear(partial) if case else ():
                start = statistic.start.isoformat().encode()
                sends.append(Send(self._topics.statistics(partial.model), start, self._encode(statistic)))
                sends += [Send(self._topics.alarms, a.model.encode(), self._encode(a)) for a in alarms]
                topic = self._topics.cohorts(partial.model)
                sends += [Send(topic, c.start.isoformat().encode(), self._encode(c)) for c in cohorts]
        self._taken.clear()
        states = {name: case.state for name, case in self._cases.items()}
        position = msgspec.msgpack.encode(_Position(self._reading.next, self._reading.seen, states))
        return Effects(Change(position), self._said.unsaid(sends), positions=self._reading.positions)
