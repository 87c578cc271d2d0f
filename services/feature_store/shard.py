"""One partition of the feature store: every hop's share of it. Reads events and blocks, writes blocks and finished rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec
import numpy as np
import numpy.typing as npt

from penstock.codec import EventDecoder, entities_of
from penstock.deadletter import dead_letter
from penstock.errors import Refused
from penstock.event import Event
from penstock.lane import Effects
from penstock.log import Batch, Headers, Partition, Send
from penstock.merge import NEVER, Column, Frontiers, Released, column
from penstock.online import state_key
from penstock.records import Clock
from penstock.store import Change, Saved
from penstock.telemetry import Tracing, trace_of
from penstock.topics import Topics
from penstock.topology import ENTRY

from .block import Rows, pack, tick, unpack
from .hop import HopPartition, width_of

__all__ = ["FeatureShard"]

REMEMBERED_IDS = 65_536
"""Repeats of an id are recognised within this many newest events of a partition: hours to days of a busy topic."""

Ints = npt.NDArray[np.int64]
CLOUD_EVENT: Headers = (
    ("ce_specversion", b"1.0"),
    ("ce_type", b"penstock.row.v1"),
    ("content-type", b"application/json"),
)

_clock = msgspec.json.Decoder(Clock).decode
_encode = msgspec.json.Encoder().encode


class FeatureShard:
    """The state machine of partition `number`; see `lane.Shard` for how it is driven.

    `idle_after` are the wall-clock seconds after which a silent source without closing times is passed (None: never).
    """

    def __init__(self, topics: Topics, number: int, idle_after: float | None = 5.0, tracing: Tracing | None = None) -> None:
        self.topics, self.number, self.topology = topics, number, topics.project.topology
        self.idle_after, self._tracing = idle_after, tracing or Tracing("feature_store")
        self.hops = {hop.key: HopPartition(self.topology, hop, number, topics.partitions) for hop in self.topology.hops}
        self._homes = {event.topic: hop.key for hop in self.topology.hops for event in hop.direct}
        self._entries = {topics.hop(hop.key): hop.key for hop in self.topology.hops if hop.upstream}
        self._decoders = [EventDecoder(event) for event in self.topology.events]
        self._raw = [msgspec.json.Decoder(decoder.struct).decode for decoder in self._decoders]
        self._events = {event.topic: event for event in self.topology.events}
        self._rows = {event: _RowWriter(event, topics) for event in self.topology.reads}
        self._width = width_of(self.topology)
        self._read: dict[str, int] = {}
        self._refused: dict[str, int] = {}
        self._newest: dict[tuple[str, str], int] = {}
        """Newest block number read, per hop topic and source."""
        self._frontiers = Frontiers({}, only=self._homes)
        self._heard: dict[str, float] = {}
        self._closed_times: dict[str, int] = {}
        self._ids: dict[str, dict[str, None]] = {e.topic: {} for e in self.topology.events if e.id}
        self._chunks: dict[str, list[int]] = {}
        self._version = 0
        self._needed: list[tuple[HopPartition, str]] = []
        self._offsets: dict[str, int] = {}
        self._sends: list[Send] = []
        self._dirty = False
        self._told: dict[str, int] = {}

    # --- opening ---------------------------------------------------------------------------------------------------

    def open(self, saved: Saved) -> Mapping[Partition, int]:
        self._version = saved.version
        offsets = dict.fromkeys([*self._homes, *self._entries], 0)
        if saved.version:
            position = msgspec.msgpack.decode(saved.position)
            offsets |= position["offsets"]
            self._refused = position["refused"]
            for key, state in position["hops"].items():
                self.hops[key].resume(state)
                self._told[key] = state["released"]
            for name, value in sorted(saved.table.items()):
                topic, _, chunk = name.decode().rpartition("/")
                self._chunks.setdefault(topic, []).append(int(chunk))
                self._ids[topic] |= dict.fromkeys(msgspec.msgpack.decode(value, type=list[str]))
        self._read = dict(offsets)
        return {Partition(topic, self.number): offset for topic, offset in offsets.items()}

    # --- reading ---------------------------------------------------------------------------------------------------

    def take(self, batches: Sequence[Batch], now: float) -> Sequence[bytes]:
        for batch in batches:
            topic = batch.partition.topic
            if topic == self.topics.clock:
                for value in batch.values:
                    if value is not None:
                        self._frontiers.hear(_clock(value))
            elif topic in self._homes:
                self._take_events(self._events[topic], batch, now)
                self._heard[topic] = now
            else:
                self._take_blocks(topic, batch)
        for topic, key in self._homes.items():
            merge = self.hops[key].merge
            closed = self._frontiers.at(Partition(topic, self.number), self._read[topic])
            if closed > self._closed_times.get(topic, NEVER):
                self._closed_times[topic] = closed
                self._heard[topic] = now
                merge.close(topic, closed)
            if self.idle_after is not None:
                merge.silent(topic, self._heard.setdefault(topic, now), now, self.idle_after)
        self._needed = [(hop, entity) for hop in self.hops.values() for entity in hop.release()]
        return [state_key(hop.hop.key, entity) for hop, entity in self._needed]

    def _take_events(self, event: Event, batch: Batch, now: float) -> None:
        topic, rank = event.topic, self.topology.rank[event]
        home, decoder = self.hops[self._homes[topic]], self._decoders[rank]
        decoded, refusals = decoder.decode_all(batch.values, now)
        refused = dict(refusals)
        ids = cast(list[str], entities_of((event.id or event.key,), decoded)) if not refused else self._names(event, decoded)
        self._refuse_repeats(event, ids, refused)
        if self.topics.partitions > 1:
            self._refuse_misplaced(event, home, decoded, refused)
        self._read[topic] = batch.next
        if refused:
            self._dead_letter(batch, refused)
        offsets, headers = batch.offsets, batch.headers
        raws: Sequence[Any] = batch.values
        if refused:
            kept = [i for i in range(len(batch)) if i not in refused]
            decoded, ids, raws = ([column[i] for i in kept] for column in (decoded, ids, raws))
            offsets, headers = [offsets[i] for i in kept], [headers[i] for i in kept] if headers else ()
        n = len(decoded)
        cursors = np.full((n, 2 + 2 * len(self.hops)), -1, np.int64)
        cursors[:, 0], cursors[:, 1] = self.number, offsets
        traces = [trace_of(found) for found in headers] if headers else [""] * n
        features = np.full((n, self._width), np.nan)
        rows = Rows(decoder.times(decoded), column(decoded), column(raws), features, cursors, column(traces))
        home.merge.push(topic, rows.times, rank, ids, cursors[:, 1], *rows)

    @staticmethod
    def _names(event: Event, decoded: Sequence[Any]) -> list[str]:
        """The ids of events, "" for those that were refused."""
        name = (event.id or event.key).name
        return ["" if e is None else str(getattr(e, name)) for e in decoded]

    def _refuse_repeats(self, event: Event, ids: Sequence[str], refused: dict[int, Refused]) -> None:
        known = self._ids.get(event.topic)
        if known is None:
            return
        fresh = dict.fromkeys(ids)
        if refused or len(fresh) < len(ids) or not known.keys().isdisjoint(fresh):
            for i, name in enumerate(ids):
                if i not in refused:
                    if name in known:
                        refused[i] = Refused("duplicate", f"{event.id!r} {name!r} was published before")
                    known[name] = None
        else:
            known |= fresh

    def _refuse_misplaced(self, event: Event, home: HopPartition, decoded: Sequence[Any], refused: dict[int, Refused]) -> None:
        places = [i for i in range(len(decoded)) if i not in refused]
        keys = cast(list[str], entities_of((event.key,), [decoded[i] for i in places]))
        for i, key, right in zip(places, keys, home.targets(keys), strict=True):
            if right != self.number:
                cause = f"the record's key must be {event.key!r} ({key!r}), which belongs to partition {right}"
                refused[i] = Refused("misplaced", cause)

    def _dead_letter(self, batch: Batch, refused: Mapping[int, Refused]) -> None:
        """Once each, though the batch may be read again while older records of its topic wait."""
        topic = batch.partition.topic
        for i in sorted(refused):
            offset = batch.offsets[i]
            if offset > self._refused.get(topic, -1):
                self._refused[topic] = offset
                headers = batch.headers[i] if batch.headers else ()
                target = self.topics.dead_letters(topic)
                record = batch.keys[i], batch.values[i], headers
                self._sends.append(dead_letter(target, batch.partition, offset, *record, refused[i], "feature_store"))
        self._dirty = True

    def _take_blocks(self, topic: str, batch: Batch) -> None:
        hop = self.hops[self._entries[topic]]
        for offset, value in zip(batch.offsets, batch.values, strict=True):
            block = unpack(value or b"")
            source = block.source
            _, number, done = hop.merge.done.get(source, (0, -1, 0))
            if block.number <= self._newest.get((topic, source), -1) or block.number < number:
                continue
            self._newest[topic, source] = block.number
            n, skip = len(block.ids), done if block.number == number else 0
            if n > skip:
                effective, ranks, ids, rows = block.rows(self._raw)
                marks = np.column_stack([np.full(n, offset), np.full(n, block.number), np.arange(1, n + 1)])
                hop.merge.push(source, effective[skip:], ranks[skip:], ids[skip:], marks[skip:], *rows.take(slice(skip, None)))
            hop.merge.close(source, block.frontier)
        self._read[topic] = batch.next

    # --- working ---------------------------------------------------------------------------------------------------

    def step(self, loaded: Sequence[tuple[bytes, bytes]]) -> Effects | None:
        for (hop, entity), (head, tail) in zip(self._needed, loaded, strict=True):
            hop.panes.restore(entity, head, tail)
        sends, self._sends = self._sends, []
        number = self._version + 1
        released_ids: dict[str, list[str]] = {}
        moved, self._dirty = self._dirty, False
        for key, hop in self.hops.items():
            due = hop.work()
            moved |= due is not None
            blocks: dict[tuple[str, int], Ints] = {}
            if due is not None:
                rows = Rows(*due.columns)
                for i in np.flatnonzero(rows.traces):
                    trace = self._tracing.record(rows.traces[i], "process", self.topics.hop(key), partition=self.number)
                    rows.traces[i] = trace
                for rank in np.unique(due.ranks).tolist():
                    event, where = self.topology.events[rank], np.flatnonzero(due.ranks == rank)
                    if self._homes.get(event.topic) == key and event.id is not None:
                        released_ids[event.topic] = due.ids[where].tolist()
                    if self.topology.after(event, key) is None and event in self._rows:
                        sends += self._rows[event].write(due.ids[where], rows.take(where))
                blocks = self._route(key, hop, due)
            sends += self._blocks_of(key, hop, number, due, blocks)
        closed = self._closed()
        if not moved and not sends and closed is None:
            return None
        self._version = number
        change = self._change(released_ids)
        return Effects(change, sends, closed, {Partition(t, self.number): o for t, o in self._offsets.items()})

    def _route(self, key: str, hop: HopPartition, due: Released) -> dict[tuple[str, int], Ints]:
        """Which rows go on to which partition of which hop, in order."""
        found = {}
        following = {rank: self.topology.after(self.topology.events[rank], key) for rank in np.unique(due.ranks).tolist()}
        for there in hop.downstream:
            where = np.flatnonzero(np.isin(due.ranks, [rank for rank, after in following.items() if after == there]))
            if len(where):
                by = {event: columns for (other, event), columns in self.topology.by.items() if other == there}
                targets = hop.route(by, due, where)
                for shard in np.unique(targets).tolist():
                    found[there, shard] = where[targets == shard]
        return found

    def _blocks_of(
        self, key: str, hop: HopPartition, number: int, due: Released | None, routed: Mapping[tuple[str, int], Ints]
    ) -> list[Send]:
        """The blocks of one hop: to every partition of every hop downstream when its frontier moved."""
        frontier = hop.frontier
        ticks = frontier > self._told.get(key, NEVER)
        self._told[key] = frontier
        sends = []
        for there in hop.downstream:
            for shard in range(self.topics.partitions):
                where = routed.get((there, shard))
                if due is not None and where is not None:
                    rows = Rows(*due.columns).take(where)
                    value = pack(key, self.number, number, frontier, due.times[where], due.ranks[where], due.ids[where], rows)
                elif ticks:
                    value = tick(key, self.number, number, frontier)
                else:
                    continue
                sends.append(Send(self.topics.hop(there), None, value, (), shard))
        return sends

    def _closed(self) -> int | None:
        """The time before which all rows are out, when it moved."""
        ends = [
            self.hops[route.path[-1] if route.path else ENTRY].frontier for route in self.topology.routes.values() if route.row
        ]
        closed = min(ends, default=NEVER)
        if closed <= self._told.get("rows", NEVER):
            return None
        self._told["rows"] = closed
        return closed

    # --- saving ----------------------------------------------------------------------------------------------------

    def _change(self, released_ids: Mapping[str, list[str]]) -> Change:
        heads: dict[bytes, bytes] = {}
        tails: dict[bytes, bytes] = {}
        cut: list[bytes] = []
        for key, hop in self.hops.items():
            changed, closed, cuts = hop.panes.pack()
            heads |= {state_key(key, entity): value for entity, value in changed.items()}
            tails |= {state_key(key, entity): value for entity, value in closed.items()}
            cut += [state_key(key, entity) for entity in cuts]
        self._offsets = {topic: self._offset(topic) for topic in self._read}
        position = {
            "offsets": self._offsets,
            "refused": self._refused,
            "hops": {key: hop.position() for key, hop in self.hops.items()},
        }
        return Change(msgspec.msgpack.encode(position), table=self._remember(released_ids), heads=heads, tails=tails, cut=cut)

    def _offset(self, topic: str) -> int:
        """The first record of a topic that is not fully processed."""
        direct = topic in self._homes
        hop = self.hops[self._homes[topic] if direct else self._entries[topic]]
        return hop.offset([topic] if direct else hop.upstream, self._read[topic])

    def _remember(self, released: Mapping[str, list[str]]) -> dict[bytes, bytes | None]:
        """Ids released in this step as one table field; the oldest fields go when enough newer ids are known."""
        table: dict[bytes, bytes | None] = {}
        for topic, names in released.items():
            chunks = self._chunks.setdefault(topic, [])
            chunks.append(self._version)
            table[f"{topic}/{self._version:012d}".encode()] = msgspec.msgpack.encode(names)
            known = self._ids[topic]
            if len(known) > 2 * REMEMBERED_IDS:
                for name in list(known)[: len(known) - REMEMBERED_IDS]:
                    del known[name]
            for chunk in chunks[:-4096]:
                table[f"{topic}/{chunk:012d}".encode()] = None
            del chunks[:-4096]
        return table


class _RowWriter:
    """The wire form of the rows of one event (`records.Row`), put together from parts that are encoded already."""

    def __init__(self, event: Event, topics: Topics) -> None:
        topology = topics.project.topology
        columns = topology.columns(event)
        fields = [(f"v{i}", float) for i in range(len(columns))]
        self._values: Any = msgspec.defstruct("Values", fields, rename={f"v{i}": n for i, n in enumerate(columns)}, gc=False)
        self._width, self._topic, self._key, self._time = len(columns), topics.rows(event), event.key, event.time.name
        read = [i for i, hop in enumerate(topology.hops) if any(view in topology.reads[event] for view in hop.views)]
        self._places = [0, 1, *(at for i in read for at in (2 + 2 * i, 3 + 2 * i))]
        names = [b'"%b":[%%d,%%d]' % name.encode() for name in ("source", *(topology.hops[i].key for i in read))]
        self._form = b'{"id":%b,"time":%b,"event":%b,"features":%b,"cursor":{' + b",".join(names) + b"}}"

    def write(self, ids: Column, rows: Rows) -> list[Send]:
        """The records of finished rows, in the partitions that their events came from."""
        events, topic, form, values = rows.events.tolist(), self._topic, self._form, self._values
        times = _encode([getattr(event, self._time) for event in events])[1:-1].split(b",")
        keys = cast(list[str], entities_of((self._key,), events))
        lines = rows.features[:, : self._width].tolist()
        cursors = rows.cursors[:, self._places].tolist()
        sends = []
        for name, time, raw, line, cursor, key in zip(ids.tolist(), times, rows.raws.tolist(), lines, cursors, keys, strict=True):
            value = form % (_encode(name), time, raw, _encode(values(*line)), *cursor)
            sends.append(Send(topic, key.encode(), value, CLOUD_EVENT, cursor[0]))
        for i in np.flatnonzero(rows.traces).tolist():
            sends[i] = sends[i]._replace(headers=(*sends[i].headers, ("traceparent", rows.traces[i].encode())))
        return sends
