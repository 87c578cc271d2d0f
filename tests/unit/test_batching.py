"""Requests of one turn are one run, each gets its own rows, a bad one fails alone, and nobody is let in to wait too long."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import Refused
from penstock.services.inference.open_inference.batching import ROWS, Batcher, Overloaded
from penstock.services.inference.open_inference.datatypes import Array
from penstock.services.inference.open_inference.tally import Tally
from penstock.services.inference.open_inference.tensors import Asked, Signature, Tensor

SIGNATURE = Signature((Tensor("x", "FP64", [-1, 2]),), (Tensor("sum", "FP64", [-1]), Tensor("max", "FP64", [-1])))


class Model:
    """Adds up and compares rows; refuses negative ones. Remembers how many rows each run had."""

    def __init__(self) -> None:
        self.runs: list[int] = []
        self.threads: set[int] = set()

    def __call__(self, wanted: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        rows = feeds["x"]
        self.runs.append(len(rows))
        self.threads.add(threading.get_ident())
        if (rows < 0).any():
            raise Refused("schema", "negative")
        outputs = {"sum": rows.sum(axis=1), "max": rows.max(axis=1)}
        return [outputs[name] for name in wanted]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def asked(rows: Any, *wanted: str) -> Asked:
    array = np.array(rows, np.float64).reshape(-1, 2)
    return Asked({"x": array}, len(array), wanted or SIGNATURE.names, frozenset(), None)


def run(talk: Callable[[Model, Clock, Tally, Batcher], Awaitable[None]], signature: Signature = SIGNATURE) -> None:
    async def whole() -> None:
        model, clock, tally = Model(), Clock(), Tally()
        await talk(model, clock, tally, Batcher(model, signature, tally, 1.0, clock))

    asyncio.run(whole())


async def outcome(batcher: Batcher, request: Asked) -> Any:
    try:
        return [array.tolist() for array in await batcher.ask(request)]
    except Refused as refusal:
        return str(refusal)


@given(
    st.lists(
        st.tuples(st.lists(st.integers(-1, 9), min_size=2, max_size=6).map(lambda v: v[: len(v) // 2 * 2]), st.booleans()),
        max_size=12,
    )
)
def test_each_request_gets_what_it_would_get_alone(requests: list[tuple[list[int], bool]]) -> None:
    async def talk(model: Model, clock: Clock, tally: Tally, batcher: Batcher) -> None:
        made = [asked(values, *(["max"] if few else [])) for values, few in requests]
        together = await asyncio.gather(*(outcome(batcher, request) for request in made))
        alone = [await outcome(batcher, request) for request in made]
        assert together == alone
        good = sum(request.rows for request, found in zip(made, alone, strict=True) if isinstance(found, list))
        assert tally.rows == 2 * good

    run(talk)


def test_requests_of_one_turn_are_one_run() -> None:
    async def talk(model: Model, clock: Clock, tally: Tally, batcher: Batcher) -> None:
        await asyncio.gather(*(outcome(batcher, asked([n, n])) for n in range(20)))
        assert model.runs == [20]
        await asyncio.gather(*(outcome(batcher, asked([[n, n]] * 100)) for n in range(20)))
        assert model.runs[1:] == [1000, 1000]
        assert max(model.runs) <= ROWS
        await outcome(batcher, asked([[1, 1]] * (ROWS + 1)))  # one request is never cut
        assert model.runs[-1] == ROWS + 1

    run(talk)


def test_rows_of_a_model_that_does_not_batch_are_never_put_together() -> None:
    async def talk(model: Model, clock: Clock, tally: Tally, batcher: Batcher) -> None:
        await asyncio.gather(*(outcome(batcher, asked([n, n])) for n in range(5)))
        assert model.runs == [1] * 5

    run(talk, Signature(SIGNATURE.inputs, SIGNATURE.outputs, batched=False))


def test_only_requests_with_the_same_trailing_shape_are_put_together() -> None:
    async def talk(model: Model, clock: Clock, tally: Tally, batcher: Batcher) -> None:
        wide = Asked({"x": np.ones((2, 5))}, 2, ("sum",), frozenset(), None)
        found = await asyncio.gather(
            outcome(batcher, asked([1, 1], "sum")), outcome(batcher, wide), outcome(batcher, asked([2, 2], "sum"))
        )
        assert list(found) == [[[2.0]], [[5.0, 5.0]], [[4.0]]]
        assert model.runs == [2, 2]

    run(talk, Signature((Tensor("x", "FP64", [-1, -1]),), SIGNATURE.outputs))


def test_a_client_that_has_gone_costs_no_run() -> None:
    async def talk(model: Model, clock: Clock, tally: Tally, batcher: Batcher) -> None:
        asyncio.get_running_loop().call_soon(lambda: None)  # something else is to run: the batch waits for it
        gone, stays = batcher.ask(asked([1, 1])), batcher.ask(asked([2, 2]))
        gone.cancel()
        assert [array.tolist() for array in await stays] == [[4.0], [2.0]]
        assert model.runs == [1]

    run(talk)


def test_a_lone_request_is_run_at_once() -> None:
    async def talk(model: Model, clock: Clock, tally: Tally, batcher: Batcher) -> None:
        assert batcher.ask(asked([1, 1])).done()

    run(talk)


def test_nobody_is_let_in_while_the_oldest_waits_too_long_which_is_refused_instead_of_answered_late() -> None:
    async def talk(model: Model, clock: Clock, tally: Tally, batcher: Batcher) -> None:
        asyncio.get_running_loop().call_soon(lambda: None)
        first = batcher.ask(asked([1, 1]))
        clock.now = 1.0
        second = batcher.ask(asked([2, 2]))
        clock.now = 1.1
        with pytest.raises(Overloaded):
            batcher.ask(asked([3, 3]))
        with pytest.raises(Overloaded):
            await first
        assert [array.tolist() for array in await second] == [[4.0], [2.0]]
        await batcher.ask(asked([3, 3]))  # the queue is empty: no matter what was
        assert model.runs == [1, 1] and tally.rows == 2

    run(talk)


def test_a_long_run_leaves_the_loop_to_others() -> None:
    async def talk(model: Model, clock: Clock, tally: Tally, batcher: Batcher) -> None:
        def slow(wanted: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
            clock.now += 0.5
            return model(wanted, feeds)

        batcher = Batcher(slow, SIGNATURE, tally, 10.0, clock)
        await batcher.ask(asked([1, 1]))
        assert model.threads == {threading.get_ident()}  # it did not know yet
        found = await asyncio.gather(*(outcome(batcher, asked([n, n])) for n in range(5)))
        assert found == [[[2.0 * n], [n]] for n in range(5)]
        assert len(model.threads) == 2

    run(talk)


def test_a_batch_for_which_no_thread_can_be_started_fails_and_the_next_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    async def whole() -> None:
        batcher = Batcher(Model(), SIGNATURE, Tally(), apart=True)
        with monkeypatch.context() as short:
            short.setattr(ThreadPoolExecutor, "submit", none_left)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                await asyncio.wait_for(batcher.ask(asked([1, 2])), 10)
        assert await asyncio.wait_for(outcome(batcher, asked([1, 2])), 10) == [[3.0], [2.0]]

    def none_left(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    asyncio.run(whole())
