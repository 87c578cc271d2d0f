"""How fast the log on Kafka writes and reads: python tests/benchmarks/bench_log.py [BOOTSTRAP]

Without an address it starts a broker of its own. Prints thousand records a second and this process's CPU microseconds a
record, the median of three laps, 200-byte values, 8 partitions.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
import uuid
from pathlib import Path

from penstock.local.kafka import LocalKafka
from penstock.log import Headers, Log, Send, Topic
from penstock.log.kafka import KafkaLog

RECORDS, CALL, PARTITIONS, LAPS = 200_000, 4_000, 8, 3


async def lap(log: Log, keyed: bool, headers: Headers) -> tuple[float, float, float, float]:
    name = "bench-" + uuid.uuid4().hex[:8]
    await log.create([Topic(name, PARTITIONS)])
    value = b"v" * 200
    sends = [
        Send(name, b"event-%d" % n if keyed else None, value, headers, None if keyed else n % PARTITIONS) for n in range(RECORDS)
    ]
    await log.send(sends[:1])
    wall, cpu = time.perf_counter(), time.process_time()
    for at in range(1, RECORDS, CALL):
        await log.send(sends[at : at + CALL])
    write = (time.perf_counter() - wall, time.process_time() - cpu)
    member = await log.join(name, [name])
    wall, cpu, count = time.perf_counter(), time.process_time(), 0
    while count < RECORDS:
        count += sum(map(len, await member.read(CALL, 1.0)))
    read = (time.perf_counter() - wall, time.process_time() - cpu)
    await member.close()
    return (*write, *read)


async def main(bootstrap: str) -> None:
    log = KafkaLog(bootstrap)
    stamped: Headers = (("ce_source", b"feature_store.3"), ("ce_id", b"123456789"))
    for title, keyed, headers in (
        ("partition given", False, ()),
        ("partition given, 2 headers", False, stamped),
        ("every key new (murmur2)", True, ()),
    ):
        laps = [await lap(log, keyed, headers) for _ in range(LAPS)]
        write, write_cpu, read, read_cpu = (statistics.median(column) for column in zip(*laps, strict=True))
        print(
            f"{title:28} send {RECORDS / write / 1e3:6.0f} k/s {write_cpu / RECORDS * 1e6:5.2f} us"
            f"   read {RECORDS / read / 1e3:6.0f} k/s {read_cpu / RECORDS * 1e6:5.2f} us"
        )
    await log.close()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(main(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            broker = LocalKafka(Path(folder))
            broker.start()
            try:
                asyncio.run(main(broker.bootstrap))
            finally:
                broker.kill()
