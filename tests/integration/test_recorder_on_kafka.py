"""Where a recorder says that a record is, a real Kafka has it, also when several write to the topic at the same time."""

from __future__ import annotations

import asyncio

from penstock.log import Send, Topic
from penstock.log.kafka import KafkaLog
from penstock.proof.audit import read_all
from penstock.services.inference.gateway.recorder import Recorder
from penstock.services.inference.meters import Meters


def test_positions_are_those_of_the_broker(kafka_bootstrap: str) -> None:
    topic, told = "recorded-positions", dict[tuple[int, int], bytes]()

    async def one(recorder: Recorder, who: int, n: int) -> None:
        sends = [Send(topic, b"k", b"%d-%d-%d" % (who, n, i) + b"x" * (n * 300), (), (n + i) % 3) for i in range(n % 7 + 1)]
        safe = await recorder.record(sends)
        assert safe.written is not None
        offsets = safe.written.offsets[safe.first : safe.first + len(sends)]
        told.update({(send.partition or 0, offset): send.value or b"" for send, offset in zip(sends, offsets, strict=True)})

    async def scenario() -> None:
        logs = [KafkaLog(kafka_bootstrap), KafkaLog(kafka_bootstrap)]
        await logs[0].create([Topic(topic, 3)])
        recorders = [Recorder(log, [topic], Meters(), patience=30.0) for log in logs]
        running = [asyncio.create_task(recorder.run()) for recorder in recorders]
        for first in range(0, 200, 50):
            await asyncio.gather(*(one(r, who, n) for who, r in enumerate(recorders) for n in range(first, first + 50)))
        found = await read_all(logs[0], topic)
        assert told == {(place.number, offset): value for place, offset, _, value, _ in found}
        assert len(told) > 1000
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        for log in logs:
            await log.close()

    asyncio.run(scenario())
