"""The panel: what waits for reviewers, and how far they agree, folded from two topics. What the command line and the page show.

Each partition of the queue holds at most `most` of a model, and together they may hold more: `waiting` gives the most useful.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import Final

import msgspec

from ..label import Label
from ..log import Gap, Partition, Readable, Reader
from ..records import Queued, Reviewed
from ..review import drawn
from ..statistics.agreement import Agreement, Pair, agreement
from ..topics import Topics
from .word import fits

__all__ = ["Panel", "key_of", "pair_of", "usefulness"]

PAIRS: Final = 10_000
"""Answers that were given to two, the newest, of which agreement is measured."""
NEWEST: Final = 100
"""Ends of reviews that are kept to be shown."""


def usefulness(queued: Queued) -> tuple[int, int, int, float, float]:
    """The order in which answers are looked at, least first: contradicted ones, those that most people flagged, those that one
    has decided, and those closest to the threshold. Of equals a draw by id decides, so that a replay has the same order."""
    order = drawn("order", queued.model, queued.prediction)
    return -(queued.have > 1), -queued.flags, -queued.have, queued.distance, order


def key_of(model: str, prediction: str) -> bytes:
    """The key of an answer in the queue."""
    return f"{prediction}/{model}".encode()


def pair_of(said: Reviewed, label: Label) -> Pair | None:
    """What two said who were asked on purpose; None of any other end of a review, and of words that are no label of this kind, as
    those are that were said before it was declared otherwise."""
    paired = said.state == "contradicted" or (said.state == "labelled" and said.paired)
    if not paired or len(said.words) != 2 or not all(fits(label, word) for word in said.words):
        return None
    first, second = zip(said.reviewers, said.words, strict=True)
    return first, second


class Panel:
    """Follow the topics with `watch`, then ask. Its memory is bounded by what waits, PAIRS and NEWEST."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._reader: Reader | None = None
        self.at: dict[Partition, int] = {}
        """Where it reads on."""
        self.unreadable = 0
        """Records that could not be read, and are left out."""
        self.newest: deque[Reviewed] = deque(maxlen=NEWEST)
        """What came of reviews last."""
        self._clear()

    def _clear(self) -> None:
        names = [model.name for model in self._topics.reviewing]
        self._queue: dict[bytes, Queued] = {}
        self._known: dict[str, None] = {}
        self._pairs: dict[str, deque[Pair]] = {name: deque(maxlen=PAIRS) for name in names}
        self.ends: dict[str, Counter[str]] = {name: Counter() for name in names}
        """Model -> state -> how many reviews ended so."""
        self.newest.clear()

    async def watch(self, log: Readable) -> None:
        """Read what is new since the last call. LogError: the log is away, or (Gap) lost what was to be read next; then the next
        call reads all that is there anew."""
        if not self._topics.reviewing:
            return
        if self._reader is None:
            self._clear()
            self.at = await log.begins([self._topics.queue, self._topics.reviewed])
            self._reader = await log.reader(self.at)
        try:
            while batches := await self._reader.read(2000, 0):
                for batch in batches:
                    self.at[batch.partition] = batch.next
                    for key, value in zip(batch.keys, batch.values, strict=True):
                        try:
                            self._hear(batch.partition.topic, key or b"", value)
                        except (msgspec.MsgspecError, UnicodeDecodeError):  # not of ours
                            self.unreadable += 1
        except Gap:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop reading; what was folded stays."""
        if self._reader is not None:
            await self._reader.close()
            self._reader = None

    def _hear(self, topic: str, key: bytes, value: bytes | None) -> None:
        if topic == self._topics.queue:
            if value is None:
                self._queue.pop(key, None)
            else:
                self._queue[key] = msgspec.json.decode(value, type=Queued)
            return
        said = msgspec.json.decode(value or b"", type=Reviewed)
        if said.id in self._known or said.model not in self.ends:
            return
        self._known[said.id] = None
        if len(self._known) > PAIRS:
            del self._known[next(iter(self._known))]
        self.ends[said.model][said.state] += 1
        self.newest.append(said)
        if pair := pair_of(said, self._topics.project.model(said.model).label):
            self._pairs[said.model].append(pair)

    def waiting(self, model: str = "", by: str = "") -> list[Queued]:
        """What waits of a model (empty: of all), the most useful first; without what `by` may not decide."""
        found = [q for q in self._queue.values() if model in ("", q.model) and by not in q.not_for]
        most = {each.name: each.review.most for each in self._topics.reviewing if each.review}
        taken: Counter[str] = Counter()
        kept = []
        for queued in sorted(found, key=usefulness):
            taken[queued.model] += 1
            if taken[queued.model] <= most.get(queued.model, 0):
                kept.append(queued)
        return kept

    def find(self, model: str, prediction: str) -> Queued | None:
        """An answer that waits, whether it is among the most useful or not."""
        return self._queue.get(key_of(model, prediction))

    def agreement(self, model: str) -> Agreement:
        """How far reviewers agree on the answers of a model that were given to two on purpose. Those on which they differ count
        at once, though a third is still to decide, or agreement would look better than it is; what the third says does not."""
        label, review = (found := self._topics.project.model(model)).label, found.review
        return agreement(self._pairs[model], review.within if review and label.task == "regression" else None)

    def heard(self, model: str, prediction: str) -> Sequence[Reviewed]:
        """What came of reviews of an answer, of the newest."""
        return [said for said in self.newest if (said.model, said.prediction) == (model, prediction)]
