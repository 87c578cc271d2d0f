"""The intake of one partition: predictions and label events, decoded and merged in stream time, each exactly once.

Label events arrive in order of time, as users publish them. Predictions do not: their rows come from every partition of
the feature store, by every partition of inference. So predictions wait here until inference has closed their time (all
its partitions have, on the clock topic), and go on sorted by time and id; nothing of how they arrived is left.

Silent topics. A label topic that answers have waited for in vain is passed, after a wall-clock wait (see Merge.silent);
a quiet start passes none, or a history published at once would find its answers before its labels, and lose these.
Inference always closes its times: when it does not it is away, and labels wait for its answers however long that takes
(passed, a backlog of labels would run past its horizon and find no answers).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import heappop, heappush
from itertools import repeat
from typing import Any

import msgspec
import numpy as np

from penstock.codec import EventDecoder
from penstock.errors import Refused
from penstock.event import Event, to_micros
from penstock.log import Batch, Partition, partition_of
from penstock.runtime.merge import NEVER, Frontiers, Merge, Released
from penstock.runtime.telemetry import trace_of

from .ledger import Answer
from .track import SavedTrack, Track

__all__ = ["UNREADABLE", "Feed", "Intake", "Item", "SavedIntake"]

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError)


class SavedIntake(msgspec.Struct):
    """Where to read on in each topic, and how far time had come."""

    tracks: dict[str, SavedTrack] = {}
    seen: dict[str, int] = {}
    released: int = NEVER


class Feed:
    """Our partition of one topic. `decoder` is that of the label event, None for predictions, which wait in `staged`, a
    heap by time, id and offset. `last` is the time of the newest record, `heard` the wall clock when it came."""

    __slots__ = ("at", "decoder", "heard", "last", "rank", "staged", "track")

    def __init__(self, at: Partition, rank: int, decoder: EventDecoder | None) -> None:
        self.at, self.rank, self.decoder = at, rank, decoder
        self.track = Track(SavedTrack())
        self.staged: list[tuple[int, str, int, Item]] = []
        self.last = NEVER
        self.heard: float | None = None


class Item(msgspec.Struct, frozen=True, gc=False):
    """A record on its way. `record` is an Answer or a decoded label event, None where it could not be read; `raw` is
    of what could not be read its key, value, headers and refusal."""

    feed: Feed
    offset: int
    time: int
    record: Any
    raw: Any


class Intake:
    """Reads `predictions` topics and the topics of `labels`, partition `number` of `partitions`; `writers` are the shards
    of inference. At equal times predictions go before labels, and topics in the order given."""

    def __init__(
        self,
        number: int,
        partitions: int,
        predictions: Sequence[str],
        writers: Sequence[str],
        labels: Sequence[Event],
        clock: str,
        idle_after: float,
    ) -> None:
        self._number, self._partitions, self._clock, self._idle_after = number, partitions, clock, idle_after
        decoders = {**dict.fromkeys(predictions), **{event.topic: EventDecoder(event) for event in labels}}
        self._feeds = {
            topic: Feed(Partition(topic, number), rank, decoder) for rank, (topic, decoder) in enumerate(decoders.items())
        }
        self._frontiers = Frontiers(self._feeds, number, dict.fromkeys(predictions, writers))
        self._decode = msgspec.json.Decoder(Answer).decode
        self.versions: dict[str, set[str]] = {topic: set() for topic in predictions}
        """Topic -> fitted versions whose answers were read; the caller empties it."""
        self.restore(SavedIntake())

    def restore(self, saved: SavedIntake) -> Mapping[Partition, int]:
        """Go on after what was saved; returns where to read on."""
        self._merge = Merge(self._feeds, saved.released)
        for topic, feed in self._feeds.items():
            feed.track = Track(saved.tracks.get(topic, SavedTrack()))
            self._merge.resume(topic, saved.seen.get(topic, NEVER))
        return self.positions()

    def saved(self) -> SavedIntake:
        tracks = {topic: feed.track.saved() for topic, feed in self._feeds.items()}
        return SavedIntake(tracks, self._merge.seen(), self._merge.released)

    def positions(self) -> dict[Partition, int]:
        """The oldest record of each partition that is not applied yet."""
        return {feed.at: feed.track.position for feed in self._feeds.values()}

    @property
    def time(self) -> int:
        """Everything before this has been released."""
        return self._merge.released

    def take(self, batches: Sequence[Batch], now: float) -> None:
        """Accept records of our partition and of the clock topic; others are passed by."""
        for batch in batches:
            feed = self._feeds.get(batch.partition.topic)
            if feed is not None:
                if feed.decoder is None:
                    self._predictions(feed, batch)
                else:
                    self._labels(feed, feed.decoder, batch, now)
                feed.heard = now
            elif batch.partition.topic == self._clock:
                self._frontiers.follow(batch)
        for topic, feed in self._feeds.items():
            closed = self._frontiers.at(topic, feed.track.next)
            if feed.decoder is None:
                self._unstage(feed, closed)
            self._merge.close(topic, closed, min(now, self._frontiers.told(topic)))
            if feed.decoder is not None:
                feed.heard = now if feed.heard is None else feed.heard
                self._merge.silent(topic, feed.heard, now, self._idle_after)

    def release(self) -> Released:
        return self._merge.release()

    def _unstage(self, feed: Feed, closed: int) -> None:
        """Let the predictions go whose time is closed."""
        ids, items = [], []
        while feed.staged and feed.staged[0][0] < closed:
            _, name, _, item = heappop(feed.staged)
            ids.append(name)
            items.append(item)
        self._push(feed, ids, items)

    def _predictions(self, feed: Feed, batch: Batch) -> None:
        track, decode, staged, versions = feed.track, self._decode, feed.staged, self.versions[feed.at.topic]
        headers: Any = batch.headers or repeat(())
        for offset, key, value, head in zip(batch.offsets, batch.keys, batch.values, headers, strict=False):
            if not track.read(offset, head):
                continue
            try:
                record = decode(value)  # type: ignore[arg-type]
                time = to_micros(record.time)
            except UNREADABLE as error:
                item = Item(feed, offset, feed.last, None, (key, value, head, Refused("schema", str(error))))
                heappush(staged, (feed.last, "", offset, item))
                continue
            feed.last = time
            if record.digest:
                versions.add(record.version)
            if trace := trace_of(head):  # kept with the answer until its truth is known, however long that takes
                record = msgspec.structs.replace(record, traceparent=trace)
            heappush(staged, (time, record.id, offset, Item(feed, offset, time, record, None)))

    def _labels(self, feed: Feed, decoder: EventDecoder, batch: Batch, now: float) -> None:
        name, moment = decoder.event.key.name, decoder.event.time.name
        decoded, _, refused = decoder.decode_all(batch.values, now)
        items, ids = [], []
        for index, (offset, key, record) in enumerate(zip(batch.offsets, batch.keys, decoded, strict=True)):
            if not feed.track.read(offset, ()):
                continue
            answers = str(getattr(record, name)) if record is not None else ""
            refusal = refused.get(index)
            if refusal is None and self._misplaced(key, answers):
                refusal = Refused("misplaced", f"{decoder.event.key!r} {answers!r} belongs to another partition")
            raw = None
            if refusal is None:
                feed.last = to_micros(getattr(record, moment))
            else:
                clean = Refused(refusal.reason, str(refusal))  # without its traceback, which holds the whole batch
                record, raw = None, (key, batch.values[index], batch.headers[index] if batch.headers else (), clean)
            items.append(Item(feed, offset, feed.last, record, raw))
            ids.append(answers)
        self._push(feed, ids, items)

    def _misplaced(self, key: bytes | None, name: str) -> bool:
        """Whether a label lies in another partition than the answer it names."""
        found = name.encode()
        return key != found and partition_of(found, self._partitions) != self._number

    def _push(self, feed: Feed, ids: list[str], items: list[Item]) -> None:
        times = np.array([item.time for item in items], np.int64)
        ranks = np.full(len(items), feed.rank, np.int64)
        self._merge.push(feed.at.topic, times, ranks, ids, [item.offset for item in items], items)
