"""How far readers are behind, by the positions that they commit to the broker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from ..log import Log, Partition
from ..log.security import PLAIN, Security
from ..topics import Topics

__all__ = ["Lag"]


class Lag:
    """Counts the records that a project's readers have not done yet; `close` ends its connection."""

    def __init__(
        self, bootstrap: str, log: Log, topics: Topics, services: Sequence[str] = (), security: Security = PLAIN
    ) -> None:
        """`services`: only the groups of these."""
        self._bootstrap, self._log, self._security = bootstrap, log, security
        wanted = {topics.group(service) for service in services}
        self._groups = {name: read for name, read in topics.groups().items() if not wanted or name in wanted}
        self._admin: Any = None

    async def records(self) -> dict[str, int] | None:
        """By group; None when the broker cannot say just now.

        All zero is rest: who commits a position has sent what follows from it, and ends are asked for after positions, so
        at that moment no record was on its way. What a clock record or a timer starts is not seen.
        """
        try:
            if self._admin is None:
                admin = AIOKafkaAdminClient(
                    bootstrap_servers=self._bootstrap, client_id="penstock-lag", **self._security.client()
                )
                try:
                    await admin.start()
                except BaseException:
                    await admin.close()
                    raise
                self._admin = admin
            done = await asyncio.gather(*(self._admin.list_consumer_group_offsets(name) for name in self._groups))
        except (KafkaError, OSError):
            return None
        ends = await self._log.ends(sorted({topic for read in self._groups.values() for topic in read}))
        left = {}
        for (name, read), found in zip(self._groups.items(), done, strict=True):
            at = {Partition(*place): committed.offset for place, committed in found.items()}
            left[name] = sum(end - at.get(partition, 0) for partition, end in ends.items() if partition.topic in read)
        return left

    async def close(self) -> None:
        if self._admin is not None:
            await self._admin.close()
            self._admin = None
