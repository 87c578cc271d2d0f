"""One partition of inference: answers every row with what the models topic says is in charge.

record --RowReader--> values --Desk.score--> scores --Desk.records--> predictions
   `-- refused --> <p>.rows.<event>.dlq, and so are rows for which the functions around a model leave nobody to answer
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from penstock.errors import PenstockError, Refused
from penstock.log import Batch, Partition, Send
from penstock.runtime.deadletter import dead_letter
from penstock.runtime.lane import Effects, Redelivered
from penstock.runtime.merge import NEVER, Frontiers
from penstock.runtime.outbox import Said
from penstock.store import Change, Saved
from penstock.topics import Topics

from .desk import Desk
from .duty import Duties
from .meters import Meters
from .rows import RowReader, segmented
from .sessions import Sessions

__all__ = ["ScoringShard"]


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
        self._duties = Duties(topics, sessions, meters)
        self._readers: dict[str, RowReader] = {}
        self._desks: dict[str, list[Desk]] = {}
        for event in dict.fromkeys(model.scores for model in topics.project.models):
            models, topic = [model for model in topics.project.models if model.scores is event], topics.rows(event)
            self._readers[topic] = RowReader(event, models)
            self._desks[topic] = [Desk(topics, model, self._duties.of[model.name], meters) for model in models]
        self._read = dict.fromkeys(self._readers, 0)
        self._redelivered = {topic: Redelivered() for topic in self._readers}
        self._said = Said()
        self._frontiers = Frontiers(self._read, number, dict.fromkeys(self._read, writers))
        self._closed = NEVER
        self._saved_table: Mapping[bytes, bytes] = {}
        self._batches: list[Batch] = []
        self._now = 0.0

    def open(self, saved: Saved) -> Mapping[Partition, int]:
        if saved.position:
            position: dict[str, Any] = msgspec.msgpack.decode(saved.position)
            self._read |= {topic: offset for topic, offset in position["rows"].items() if topic in self._read}
            self._redelivered |= {topic: Redelivered(seen) for topic, seen in position["seen"].items() if topic in self._read}
            self._saved_table = saved.table
            self._duties.restore(saved.table, position["models"], self._now)
        return self._positions()

    def recall(self, batch: Batch) -> None:
        self._said.recall(batch)

    def take(self, batches: Sequence[Batch], now: float) -> Sequence[bytes]:
        self._batches += batches
        self._now = now
        return ()

    def step(self, loaded: Sequence[tuple[bytes, bytes]]) -> Effects | None:
        batches, self._batches = self._batches, []
        self._duties.retry(self._now)
        rows, moved = [], False
        for batch in batches:  # decisions first, so that a swap has no gap
            if batch.partition.topic == self.topics.models:
                moved |= self._duties.hear(batch, self._now)
            elif batch.partition.topic == self.topics.clock:
                self._frontiers.follow(batch)
            else:
                rows.append(batch)
        sends = [send for batch in rows for send in self._answer(batch)]
        self._read |= {batch.partition.topic: batch.next for batch in rows}
        closed = self._close()
        if not moved and not rows and closed is None:
            return None
        return Effects(self._change(), self._said.unsaid(sends), closed, self._positions())

    def _answer(self, batch: Batch) -> list[Send]:
        """The answers to the rows of a batch that were not had before, by each model; dead letters for what is no row."""
        topic = batch.partition.topic
        headers = batch.headers or [()] * len(batch)
        new = [place for place, found in enumerate(headers) if self._redelivered[topic].new(found)]
        rows = self._readers[topic].read([batch.values[place] for place in new])
        sends = []
        for index, refusal in rows.refused.items():
            self._meters.refused.labels(refusal.reason).inc()
            sends.append(dead_letter(batch.partition, *batch.record(new[index]), refusal, "inference"))
        if not rows.ids:
            return sends
        places = [new[index] for index in rows.places]
        entities = [(batch.keys[place] or b"").decode("utf-8", "replace") for place in places]
        traces = [next((value for name, value in headers[place] if name == "traceparent"), b"") for place in places]
        failed = dict[int, PenstockError]()
        for desk in self._desks[topic]:
            pick = self._readers[topic].picker(desk.model)
            values = rows.values if pick is None else list(map(pick, rows.values))
            scored = desk.score(values, entities)
            latency = max(0.0, self._time() - self._now) if self._time is not None else 0.0
            levels = segmented(desk.model.segments, rows.events)
            made = desk.records(rows.ids, entities, rows.times, values, scored, latency, traces, levels)
            unanswered = scored.unanswered
            for at, error in unanswered.items():
                failed.setdefault(at, error)
            sends += made if not unanswered else [send for at, send in enumerate(made) if at not in unanswered]
        for at, error in failed.items():  # once, whichever of the models it is about
            refusal = error if isinstance(error, Refused) else Refused("failed", str(error))
            self._meters.refused.labels(refusal.reason).inc()
            sends.append(dead_letter(batch.partition, *batch.record(places[at]), refusal, "inference"))
        return sends

    def _close(self) -> int | None:
        """The time before which all rows have been answered, when it moved."""
        closed = min((self._frontiers.at(topic, n) for topic, n in self._read.items()), default=NEVER)
        if closed <= self._closed:
            return None
        self._closed = closed
        return closed

    def _positions(self) -> dict[Partition, int]:
        return {Partition(topic, self.number): offset for topic, offset in self._read.items()}

    def _change(self) -> Change:
        old, table = self._saved_table, self._duties.table()
        changed: dict[bytes, bytes | None] = {key: value for key, value in table.items() if old.get(key) != value}
        changed |= dict.fromkeys(old.keys() - table.keys())
        self._saved_table = table
        position = {
            "rows": self._read,
            "models": self._duties.heard,
            "seen": {topic: each.seen for topic, each in self._redelivered.items()},
        }
        return Change(msgspec.msgpack.encode(position), table=changed)
