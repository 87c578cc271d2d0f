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
    blank         a label event without a value
    malformed     a record that cannot be read            disordered   a record that came after its time had passed
    unread        inputs that could not be read for the bins
    unexplained   an answer of the sample that could not be explained

An answer is kept for two horizons (in the second its id alone), a parked label for one: so at most the answers of two
horizons and the labels of one, however long labels are wrong or missing. What cannot be read is not kept.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Iterable
from datetime import datetime

import msgspec

from penstock.event import to_micros

__all__ = ["WORDS", "Answer", "Ledger", "Settled"]

WORDS = (
    "predictions", "outcomes", "silent", "unanswered", "parked", "duplicate", "corrected", "late", "orphan", "blank",
    "malformed", "disordered", "unread", "unexplained",
)  # fmt: skip

PENDING, SPENT = 2, 3
"""States of an answer beside 0 and 1, the label that it met."""
_HEAD = struct.Struct(">Bq")
_LABEL = struct.Struct(">Bqq")


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
    """An answer and its truth: `corrects` is the label that this one replaces."""

    answer: Answer
    label: bool
    labelled: int
    answered: bool
    corrects: bool | None


class _Entry(msgspec.Struct, gc=False):
    """One answer. `state` is pending, the label that it met, or spent (its horizon has passed; only the id is kept)."""

    state: int
    deadline: int
    answer: Answer | None
    value: bytes


class Ledger:
    """Joins by id. `settled`, `counts` and `table` collect what happened until the caller takes them.

    Before a record of time `now` comes `expire(now)`.
    """

    def __init__(self, model: str, within: int, otherwise: bool | None) -> None:
        self.within, self._otherwise = within, otherwise
        self._answers: dict[str, _Entry] = {}
        self._parked: dict[str, tuple[bool, int, int]] = {}
        self._agenda: list[tuple[int, str, int]] = []
        self._prefix = model.encode() + b"\0"
        self.settled: list[Settled] = []
        self.counts: dict[str, int] = dict.fromkeys(WORDS, 0)
        self.table: dict[bytes, bytes | None] = {}

    def __len__(self) -> int:
        return len(self._answers) + len(self._parked)

    def quiet(self, now: int) -> int:
        """The time until which nothing will happen here by itself: the next deadline, at most `now`."""
        return min(self._agenda[0][0], now) if self._agenda else now

    def answer(self, now: int, time: int, answer: Answer, value: bytes) -> bool:
        """An answer about an event at `time`, processed at `now`; whether it is new."""
        name = answer.id
        if name in self._answers:
            self.counts["duplicate"] += 1
            return False
        deadline = max(time + self.within, now)
        entry = self._answers[name] = _Entry(PENDING, deadline, answer, value)
        heapq.heappush(self._agenda, (deadline, name, 0))
        self.counts["predictions"] += 1
        parked = self._parked.pop(name, None) if self._parked else None
        if parked is not None:
            self.table[self._prefix + b"l" + name.encode()] = None
            self._settle(entry, parked[0], parked[1], None)
        self.table[self._prefix + b"a" + name.encode()] = _HEAD.pack(entry.state, deadline) + value
        return True

    def label(self, now: int, time: int, name: str, label: bool) -> None:
        """The truth about `name`, an event of `time`, processed at `now`."""
        entry = self._answers.get(name)
        if entry is None:
            self._park(now, time, name, label)
        elif entry.state == SPENT:
            self.counts["late"] += 1
        elif entry.state == label:
            self.counts["duplicate"] += 1
        else:
            self._settle(entry, label, time, None if entry.state == PENDING else bool(entry.state))
            self.table[self._prefix + b"a" + name.encode()] = _HEAD.pack(entry.state, entry.deadline) + entry.value

    def _settle(self, entry: _Entry, label: bool, labelled: int, corrects: bool | None) -> None:
        assert entry.answer is not None
        entry.state = int(label)
        self.counts["outcomes" if corrects is None else "corrected"] += 1
        self.settled.append(Settled(entry.answer, label, labelled, True, corrects))

    def _park(self, now: int, time: int, name: str, label: bool) -> None:
        known = self._parked.get(name)
        if known is None:
            expiry = now + self.within
            heapq.heappush(self._agenda, (expiry, name, 1))
            self.counts["parked"] += 1
        elif known[0] == label:
            self.counts["duplicate"] += 1
            return
        else:
            expiry = known[2]
            self.counts["corrected"] += 1
        self._parked[name] = (label, time, expiry)
        self.table[self._prefix + b"l" + name.encode()] = _LABEL.pack(label, time, expiry)

    def expire(self, now: int) -> None:
        """Let the deadlines before `now` pass, in order."""
        agenda = self._agenda
        while agenda and agenda[0][0] < now:
            moment, name, parked = heapq.heappop(agenda)
            if parked:
                if name in self._parked and self._parked[name][2] == moment:  # no answer has claimed it since
                    del self._parked[name]
                    self.counts["orphan"] += 1
                    self.table[self._prefix + b"l" + name.encode()] = None
                continue
            entry, field = self._answers[name], self._prefix + b"a" + name.encode()
            if entry.state == SPENT:
                del self._answers[name]
                self.table[field] = None
                continue
            if entry.state == PENDING:
                self._silence(entry)
            entry.state, entry.deadline, entry.answer, entry.value = SPENT, moment + self.within, None, b""
            heapq.heappush(agenda, (entry.deadline, name, 0))
            self.table[field] = _HEAD.pack(SPENT, entry.deadline)

    def _silence(self, entry: _Entry) -> None:
        if self._otherwise is None:
            self.counts["unanswered"] += 1
            return
        assert entry.answer is not None
        self.counts["silent"] += 1
        end = to_micros(entry.answer.time) + self.within
        self.settled.append(Settled(entry.answer, self._otherwise, end, False, None))

    def restore(self, table: Iterable[tuple[bytes, bytes]]) -> None:
        """Take over what was saved; fields of other models are passed by."""
        mark = len(self._prefix)
        for field, value in table:
            if not field.startswith(self._prefix):
                continue
            name = field[mark + 1 :].decode()
            if field[mark : mark + 1] == b"a":
                state, deadline = _HEAD.unpack_from(value)
                rest = value[_HEAD.size :]
                self._answers[name] = _Entry(state, deadline, _decode(rest) if rest else None, rest)
                self._agenda.append((deadline, name, 0))
            else:
                label, time, expiry = _LABEL.unpack(value)
                self._parked[name] = (bool(label), time, expiry)
                self._agenda.append((expiry, name, 1))
        heapq.heapify(self._agenda)
