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
    undeclared    a label that is no label of this model: a class that is not declared, a number beyond 1e70
    malformed     a record that cannot be read            disordered   a record that came after its time had passed
    unread        inputs that could not be read for the bins
    unexplained   an answer of the sample that could not be explained

When an outcome counts. Without a meaning of silence, when its label comes; a correction then takes back what it
replaces. With one, when the horizon has passed, whoever answered how soon (`waits`): until then the labels known are those
that somebody hurried to tell, mostly of one kind, and quality and training on these would be of another world.

An answer is kept for two horizons (in the second its id alone), a parked label for one: so at most the answers of two
horizons and the labels of one, however long labels are wrong or missing. What cannot be read is not kept. An answer is
kept packed (see packing.py), and read when its truth is there: a million of 8 inputs take 280 MB, of 20 inputs 370.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from penstock.event import to_micros
from penstock.label import Truth

from .agenda import Agenda
from .coding import LABEL, RANK, RANKS, STATE, Coding
from .packing import Answer, Packing

__all__ = ["WORDS", "Answer", "Ledger", "Settled"]

WORDS = (
    "predictions", "outcomes", "silent", "unanswered", "parked", "duplicate", "corrected", "confirmed", "outranked",
    "late", "orphan", "blank", "malformed", "disordered", "unread", "unexplained", "undeclared",
)  # fmt: skip

PENDING, SPENT = 2, 3
"""States of an answer beside 0 and 1, the label that it met."""
NEW, PARKED = 0, 1
"""What waits for a deadline, beside SPENT: an answer, and a label without one."""


class Settled(msgspec.Struct, frozen=True, gc=False):
    """An answer and its truth: `corrects` is the label that this one replaces, `rank` and `corrected_rank` are those of their
    sources. `scored` is the time that says to which cohort it belongs."""

    answer: Answer
    label: Truth
    labelled: int
    answered: bool
    corrects: Truth | None
    scored: int
    rank: int = 0
    corrected_rank: int = 0


class Ledger:
    """Joins by id. `settled` is to be published, `due` to be counted (the same unless labels wait); `unanswered` has the
    times of answers about which nothing is known; these, `counts` and `table` collect what happened until the caller takes
    them.

    Before a record of time `now` comes `expire(now)`.
    """

    def __init__(
        self, model: str, within: int, otherwise: Truth | None, waits: bool | None = None, coding: Coding | None = None
    ) -> None:
        self.within, self._otherwise = within, otherwise
        self._waits = otherwise is not None if waits is None else waits
        self._answers: dict[str, bytes] = {}
        """Head (state with rank, and deadline) and packed answer; of spent ones, whose horizon has passed, the head alone."""
        self._parked: dict[str, tuple[int, int, int]] = {}
        self._agenda, self._packing, self._coding = Agenda(), Packing(), coding or Coding()
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

    def answer(self, now: int, time: int, answer: Answer) -> bool:
        """An answer about an event at `time`, processed at `now`; whether it is new."""
        name = answer.id
        if name in self._answers:
            self.counts["duplicate"] += 1
            return False
        deadline, value = max(time + self.within, now), self._packing.spelled(answer)
        self._agenda.add(deadline, name, NEW)
        self.counts["predictions"] += 1
        state, parked = PENDING, self._parked.pop(name, None) if self._parked else None
        if parked is not None:
            self.table[self._prefix + b"l" + name.encode()] = None
            state = parked[0]
            self._settle(answer, deadline, state, parked[1], None)
        head = self._coding.head(state, deadline)
        self._answers[name] = head + self._packing.packed(value)
        self.table[self._prefix + b"a" + name.encode()] = head + value
        return True

    def label(self, now: int, time: int, name: str, label: Truth, rank: int = 0) -> None:
        """The truth about `name`, an event of `time`, processed at `now`, of a source of `rank` (the less, the more trusted)."""
        entry, said, coding = self._answers.get(name), self._coding.code(label, rank), self._coding
        if said is None:
            self.counts["undeclared"] += 1
            return
        if entry is None:
            self._park(now, time, name, said)
            return
        state, deadline = coding.unhead(entry)
        if state & STATE == SPENT:
            self.counts["late"] += 1
            return
        if state != PENDING and (word := _weighed(state, said)) in ("duplicate", "outranked"):
            self.counts[word] += 1
            return
        value, head = self._packing.value(entry, coding.size), coding.head(said, deadline)
        self._settle(self._packing.answer(name, value), deadline, said, time, None if state == PENDING else state)
        self._answers[name] = head + entry[coding.size :]
        self.table[self._prefix + b"a" + name.encode()] = head + value

    def _settle(self, answer: Answer, deadline: int, said: int, labelled: int, before: int | None) -> None:
        self.counts["outcomes" if before is None else _weighed(before, said)] += 1
        coding, label = self._coding, self._coding.label(said)
        if label is None:  # of a class that was declared when it came early
            self.counts["undeclared"] += 1
            return
        corrects, rank = (None, 0) if before is None else (coding.label(before), _rank(before))
        found = Settled(answer, label, labelled, True, corrects, deadline - self.within, _rank(said), rank)
        self.settled.append(found)
        if not self._waits:
            self.due.append(found)

    def _park(self, now: int, time: int, name: str, said: int) -> None:
        known = self._parked.get(name)
        if known is None:
            expiry = now + self.within
            self._agenda.add(expiry, name, PARKED)
            self.counts["parked"] += 1
        else:
            expiry, word = known[2], _weighed(known[0], said)
            self.counts[word] += 1
            if word in ("duplicate", "outranked"):
                return
        self._parked[name] = (said, time, expiry)
        self.table[self._prefix + b"l" + name.encode()] = self._coding.parked(said, time, expiry)

    def expire(self, now: int) -> None:
        """Let the deadlines before `now` pass, in order."""
        agenda = self._agenda
        while agenda.next < now:
            moment, name, kind = agenda.pop()
            if kind == PARKED:
                if name in self._parked and self._parked[name][2] == moment:  # no answer has claimed it since
                    del self._parked[name]
                    self.counts["orphan"] += 1
                    self.table[self._prefix + b"l" + name.encode()] = None
                continue
            field = self._prefix + b"a" + name.encode()
            if kind == SPENT:
                del self._answers[name]
                self.table[field] = None
                continue
            self._close(name, self._answers[name])
            self._answers[name] = self.table[field] = self._coding.head(SPENT, moment + self.within)
            agenda.add(moment + self.within, name, SPENT)

    def _close(self, name: str, entry: bytes) -> None:
        """The horizon of an answer has passed."""
        state, deadline = self._coding.unhead(entry)
        scored = deadline - self.within
        if state == PENDING and self._otherwise is None:
            self.counts["unanswered"] += 1
            self.unanswered.append(scored)
        elif state == PENDING and self._otherwise is not None:
            self.counts["silent"] += 1
            answer = self._packing.answer(name, self._packing.value(entry, self._coding.size))
            found = Settled(answer, self._otherwise, to_micros(answer.time) + self.within, False, None, scored)
            self.settled.append(found)
            self.due.append(found)
        elif self._waits:
            answer, label = self._packing.answer(name, self._packing.value(entry, self._coding.size)), self._coding.label(state)
            if label is not None:
                self.due.append(Settled(answer, label, deadline, True, None, scored, _rank(state)))

    def restore(self, table: Iterable[tuple[bytes, bytes]], was: tuple[Coding, int, bool] | None = None) -> None:
        """Take over what was saved; fields of other models are passed by. `was`: how labels were coded then, the horizon, and
        whether they waited for it, where that is declared otherwise now. Answers under way have the horizon that is declared now;
        labels of another kind are dropped, and an answer that met one, or one that waited otherwise, is spent."""
        mark, (coding, within, waits) = len(self._prefix), was or (self._coding, self.within, self._waits)
        other = coding.task != self._coding.task
        agenda: list[tuple[int, str, int]] = []
        for field, value in table:
            if not field.startswith(self._prefix):
                continue
            name = field[mark + 1 :].decode()
            if field[mark : mark + 1] == b"a":
                state, deadline = coding.unhead(value)
                kept = value[coding.size :]
                if (other or waits != self._waits) and state & STATE not in (PENDING, SPENT):
                    state, deadline, kept = SPENT, deadline + within, b""
                elif state & STATE != SPENT:
                    deadline += self.within - within
                head = self._coding.head(state, deadline)
                if was is not None:
                    self.table[field] = head + kept
                self._answers[name] = head + (self._packing.packed(kept) if kept else b"")
                agenda.append((deadline, name, SPENT if state & STATE == SPENT else NEW))
            elif other:
                self.table[field] = None
            else:
                said, time, expiry = self._coding.unparked(value)
                self._parked[name] = (said, time, expiry)
                agenda.append((expiry, name, PARKED))
        for item in sorted(agenda):
            self._agenda.add(*item)


def _rank(code: int) -> int:
    return (code & RANKS) >> RANK


def _weighed(known: int, said: int) -> str:
    """What becomes of a label where one is known, by the ranks of both."""
    same = (known ^ said) & LABEL == 0
    if known & RANKS == said & RANKS:
        return "duplicate" if same else "corrected"
    if said & RANKS > known & RANKS:
        return "duplicate" if same else "outranked"
    return "confirmed" if same else "corrected"
