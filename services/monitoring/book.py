"""The book of one model on one partition: its ledger, its window under way, the references of its versions.

Time only grows; before anything of a later time is entered, `elapse` closes the windows that end by then. Of empty windows
those are reported that follow something within QUIET, so which ones are does not depend on the steps in which time passes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import UNSET

from penstock.duration import DAY
from penstock.event import from_micros
from penstock.log import Send
from penstock.model import Model
from penstock.policy import Novelty
from penstock.records import Outcome
from penstock.statistics.novelty import added_unseen
from penstock.topics import Topics

from .answers.coding import Coding
from .answers.intake import Item
from .answers.ledger import Answer, Ledger, Settled
from .counting.bins import Binner
from .counting.explaining import Explaining, drawn
from .counting.window import Counting, Tallied, Window, length_of
from .monitors.novelty import Counted

__all__ = ["MOST_EMPTY", "QUIET", "Book"]

QUIET, MOST_EMPTY = 3 * DAY, 1_000
"""Empty windows in a row are reported for so long, a weekend, but no more than so many; after them only how far time has come,
until something happens. A stream that has ended (penstock.publish.FOREVER) would go on for ages, and refits with it."""

_encode = msgspec.json.Encoder().encode


class Book:
    """What is to be published is appended to `sends`. `window` is None until a first time is known; `references` are the
    bins of the versions that are known, None where a version has none or was waited for in vain; `explaining` those that can be
    explained."""

    def __init__(self, model: Model, topics: Topics, number: int, sends: list[Send]) -> None:
        self.name, self.length, self.segments = model.name, length_of(model), model.segments
        self.most_empty = max(1, min(QUIET // self.length, MOST_EMPTY))
        self._counting = Counting.of(model, self.length)
        self.declared: tuple[str, int, bool] = model.label.meaning, model.label.within, model.label.waits
        self.ledger = Ledger(model.name, model.label.within, model.label.otherwise, model.label.waits, Coding(model.label))
        self._binary = model.label.task == "binary"
        self.window: Window | None = None
        self.references: dict[str, Binner | None] = {}
        self.explaining: dict[str, Explaining] = {}
        self._column, self._topics, self._number, self._sends = model.label.column, topics, number, sends
        self._unbinned: dict[str, tuple[list[Any], list[int], list[float | None], list[dict[str, str]]]] = {}
        self._share, self._drawn = model.explain, dict[str, list[Any]]()
        self.profiles: dict[str, Counted] = {}
        """Of versions, where novelty is watched."""
        self.watched = any(isinstance(monitor, Novelty) for monitor in model.monitors)
        self._fresh: dict[str, list[Answer]] = {}

    def restore(self, table: Iterable[tuple[bytes, bytes]], window: Window | None, declared: tuple[str, int, bool]) -> None:
        """Go on as saved under what was `declared` then: sums of a window under way of another meaning are dropped."""
        self.ledger.restore(table, None if declared == self.declared else (Coding(task=declared[0].split()[0]), *declared[1:]))
        if window is not None and declared[0] != self.declared[0]:
            window = msgspec.structs.replace(window, tallied=Tallied(), sources={}, capped={})
        self.window = window

    def answer(self, now: int, item: Item) -> None:
        answer = item.record
        if not self.ledger.answer(now, item.time, answer):
            return
        assert self.window is not None
        self.window.answer(answer, max(item.time, now - self.ledger.within), self._counting)
        levels = dict(self._counting.levels(answer)) if self._counting.segments else {}
        self.window.took(answer.variant, answer.latency, levels)
        if answer.digest:
            rows, times, scores, apart = self._unbinned.setdefault(answer.version, ([], [], [], []))
            rows.append(answer.inputs)
            times.append(item.time)
            scores.append(answer.scores.get(answer.version))
            if levels:
                apart.append(levels)
            if self.watched:
                self._fresh.setdefault(answer.version, []).append(answer)
            if self._share and drawn(self.name, answer.id, self._share):
                self._drawn.setdefault(answer.version, []).append(answer.inputs)

    def label(self, now: int, item: Item) -> None:
        label = getattr(item.record, self._column.name)
        if label is None:
            self.ledger.counts["blank"] += 1
        else:
            sources = self._counting.sources
            rank = sources.rank(getattr(item.record, sources.column.name)) if sources else 0
            self.ledger.label(now, item.time, str(getattr(item.record, self._column.event.key.name)), label, rank)

    def elapse(self, now: int) -> None:
        """Close the windows that end by `now`, and let the deadlines before it pass."""
        assert self.window is not None
        while (end := (self.window.start // self.length + 1) * self.length) <= now:  # also of one begun under another length
            self.ledger.expire(end)
            window, empty = self.drain(), self.window.empty
            if window != Window(window.start, empty=empty):
                empty = -1
            elif empty >= self.most_empty:
                end = self.ledger.quiet(now) // self.length * self.length
                window = Window(end)
            self._report(window, end)
            self.window = Window(end, empty=min(empty + 1, self.most_empty))
        self.ledger.expire(now)

    def drain(self) -> Window:
        """Publish what was settled, and count it and the inputs in the window under way, which is returned."""
        ledger, window = self.ledger, self.window
        assert window is not None
        for settled in ledger.settled:
            window.meet(settled, self._counting)
            self._publish(settled)
        for due in ledger.due:
            window.judge(due, self._counting)
        for scored in ledger.unanswered:
            window.cohort(scored, self._counting).unanswered += 1
        ledger.settled.clear()
        ledger.due.clear()
        ledger.unanswered.clear()
        for version, (rows, times, scores, levels) in self._unbinned.items():
            binner = self.references.get(version)
            if binner is not None:
                binned = binner.count(rows, times, scores, levels)
                ledger.counts["unread"] += binned.unread
                window.bin(version, binned)
        self._unbinned.clear()
        window.bound()
        for version, answers in self._fresh.items():
            if found := self.profiles.get(version):
                window.unseen = added_unseen(window.unseen, {version: found.count(answers, self.references.get(version))})
        self._fresh.clear()
        for version, rows in self._drawn.items():
            explaining = self.explaining.get(version)
            contributed = explaining.sums(rows) if explaining else None
            ledger.counts["unexplained"] += len(rows) - (contributed.n if contributed else 0)
            if contributed is not None and contributed.n:
                window.explain(version, contributed)
        self._drawn.clear()
        for word, count in ledger.counts.items():
            if count:
                window.counts[word] = window.counts.get(word, 0) + count
                ledger.counts[word] = 0
        return window

    def _report(self, window: Window, end: int) -> None:
        references = {version: binner for version, binner in self.references.items() if binner}
        for partial in window.partials(self.name, end, self._number, self._topics.partitions, references):
            self._sends.append(Send(self._topics.partials, self.name.encode(), _encode(partial)))

    def _publish(self, settled: Settled) -> None:
        answer, valued = settled.answer, dict[str, Any]()
        if not self._binary:
            valued = {"truth": settled.label, "corrected": UNSET if settled.corrects is None else settled.corrects}
        if answer.probabilities:
            valued |= {"answer": answer.answer, "probabilities": answer.probabilities}
        outcome = Outcome(
            id=answer.id,
            key=answer.key,
            model=self.name,
            time=answer.time,
            labelled=from_micros(settled.labelled),
            label=settled.label is True,
            answered=settled.answered,
            inputs=answer.inputs,
            score=answer.score,
            scores=answer.scores,
            version=answer.version,
            variant=answer.variant,
            corrects=None if settled.corrects is None else settled.corrects is True,
            source=sources.name(settled.rank) if (sources := self._counting.sources) else "",
            **valued,
            segments=answer.segments or UNSET,
        )
        headers = (("traceparent", answer.traceparent.encode()),) if answer.traceparent else ()
        topic = self._topics.outcomes(self.name)
        self._sends.append(Send(topic, answer.id.encode(), _encode(outcome), headers, self._number))
