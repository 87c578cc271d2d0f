"""Where the log is, for commands that use it: the broker that is set, else the one that `penstock up` runs."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from ..errors import PenstockError, Unreachable
from ..log import Headers, Log, LogError, Partition
from . import screen
from .options import chosen

if TYPE_CHECKING:
    from ..settings import Settings

__all__ = ["Found", "address", "as_json", "connected", "known", "newest", "records", "refusal", "use"]

T = TypeVar("T")

SECONDS: Final = 2.0
"""For the first answer of a broker; a healthy one answers in milliseconds."""

AT_ONCE: Final = 500
"""Records in one read."""


class Found(NamedTuple):
    """One record with its place."""

    partition: Partition
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def use(settings: Settings, work: Callable[[Log], Awaitable[T]], doing: str) -> T:
    """Do something with the log; a LogError becomes what people read. `doing` is said when it takes long."""

    async def inside() -> T:
        async with connected(settings) as log:
            return await screen.patiently(work(log), doing) if doing else await work(log)

    try:
        return asyncio.run(inside())
    except LogError as error:
        raise refusal(error) from error


def refusal(error: LogError) -> PenstockError:
    """A LogError as an error of the command line: its last clause is what to type."""
    what, _, fix = str(error).rpartition("; ")
    kind = Unreachable if "Kafka at " in str(error) else PenstockError
    return kind(what, fix.rpartition(": ")[2]) if what else kind(str(error), "penstock doctor")


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Log]:
    """The log on Kafka; Unreachable within two seconds where no broker answers."""
    bootstrap = address(settings)
    await asyncio.to_thread(_ask, bootstrap)
    if not chosen.debug:
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # its errors come to us, in a sentence
    from ..log.kafka import KafkaLog

    log = KafkaLog(bootstrap, "penstock-cli")
    try:
        yield log
    finally:
        await log.close()


def address(settings: Settings) -> str:
    """KAFKA_BOOTSTRAP_SERVERS, else the broker that `penstock up` started on this folder."""
    if settings.kafka_bootstrap_servers:
        return settings.kafka_bootstrap_servers
    from ..local import status

    running = next((entry for entry in status(settings.data) if entry.name == "kafka" and entry.running), None)
    if running is None:
        raise Unreachable(
            f"no broker: KAFKA_BOOTSTRAP_SERVERS is not set, and none runs in {settings.data}",
            "penstock up --detach   or   export KAFKA_BOOTSTRAP_SERVERS=host:port",
        )
    return running.url.removeprefix("kafka://")


def _ask(bootstrap: str) -> None:
    """See whether one of the brokers answers, because a client library takes much longer to find out."""
    from ..local.kafka import listeners

    reason = ""
    for place in bootstrap.split(","):
        host, _, port = place.strip().rpartition(":")
        if not host or not port.isdigit():
            raise PenstockError(
                f"KAFKA_BOOTSTRAP_SERVERS: {place!r} is not written as host:port",
                "export KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:9092",
            )
        try:
            if listeners(host.strip("[]"), int(port), SECONDS):
                return
            reason = "no broker is in service yet"
        except TimeoutError:
            reason = f"no answer within {SECONDS:.0f} s"
        except ConnectionRefusedError:
            reason = "connection refused: nothing listens there"
        except OSError as error:
            reason = str(error) or type(error).__name__
    raise Unreachable(f"Kafka at {bootstrap}: {reason}", "penstock doctor   (start one: penstock up --detach)")


def known(topic: str, counts: dict[str, int]) -> str:
    """The topic, if it exists; else an error that names the nearest."""
    if topic in counts:
        return topic
    near = get_close_matches(topic, counts, n=1, cutoff=0.5)
    raise PenstockError(f"topic {topic} does not exist", f"did you mean {near[0]}?" if near else "penstock topics list")


async def records(log: Log, starts: dict[Partition, int], until: dict[Partition, int] | None = None) -> AsyncIterator[Found]:
    """Records from `starts` on: up to `until`, or without it for ever. Order holds within a partition."""
    left = None if until is None else {p for p, end in until.items() if p in starts and starts[p] < end}
    if left is not None and not left:
        return
    reader = await log.reader(starts if left is None else {p: starts[p] for p in left})
    try:
        while left is None or left:
            for batch in await reader.read(AT_ONCE, 0.5):
                for found in _found(batch):
                    if until is None or found.offset < until[batch.partition]:
                        yield found
                if left is not None and until is not None and batch.next >= until[batch.partition]:
                    left.discard(batch.partition)
    finally:
        await reader.close()


def _found(batch: Any) -> list[Found]:
    headers: Sequence[Headers] = batch.headers or ((),) * len(batch)
    return [Found(batch.partition, *each) for each in zip(batch.offsets, batch.keys, batch.values, headers, strict=True)]


async def newest(log: Log, topic: str, number: int) -> dict[Partition, int]:
    """Positions from which the newest `number` records of a topic follow, as fairly over its partitions as they hold any
    (nobody knows which is the newest of two partitions)."""
    begins, ends = await log.begins([topic]), await log.ends([topic])
    return dealt(begins, ends, number)


def dealt(begins: dict[Partition, int], ends: dict[Partition, int], number: int) -> dict[Partition, int]:
    """Start positions so that `number` records follow in all, or all there are; pure.

    >>> a, b = Partition("t", 0), Partition("t", 1)
    >>> list(dealt({a: 0, b: 0}, {a: 9, b: 1}, 4).values())
    [6, 0]
    """
    starts = dict(ends)
    for left, partition in zip(range(len(ends), 0, -1), sorted(ends, key=lambda p: ends[p] - begins[p]), strict=True):
        share = min(ends[partition] - begins[partition], -(-number // left))
        starts[partition] -= share
        number -= share
    return starts


def as_json(found: Found) -> dict[str, Any]:
    """A record for programs: JSON values as JSON, other text as text, other bytes in base64."""
    return {
        "topic": found.partition.topic,
        "partition": found.partition.number,
        "offset": found.offset,
        "key": _json(found.key, text=True),
        "value": _json(found.value),
        "headers": {name: _json(value, text=True) for name, value in found.headers},
    }


def _json(value: bytes | None, text: bool = False) -> Any:
    import msgspec

    if value is None:
        return None
    try:
        return value.decode() if text else msgspec.json.decode(value)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode()}
