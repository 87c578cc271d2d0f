"""Examples: all outcomes of a model as columns, in the order in which they count.

An outcome counts when its label became known, but not before its event; where labels wait (`Label.waits`), when its horizon has
passed, with the label that it has then. What is learned at time T are the outcomes that count
before T, so that reading further ahead changes nothing, and partitions may come interleaved in any way: rows are kept sorted by
(when they count, id). A correction is a second row of the same id; at T the newest row that counts before T counts, and of those
that no quarantine holds the newest: what a bad label replaced holds again. Labels beyond the cap of their source are left out,
and beyond its share of what is left where quarantines hold others.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from penstock.errors import Refused
from penstock.event import to_micros
from penstock.inputs import InputsDecoder, Matrix
from penstock.label import Label
from penstock.log import Batch
from penstock.quarantine import covered
from penstock.records import Quarantine
from penstock.runtime.lane import Redelivered
from penstock.segment import Segment
from penstock.statistics.quota import Quota

from .levels import LevelCoder

__all__ = ["Examples", "Rows"]

FOREVER = (1 << 63) - 1

Order = tuple[int, str, int]
"""When it counts, the id, and the offset: the outcomes of an id lie in one partition, the last word last."""
Pending = tuple[Order, str, tuple[Any, ...]]
"""Its place, the source of its label, and the values of its row."""


class _Read(msgspec.Struct):
    """What is learned from an Outcome."""

    id: str
    time: datetime
    labelled: datetime
    label: bool
    inputs: msgspec.Raw
    scores: dict[str, float]
    version: str
    corrects: bool | None = None
    source: str = ""
    truth: float | str | None = None
    key: str = ""
    segments: dict[str, str] = {}
    probabilities: dict[str, dict[str, float]] = {}


_DECODE = msgspec.json.Decoder(list[_Read]).decode


LABELS: Final[dict[str, Any]] = {"binary": np.bool_, "regression": np.float64, "multiclass": np.int64}
"""How labels are kept, by what a model answers; of classes their number."""


def _layout(width: int, task: str, segments: int) -> np.dtype[np.void]:
    """An example: its inputs and label, when it counts, the row of its id before it (-1: none), both members' answers, where its
    outcome lies, whose it is, and its levels where there are `segments`."""
    what = [("X", np.float32, (width,)), ("label", LABELS[task])]
    when = [("time", np.int64), ("labelled", np.int64), ("replaced", np.int64), ("before", np.int64)]
    where = [("partition", np.int32), ("offset", np.int64), ("key", np.uint64), ("source", np.int16)]
    whose = [("levels", np.int64, (segments,))] if segments else []
    return np.dtype([*what, *when, ("batch", np.float64), ("online", np.float64), *where, *whose])


_COLUMNS: Final = ("label", "time", "batch", "online", "partition", "offset")


@dataclass(frozen=True)
class Rows:
    """Some examples: `X` float32 (rows, inputs), the others (rows,); `label` is bool, float64, or int64 (a class).
    `batch` and `online` are the answers that both members gave at the time, NaN where one did not: probabilities or numbers, of
    classes the probability of the one that came true. `partition` and `offset` are where the outcome lies. `quarantined` says how
    many labels are not here, by the id of the quarantine that holds them, and `beyond` how many because their source would have
    more than its share of what is left. `levels` (rows, segments) are codes of levels, see `Examples.levels`; None where no
    segment is declared."""

    X: Matrix
    label: npt.NDArray[Any]
    time: npt.NDArray[np.int64]
    batch: npt.NDArray[np.float64]
    online: npt.NDArray[np.float64]
    partition: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]
    quarantined: Mapping[str, int] = field(default_factory=dict)
    beyond: Mapping[str, int] = field(default_factory=dict)
    levels: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.label)

    @classmethod
    def of(cls, table: npt.NDArray[np.void]) -> Rows:
        columns: dict[str, Any] = {name: table[name] for name in _COLUMNS}
        levels = table["levels"] if "levels" in (table.dtype.names or ()) else None
        return cls(np.ascontiguousarray(table["X"]), **columns, levels=levels)

    def where(self, those: npt.NDArray[np.bool_]) -> Rows:
        """Some of them, in order."""
        levels = None if self.levels is None else self.levels[those]
        return replace(self, **{name: getattr(self, name)[those] for name in ("X", *_COLUMNS)}, levels=levels)

    @property
    def positions(self) -> dict[str, int]:
        """Partition -> the position after its newest example."""
        return {str(p): int(self.offset[self.partition == p].max()) + 1 for p in np.unique(self.partition)}

    @property
    def digest(self) -> str:
        """sha256 over inputs (little-endian float32, row by row) and labels (one byte each; numbers and classes eight)."""
        labels = self.label.astype(self.label.dtype.newbyteorder("<"), copy=False)
        return hashlib.sha256(self.X.astype("<f4").tobytes() + labels.tobytes()).hexdigest()


class Examples:
    """The outcomes of one model. `add` takes batches as they are read, `known` sorts in what a job may see. `horizon`: where
    labels wait for it (`Label.waits`)."""

    def __init__(
        self,
        inputs: Sequence[str],
        horizon: int | None = None,
        caps: Mapping[str, float] = MappingProxyType({}),
        label: Label | None = None,
        segments: Sequence[Segment] = (),
    ) -> None:
        self._horizon, self._quota, self._caps = horizon, Quota(caps), caps
        self._task = label.task if label else "binary"
        self._classes = {name: at for at, name in enumerate(label.classes)} if label else {}
        self._left_out: dict[str, array[int]] = defaultdict(lambda: array("q"))
        """Source -> when its labels would have counted, ascending: eight bytes for each, as who floods sends millions."""
        self._unlike: list[int] = []
        """When outcomes of another kind of label would have counted."""
        self._inputs = InputsDecoder(inputs)
        self._table = np.empty(0, _layout(self._inputs.width, self._task, len(segments)))
        self._coders = [LevelCoder(segment) for segment in segments]
        self._size = 0
        self._newest: dict[str, int] = {}
        self._sources: dict[str, int] = {}
        self._pending: list[Pending] = []
        self._redelivered = Redelivered()

    def __len__(self) -> int:
        return self._size

    def add(self, batch: Batch) -> list[tuple[int, Refused]]:
        """Take the outcomes of one partition, in its order; returns those that cannot be read, by index in the
        batch."""
        new = range(len(batch))
        if batch.headers:
            new = [at for at in new if self._redelivered.new(batch.headers[at])]  # type: ignore[assignment]
        refused: list[tuple[int, Refused]] = []
        try:
            self._take(batch, new)
        except msgspec.MsgspecError:
            for at in new:
                try:
                    self._take(batch, [at])
                except msgspec.MsgspecError as error:
                    refused.append((at, Refused("schema", f"not an outcome: {error}")))
        return refused

    def _take(self, batch: Batch, which: Sequence[int]) -> None:
        if not which:
            return
        read = _DECODE(b"[" + b",".join(batch.values[at] or b"null" for at in which) + b"]")
        inputs = self._inputs.matrix([row.inputs for row in read])
        labels = [self._label(row) for row in read]
        for at, row, vector, label in zip(which, read, inputs, labels, strict=True):
            time, labelled = to_micros(row.time), to_micros(row.labelled)
            counts = max(labelled, time + (self._horizon or 0))
            if label is None:
                self._unlike.append(counts)
                continue
            order = counts, row.id, batch.offsets[at]
            source = self._sources.setdefault(row.source, len(self._sources))
            place = batch.partition.number, batch.offsets[at], _hashed(row.key), source
            levels = [[coder.code(row.segments) for coder in self._coders]] if self._coders else []
            values = (vector, label, time, counts, FOREVER, -1, *_members(row), *place, *levels)
            self._pending.append((order, row.source, values))

    def _label(self, row: _Read) -> bool | float | int | None:
        """None: it is of before another kind of label, or other classes, were declared."""
        if self._task == "binary":
            return row.label if row.truth is None else None
        if self._task == "multiclass":
            return self._classes.get(row.truth) if isinstance(row.truth, str) else None
        return row.truth if isinstance(row.truth, float) else None

    def known(self, before: int) -> slice:
        """The rows whose label was known before a time, as a slice of everything sorted in so far."""
        ready = sorted((p for p in self._pending if p[0][0] < before), key=lambda p: p[0])
        if ready:
            self._pending = [p for p in self._pending if p[0][0] >= before]
            newest = {p[0][:2]: p for p in ready}  # of what counts at one time, the last word
            taken = {order: self._taken(p) for order, p in newest.items()}
            self._append([p for p in ready if taken[p[0][:2]]])
        return slice(0, int(np.searchsorted(self._table["labelled"][: self._size], before, "left")))

    def _taken(self, row: Pending) -> bool:
        (counts, *_), source, _ = row
        if not source or self._quota.take(source):
            return True
        found = self._left_out[source]
        found.append(max(counts, found[-1] if found else counts))
        return False

    def levels(self, rows: Rows) -> dict[str, list[str]]:
        """The level of each row, by segment."""
        if rows.levels is None:
            return {}
        return {coder.segment.name: coder.levels(rows.levels[:, at]) for at, coder in enumerate(self._coders)}

    def left_out(self, before: int) -> dict[str, int]:
        """How many labels of each source were left out up to a time, because it had said more than its share."""
        found = {source: bisect_left(times, before) for source, times in sorted(self._left_out.items())}
        return {source: count for source, count in found.items() if count}

    def unlike(self, before: int) -> int:
        """How many outcomes up to a time are of another kind of label than is declared now, or of other classes."""
        return sum(counts < before for counts in self._unlike)

    def rows(self, span: slice, held: Sequence[Quarantine] = ()) -> Rows:
        """Rows of a span that no quarantine holds, corrected ones twice: for what learns one by one."""
        by, free = self._standing(span.stop, held)
        return self._picked(span, by, free, np.ones(span.stop, np.bool_), held)

    def window(self, before: int, length: int, held: Sequence[Quarantine] = ()) -> Rows:
        """What a full fit at `before` learns from: known by then, newest row per id that no quarantine holds, of events not older
        than `length` (0: all)."""
        span = self.known(before)  # first, for it may move the table
        table = self._table[span]
        by, free = self._standing(span.stop, held)
        wanted = table["replaced"] >= before
        if length:
            wanted &= table["time"] >= before - length
        here, at = wanted & free, np.flatnonzero(wanted & ~free)
        while len(at := table["before"][at]) and len(at := at[at >= 0]):
            here[at[free[at]]] = True
            at = at[~free[at]]
        return self._picked(span, by, here, wanted, held)

    def trim(self, before: int) -> None:
        """Forget events before a time, which no fit asks for any more; worth it once they are half of all. Not where sources have
        caps: what these leave depends on all rows."""
        table = self._table[: self._size]
        keep = table["time"] >= before
        if self._caps or 2 * keep.sum() > self._size:
            return
        places, kept = np.cumsum(keep) - 1, table[keep]
        kept["before"] = np.where(kept["before"] < 0, -1, places[kept["before"]])  # the rows of an id are of one event
        self._newest = {name: int(places[at]) for name, at in self._newest.items() if keep[at]}
        self._table, self._size = kept, len(kept)

    def free(self, stop: int, held: Sequence[Quarantine]) -> npt.NDArray[np.bool_]:
        """Which of the first rows are learned one by one."""
        return self._standing(stop, held)[1]

    def _standing(self, stop: int, held: Sequence[Quarantine]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Of the first rows, the place of the quarantine that holds each (-1: none), and which stand: those that none holds,
        within the caps of their sources, the newest alone of an id that counts at one time."""
        table = self._table[:stop]
        free = table["replaced"] > table["labelled"]
        if not held:
            return np.full(stop, -1, np.int64), free
        by = self._covered(table, held)
        replaces = (table["before"] >= 0) & (table["labelled"][table["before"]] == table["labelled"])
        claimed = by < 0  # it, or a newer one of its moment, stands
        free = claimed.copy()
        for at in np.flatnonzero(replaces)[::-1].tolist():
            older = table["before"][at]
            free[older] &= not claimed[at]
            claimed[older] |= claimed[at]
        if self._caps:
            quota, names = Quota(self._caps), {number: name for name, number in self._sources.items()}
            for at in np.flatnonzero(free).tolist():
                source = names[int(table["source"][at])]
                free[at] = not source or quota.take(source)
        return by, free

    def _picked(self, span: slice, by: Any, here: Any, wanted: Any, held: Sequence[Quarantine]) -> Rows:
        """The rows that are `here`, and what of those `wanted` is not."""
        table, by, here = self._table[span], by[span], here[span]
        gone = wanted[span] & ~here
        if not held:
            return Rows.of(table[here])
        counts = np.bincount(by[gone & (by >= 0)], minlength=len(held)).tolist()
        beyond = np.bincount(
            table["source"][gone & (by < 0) & (table["replaced"] > table["labelled"])], minlength=len(self._sources)
        )
        return replace(
            Rows.of(table[here]),
            quarantined={one.id: n for one, n in zip(held, counts, strict=True) if n},
            beyond={name: n for name, n in zip(self._sources, beyond.tolist(), strict=True) if n},
        )

    def _covered(self, table: npt.NDArray[np.void], held: Sequence[Quarantine]) -> npt.NDArray[np.int64]:
        source_of = lambda name: self._sources.get(name, -1)  # noqa: E731
        return covered(held, table["time"], table["key"], table["source"], _hashed, source_of)

    def _append(self, ready: list[Pending]) -> None:
        if not ready:
            return
        first, self._size = self._size, self._size + len(ready)
        if self._size > len(self._table):
            grown = np.empty(max(self._size, 2 * len(self._table), 1024), self._table.dtype)
            grown[:first] = self._table[:first]
            self._table = grown
        new, labelled = self._table[first : self._size], self._table["labelled"]
        new[:] = [values for _, _, values in ready]
        if first:  # earlier than what a job has learned already (monitoring promises that there is none): learned next
            new["labelled"] = np.maximum(new["labelled"], labelled[first - 1])
        for index, ((_, name, *_), _, _) in enumerate(ready, first):
            before = self._newest.get(name)
            if before is not None:
                self._table["replaced"][before], self._table["before"][index] = labelled[index], before
            self._newest[name] = index


def _hashed(key: str) -> np.uint64:
    """64 bits, as names would cost ten times that: that a quarantine holds another of a million keys has odds of 1 to 10^13."""
    return np.uint64(int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little"))


def _members(row: _Read) -> tuple[float, float]:
    """The answers of the batch version in charge and of the online snapshot."""
    said: dict[str, float] = row.scores
    if row.probabilities:
        said = {version: shares.get(str(row.truth), 0.0) for version, shares in row.probabilities.items()}
    batch = math.nan if row.version.startswith("online-") else said.get(row.version, math.nan)
    online = next((answer for version, answer in said.items() if version.startswith("online-")), math.nan)
    return batch, online
