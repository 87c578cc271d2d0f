"""Examples: all outcomes of a model as columns, in the order in which their labels became known.

What is learned at time T are the outcomes whose label was known before T, so that reading further ahead changes
nothing, and partitions may come interleaved in any way: rows are kept sorted by (labelled, id). A correction is a
second row of the same id; at T the newest row known before T counts.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from penstock.errors import Refused
from penstock.event import to_micros
from penstock.inputs import InputsDecoder, Matrix
from penstock.lane import Redelivered
from penstock.log import Batch

__all__ = ["Examples", "Rows"]

FOREVER = (1 << 63) - 1


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


_DECODE = msgspec.json.Decoder(list[_Read]).decode

_COLUMNS: dict[str, Any] = {
    "label": np.bool_,
    "time": np.int64,
    "labelled": np.int64,
    "replaced": np.int64,
    "batch": np.float64,
    "online": np.float64,
    "partition": np.int32,
    "offset": np.int64,
}


@dataclass(frozen=True, slots=True)
class _Pending:
    """An outcome not yet sorted in, with its inputs."""

    order: tuple[int, str, bool]
    """Labelled, id, whether it corrects."""
    partition: int
    offset: int
    read: _Read
    inputs: Matrix


@dataclass(frozen=True)
class Rows:
    """Some examples: `X` float32 (rows, inputs), the others (rows,). `batch` and `online` are the scores that both
    members gave at the time, NaN where one did not. `partition` and `offset` are where the outcome lies."""

    X: Matrix
    label: npt.NDArray[np.bool_]
    time: npt.NDArray[np.int64]
    batch: npt.NDArray[np.float64]
    online: npt.NDArray[np.float64]
    partition: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.label)

    @property
    def positions(self) -> dict[str, int]:
        """Partition -> the position after its newest example."""
        found = {int(p): int(self.offset[self.partition == p].max()) + 1 for p in np.unique(self.partition)}
        return {str(p): found[p] for p in sorted(found)}

    @property
    def digest(self) -> str:
        """sha256 over inputs (little-endian float32, row by row) and labels (one byte each)."""
        found = hashlib.sha256(np.ascontiguousarray(self.X, "<f4").tobytes())
        found.update(np.ascontiguousarray(self.label).tobytes())
        return found.hexdigest()


class Examples:
    """The outcomes of one model. `add` takes batches as they are read, `known` sorts in what a job may see."""

    def __init__(self, inputs: Sequence[str]) -> None:
        self._inputs = InputsDecoder(inputs)
        self._X = np.empty((0, self._inputs.width), np.float32)
        self._columns = {name: np.empty(0, kind) for name, kind in _COLUMNS.items()}
        self._newest: dict[str, int] = {}
        self._pending: list[_Pending] = []
        self._size = 0
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
        number = batch.partition.number
        self._pending += [
            _Pending((to_micros(row.labelled), row.id, row.corrects is not None), number, batch.offsets[at], row, vector)
            for at, row, vector in zip(which, read, inputs, strict=True)
        ]

    def known(self, before: int) -> slice:
        """The rows whose label was known before a time, as a slice of everything sorted in so far."""
        ready = [p for p in self._pending if p.order[0] < before]
        if ready:
            self._pending = [p for p in self._pending if p.order[0] >= before]
            self._append(sorted(ready, key=lambda p: p.order))
        labelled = self._columns["labelled"][: self._size]
        return slice(0, int(np.searchsorted(labelled, before, "left")))

    def rows(self, span: slice) -> Rows:
        """Rows of a span as views, corrected ones twice: for what learns one by one."""
        return self._rows(span)

    def window(self, before: int, length: int) -> Rows:
        """What a full fit at `before` learns from: known by then, newest row per id, of events not older than `length`
        (0: all)."""
        span = self.known(before)
        at = slice(span.start, span.stop)
        keep = self._columns["replaced"][at] >= before
        if length:
            keep &= self._columns["time"][at] >= before - length
        return self._rows(np.flatnonzero(keep))

    def _rows(self, which: slice | npt.NDArray[np.int64]) -> Rows:
        c = self._columns
        return Rows(
            self._X[: self._size][which],
            *(c[name][: self._size][which] for name in ("label", "time", "batch", "online", "partition", "offset")),
        )

    def _append(self, ready: list[_Pending]) -> None:
        c, first = self._columns, self._size
        latest = int(c["labelled"][first - 1]) if first else 0
        self._size += len(ready)
        self._grow()
        c, here = self._columns, slice(first, self._size)
        self._X[here] = np.stack([p.inputs for p in ready])
        c["label"][here] = [p.read.label for p in ready]
        c["time"][here] = [to_micros(p.read.time) for p in ready]
        # Earlier than what a job has learned already (monitoring promises that this does not happen): learned next.
        c["labelled"][here] = [max(p.order[0], latest) for p in ready]
        c["replaced"][here] = FOREVER
        c["partition"][here] = [p.partition for p in ready]
        c["offset"][here] = [p.offset for p in ready]
        scores = [_members(p.read) for p in ready]
        c["batch"][here] = [batch for batch, _ in scores]
        c["online"][here] = [online for _, online in scores]
        for index, p in enumerate(ready, first):
            before = self._newest.get(p.read.id)
            if before is not None:
                c["replaced"][before] = c["labelled"][index]
            self._newest[p.read.id] = index

    def _grow(self) -> None:
        if self._size <= len(self._X):
            return
        capacity = max(self._size, 2 * len(self._X), 1024)
        grown = np.empty((capacity, self._inputs.width), np.float32)
        grown[: len(self._X)] = self._X
        self._X = grown
        for name, column in self._columns.items():
            wider = np.empty(capacity, column.dtype)
            wider[: len(column)] = column
            self._columns[name] = wider


def _members(row: _Read) -> tuple[float, float]:
    """The scores of the batch version in charge and of the online snapshot."""
    batch = math.nan if row.version.startswith("online-") else row.scores.get(row.version, math.nan)
    online = next((score for version, score in row.scores.items() if version.startswith("online-")), math.nan)
    return batch, online
