"""Rates: how often a key may ask, as a sliding window. Counted in Redis, for all processes; without one, or while it does not
answer, in this process alone."""

from __future__ import annotations

import re
import time
from typing import Any, Final, NamedTuple

import structlog
from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from ..errors import SettingError
from .scopes import RATE

__all__ = ["Rates", "Spent", "rate_of"]

AWAY: Final = 5.0
"""Seconds for which a Redis that did not answer is not asked again."""
PATIENCE: Final = 0.25
"""Seconds that Redis may take to count one request."""


class Spent(NamedTuple):
    """A key has asked as often as it may."""

    most: int
    seconds: int
    """In so many seconds."""
    after: int
    """Seconds until it may ask again."""


def rate_of(said: str) -> RateLimitItem:
    """A rate such as 50/second or 600/minute. SettingError for what is none.

    >>> rate_of("600/minute").amount, rate_of("600/minute").get_expiry()
    (600, 60)
    """
    if not re.fullmatch(RATE, said):
        raise SettingError(f"{said!r} is no rate", "write one like 50/second, 600/minute or 10000/hour")
    return parse(said)


class Rates:
    """Counts the requests of each key. `rate` holds for keys that have none of their own; empty: these may ask without end."""

    def __init__(self, rate: str = "", redis: str = "") -> None:
        self._rate = rate_of(rate) if rate else None
        self._own: dict[str, RateLimitItem] = {}
        self._here = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._shared = SlidingWindowCounterRateLimiter(_storage(redis)) if redis else None
        self._away = 0.0

    async def hit(self, name: str, own: str = "") -> Spent | None:
        """Count one request; Spent when that is one too many."""
        rate = self._rate
        if own and (rate := self._own.get(own)) is None:
            rate = self._own[own] = rate_of(own)
        if rate is None:
            return None
        if self._shared is not None and time.monotonic() >= self._away:
            try:
                return await _hit(self._shared, rate, name)
            except Exception as error:  # whatever a client of Redis raises: nobody is refused for it
                self._away = time.monotonic() + AWAY
                structlog.get_logger().warning(
                    "rates are counted in this process alone", cause=str(error) or type(error).__name__
                )
        return await _hit(self._here, rate, name)


async def _hit(limiter: SlidingWindowCounterRateLimiter, rate: RateLimitItem, name: str) -> Spent | None:
    if await limiter.hit(rate, name):
        return None
    reset = (await limiter.get_window_stats(rate, name)).reset_time
    return Spent(rate.amount, rate.get_expiry(), max(1, round(reset - time.time() + 0.5)))


def _storage(url: str) -> Storage:
    scheme, _, rest = url.partition("://")
    options: dict[str, Any] = {"socket_timeout": PATIENCE, "socket_connect_timeout": PATIENCE}
    return RedisStorage(f"async+{scheme}://{rest}", implementation="redispy", key_prefix="penstock.rates", **options)
