"""The docket of one model on one partition: which answers people are asked about, and what they have found. Pure.

An answer is asked about when it is uncertain and drawn, or flagged. What comes of it follows from the answer, who flagged it, and
the order in which reviewers spoke; not from which of these was read first, as they come by topics of their own:

    words of an answer that is not known     wait for it, at most WAITING of them; then it is an orphan
    reviews of what nobody asked about       wait for a flag; then they are refused (unasked)
    the word of who flagged the answer       does not decide on it (own flag)
    a second word of the same person         does not count (repeated); nor does one after the decision (decided)

One reviewer decides; of the answers drawn for it two do, and where these contradict each other a third. Everything of an answer
is forgotten when the horizon of its label has passed: then no label could count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from penstock.codec import EventDecoder
from penstock.errors import Refused
from penstock.event import from_micros
from penstock.log import Send
from penstock.model import Model
from penstock.records import Flag, Queued, Review, Reviewed
from penstock.review import drawn
from penstock.reviewing.panel import key_of, usefulness
from penstock.runtime.merge import NEVER
from penstock.topics import Topics

from .agenda import Agenda

__all__ = ["WAITING", "Asked", "Docket"]

WAITING: Final = 1_000
"""Ids that nobody gave an answer to, of which words are kept."""
WORDS: Final = 50
"""Flags of one answer that are kept, and reviews of it that wait for a flag."""
NOTES: Final = 3
"""Reasons of flags that a reviewer is shown."""
SPARSE: Final = 0.5
"""Share of missing inputs from which on a model knew too little of what it was asked."""
DECIDED: Final = "decided already"
ANSWERED, UNKNOWN = 0, 1
"""What waits for a deadline: an answer, and words without one."""

_encode = msgspec.json.Encoder().encode
_pack = msgspec.msgpack.Encoder().encode


class Asked(msgspec.Struct, frozen=True, gc=False):
    """What the docket needs of a Prediction."""

    id: str
    key: str
    time: datetime
    inputs: msgspec.Raw
    score: float
    version: str
    digest: str = ""


class _Entry(msgspec.Struct, array_like=True, omit_defaults=True):
    """One id, kept packed, as most are answers of which nobody says anything. `deadline` is that of its answer, else until when
    words without one are kept."""

    deadline: int
    time: int = NEVER
    """Of the answer; NEVER: there is none yet."""
    score: float = 0.0
    key: str = ""
    version: str = ""
    sampled: bool = False
    unfamiliar: bool = False
    inputs: str = ""
    flags: dict[str, tuple[bool | None, str]] = {}
    """By who flagged it: what would be right, and why."""
    reviews: dict[str, bool] = {}
    done: bool = False
    contradicted: bool = False

    @property
    def known(self) -> bool:
        return self.time > NEVER

    @property
    def words(self) -> list[tuple[str, bool]]:
        """What those said who may decide, in that order."""
        return [(by, says) for by, says in self.reviews.items() if by not in self.flags]


_unpack = msgspec.msgpack.Decoder(_Entry).decode


def decided(words: Sequence[tuple[str, bool]], want: int) -> tuple[bool | None, Sequence[tuple[str, bool]]]:
    """What reviewers have found, of whom `want` are asked first, and whose words decided; None while they have not.

    >>> yes, no = ("ada", True), ("bob", False)
    >>> [decided(words, 2)[0] for words in ([yes], [yes, no], [yes, no, ("cyd", False)])], decided([yes, no], 1)
    ([None, None, False], (True, [('ada', True)]))
    """
    said = [says for _, says in words]
    if len(said) >= want and len(set(said[:want])) == 1:
        return said[0], words[:want]
    return (sum(said[:3]) >= 2, words[:3]) if len(said) >= 3 else (None, words)


class Docket:
    """`sends` collects what is to be published, `table` what is to be saved, until the caller takes them. Time only grows."""

    def __init__(self, model: Model, topics: Topics, sends: list[Send]) -> None:
        assert model.review is not None
        self.name, self.review, self.now = model.name, model.review, NEVER
        self.within, self._threshold, self._inputs = (
            model.label.within,
            model.value.above if model.value else 0.5,
            len(model.inputs),
        )
        self._label, self._decoder = model.label, EventDecoder(model.label.event)
        self._topics, self._sends = topics, sends
        self._entries: dict[str, bytes] = {}
        self._unknown: dict[str, None] = {}
        """Ids without an answer, the oldest first."""
        self._queue: dict[str, Queued] = {}
        self._agenda = Agenda()
        self._prefix = model.name.encode() + b"\0"
        self.table: dict[bytes, bytes | None] = {}

    # --- what comes

    def answer(self, answer: Asked, time: int) -> None:
        """An answer about an event at `time`. A repeat is passed by, and what comes after its horizon."""
        known = answer.id in self._entries
        entry = _unpack(self._entries[answer.id]) if known else _Entry(0)
        if time + self.within < self.now or entry.known:
            return
        if known:
            del self._unknown[answer.id]
        entry.deadline, entry.time, entry.score = time + self.within, time, answer.score
        entry.key, entry.version = answer.key, answer.version
        if answer.digest:
            missing = bytes(answer.inputs).count(b":null")
            entry.unfamiliar = missing >= SPARSE * self._inputs and missing > 0
            uncertain = entry.unfamiliar or abs(answer.score - self._threshold) <= self.review.near + 1e-9
            entry.sampled = uncertain and drawn("review", self.name, answer.id) < self.review.sample
        self._agenda.add(entry.deadline, answer.id, ANSWERED)
        if entry.sampled:
            entry.inputs = bytes(answer.inputs).decode()
        if entry.sampled or known:
            self._weigh(answer.id, entry)
        else:
            self._save(answer.id, entry)
        self.elapse(time)

    def flag(self, flag: Flag, at: int) -> None:
        """Somebody says that an answer is wrong, at `at` by his clock."""
        entry = self._entry(flag.prediction, at)
        if reason := _uncounted(entry, flag.by, entry.flags, "flagged"):
            self._end(flag.prediction, entry, "refused", reason, by=flag.by, what="flag")
            return
        entry.flags[flag.by] = flag.says, flag.why
        self._spoken(flag.prediction, entry, flag.by)

    def hear(self, review: Review, at: int) -> None:
        """A reviewer decides, at `at` by his clock."""
        entry = self._entry(review.prediction, at)
        if reason := _uncounted(entry, review.by, entry.reviews, "reviewed"):
            self._end(review.prediction, entry, "refused", reason, by=review.by, what="review")
            return
        entry.reviews[review.by] = review.says
        self._spoken(review.prediction, entry, review.by)

    def elapse(self, time: int) -> None:
        """Let the deadlines before a time pass."""
        self.now = max(self.now, time)
        while self._agenda.next < self.now:
            moment, name, kind = self._agenda.pop()
            kept = self._entries.get(name)
            entry = None if kept is None else _unpack(kept)
            if entry is not None and entry.deadline == moment and entry.known == (kind == ANSWERED):
                self._forget(name, entry)

    # --- what comes of it

    def _entry(self, name: str, at: int) -> _Entry:
        """What is known of an id; where nothing is, it waits for its answer from now on."""
        if name in self._entries:
            return _unpack(self._entries[name])
        entry = _Entry(max(at, self.now) + self.within)
        self._save(name, entry)
        self._unknown[name] = None
        self._agenda.add(entry.deadline, name, UNKNOWN)
        if len(self._unknown) > WAITING:
            oldest = next(iter(self._unknown))
            self._forget(oldest, _unpack(self._entries[oldest]))
        return entry

    def _spoken(self, name: str, entry: _Entry, by: str) -> None:
        if by in entry.flags and by in entry.reviews:
            self._end(name, entry, "refused", "who flags an answer does not decide on it", by=by, what="review")
        self._weigh(name, entry)

    def _weigh(self, name: str, entry: _Entry) -> None:
        """See what an answer and the words about it come to."""
        asked = entry.known and not entry.done and (entry.sampled or bool(entry.flags))
        paired = self._paired(name)
        label, words = decided(entry.words, 2 if paired else 1) if asked else (None, ())
        entry.done |= label is not None
        if asked and paired and not entry.contradicted and len({says for _, says in words[:2]}) == 2:
            entry.contradicted = True
            self._end(name, entry, "contradicted", "two were asked on purpose; a third decides", None, words[:2], paired)
        self._save(name, entry)
        if label is not None:
            self._unask(name)
            self._conclude(name, entry, label, words, paired)
        elif asked:
            self._ask(self._queued(name, entry, paired, words))

    def _conclude(self, name: str, entry: _Entry, label: bool, words: Sequence[tuple[str, bool]], paired: bool) -> None:
        try:
            self._publish(name, entry, label)
        except Refused as refused:
            reason = f"the label would be no {self._label.event!r}: {refused}"
            self._end(name, entry, "refused", reason, label, words, paired, what="label")
        else:
            self._end(name, entry, "labelled", "", label, words, paired)
        for by, _ in entry.words[len(words) :]:  # it spoke before the flag was read that asked for it
            self._end(name, entry, "refused", DECIDED, by=by, what="review")

    def _paired(self, name: str) -> bool:
        """Whether two reviewers are asked, on purpose."""
        return drawn("pair", self.name, name) < self.review.pairs

    def _queued(self, name: str, entry: _Entry, paired: bool, words: Sequence[tuple[str, bool]]) -> Queued:
        return Queued(
            prediction=name, model=self.name, key=entry.key, time=from_micros(entry.time), score=entry.score,
            version=entry.version, distance=abs(entry.score - self._threshold), flags=len(entry.flags),
            notes=[f"{by}: {_noted(*said)}" for by, said in list(entry.flags.items())[:NOTES]],
            not_for=sorted({*entry.flags, *entry.reviews}), have=len(words), want=max(1 + paired, 1 + len(words)),
            unfamiliar=entry.unfamiliar, inputs=msgspec.Raw((entry.inputs or "null").encode()),
        )  # fmt: skip

    def _ask(self, queued: Queued) -> None:
        """Put an answer into the queue, or renew it there. Where it is full, what teaches least leaves it."""
        self._queue[queued.prediction] = queued
        if len(self._queue) > self.review.most:
            least = max(self._queue.values(), key=usefulness)
            self._unask(least.prediction)
            if least is queued:
                return
        self._sends.append(Send(self._topics.queue, key_of(self.name, queued.prediction), _encode(queued)))

    def _unask(self, name: str) -> None:
        """Take an answer from the queue, though it be one that a state now lost has put there."""
        self._queue.pop(name, None)
        self._sends.append(Send(self._topics.queue, key_of(self.name, name), None))

    def _publish(self, name: str, entry: _Entry, label: bool) -> None:
        """The decision as a label event, as anybody would publish it. Raises Refused where the event cannot be taken."""
        event, at = self._label.event, from_micros(max(self.now, entry.time))
        said: dict[str, Any] = {event.key.name: name, self._label.column.name: label, event.time.name: at}
        if event.key.type is int:
            try:
                said[event.key.name] = int(name)
            except ValueError:
                raise Refused("schema", f"{event.key!r} is a number, and {name!r} is none") from None
        if event.id is not None and event.id is not event.key:
            said[event.id.name] = f"{self._topics.prefix}/review/{self.name}/{name}"
        if self._label.sources is not None:
            said[self._label.sources.column.name] = self.review.source
        value = _encode(said)
        self._decoder.decode(value, at.timestamp())
        self._sends.append(Send(event.topic, name.encode(), value, (("content-type", b"application/json"),)))

    def _forget(self, name: str, entry: _Entry) -> None:
        """The time of an id has passed, or there is no room for it."""
        self._unknown.pop(name, None)
        asked = name in self._queue
        if entry.sampled or entry.flags:
            self._unask(name)
        del self._entries[name]
        self.table[self._prefix + name.encode()] = None
        if not entry.known:
            self._end(name, entry, "orphan", "no answer of that id within the horizon of its label")
        elif not entry.done and (asked or entry.flags):
            self._end(name, entry, "expired", "not enough reviewers within the horizon of its label", None, entry.words)
        elif not entry.done:
            for by in entry.reviews:
                self._end(name, entry, "refused", "nobody asked for a review", by=by, what="review")

    def _end(
        self, name: str, entry: _Entry, state: str, reason: str, label: bool | None = None,
        words: Iterable[tuple[str, bool]] = (), paired: bool = False, by: str = "", what: str = "",
    ) -> None:  # fmt: skip
        words = list(words)
        told = Reviewed(
            id="/".join(filter(None, (self.name, name, state, what, by))), prediction=name, model=self.name, state=state,
            at=from_micros(max(self.now, entry.time, 0)), label=label, reason=reason,
            reviewers=[each for each, _ in words] or ([by] if by else []), said=[says for _, says in words],
            flags=len(entry.flags), paired=paired, score=entry.score if entry.known else None,
        )  # fmt: skip
        self._sends.append(Send(self._topics.reviewed, name.encode(), _encode(told)))

    # --- what is kept

    def _save(self, name: str, entry: _Entry) -> None:
        self._entries[name] = self.table[self._prefix + name.encode()] = _pack(entry)

    def queued(self) -> list[str]:
        """The ids in the queue."""
        return list(self._queue)

    def unknown(self) -> list[str]:
        """The ids without an answer, the oldest first."""
        return list(self._unknown)

    def restore(self, table: Iterable[tuple[bytes, bytes]], queued: Sequence[str], now: int, unknown: Sequence[str] = ()) -> None:
        """Take over what was saved as of `now`; fields of other models are passed by."""
        self.now, mark = now, len(self._prefix)
        found = [(field[mark:].decode(), value) for field, value in table if field.startswith(self._prefix)]
        for _, name, value in sorted((_unpack(value).deadline, name, value) for name, value in found):
            entry, self._entries[name] = _unpack(value), value
            self._agenda.add(entry.deadline, name, ANSWERED if entry.known else UNKNOWN)
            if not entry.known:
                self._unknown[name] = None
        self._unknown = {**dict.fromkeys(name for name in unknown if name in self._unknown), **self._unknown}
        for name in queued:
            entry = _unpack(self._entries[name])
            paired = self._paired(name)
            self._queue[name] = self._queued(name, entry, paired, entry.words)


def _uncounted(entry: _Entry, by: str, said: Mapping[str, object], what: str) -> str:
    """Why somebody's word does not count; empty where it does."""
    if entry.done:
        return DECIDED
    if by in said:
        return f"{what} by the same person before"
    return f"{what} by {WORDS} others already" if len(said) >= WORDS else ""


def _noted(says: bool | None, why: str) -> str:
    right = "" if says is None else f"{'yes' if says else 'no'} would be right"
    return " - ".join(filter(None, (right, why))) or "wrong"
