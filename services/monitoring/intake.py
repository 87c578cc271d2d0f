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
from itertools import repeat
from operator import itemgetter
from typing import Any

import msgspec
import numpy as np

from penstock.codec import EventDecoder
from penstock.event import Event, to_micros
from penstock.log import Batch, Partition, partition_of
from penstock.merge import NEVER, Frontiers, Merge, Released
from penstock.records import Clock
from penstock.telemetry import trace_of

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
    """Our partition of one topic. `decoder` is that of the label event, None for predictions. `last` is the time of the
    newest record, `heard` the wall clock when it came, `closed` the newest time that was closed."""

    __slots__ = ("at", "closed", "decoder", "heard", "last", "rank", "staged", "track")

    def __init__(self, at: Partition, rank: int, decoder: EventDecoder | None) -> None:
        self.at, self.rank, self.decoder = at, rank, decoder
        self.track = Track()
        self.staged: list[tuple[int, str, Item]] = []
        self.last = self.closed = NEVER
        self.heard = 0.0


class Item(msgspec.Struct, frozen=True, gc=False):
    """A record on its way. `record` is an Answer or a decoded label event, None where it could not be read; `raw` is
    the value of an answer, and of what could not be read its key, value, headers and cause."""

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
        self._frontiers = Frontiers(dict.fromkeys(predictions, writers), only=self._feeds)
        self._decode = msgspec.json.Decoder(Answer).decode
        self._moved = self._started = False
        self.versions: dict[str, set[str]] = {}
        """Topic -> fitted versions whose answers were read; the caller empties it."""
        self.restore(SavedIntake())

    def restore(self, saved: SavedIntake) -> Mapping[Partition, int]:
        """Go on after what was saved; returns where to read on."""
        self._merge = Merge(self._feeds, saved.released)
        for topic, feed in self._feeds.items():
            feed.track = Track(saved.tracks.get(topic))
            if topic in saved.seen:
                self._merge.resume(topic, saved.seen[topic])
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
        if not self._started:
            self._started = True
            for feed in self._feeds.values():
                feed.heard = now
        for batch in batches:
            if batch.partition.topic == self._clock:
                self._hear(batch)
            elif batch.partition.topic in self._feeds:
                self._accept(self._feeds[batch.partition.topic], batch, now)
        self._gate(now)

    def _accept(self, feed: Feed, batch: Batch, now: float) -> None:
        if feed.decoder is None:
            self._predictions(feed, batch)
        else:
            self._labels(feed, feed.decoder, batch, now)
        feed.heard, self._moved = now, True

    def release(self) -> Released:
        return self._merge.release()

    def _hear(self, batch: Batch) -> None:
        """Keep what the clock says of our partition."""
        for value in batch.values:
            try:
                clock = msgspec.json.decode(value or b"", type=Clock)
            except UNREADABLE:
                continue
            ours = {topic: {self._number: ends[self._number]} for topic, ends in clock.ends.items() if self._number in ends}
            self._frontiers.hear(Clock(publisher=clock.publisher, before=clock.before, ends=ours))
            self._moved = True

    def _gate(self, now: float) -> None:
        """Tell the merge which times are closed and which topics to pass."""
        for topic, feed in self._feeds.items():
            if self._moved:
                closed = self._frontiers.at(feed.at, feed.track.next)
                if closed > NEVER:
                    feed.closed = max(feed.closed, closed)
                    self._unstage(feed)
                    self._merge.close(topic, closed)
            if feed.decoder is not None:
                self._merge.silent(topic, feed.heard, now, self._idle_after)
        self._moved = False

    def _unstage(self, feed: Feed) -> None:
        """Let the predictions go whose time is closed."""
        if feed.staged:
            ready = [one for one in feed.staged if one[0] < feed.closed]
            feed.staged = [one for one in feed.staged if one[0] >= feed.closed]
            ready.sort(key=_TIME_AND_ID)
            self._push(feed, [name for _, name, _ in ready], [item for _, _, item in ready])

    def _predictions(self, feed: Feed, batch: Batch) -> None:
        track, decode, staged = feed.track, self._decode, feed.staged
        versions = self.versions.setdefault(batch.partition.topic, set())
        headers: Any = batch.headers or repeat(())
        for offset, key, value, head in zip(batch.offsets, batch.keys, batch.values, headers, strict=False):
            if not track.read(offset, head):
                continue
            try:
                record = decode(value)  # type: ignore[arg-type]
                time = feed.last = to_micros(record.time)
            except UNREADABLE as error:
                staged.append((feed.last, "", Item(feed, offset, feed.last, None, (key, value, head, str(error)))))
                continue
            if record.digest:
                versions.add(record.version)
            if value is not None and (
                trace := trace_of(head)
            ):  # kept with the answer until its truth is known, however long that takes
                record = msgspec.structs.replace(record, traceparent=trace)
                value = b'%s,"traceparent":"%s"}' % (value[: value.rindex(b"}")], trace.encode())
            staged.append((time, record.id, Item(feed, offset, time, record, value)))

    def _labels(self, feed: Feed, decoder: EventDecoder, batch: Batch, now: float) -> None:
        name, moment = decoder.event.key.name, decoder.event.time.name
        decoded, _ = decoder.decode_all(batch.values, now)
        items, ids = [], []
        for offset, key, record in zip(batch.offsets, batch.keys, decoded, strict=True):
            if not feed.track.read(offset, ()):
                continue
            answers = str(getattr(record, name)) if record is not None else ""
            if record is None or self._misplaced(key, answers):
                items.append(Item(feed, offset, feed.last, None, None))
            else:
                feed.last = to_micros(getattr(record, moment))
                items.append(Item(feed, offset, feed.last, record, None))
            ids.append(answers)
        self._push(feed, ids, items)

    def _misplaced(self, key: bytes | None, name: str) -> bool:
        """Whether a label lies in another partition than the answer it names."""
        found = name.encode()
        return key != found and partition_of(found, self._partitions) != self._number

    def _push(self, feed: Feed, ids: list[str], items: list[Item]) -> None:
        if items:
            times = np.array([item.time for item in items], np.int64)
            ranks = np.full(len(items), feed.rank, np.int64)
            self._merge.push(feed.at.topic, times, ranks, ids, [item.offset for item in items], items)


_TIME_AND_ID = itemgetter(0, 1)
