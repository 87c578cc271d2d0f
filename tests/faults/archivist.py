"""A process that archives, to be killed: `python -m tests.faults.archivist LOCATION LOG RECORDS SEED`.

LOG is a broker, or `memory`: then the process has a log of its own, the same in every process, so that each holds every
partition, as zombies do. It ends when its share is archived, and says how often it found another one in its place.
"""

from __future__ import annotations

import asyncio
import random
import sys

from tests.services.crew import Harbour, arrival, row

from penstock.log import Log
from penstock.log.kafka import KafkaLog
from penstock.offline import Tables
from penstock.services.feature_store import archive as module
from penstock.services.feature_store.archive import Archive

PARTITIONS = 2
SESSION = 6.0
"""Seconds; the least that a broker allows."""


async def filled(harbour: Harbour, records: int) -> None:
    """The topics with so many arrivals and rows, every tenth row sent twice; nothing random, the identities neither."""
    await harbour.open()
    harbour.log._ids = {name: f"the-same-{name}" for name in harbour.log._ids}
    await harbour.log.send([arrival(n) for n in range(records)])
    await harbour.log.send([row(n) for n in range(records) for _ in range(2 if n % 10 == 0 else 1)])


async def work(location: str, where: str, records: int, seed: int) -> int:
    fate = random.Random(seed)
    harbour = Harbour(location, PARTITIONS)
    log: Log = harbour.log
    if where == "memory":
        await filled(harbour, records)
    else:
        log = KafkaLog(where, session=SESSION)
    archive = Archive(harbour.topics, log, Tables(location).location)
    archive._tidies = True
    module.TIDY_EVERY = 20
    module.READ_RECORDS = 50
    idle, enough = 0, 1 if where == "memory" else 2 * int(SESSION)
    while idle < enough:  # on a broker: until whoever was killed is known to be gone, and its share is done
        module.FLUSH_ROWS = fate.randrange(20, 100)
        idle = 0 if await archive.turn(1.0) else idle + 1
        if idle:
            await archive.flush()
            idle = idle if archive.ready else 0  # another one was in its place: it reads anew
    fenced = int(archive._meters.fenced._value.get())
    await archive.close()
    await log.close()
    return fenced


if __name__ == "__main__":
    where, broker, records, seed = sys.argv[1:]
    print("fenced", asyncio.run(work(where, broker, int(records), int(seed))), flush=True)
