"""One partition of the feature store: every hop's share of it. Reads events and blocks, writes blocks and finished rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from penstock.codec import EventDecoder, entity_of
from penstock.deadletter import dead_letter
from penstock.errors import Refused
from penstock.event import Event, to_micros
from penstock.lane import Effects
from penstock.log import Batch, Headers, Partition, Send
from penstock.merge import NEVER, Frontiers
from penstock.online import state_key
from penstock.records import Clock, Row
from penstock.store import Change, Saved
from penstock.telemetry import Tracing, trace_of
from penstock.topics import Topics
from penstock.topology import ENTRY, Topology

from .block import Block, Item, pack, unpack
from .hop import HopPartition

__all__ = ["FeatureShard"]

REMEMBERED_IDS = 65_536
"""Repeats of an id are recognised within this many newest events of a partition: hours to days of a busy topic."""

NOTHING = np.empty(0)
CLOUD_EVENT: Headers = (
    ("ce_specversion", b"1.0"),
    ("ce_source", b"penstock/feature_store"),
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
        self._ways = {
            key: [_Way(self.topology, event, key, self._homes.get(event.topic), self._rows) for event in self.topology.events]
            for key in self.hops
        }
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
        decoded, refusals = self._decoders[self.topology.rank[event]].decode_all(batch.values, now)
        refused = dict(refusals)
        topic, ids = event.topic, self._ids.get(event.topic)
        home = self.hops[self._homes[topic]]
        rank, by_id = self.topology.rank[event], (event.id or event.key).name
        items, names, offsets, times = [], [], [], []
        features = NOTHING if event in self.topology.reads else None
        moment, partition, traced = event.time.name, (self.number,), bool(batch.headers)
        for i, value in enumerate(decoded):
            if value is None:
                continue
            name = str(getattr(value, by_id))
            if ids is not None:
                if name in ids:
                    refused[i] = Refused("duplicate", f"{event.id!r} {name!r} was published before")
                    continue
                ids[name] = None
            if self.topics.partitions > 1:
                right = home.target(keyed := str(getattr(value, event.key.name)))
                if right != self.number:
                    refused[i] = Refused(
                        "misplaced",
                        f"the record's key must be {event.key!r} ({keyed!r}), which belongs to partition {right}",
                    )
                    continue
            offset = batch.offsets[i]
            micros = to_micros(getattr(value, moment))
            trace = trace_of(batch.headers[i]) if traced else ""
            items.append(Item(rank, value, micros, batch.values[i] or b"", features, (*partition, offset), trace))
            names.append(name)
            offsets.append(offset)
            times.append(micros)
        self._read[topic] = batch.next
        for i in sorted(refused):
            offset = batch.offsets[i]
            if offset > self._refused.get(topic, -1):
                self._refused[topic] = offset
                headers = batch.headers[i] if batch.headers else ()
                self._sends.append(
                    dead_letter(
                        self.topics.dead_letters(topic),
                        batch.partition,
                        offset,
                        batch.keys[i],
                        batch.values[i],
                        headers,
                        refused[i],
                        "feature_store",
                    )
                )
            self._dirty = True
        home.merge.push(topic, np.array(times, np.int64), np.full(len(items), rank, np.int64), names, offsets, items)

    def _take_blocks(self, topic: str, batch: Batch) -> None:
        hop = self.hops[self._entries[topic]]
        for offset, value in zip(batch.offsets, batch.values, strict=True):
            block = unpack(value or b"")
            source = block.source
            number, rows = hop.done.get(source, (-1, 0))
            if block.number <= self._newest.get((topic, source), -1) or block.number < number:
                continue
            self._newest[topic, source] = block.number
            skip = rows if block.number == number else 0
            if len(block.ids) > skip:
                items = [self._item(block, i) for i in range(skip, len(block.ids))]
                times = np.frombuffer(block.times, np.int64)[skip:]
                ranks = np.array(block.ranks[skip:], np.int64)
                hop.merge.push(source, times, ranks, block.ids[skip:], [offset] * len(items), items)
            hop.merge.close(source, block.frontier)
        self._read[topic] = batch.next

    def _item(self, block: Block, i: int) -> Item:
        raw, rank = block.raws[i], block.ranks[i]
        event = self.topology.events[rank]
        features = np.frombuffer(block.features[i], np.float64) if event in self.topology.reads else None
        origin = (block.source, block.number, i + 1)
        decoded = self._raw[rank](raw)
        micros = to_micros(getattr(decoded, event.time.name))
        return Item(rank, decoded, micros, raw, features, block.cursors[i], block.traces.get(i, ""), origin)

    # --- working ---------------------------------------------------------------------------------------------------

    def step(self, loaded: Sequence[tuple[bytes, bytes]]) -> Effects | None:
        for (hop, entity), (head, tail) in zip(self._needed, loaded, strict=True):
            hop.panes.restore(entity, head, tail)
        sends, self._sends = self._sends, []
        number = self._version + 1
        released_ids: dict[str, list[str]] = {}
        moved = self._dirty
        self._dirty = False
        for key, hop in self.hops.items():
            routed: dict[tuple[str, int], tuple[list[int], list[str], list[Item]]] = {}
            ways = self._ways[key]
            for time, name, item in hop.work():
                moved = True
                way = ways[item.rank]
                if item.trace:
                    item.trace = self._tracing.record(item.trace, "process", self.topics.hop(key), partition=self.number)
                if way.remembers:
                    released_ids.setdefault(way.event.topic, []).append(name)
                if way.following is not None:
                    there = entity_of(way.by, item.decoded)
                    target = way.following, hop.target(name if there is None else there)
                    times, names, items = routed.setdefault(target, ([], [], []))
                    times.append(time)
                    names.append(name)
                    items.append(item)
                elif way.row is not None:
                    sends.append(way.row.write(name, item))
            sends += self._blocks_of(key, hop, number, routed)
        closed = self._closed()
        if not moved and not sends and closed is None:
            return None
        self._version = number
        change = self._change(released_ids)
        return Effects(change, sends, closed, {Partition(t, self.number): o for t, o in self._offsets.items()})

    def _blocks_of(self, key: str, hop: HopPartition, number: int, routed: Mapping[tuple[str, int], Any]) -> list[Send]:
        """The blocks of one hop: to every partition of every hop downstream when its frontier moved."""
        frontier = hop.frontier
        ticks = frontier > self._told.get(key, NEVER)
        self._told[key] = frontier
        sends = []
        for following in hop.downstream():
            for shard in range(self.topics.partitions):
                rows = routed.get((following, shard))
                if rows or ticks:
                    value = pack(key, self.number, number, frontier, *(rows or ([], [], [])))
                    sends.append(Send(self.topics.hop(following), None, value, (), shard))
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
        if topic in self._homes:
            pending = self.hops[self._homes[topic]].merge.first_pending(topic)
            return self._read[topic] if pending is None else pending
        hop = self.hops[self._entries[topic]]
        return min([self._read[topic], *(p for s in hop.upstream if (p := hop.merge.first_pending(s)) is not None)])

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
    """The wire form of the rows of one event: `records.Row` with its values by name; built once, filled by position."""

    def __init__(self, event: Event, topics: Topics) -> None:
        columns = topics.project.topology.columns(event)
        fields = [(f"v{i}", float) for i in range(len(columns))]
        self._values: Any = msgspec.defstruct(
            "Values", fields, rename={f"v{i}": name for i, name in enumerate(columns)}, gc=False
        )
        self._row: Any = msgspec.defstruct("Row", [(name, Any) for name in Row.__struct_fields__], gc=False)
        self._topic, self._key, self._time = topics.rows(event), event.key.name, event.time.name
        self._hops = [hop.key for hop in topics.project.topology.hops]

    def write(self, name: str, item: Item) -> Send:
        """The record of a finished row, in the partition that its event came from."""
        at = item.cursor
        cursor = {"source": at[:2]}
        for i in range(2, len(at), 3):
            cursor[self._hops[at[i]]] = at[i + 1 : i + 3]
        values = () if item.features is None else item.features.tolist()
        time = getattr(item.decoded, self._time)
        value = _encode(self._row(name, time, msgspec.Raw(item.raw), self._values(*values), cursor))
        headers: Headers = (("ce_id", name.encode()), ("ce_time", _encode(time)[1:-1]), *CLOUD_EVENT)
        if item.trace:
            headers = (*headers, ("traceparent", item.trace.encode()))
        return Send(self._topic, str(getattr(item.decoded, self._key)).encode(), value, headers, at[0])


class _Way:
    """What becomes of one kind of event after one hop; looked up per event, so worked out once."""

    def __init__(self, topology: Topology, event: Event, key: str, home: str | None, rows: Mapping[Event, _RowWriter]) -> None:
        here = key == ENTRY or key in topology.routes[event].path
        self.event = event
        self.following = topology.after(event, key) if here else None
        self.by = topology.by[self.following, event] if self.following is not None else ()
        self.row = rows.get(event)
        self.remembers = home == key and event.id is not None
