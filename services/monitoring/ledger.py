"""The ledger of one model on one partition: answers that await their truth, and truths that await their answer.

Pure; the time that it is told only grows. For a scored event at time t with horizon w, a label counts when it is
processed at t + w or before. What becomes of each record, and the word under which it is counted:

    predictions   an answer was taken in                  duplicate    an id that is known already, or a label that says
    outcomes      an answer met its label                              the same again
    silent        the horizon passed, `otherwise` was     corrected    a label that says otherwise: the outcome is
                  taken as the truth                                   published again with what it corrects
    unanswered    the horizon passed and silence means    late         a label for an answer whose horizon has passed
                  nothing                                              (known for one more horizon, then an orphan)
    parked        a label came before its answer          orphan       a parked label that no answer claimed within
                                                                       the horizon after it
    confirmed     a more trusted source says the same,    outranked    a label that says otherwise, of a source that is
                  so the label is its from now on                      trusted less than that of the label known
    blank         a label event without a value
    malformed     a record that cannot be read            disordered   a record that came after its time had passed
    unread        inputs that could not be read for the bins
    unexplained   an answer of the sample that could not be explained

When an outcome counts. Without a meaning of silence, when its label comes; a correction then takes back what it
replaces. With one, when the horizon has passed, whoever answered how soon (`waits`): until then the labels known are those
that somebody hurried to tell, mostly of one kind, and quality and training on these would be of another world.

An answer is kept for two horizons (in the second its id alone), a parked label for one: so at most the answers of two
horizons and the labels of one, however long labels are wrong or missing. What cannot be read is not kept. An answer is
kept as the bytes that came, and read when its truth is there.
"""

from __future__ import annotations

import heapq
import struct
from collections import deque
from collections.abc import Iterable
from datetime import datetime
from operator import itemgetter

import msgspec

from penstock.event import to_micros

__all__ = ["WORDS", "Answer", "Ledger", "Settled"]

WORDS = (
    "predictions", "outcomes", "silent", "unanswered", "parked", "duplicate", "corrected", "confirmed", "outranked",
    "late", "orphan", "blank", "malformed", "disordered", "unread", "unexplained",
)  # fmt: skip

PENDING, SPENT = 2, 3
"""States of an answer beside 0 and 1, the label that it met."""
STATE, RANK = 3, 2
"""An entry's first byte: two bits of state (or of label), and above them the rank of the source."""
FAR = (1 << 63) - 1
_HEAD = struct.Struct(">Bq")
_LABEL = struct.Struct(">Bqq")


_Item = tuple[int, str, bool]
"""When, the id, and whether it is a parked label."""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What the ledger needs of a Prediction."""

    id: str
    key: str
    time: datetime
    inputs: msgspec.Raw
    score: float
    scores: dict[str, float]
    version: str
    variant: str
    digest: str = ""
    traceparent: str = ""
    """Of the record, not in it: where its trace goes on, empty when it is not traced."""


_decode = msgspec.json.Decoder(Answer).decode


class Settled(msgspec.Struct, frozen=True, gc=False):
    """An answer and its truth: `corrects` is the label that this one replaces, `rank` and `corrected_rank` are those of their
    sources. `scored` is the time that says to which cohort it belongs."""

    answer: Answer
    label: bool
    labelled: int
    answered: bool
    corrects: bool | None
    scored: int
    rank: int = 0
    corrected_rank: int = 0


class _Entry(msgspec.Struct, gc=False):
    """One answer. `state` is pending, the label that it met with its rank, or spent (its horizon has passed, and only the id
    is kept)."""

    state: int
    deadline: int
    value: bytes


class Ledger:
    """Joins by id. `settled` is to be published, `due` to be counted (the same unless labels wait); `unanswered` has the
    times of answers about which nothing is known; these, `counts` and `table` collect what happened until the caller takes
    them.

    Before a record of time `now` comes `expire(now)`.
    """

    def __init__(self, model: str, within: int, otherwise: bool | None, waits: bool | None = None) -> None:
        self.within, self._otherwise = within, otherwise
        self._waits = otherwise is not None if waits is None else waits
        self._answers: dict[str, _Entry] = {}
        self._parked: dict[str, tuple[int, int, int]] = {}
        self._agenda = _Agenda()
        self._prefix = model.encode() + b"\0"
        self.settled: list[Settled] = []
        self.due: list[Settled] = []
        self.unanswered: list[int] = []
        self.counts: dict[str, int] = dict.fromkeys(WORDS, 0)
        self.table: dict[bytes, bytes | None] = {}

    def __len__(self) -> int:
        return len(self._answers) + len(self._parked)

    def quiet(self, now: int) -> int:
        """The time until which nothing will happen here by itself: the next deadline, at most `now`."""
        return min(self._agenda.next, now)

    def answer(self, now: int, time: int, answer: Answer, value: bytes) -> bool:
        """An answer about an event at `time`, processed at `now`; whether it is new."""
        name = answer.id
        if name in self._answers:
            self.counts["duplicate"] += 1
            return False
        deadline = max(time + self.within, now)
        entry = self._answers[name] = _Entry(PENDING, deadline, value)
        self._agenda.add(deadline, name, False)
        self.counts["predictions"] += 1
        parked = self._parked.pop(name, None) if self._parked else None
        if parked is not None:
            self.table[self._prefix + b"l" + name.encode()] = None
            self._settle(entry, parked[0], parked[1], None)
        self.table[self._prefix + b"a" + name.encode()] = _HEAD.pack(entry.state, deadline) + value
        return True

    def label(self, now: int, time: int, name: str, label: bool, rank: int = 0) -> None:
        """The truth about `name`, an event of `time`, processed at `now`, of a source of `rank` (the less, the more trusted)."""
        entry, said = self._answers.get(name), label | rank << RANK
        if entry is None:
            self._park(now, time, name, said)
        elif entry.state == PENDING:
            self._settle(entry, said, time, None)
        elif entry.state & STATE == SPENT:
            self.counts["late"] += 1
            return
        elif (word := _weighed(entry.state, said)) in ("duplicate", "outranked"):
            self.counts[word] += 1
            return
        else:
            self._settle(entry, said, time, entry.state)
        if entry is not None:
            self.table[self._prefix + b"a" + name.encode()] = _HEAD.pack(entry.state, entry.deadline) + entry.value

    def _settle(self, entry: _Entry, said: int, labelled: int, before: int | None) -> None:
        entry.state = said
        self.counts["outcomes" if before is None else _weighed(before, said)] += 1
        corrects, rank = (None, 0) if before is None else (bool(before & STATE), before >> RANK)
        scored = entry.deadline - self.within
        found = Settled(_decode(entry.value), bool(said & STATE), labelled, True, corrects, scored, said >> RANK, rank)
        self.settled.append(found)
        if not self._waits:
            self.due.append(found)

    def _park(self, now: int, time: int, name: str, said: int) -> None:
        known = self._parked.get(name)
        if known is None:
            expiry = now + self.within
            self._agenda.add(expiry, name, True)
            self.counts["parked"] += 1
        else:
            expiry, word = known[2], _weighed(known[0], said)
            self.counts[word] += 1
            if word in ("duplicate", "outranked"):
                return
        self._parked[name] = (said, time, expiry)
        self.table[self._prefix + b"l" + name.encode()] = _LABEL.pack(said, time, expiry)

    def expire(self, now: int) -> None:
        """Let the deadlines before `now` pass, in order."""
        agenda = self._agenda
        while agenda.next < now:
            moment, name, parked = agenda.pop()
            if parked:
                if name in self._parked and self._parked[name][2] == moment:  # no answer has claimed it since
                    del self._parked[name]
                    self.counts["orphan"] += 1
                    self.table[self._prefix + b"l" + name.encode()] = None
                continue
            entry, field = self._answers[name], self._prefix + b"a" + name.encode()
            if entry.state & STATE == SPENT:
                del self._answers[name]
                self.table[field] = None
                continue
            self._close(entry)
            entry.state, entry.deadline, entry.value = SPENT, moment + self.within, b""
            agenda.add(entry.deadline, name, False, spent=True)
            self.table[field] = _HEAD.pack(SPENT, entry.deadline)

    def _close(self, entry: _Entry) -> None:
        """The horizon of an answer has passed."""
        scored = entry.deadline - self.within
        if entry.state != PENDING:
            if self._waits:
                label, rank = bool(entry.state & STATE), entry.state >> RANK
                self.due.append(Settled(_decode(entry.value), label, entry.deadline, True, None, scored, rank))
        elif self._otherwise is None:
            self.counts["unanswered"] += 1
            self.unanswered.append(scored)
        else:
            self.counts["silent"] += 1
            answer = _decode(entry.value)
            found = Settled(answer, self._otherwise, to_micros(answer.time) + self.within, False, None, scored)
            self.settled.append(found)
            self.due.append(found)

    def restore(self, table: Iterable[tuple[bytes, bytes]]) -> None:
        """Take over what was saved; fields of other models are passed by."""
        mark = len(self._prefix)
        agenda: list[tuple[int, str, bool]] = []
        for field, value in table:
            if not field.startswith(self._prefix):
                continue
            name = field[mark + 1 :].decode()
            if field[mark : mark + 1] == b"a":
                state, deadline = _HEAD.unpack_from(value)
                self._answers[name] = _Entry(state, deadline, value[_HEAD.size :])
                agenda.append((deadline, name, False))
            else:
                said, time, expiry = _LABEL.unpack(value)
                self._parked[name] = (said, time, expiry)
                agenda.append((expiry, name, True))
        for item in sorted(agenda):
            self._agenda.add(*item)


def _weighed(known: int, said: int) -> str:
    """What becomes of a label where one is known, by the ranks of both."""
    if known >> RANK == said >> RANK:
        return "duplicate" if known == said else "corrected"
    if said >> RANK > known >> RANK:
        return "duplicate" if (known ^ said) & STATE == 0 else "outranked"
    return "confirmed" if (known ^ said) & STATE == 0 else "corrected"


class _Agenda:
    """Deadlines in order of time and id. Those of new items come in that order, and so do those of spent ones: each wait in a
    line of their own. A heap has the others."""

    def __init__(self) -> None:
        self._lines: tuple[deque[_Item], deque[_Item]] = (deque(), deque())
        self._heap: list[_Item] = []

    def __len__(self) -> int:
        return len(self._lines[0]) + len(self._lines[1]) + len(self._heap)

    @property
    def next(self) -> int:
        """The next deadline, far away when there is none."""
        new, spent = self._lines
        first = min(new[0][0] if new else FAR, spent[0][0] if spent else FAR)
        return min(first, self._heap[0][0]) if self._heap else first

    def add(self, moment: int, name: str, parked: bool, spent: bool = False) -> None:
        item, line = (moment, name, parked), self._lines[spent]
        if line and item < line[-1]:
            heapq.heappush(self._heap, item)
        else:
            line.append(item)

    def pop(self) -> _Item:
        """The next, of which there is one."""
        line = min((line for line in self._lines if line), key=_first, default=None)
        if line is None or (self._heap and self._heap[0] < line[0]):
            return heapq.heappop(self._heap)
        return line.popleft()


_first = itemgetter(0)
