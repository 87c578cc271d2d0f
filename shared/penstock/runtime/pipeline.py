"""A pipeline: steps of one shard overlap, so that the next one is worked while the one before is stored.

    work    in order; a step begins when the one before has been worked
    store   in order; begins when the step is worked and the one before is stored whole

So whatever storing does, it does for one step at a time, and a step that fails stops all that came after it: they fail with
the same error, and have stored nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

__all__ = ["DEPTH", "Pipeline", "ended"]

T = TypeVar("T")

DEPTH: Final = 2
"""Steps under way at once: one that is stored, and one that is worked meanwhile. More would only use more memory."""

AGAIN: Final = 0.5
"""Seconds after which a task that was cancelled and goes on is cancelled once more: clients may drop a cancellation."""


class _Step(NamedTuple):
    worked: asyncio.Future[Any]
    stored: asyncio.Future[bool]


class Pipeline:
    """At most `DEPTH` steps under way.

    >>> async def steps() -> list[str]:
    ...     pipeline, said = Pipeline(), list[str]()
    ...     async def work(before: Awaitable[object] | None) -> int:
    ...         said.append("work")
    ...         return 1
    ...     async def store(made: int) -> bool:
    ...         await asyncio.sleep(0.01)
    ...         said.append("stored")
    ...         return True
    ...     for _ in range(3):
    ...         await pipeline.room()
    ...         pipeline.begin(work, store)
    ...     await pipeline.end()
    ...     return said
    >>> asyncio.run(steps())
    ['work', 'work', 'stored', 'work', 'stored', 'stored']
    """

    def __init__(self) -> None:
        self._steps: deque[_Step] = deque()

    def __bool__(self) -> bool:
        """Whether any step is under way."""
        return bool(self._steps)

    def begin(self, work: Callable[[Awaitable[object] | None], Awaitable[T]], store: Callable[[T], Awaitable[bool]]) -> None:
        """Begin a step, for which there must be `room`. `work` is given what ends when the step before is stored; `store` what
        `work` has made, and says whether there was anything to store."""
        before = self._steps[-1] if self._steps else None

        async def working() -> T:
            if before is not None:
                await before.worked
            return await work(before.stored if before is not None else None)

        async def storing() -> bool:
            made = await worked
            if before is not None:
                await before.stored
            return await store(made)

        worked = asyncio.ensure_future(working())
        self._steps.append(_Step(worked, asyncio.ensure_future(storing())))

    async def room(self) -> bool:
        """Wait until a step may begin. Whether one has ended that stored anything; raises what one has failed with."""
        return await self._ended(DEPTH - 1)

    async def end(self) -> bool:
        """Wait until nothing is under way; otherwise as `room`."""
        return await self._ended(0)

    async def _ended(self, left: int) -> bool:
        moved = False
        while len(self._steps) > left or (self._steps and self._steps[0].stored.done()):
            moved |= await self._steps[0].stored
            self._steps.popleft()
        return moved

    def drop(self) -> list[asyncio.Future[Any]]:
        """Forget all steps, wherever they are; what is to be `ended` of them."""
        left = [task for step in self._steps for task in step]
        self._steps.clear()
        return left


async def ended(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel tasks and wait until they have ended, with whatever outcome."""
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN)
    await asyncio.gather(*tasks, return_exceptions=True)
