"""One partition of inference: scores every row with what the models topic says is in charge, publishes the answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog

from penstock.deadletter import dead_letter
from penstock.errors import Refused
from penstock.event import Event
from penstock.lane import FROM, SEQUENCE, Effects, Redelivered
from penstock.log import Batch, Headers, Partition, Send
from penstock.merge import NEVER, Frontiers
from penstock.model import Model
from penstock.records import Clock
from penstock.store import Change, Saved
from penstock.topics import Topics

from .answers import AnswerWriter
from .duty import Duty
from .meters import Meters
from .roster import Rosters
from .rows import Inputs, RowReader, Rows, Values, matrix
from .scoring import score
from .sessions import Sessions

__all__ = ["ScoringShard"]

_clock = msgspec.json.Decoder(Clock).decode
_SERVED = b"/served"


@dataclass(frozen=True)
class _Desk:
    """What answering one model takes."""

    duty: Duty
    inputs: Inputs
    pick: Callable[[Values], Values] | None
    writer: AnswerWriter


class ScoringShard:
    """The state machine of partition `number`; see `lane.Shard` for how it is driven.

    State: the positions in the rows topics and in the models topic, and the alias records as of then; so a restart goes
    on with the models that it had, and hears of each decision once. `writers` names who closes times of the rows
    topics. `clock` gives wall-clock seconds for the latency of answers; without it (replay) latencies are 0.
    """

    def __init__(
        self,
        topics: Topics,
        number: int,
        sessions: Sessions,
        meters: Meters,
        writers: Sequence[str],
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.topics, self.number, self._meters, self._time = topics, number, meters, clock
        project = topics.project
        self._events: dict[str, Event] = {topics.rows(m.scores): m.scores for m in project.models}
        self._readers: dict[str, RowReader] = {}
        self._desks: dict[str, list[_Desk]] = {}
        source = f"/{project.name}/inference"
        for topic, event in self._events.items():
            models = [m for m in project.models if m.scores is event]
            reader = self._readers[topic] = RowReader(event, models)
            self._desks[topic] = [_desk(topics, m, reader, source, sessions, meters) for m in models]
        self._duties = {desk.duty.model.name: desk.duty for desks in self._desks.values() for desk in desks}
        self._frontiers = Frontiers({topic: tuple(writers) for topic in self._events})
        self._rosters = Rosters()
        self._saved_table: dict[bytes, bytes] = {}
        self._models_read = 0
        self._read: dict[str, int] = dict.fromkeys(self._events, 0)
        self._redelivered = Redelivered()
        self._closed = NEVER
        self._batches: list[Batch] = []
        self._now = 0.0
        self._logger = structlog.get_logger(service="inference", shard=number)

    # --- opening ------------------------------------------------------------------------------------------------------

    def open(self, saved: Saved) -> Mapping[Partition, int]:
        if saved.version:
            position: dict[str, Any] = msgspec.msgpack.decode(saved.position)
            self._read |= {t: n for t, n in position["rows"].items() if t in self._read}
            self._models_read = position["models"]
            self._redelivered = Redelivered(position["seen"])
            self._saved_table = dict(saved.table)
            self._rosters = Rosters.restored({k: v for k, v in saved.table.items() if not k.endswith(_SERVED)})
            for name, duty in self._duties.items():
                duty.restore(saved.table.get(name.encode() + _SERVED), self._rosters.of(name), self._now)
        return {Partition(topic, self.number): offset for topic, offset in self._read.items()}

    # --- reading ------------------------------------------------------------------------------------------------------

    def take(self, batches: Sequence[Batch], now: float) -> Sequence[bytes]:
        self._batches += batches
        self._now = now
        return ()

    def step(self, loaded: Sequence[tuple[bytes, bytes]]) -> Effects | None:
        batches, self._batches = self._batches, []
        moved = False
        for duty in self._duties.values():
            duty.retry(self._now)
        rows = []
        for batch in batches:  # decisions first, so that a swap has no gap
            if batch.partition.topic == self.topics.models:
                moved |= self._decide(batch)
            elif batch.partition.topic == self.topics.clock:
                self._hear(batch)
            else:
                rows.append(batch)
        sends: list[Send] = []
        for batch in rows:
            sends += self._answer(batch)
            self._read[batch.partition.topic] = batch.next
            moved = True
        closed = self._close()
        if not moved and closed is None:
            return None
        return Effects(self._change(), sends, closed, {Partition(t, self.number): n for t, n in self._read.items()})

    def _decide(self, batch: Batch) -> bool:
        """Follow the models topic; what is included in the restored state is passed over."""
        changed: dict[str, None] = {}
        moved = False
        for offset, key, value in zip(batch.offsets, batch.keys, batch.values, strict=True):
            if offset < self._models_read:
                continue
            self._models_read, moved = offset + 1, True
            try:
                changed[self._rosters.hear(key, value)] = None
            except Refused as refusal:
                self._meters.decisions.inc()
                self._logger.error("decision refused", offset=offset, cause=str(refusal), meaning="the roster stays as it is")
        for name in changed:
            if name in self._duties:
                self._duties[name].follow(self._rosters.of(name), self._now)
        return moved

    def _hear(self, batch: Batch) -> None:
        """Keep what the clock says of the rows that are read here."""
        for value in batch.values:
            if value is None:
                continue
            clock = _clock(value)
            ends = {
                topic: {self.number: numbers[self.number]}
                for topic, numbers in clock.ends.items()
                if topic in self._read and self.number in numbers
            }
            if ends:
                self._frontiers.hear(Clock(publisher=clock.publisher, before=clock.before, ends=ends))

    def _close(self) -> int | None:
        """The time before which all rows have been answered, when it moved."""
        closed = min((self._frontiers.at(Partition(t, self.number), n) for t, n in self._read.items()), default=NEVER)
        if closed <= self._closed:
            return None
        self._closed = closed
        return closed

    # --- answering ----------------------------------------------------------------------------------------------------

    def _answer(self, batch: Batch) -> list[Send]:
        topic = batch.partition.topic
        offsets, keys, values, headers, traces = self._new(batch)
        rows = self._readers[topic].read(values)
        sends = []
        for place, refusal in rows.refused.items():
            self._meters.refused.labels(refusal.reason).inc()
            sends.append(
                dead_letter(
                    self.topics.dead_letters(topic), batch.partition, offsets[place], keys[place], values[place],
                    tuple(h for h in headers[place] if h[0] not in (FROM, SEQUENCE)), refusal, "inference",
                )
            )  # fmt: skip
        if rows.ids:
            entities = [(keys[place] or b"").decode("utf-8", "replace") for place in rows.places]
            traced = [traces[place] for place in rows.places]
            for desk in self._desks[topic]:
                sends += self._score(desk, rows, entities, traced)
        return sends

    def _new(self, batch: Batch) -> tuple[list[int], list[bytes | None], list[bytes | None], list[Headers], list[bytes]]:
        """The records not had before, as columns, with their traceparent."""
        headers = batch.headers or [()] * len(batch)
        places = [i for i, found in enumerate(headers) if self._redelivered.new(found)]
        traces = [next((v for name, v in headers[i] if name == "traceparent"), b"") for i in places]
        return (
            [batch.offsets[i] for i in places],
            [batch.keys[i] for i in places],
            [batch.values[i] for i in places],
            [headers[i] for i in places],
            traces,
        )

    def _score(self, desk: _Desk, rows: Rows, entities: list[str], traces: list[bytes]) -> list[Send]:
        model = desk.duty.model
        values = rows.values if desk.pick is None else list(map(desk.pick, rows.values))
        scored = score(model.name, matrix(values, len(model.inputs)), entities, desk.duty.serving)
        latency = max(0.0, self._time() - self._now) if self._time is not None else 0.0
        return desk.writer.write(rows.ids, entities, rows.times, values, scored, latency, traces)

    # --- saving -------------------------------------------------------------------------------------------------------

    def _change(self) -> Change:
        table: dict[bytes, bytes] = dict(self._rosters.aliases)
        for name, duty in self._duties.items():
            if (kept := duty.kept()) is not None:
                table[name.encode() + _SERVED] = kept
        old = self._saved_table
        changed: dict[bytes, bytes | None] = {k: v for k, v in table.items() if old.get(k) != v}
        changed |= dict.fromkeys(old.keys() - table.keys())
        self._saved_table = table
        position = {"rows": self._read, "models": self._models_read, "seen": self._redelivered.seen}
        return Change(msgspec.msgpack.encode(position), table=changed)


def _desk(topics: Topics, model: Model, reader: RowReader, source: str, sessions: Sessions, meters: Meters) -> _Desk:
    inputs = Inputs(model)
    writer = AnswerWriter(topics.predictions(model.name), source, inputs, model.name, meters)
    return _Desk(Duty(model, sessions, meters), inputs, reader.of(model), writer)
