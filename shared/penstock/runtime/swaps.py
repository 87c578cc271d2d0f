"""The swaps of a project, followed from the first: which generation of the views is in charge, and which were to be before."""

from __future__ import annotations

from ..log import Log
from ..records import Charge
from .control import Tail
from .generation import charges, counted

__all__ = ["Swaps"]


class Swaps:
    """What `<p>.generations` says."""

    def __init__(self, log: Log, topic: str) -> None:
        self._tail = Tail(log, [topic])
        self._counted: list[Charge] = []

    async def counted(self) -> list[Charge]:
        """The records that count by now, in order; see `generation.counted`. After a LogError the next call goes on."""
        async for batch in self._tail.news():
            self._counted[-1:] = counted(charges(batch.values), *self._counted[-1:])
        return self._counted

    async def close(self) -> None:
        """Let go of the log; the next call opens it anew, and goes on."""
        await self._tail.close()
