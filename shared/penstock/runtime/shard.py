"""A shard: one partition's share of a service. What it is to the lane that runs it, what it does in a step, how it is held."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..log import Batch, Partition, Send
from ..store import Change, Saved, Store
from .outbox import Ends, Loss, Outbox
from .pipeline import Pipeline

__all__ = ["Effects", "Held", "Shard"]


@dataclass(slots=True)
class Effects:
    """What a step did. `change.outbox` is filled by the lane. `closed` is the time before which this shard has published
    all that it will (microseconds), None when that did not move."""

    change: Change
    sends: list[Send] = field(default_factory=list)
    closed: int | None = None
    positions: Mapping[Partition, int] = field(default_factory=dict)
    closing: tuple[str, Sequence[str]] | None = None
    """Who closes `closed`, for which topics; None: the shard, for those that the lane closes."""


class Shard(Protocol):
    """One partition's share of a service. Only `take` and `step` run per batch; neither does I/O."""

    def open(self, saved: Saved) -> Mapping[Partition, int]:
        """Restore what was saved (version 0: nothing was) and say where to read on."""
        ...

    def recall(self, batch: Batch) -> None:
        """Hear records of one topic that this shard has published in writes which the store has lost. They are said: what
        `step` makes of the same cause anew must not be among its sends."""
        ...

    def take(self, batches: Sequence[Batch], now: float) -> Sequence[bytes]:
        """Accept batches of the own partitions and of followed topics; return the keys whose state the step needs."""
        ...

    def step(self, loaded: Sequence[tuple[bytes, bytes]]) -> Effects | None:
        """Do the work; None when there was nothing to do."""
        ...


@dataclass(slots=True)
class Held:
    """A shard that a lane holds, under the name that it has in the store and in what it sends; and what the store has of it."""

    name: str
    shard: Shard
    version: int
    position: bytes
    outbox: Outbox
    letters: set[Hashable] = field(default_factory=set)
    """Dead letters that are out, though the state may not know it."""
    steps: Pipeline = field(default_factory=Pipeline)
    unwritten: deque[Change] = field(default_factory=deque)
    """What steps have changed, until it is written."""

    @property
    def loss(self) -> Loss | None:
        return self.outbox.loss

    async def write(self, store: Store, ends: Ends, change: Change, sends: Sequence[Send], loss: Loss | None = None) -> None:
        """Store a change with what it sends; `ends`: where the topics end now."""
        outbox = Outbox.of(self.outbox.write + 1, ends if loss is None else self.outbox.ends, sends, loss)
        change.outbox, change.version = outbox.pack(), outbox.write
        self.version = await store.write(self.name, self.version, change)
        self.position, self.outbox = change.position, outbox
