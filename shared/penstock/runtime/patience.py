"""Waiting out transient faults: a log, a store or a disk that is away is waited for, and said once; nothing is given up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from ..log import Gap, LogError, TooLarge
from ..store import StoreError

__all__ = ["RETRY_SECONDS", "Patient", "patiently"]

T = TypeVar("T")


class Patient(Protocol):
    """How somebody waits: `patiently`, with what he tells of it."""

    async def __call__(self, attempt: Callable[[], Awaitable[T]], /) -> T: ...


RETRY_SECONDS = (0.1, 0.3, 1.0, 2.0)
"""Waits between attempts; the last one repeats. A fault like that never dead-letters."""


async def patiently(attempt: Callable[[], Awaitable[T]], logger: Any, failed: Callable[[], object] = lambda: None) -> T:
    """Repeat until it works. Gap and TooLarge are raised at once: waiting cures neither. `failed` is called per failure."""
    told, count = "", 0
    while True:
        try:
            return await attempt()
        except (Gap, TooLarge):
            raise
        except (LogError, StoreError, OSError) as error:
            failed()
            if str(error) != told:
                told = str(error)
                logger.warning("waiting", cause=told)
            await asyncio.sleep(RETRY_SECONDS[min(count, len(RETRY_SECONDS) - 1)])
            count += 1
