"""Batching without a timer: what has come in during one turn of the event loop is one run of the model.

A lone request waits for nothing, and the busier the server, the larger its batches. A run that is expected to take long
goes to a thread, so that others are answered meanwhile; what comes in during it is the next batch. So does every run that waits
for another process, in a thread that is its model's own: one that hangs holds up nobody else. Where a batch fails, each
of its requests is run alone, so that a bad one fails by itself. Admission is by age: while the oldest request that waits
has waited longer than `patience`, no other is let in, and one that has when its turn comes is refused instead of answered
late: its client has asked somebody else by then.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec
import numpy as np

from penstock.runtime.refusals import SOON, Failed

from .datatypes import Array
from .tally import Tally
from .tensors import Asked, Signature

__all__ = ["Batcher", "Overloaded", "Run"]

Run = Callable[[Sequence[str], Mapping[str, Array]], list[Array]]
"""Names of outputs, arrays by input -> outputs in that order."""

ROWS: Final = 1024
"""Of one batch, where it is put together of several requests: a tree model of 100 trees takes 3 ms for them."""

LONG: Final = 0.010
"""Seconds that a run may hold the event loop. A thread costs some 0.1 ms."""


class Overloaded(Failed):
    """Requests wait too long already."""

    def __init__(self) -> None:
        super().__init__(503, "requests wait too long already; ask again", SOON)


class _Waiting(msgspec.Struct, gc=False):
    asked: Asked
    kind: tuple[Any, ...]
    """Requests of one kind can be put together."""
    answer: asyncio.Future[list[Array]]
    since: float


class Batcher:
    """Runs one version of a model. Use it from one event loop."""

    def __init__(
        self,
        run: Run,
        signature: Signature,
        tally: Tally,
        patience: float = 1.0,
        clock: Callable[[], float] = time.perf_counter,
        apart: bool = False,
    ) -> None:
        """`apart`: `run` waits for another process."""
        self._thread = ThreadPoolExecutor(1) if apart else None
        self._run, self._tally, self._patience, self._clock = run, tally, patience, clock
        self._batched = signature.batched
        self._free = [tensor.name for tensor in signature.inputs if -1 in tensor.shape[1:] or not tensor.shape]
        self._waiting: deque[_Waiting] = deque()
        self._turning = False
        self._pace = 0.0
        """Seconds a row, of late."""

    def ask(self, asked: Asked) -> asyncio.Future[list[Array]]:
        """The outputs to come. Raises Overloaded; so may the future, beside what the run raises for this request alone."""
        now, waiting = self._clock(), self._waiting
        if waiting and now - waiting[0].since > self._patience:
            raise Overloaded
        loop = asyncio.get_running_loop()
        kind: tuple[Any, ...] = (asked.wanted, *(asked.feeds[name].shape[1:] for name in self._free))
        answer: asyncio.Future[list[Array]] = loop.create_future()
        waiting.append(_Waiting(asked, kind, answer, now))
        if not self._turning:
            self._turning = True
            if getattr(loop, "_ready", True):  # what else asyncio runs in this turn; other loops do not say
                loop.call_soon(self._turn)
            else:
                self._turn()
        return answer

    def _turn(self) -> None:
        """Run the batch at the head of the queue."""
        batch, rows = self._next()
        if not batch:
            self._turning = False
            return
        if self._thread is not None or self._pace * rows > LONG:
            try:
                running = asyncio.get_running_loop().run_in_executor(self._thread, self._timed, batch)
            except RuntimeError as error:  # no thread can be started now; the next batch may have one
                self._answer(batch, rows, [error] * len(batch), self._clock(), 0.0)
                return
            running.add_done_callback(lambda done: self._answer(batch, rows, *done.result()))
        else:
            self._answer(batch, rows, *self._timed(batch))

    def _next(self) -> tuple[list[_Waiting], int]:
        """The oldest request, and all of its kind that there is room for; those whose clients have gone, or waited too long, are
        left out."""
        waiting, others, batch, rows = self._waiting, list[_Waiting](), list[_Waiting](), 0
        oldest = self._clock() - self._patience
        while waiting:
            one = waiting.popleft()
            if one.answer.cancelled():
                continue
            if one.since < oldest:
                one.answer.set_exception(Overloaded())
                continue
            if batch and not (self._batched and one.kind == batch[0].kind and rows + one.asked.rows <= ROWS):
                others.append(one)
                if not self._batched or rows >= ROWS:
                    break
                continue
            batch.append(one)
            rows += one.asked.rows
        waiting.extendleft(reversed(others))
        return batch, rows

    def _timed(self, batch: list[_Waiting]) -> tuple[list[list[Array] | Exception], float, float]:
        """What each request of a batch gets, when that began, and how long it took."""
        began = self._clock()
        found = self._outputs([one.asked for one in batch])
        return found, began, self._clock() - began

    def _outputs(self, batch: list[Asked]) -> list[list[Array] | Exception]:
        first = batch[0]
        try:
            if len(batch) == 1:
                return [self._run(first.wanted, first.feeds)]
            feeds = {name: np.concatenate([one.feeds[name] for one in batch]) for name in first.feeds}
            found, at, parts = self._run(first.wanted, feeds), 0, list[list[Array] | Exception]()
            for one in batch:
                parts.append([array[at : at + one.rows] for array in found])
                at += one.rows
            return parts
        except Exception as error:
            if len(batch) == 1:
                return [error]
            until = self._clock() + self._patience  # one that hangs must not do so for each of them
            return [self._outputs([one])[0] if self._clock() <= until else Overloaded() for one in batch]

    def _answer(self, batch: list[_Waiting], rows: int, found: list[list[Array] | Exception], began: float, took: float) -> None:
        tally = self._tally
        tally.executions += 1
        tally.infer += took
        self._pace += 0.2 * (took / max(rows, 1) - self._pace)
        for one, outputs in zip(batch, found, strict=True):
            if one.answer.cancelled():
                continue
            if isinstance(outputs, Exception):
                one.answer.set_exception(outputs)
            else:
                tally.rows += one.asked.rows
                tally.queue += began - one.since
                one.answer.set_result(outputs)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._turn)
        else:
            self._turning = False
