"""One partition of the feature store: every hop's share of it. Reads events and blocks, writes blocks and finished rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import msgspec
import numpy as np
import numpy.typing as npt

from penstock.codec import EventDecoder, entity_of
from penstock.errors import PenstockError
from penstock.event import from_micros
from penstock.log import Batch, Partition, Send, partition_of
from penstock.online.reader import state_key
from penstock.records import LateEvent, Passed
from penstock.runtime.generation import AT, OF
from penstock.runtime.lane import Effects
from penstock.runtime.merge import NEVER, Frontiers, Merge, Released
from penstock.runtime.outbox import letter_of
from penstock.runtime.telemetry import Tracing
from penstock.store import Change, Fenced, Saved
from penstock.topics import Topics
from penstock.topology import ENTRY

from .block import Rows, pack, tick, unpack
from .hop import HopPartition, Late, by_event
from .intake import Intake
from .published import ALWAYS, Published
from .row import RowWriter
from .succession import Succession

__all__ = ["FeatureShard"]

Ints = npt.NDArray[np.int64]

_QUIET = "quiet/"
"""What the names of fields that hold notes of `Expiry` begin with; no topic's name has a slash."""


class FeatureShard:
    """The state machine of partition `number`; see `lane.Shard` for how it is driven.

    `idle_after` are the wall-clock seconds after which a silent source without closing times is passed (None: never).
    """

    def __init__(
        self, topics: Topics, number: int, idle_after: float | None, tracing: Tracing | None, succession: Succession
    ) -> None:
        self.topics, self.number, self.topology = topics, number, topics.project.topology
        self.idle_after, self._tracing = idle_after, tracing or Tracing("feature_store")
        self.hops = {hop.key: HopPartition(self.topology, hop, number, topics.partitions) for hop in self.topology.hops}
        self._homes = {event.topic: hop.key for hop in self.topology.hops for event in hop.direct}
        self._entries = {topics.hop(hop.key): hop.key for hop in self.topology.hops if hop.upstream}
        self._intakes = {
            event.topic: Intake(event, topics, number) for event in self.topology.events if event.topic in self._homes
        }
        self._decoders = [msgspec.json.Decoder(EventDecoder(event).struct).decode for event in self.topology.events]
        self._rows = {event: RowWriter(event, topics) for event in self.topology.reads}
        self._read: dict[str, int] = {}
        self._newest: dict[tuple[str, str], int] = {}
        """Newest block number read, per hop topic and source."""
        self._frontiers = Frontiers(self._homes, number)
        self._heard: dict[str, float] = {}
        self._version = 0
        """The number of the newest blocks; grows with every write."""
        self._succession, self._published = succession, succession.said
        self._shadow = not succession.in_charge
        self._since, self._until = succession.since, succession.until.get(number, NEVER)
        self._peers = Frontiers([topics.shadow], number, {topics.shadow: [topics.shard(n) for n in range(topics.partitions)]})
        """What all shards of this generation have done: closing times of their shadow."""
        self._needed: list[tuple[HopPartition, list[str]]] = []
        self._offsets: dict[str, int] = {}
        self._sends: list[Send] = []
        self._dirty = False
        self._told: dict[str, int] = {}

    # --- opening ---------------------------------------------------------------------------------------------------

    def open(self, saved: Saved) -> Mapping[Partition, int]:
        offsets = dict.fromkeys([*self._homes, *self._entries], 0)
        if saved.position:
            position = msgspec.msgpack.decode(saved.position)
            offsets |= position["offsets"]
            self._version, self._since = position["number"], position["since"]
            for topic, refused in position["refused"].items():
                self._intakes[topic].refused = refused
            for key, state in position["hops"].items():
                self.hops[key].resume(state)
                self._told[key] = state["released"]
            for name, value in sorted(saved.table.items()):
                topic, _, chunk = name.decode().rpartition("/")
                if topic.startswith(_QUIET):
                    key, _, field = name.decode().removeprefix(_QUIET).partition("/")
                    self.hops[key].expiry.recall(field, value)
                else:
                    self._intakes[topic].recall(int(chunk), value)
        self._read = dict(offsets)
        return {Partition(topic, self.number): offset for topic, offset in offsets.items()}

    def recall(self, batch: Batch) -> None:
        self._version = max(self._version, self._published.recall(batch))

    # --- reading ---------------------------------------------------------------------------------------------------

    def take(self, batches: Sequence[Batch], now: float) -> Sequence[bytes]:
        for batch in batches:
            topic = batch.partition.topic
            if topic == self.topics.clock:
                self._frontiers.follow(batch)
                self._peers.follow(batch)
            elif topic == self.topics.passed:
                self._published.recall(batch)
            elif topic == self.topics.generations:
                if self._succession.overtaken(batch):
                    raise Fenced("this generation of the views is in charge now")
            elif topic in self._homes:
                self._take_events(topic, batch, now)
                self._heard[topic] = now
            else:
                self._take_blocks(topic, batch)
        for topic, key in self._homes.items():
            merge = self.hops[key].merge
            merge.close(topic, self._frontiers.at(topic, self._read[topic]), min(now, self._frontiers.told(topic)))
            if self.idle_after is not None:
                merge.silent(
                    topic, self._heard.setdefault(topic, now), now, self.idle_after, NEVER if merge.pending else self._ahead(key)
                )
        self._needed = [(hop, hop.release()) for hop in self.hops.values()]
        return [state_key(hop.hop.key, entity) for hop, entities in self._needed for entity in entities]

    def _ahead(self, key: str) -> int:
        """How far the hops behind a hop have come but for it: they wait for each of its partitions."""
        behind = [self.hops[there] for there in self.hops[key].downstream]
        return max((hop.merge.ahead(hop.direct) for hop in behind), default=NEVER)

    def _take_events(self, topic: str, batch: Batch, now: float) -> None:
        intake, home = self._intakes[topic], self.hops[self._homes[topic]]
        ids, rows, dead = intake.take(batch, now, home.targets)
        self._sends += dead
        self._dirty |= len(ids) < len(batch)
        self._read[topic] = batch.next
        told = self._published.passed.get((topic, self.number), {})
        cuts = [i for i, offset in enumerate(rows.cursors[:, 1].tolist()) if offset in told] if told else []
        for first, stop in pairwise([*([] if cuts[:1] == [0] else [0]), *cuts, len(ids)]):
            part = rows.take(slice(first, stop)) if cuts else rows
            self._push(home.merge, intake, ids[first:stop], part)

    def _push(self, merge: Merge, intake: Intake, ids: list[str], rows: Rows) -> None:
        """Hand events of one source on to its hop, and tell where the source had been passed; what was told once holds again."""
        topic = intake.event.topic
        if len(ids):
            offset = int(rows.cursors[0, 1])
            told = self._published.passed.get((topic, self.number), {}).get(offset)
            if told is not None:
                merge.resume(topic, told)
            elif merge.passed(topic, int(rows.times[0])):
                said = Passed(event=topic, partition=self.number, offset=offset, before=merge.released)
                self._sends.append(Send(self.topics.passed, topic.encode(), msgspec.json.encode(said), (), self.number))
            merge.push(topic, rows.times, intake.rank, ids, rows.cursors[:, 1], *rows, places=rows.cursors[:, :2])

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
                effective, ranks, ids, rows = block.rows(self._decoders)
                marks = np.column_stack([np.full(n, offset), np.full(n, block.number), np.arange(1, n + 1)])
                rows = rows.take(slice(skip, None))
                hop.merge.push(
                    source, effective[skip:], ranks[skip:], ids[skip:], marks[skip:], *rows,
                    own=rows.times, places=rows.cursors[:, :2],
                )  # fmt: skip
            hop.merge.close(source, block.frontier)
        self._read[topic] = batch.next

    # --- working ---------------------------------------------------------------------------------------------------

    def step(self, loaded: Sequence[tuple[bytes, bytes]]) -> Effects | None:
        first = 0
        for hop, entities in self._needed:
            states, first = loaded[first : first + len(entities)], first + len(entities)
            slots = np.fromiter(map(hop.panes.slot, entities), np.int64, len(entities))
            try:
                hop.panes.restore_all(slots, [head for head, _ in states], [tail for _, tail in states])
            except ValueError as error:
                raise PenstockError(
                    f"by {hop.hop.key}: {error}",
                    "run the views that made it, or give the project another name, or empty the store: it is built anew from the "
                    "tables and Kafka",
                ) from error
        said, self._sends = self._sends, []
        sends: list[Send] = []
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
                for event, where in by_event(self.topology, due.ranks):
                    if self._homes.get(event.topic) == key and event.id is not None:
                        named = self._intakes[event.topic].named(due.ids[where].tolist(), rows.events[where].tolist())
                        released_ids[event.topic] = list(named)
                    if self.topology.after(event, key) is None and event in self._rows:
                        where = self._published.unsaid(self.topics.rows(event), due.ranks, rows.cursors, where)
                        where = self._shown(due.times, where)
                        if len(due.ids[where]):
                            made = self._rows[event].write(due.ids[where], rows.take(where))
                            said += self._dated(made, due.times[where], rows.times[where])
                blocks = self._route(key, hop, due)
                said += self._late(key, rows, due, hop.late)
            sends += self._blocks_of(key, hop, number, due, blocks)
        if self._published and self._done_again():
            self._published = Published(self.topics)
        sends = [*self._outward(said), *sends]
        closed, closing = self._closed()
        if not moved and not sends and closed is None:
            return None
        self._version = number
        change = self._change(released_ids)
        return Effects(change, sends, closed, {Partition(t, self.number): o for t, o in self._offsets.items()}, closing)

    def _done_again(self) -> bool:
        """Whether none of what was said can come any more. Its time alone does not tell: what was in time may be late now, where
        its source was passed that was waited for then."""
        if min(hop.frontier for hop in self.hops.values()) < max(self._published.newest + 1, self._until):
            return False
        ends = self._succession.inputs
        return all(self._offset(topic) >= ends.get(Partition(topic, self.number), 0) for topic in self._read)

    @property
    def _begins(self) -> int:
        """What is of an earlier effective time is out: it is not said again, and a shadow does not show it."""
        return self._since if self._shadow else self._published.before

    def _shown(self, times: Ints, where: Ints | slice) -> Ints | slice:
        """Those of the rows `where` that are not out."""
        return where if self._begins == NEVER else np.arange(len(times))[where][times[where] >= self._begins]

    def _dated(self, sends: list[Send], times: Ints, own: Ints) -> list[Send]:
        """What a shadow shows tells its effective time, where it cannot be told from the value."""
        for i in np.flatnonzero(times != own).tolist() if self._shadow else ():
            sends[i] = sends[i]._replace(headers=(*sends[i].headers, (AT, b"%d" % times[i])))
        return sends

    def _outward(self, said: list[Send]) -> list[Send]:
        """What others are to read: as it is from who is in charge, else to the shadow."""
        if not self._shadow:
            known = self._succession.letters
            return [s for s in said if letter_of(s.topic, s.headers) not in known] if known else said
        count = self.topics.partitions
        return [
            Send(
                self.topics.shadow,
                key,
                value,
                (*headers, (OF, topic.encode())),
                partition_of(key or b"", count) if partition is None else partition,
            )
            for topic, key, value, headers, partition in said
        ]

    def _late(self, key: str, rows: Rows, due: Released, events: Sequence[Late]) -> list[Send]:
        """What is told of events that came too late for a view."""
        sends = []
        for view, i, effective in events:
            event, (partition, offset) = self.topology.events[due.ranks[i]], rows.cursors[i, :2].tolist()
            if (event.topic, partition, offset, view.name) in self._published.late or due.times[i] < self._begins:
                continue
            said = LateEvent(
                event=event.topic,
                id=due.ids[i],
                time=from_micros(int(rows.times[i])),
                view=view.name,
                entity=entity_of(self.topology.by[key, event], rows.events[i]) or "",
                as_of=from_micros(effective),
                partition=partition,
                offset=offset,
                value=msgspec.Raw(rows.raws[i]),
            )
            made = [Send(self.topics.late, said.entity.encode(), msgspec.json.encode(said))]
            sends += self._dated(made, due.times[i : i + 1], rows.times[i : i + 1])
        return sends

    def _route(self, key: str, hop: HopPartition, due: Released) -> dict[tuple[str, int], Ints]:
        """Which rows go on to which partition of which hop, in order."""
        found = {}
        following = {rank: self.topology.after(self.topology.events[rank], key) for rank in np.unique(due.ranks).tolist()}
        for there in hop.downstream:
            where = np.flatnonzero(np.isin(due.ranks, [rank for rank, after in following.items() if after == there]))
            where = self._published.unsaid(self.topics.hop(there), due.ranks, Rows(*due.columns).cursors, where)
            if len(where):
                targets = self.hops[there].route(due, where)
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

    def _closed(self) -> tuple[int | None, tuple[str, list[str]]]:
        """The time before which all rows are out, when it moved, and who says so of which topics. All hops of their ways count:
        where the store has lost its state, blocks that were published before say more than the hop that they came from has done
        again.

        `feature_store.<n>` closes the rows, whoever is in charge. Its shards may share events otherwise than those before them
        did, so none closes rows until all have come to where those were; till then they tell each other."""
        if self._until > NEVER and self._peers.at(self.topics.shadow, ALWAYS) >= self._until:
            self._until, self._told["rows"] = NEVER, NEVER
        if self._shadow or self._until > NEVER:
            closing = self.topics.shard(self.number), [self.topics.shadow]
        else:
            closing = f"feature_store.{self.number}", [self.topics.rows(event) for event in self.topology.reads]
        ways = {key for route in self.topology.routes.values() if route.row for key in route.path or [ENTRY]}
        ends = [self.hops[key].frontier for key in ways]
        closed = min(ends, default=NEVER)
        if closed <= self._told.get("rows", NEVER):
            return None, closing
        self._told["rows"] = closed
        return closed, closing

    # --- saving ----------------------------------------------------------------------------------------------------

    def _change(self, released: Mapping[str, list[str]]) -> Change:
        heads: dict[bytes, bytes] = {}
        tails: dict[bytes, bytes] = {}
        cut: list[bytes] = []
        drops: list[bytes] = []
        table: dict[bytes, bytes | None] = {}
        for key, hop in self.hops.items():
            changed, closed, cuts = hop.panes.pack()
            hop.panes.shed()
            heads |= {state_key(key, entity): value for entity, value in changed.items()}
            tails |= {state_key(key, entity): value for entity, value in closed.items()}
            cut += [state_key(key, entity) for entity in cuts]
            gone, notes = hop.expiry.sweep(self._version)
            hop.panes.forget(gone)
            drops += [state_key(key, entity) for entity in gone]
            table |= {f"{_QUIET}{key}/{field}".encode(): value for field, value in notes.items()}
        for dropped in drops:
            heads.pop(dropped, None)
            tails.pop(dropped, None)
        self._offsets = {topic: self._offset(topic) for topic in self._read}
        position = {
            "number": self._version,
            "partitions": self.topics.partitions,
            "since": self._since,
            "offsets": self._offsets,
            "refused": {topic: intake.refused for topic, intake in self._intakes.items()},
            "hops": {key: hop.position() for key, hop in self.hops.items()},
        }
        for topic, ids in released.items():
            table |= self._intakes[topic].remember(self._version, ids)
        return Change(msgspec.msgpack.encode(position), table=table, heads=heads, tails=tails, cut=cut, drops=drops)

    def _offset(self, topic: str) -> int:
        """The first record of a topic that is not fully processed."""
        direct = topic in self._homes
        hop = self.hops[self._homes[topic] if direct else self._entries[topic]]
        return hop.offset([topic] if direct else hop.upstream, self._read[topic])
