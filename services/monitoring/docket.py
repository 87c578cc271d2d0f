"""The docket of one model on one partition: which answers people are asked about, and what they have found. Pure.

An answer is asked about when it is uncertain and drawn, or flagged. What comes of it follows from the answer, who flagged it, and
the order in which reviewers spoke; not from which of these was read first, as they come by topics of their own:

    words of an answer that is not known     wait for it, at most WAITING of them; then it is an orphan
    reviews of what nobody asked about       wait for a flag; then they are refused (unasked)
    the word of who flagged the answer       does not decide on it (own flag)
    a second word of the same person         does not count (repeated); nor does one after the decision (decided)

One reviewer decides; of the answers drawn for it two do, and where these contradict each other a third (of classes the first that
two have named, of numbers the median). Everything of an answer
is forgotten when the horizon of its label has passed: then no label could count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from statistics import median
from typing import Any, Final

import msgspec
from msgspec import UNSET

from penstock.codec import EventDecoder
from penstock.errors import Refused
from penstock.event import from_micros
from penstock.label import Truth
from penstock.log import Send
from penstock.model import Model
from penstock.records import Flag, Queued, Review, Reviewed
from penstock.records.answers import served
from penstock.review import drawn
from penstock.reviewing.panel import key_of, usefulness
from penstock.reviewing.word import alike, spelled
from penstock.runtime.merge import NEVER
from penstock.topics import Topics

from .answers.agenda import Agenda

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

_Word = tuple[str, Truth]
"""Who said it, and what."""

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
    answer: str = ""
    probabilities: dict[str, dict[str, float]] = {}


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
    flags: dict[str, tuple[Truth | None, str]] = {}
    """By who flagged it: what would be right, and why."""
    reviews: dict[str, Truth] = {}
    done: bool = False
    contradicted: bool = False
    named: tuple[str, float] | None = None
    """The class that was answered, and half of how much more probable it was than the next."""

    @property
    def known(self) -> bool:
        return self.time > NEVER

    @property
    def words(self) -> list[_Word]:
        """What those said who may decide, in that order."""
        return [(by, says) for by, says in self.reviews.items() if by not in self.flags]


_unpack = msgspec.msgpack.Decoder(_Entry).decode


def decided(words: Sequence[_Word], want: int, within: float = 0.0) -> tuple[Truth | None, Sequence[_Word]]:
    """What reviewers have found, of whom `want` are asked first, and whose words decided; None while they have not. Numbers that
    are at most `within` apart are the same.

    >>> yes, no = ("ada", True), ("bob", False)
    >>> [decided(words, 2)[0] for words in ([yes], [yes, no], [yes, no, ("cyd", False)])], decided([yes, no], 1)
    ([None, None, False], (True, [('ada', True)]))
    >>> hours = [("ada", 10.0), ("bob", 12.0), ("cyd", 30.0)]
    >>> decided(hours[:2], 2, within=2.0)[0], decided(hours[:2], 2)[0], decided(hours, 2)[0]
    (11.0, None, 12.0)
    """
    said = [says for _, says in words]
    if len(said) >= want and all(alike(said[0], each, within) for each in said[1:want]):
        return _middle(said[:want]), words[:want]
    if len(said) >= 3 and isinstance(said[0], float):
        return _middle(said[:3]), words[:3]
    for n in range(3, len(said) + 1):
        if twice := [each for each in said[:n] if said[:n].count(each) > 1]:
            return twice[0], words[:n]
    return None, words


def _middle(said: Sequence[Truth]) -> Truth:
    return float(median(each for each in said if isinstance(each, float))) if isinstance(said[0], float) else said[0]


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
        self.label, self._decoder = model.label, EventDecoder(model.label.event)
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
            if self.label.classes:
                first, second, *_ = sorted([*served(answer.probabilities, answer.version).values(), 0.0, 0.0], reverse=True)
                entry.named = answer.answer, (first - second) / 2
            near = self.label.task != "regression" and self._distance(entry) <= self.review.near + 1e-9
            uncertain = entry.unfamiliar or near
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
        entry.flags[flag.by] = flag.word, flag.why
        self._spoken(flag.prediction, entry, flag.by)

    def hear(self, review: Review, at: int) -> None:
        """A reviewer decides, at `at` by his clock."""
        entry = self._entry(review.prediction, at)
        if reason := _uncounted(entry, review.by, entry.reviews, "reviewed"):
            self._end(review.prediction, entry, "refused", reason, by=review.by, what="review")
            return
        entry.reviews[review.by] = review.word
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
        label, words = decided(entry.words, 2 if paired else 1, self.review.within) if asked else (None, ())
        entry.done |= label is not None
        differ = len(words) > 1 and not alike(words[0][1], words[1][1], self.review.within)
        if asked and paired and differ and not entry.contradicted:
            entry.contradicted = True
            self._end(name, entry, "contradicted", "two were asked on purpose; a third decides", None, words[:2], paired)
        self._save(name, entry)
        if label is not None:
            self._unask(name)
            self._conclude(name, entry, label, words, paired)
        elif asked:
            self._ask(self._queued(name, entry, paired, words))

    def _distance(self, entry: _Entry) -> float:
        """How far an answer is from being another; of numbers, of which nobody knows, 0."""
        if self.label.task == "regression":
            return 0.0
        return abs(entry.score - self._threshold) if entry.named is None else entry.named[1]

    def _conclude(self, name: str, entry: _Entry, label: Truth, words: Sequence[_Word], paired: bool) -> None:
        try:
            self._publish(name, entry, label)
        except Refused as refused:
            reason = f"the label would be no {self.label.event!r}: {refused}"
            self._end(name, entry, "refused", reason, label, words, paired, what="label")
        else:
            self._end(name, entry, "labelled", "", label, words, paired)
        for by, _ in entry.words[len(words) :]:  # it spoke before the flag was read that asked for it
            self._end(name, entry, "refused", DECIDED, by=by, what="review")

    def _paired(self, name: str) -> bool:
        """Whether two reviewers are asked, on purpose."""
        return drawn("pair", self.name, name) < self.review.pairs

    def _queued(self, name: str, entry: _Entry, paired: bool, words: Sequence[_Word]) -> Queued:
        return Queued(
            prediction=name, model=self.name, key=entry.key, time=from_micros(entry.time), score=entry.score,
            version=entry.version, distance=self._distance(entry), flags=len(entry.flags),
            answer=UNSET if entry.named is None else entry.named[0],
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

    def _publish(self, name: str, entry: _Entry, label: Truth) -> None:
        """The decision as a label event, as anybody would publish it. Raises Refused where the event cannot be taken."""
        event, column, at = self.label.event, self.label.column, from_micros(max(self.now, entry.time))
        said: dict[str, Any] = {event.key.name: name, column.name: label, event.time.name: at}
        if column.type is int and isinstance(label, float):  # the mean of two may lie between
            said[column.name] = round(label)
        if event.key.type is int:
            try:
                said[event.key.name] = int(name)
            except ValueError:
                raise Refused("schema", f"{event.key!r} is a number, and {name!r} is none") from None
        if event.id is not None and event.id is not event.key:
            said[event.id.name] = f"{self._topics.prefix}/review/{self.name}/{name}"
        if self.label.sources is not None:
            said[self.label.sources.column.name] = self.review.source
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
        self, name: str, entry: _Entry, state: str, reason: str, label: Truth | None = None,
        words: Iterable[_Word] = (), paired: bool = False, by: str = "", what: str = "",
    ) -> None:  # fmt: skip
        words = list(words)
        told = Reviewed(
            id="/".join(filter(None, (self.name, name, state, what, by))), prediction=name, model=self.name, state=state,
            at=from_micros(max(self.now, entry.time, 0)), reason=reason,
            reviewers=[each for each, _ in words] or ([by] if by else []), **_carried(label, [says for _, says in words]),
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


def _carried(label: Truth | None, said: Sequence[Truth]) -> dict[str, Any]:
    """The fields of a record that has them: what is no yes or no has fields of its own."""
    if all(isinstance(each, bool) for each in (*said, *(() if label is None else (label,)))):
        return {"label": label, "said": said}
    return {"truth": UNSET if label is None else label, "truths": said}


def _noted(says: Truth | None, why: str) -> str:
    right = "" if says is None else f"{spelled(says)} would be right"
    return " - ".join(filter(None, (right, why))) or "wrong"
