"""Deadlines around aiokafka: what waits there for ever while a broker is down ends here as one sentence.

With `asyncio.timeout`: `asyncio.wait_for` of Python 3.11 drops a cancellation that comes in the moment of the answer, and
then a service that was told to end goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Final, TypeVar

from aiokafka.errors import KafkaError

from . import LogError

__all__ = ["DEADLINE", "failed", "quietly", "within"]

T = TypeVar("T")

DEADLINE: Final = 30.0
"""Seconds for any one answer: above a leader election (10 s) and a group's first join, below people's patience."""

CLOSING: Final = 5.0
"""Seconds for a client to say goodbye; who does not hear it finds out by the session timeout."""

logger = logging.getLogger(__name__)


async def within(work: Awaitable[T], doing: str, bootstrap: str) -> T:
    """The answer in time, else LogError."""
    try:
        async with asyncio.timeout(DEADLINE):
            return await work
    except TimeoutError:
        raise LogError(
            f"{doing}: Kafka at {bootstrap} gave no answer within {DEADLINE:.0f} s; look with: penstock doctor"
        ) from None
    except (KafkaError, OSError) as error:
        raise failed(doing, bootstrap, error) from error


def failed(doing: str, bootstrap: str, error: BaseException) -> LogError:
    """What aiokafka raised, as people should hear it."""
    cause = str(error) or type(error).__name__
    return LogError(f"{doing}: Kafka at {bootstrap} says {cause}; look with: penstock doctor")


async def quietly(work: Awaitable[object], doing: str) -> bool:
    """Whether a farewell came through. A failed one harms nobody: it is logged, not raised.

    In a task of its own: aiokafka's clients end their own tasks and let the cancellation out, which is not ours.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=CLOSING)
    finally:
        late = not task.done()
        task.cancel()
    error = None if late or task.cancelled() else task.exception()
    if late or error is not None:
        logger.warning("%s: %s", doing, f"no answer within {CLOSING:.0f} s" if late else error)
    return not late and error is None
