"""Who follows the models topic says so when he can no longer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from penstock.log import Send, Topic
from penstock.log.memory import MemoryLog
from penstock.scoring.topic import Following


class Decisions:
    """The topic, on a log in memory."""

    name = "p.models"

    async def using(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        log = MemoryLog()
        await log.create([Topic(self.name, 1)])
        await log.send([Send(self.name, b"late/champion", b"{}")])
        return await work(log)


def test_what_nobody_thought_of_is_told_as_trouble() -> None:
    def broken(_: object) -> None:
        raise RuntimeError("what nobody thought of")

    topic: Any = Decisions()
    following = Following(topic, 0, broken)
    following._thread.join(10)
    assert "what nobody thought of; decisions are heard no longer" in following.trouble
    following.close()
