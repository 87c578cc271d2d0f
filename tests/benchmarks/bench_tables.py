"""Rows into an offline table at 10,000 rows a commit, beside a bare append of the same data on the same disk in the same run.

Rows of 20 features (float64), an id, a time and a cursor, of 4 partitions:

    bare      write_deltalake(append) with its defaults and one app transaction per partition; nothing is compared or compacted
    append    the archive's writer: compare and append, statistics of three columns, compaction in a child process every 100
              commits (the tables of both hold the same twenty commits, again and again)
    archive   all of it: JSON records from a log in memory become columns, are appended and announced
    read      a compacted table back as events, in the order of each partition: the CPU time of the process, beside all of it
              read into memory and sorted

Rows per second of wall clock until the last commit, while compactions run; of `append` also until the last compaction ended.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

import penstock as ps
from penstock.log import Partition, Send
from penstock.log.memory import MemoryLog
from penstock.offline import Location, Tables
from penstock.offline.columns import columns_of
from penstock.offline.upkeep import compact
from penstock.runtime.lane import FROM, SEQUENCE
from penstock.services.feature_store import archive as module
from penstock.services.feature_store.archive import Archive
from penstock.services.feature_store.rebuild import EventTables
from penstock.services.feature_store.writer import TableWriter
from penstock.topics import Topics

from .figure import Figure

START = datetime(2026, 2, 1, tzinfo=UTC)
COMMIT, PARTITIONS, FEATURES, COMPACT_EVERY = 10_000, 4, 20, 100


@ps.event("payments")
class Payment:
    payment_id: ps.Id[str]
    card: ps.Key[str]
    amount: float
    at: ps.EventTime


@ps.features(by=Payment.card)
class Card:
    count_1h, count_24h, count_7d, count_30d = (ps.count(Payment, over=o) for o in ("1h", "24h", "7d", "30d"))
    sum_1h, sum_24h, sum_7d, sum_30d = (ps.sum(Payment.amount, over=o) for o in ("1h", "24h", "7d", "30d"))
    mean_1h, mean_24h, mean_7d, mean_30d = (ps.mean(Payment.amount, over=o) for o in ("1h", "24h", "7d", "30d"))
    min_1h, min_24h, min_7d, min_30d = (ps.min(Payment.amount, over=o) for o in ("1h", "24h", "7d", "30d"))
    max_1h, max_24h, max_7d, max_30d = (ps.max(Payment.amount, over=o) for o in ("1h", "24h", "7d", "30d"))


TOPICS = Topics(ps.Project("bench", rows={Payment: [Card]}), PARTITIONS)
NAME = TOPICS.rows(TOPICS.project.events[0])
NAMES = TOPICS.project.topology.columns(TOPICS.project.events[0])


def records(n: int) -> list[Send]:
    """Rows as the feature store publishes them: amounts have two decimals, means have all."""
    rng = np.random.default_rng(0)
    features = rng.gamma(2, 20, (n, FEATURES)).round(2)
    features[:, 8:12] += rng.random((n, 4))
    found = []
    for i, values in enumerate(features.tolist()):
        said = {
            "id": f"payment-{i:09}",
            "time": START + timedelta(seconds=i),
            "event": {"payment_id": f"payment-{i:09}", "card": f"card-{i % 5000}", "amount": 1.5},
            "features": dict(zip(NAMES, values, strict=True)),
            "cursor": {"source": [i % PARTITIONS, i], "card": [i % PARTITIONS, i]},
        }
        headers = ((FROM, b"feature_store.%d" % (i % PARTITIONS)), (SEQUENCE, b"%d" % i))
        found.append(Send(NAME, b"card", msgspec.json.encode(said), headers, i % PARTITIONS))
    return found


def tables(sends: list[Send]) -> list[pa.Table]:
    """The same as Arrow tables of one commit each."""
    columns, found = columns_of(TOPICS)[NAME], []
    for first in range(0, len(sends), COMMIT):
        part = sends[first : first + COMMIT]
        place = np.arange(first, first + len(part))
        data = {"partition": pa.array((place % PARTITIONS).astype(np.int32)), "offset": pa.array(place // PARTITIONS)}
        found.append(pa.table({**data, **columns.decode([send.value for send in part]).columns}))
    return found


def bare(folder: Path, made: list[pa.Table], commits: int) -> dict[str, float]:
    delta, began = DeltaTable.create(str(folder / NAME), made[0].schema), time.perf_counter()
    for number in range(commits):
        said = [Transaction(f"bench/{partition}", number) for partition in range(PARTITIONS)]
        rows = made[number % len(made)]
        write_deltalake(delta, rows, mode="append", commit_properties=CommitProperties(app_transactions=said))
    return {"written": time.perf_counter() - began}


def append(folder: Path, made: list[pa.Table], commits: int) -> dict[str, float]:
    writer = TableWriter(Location(folder), NAME, columns_of(TOPICS)[NAME])
    writer.open("bench", PARTITIONS)
    children: list[subprocess.Popen[bytes]] = []
    began = time.perf_counter()
    for number in range(commits):
        version = writer.append(made[number % len(made)], dict.fromkeys(range(PARTITIONS), number + 1), {})
        if version % COMPACT_EVERY == 0 and not (children and children[-1].poll() is None):  # one at a time, as the archive does
            children.append(subprocess.Popen([sys.executable, "-m", "penstock.offline.upkeep", str(folder), NAME]))
    written = time.perf_counter() - began
    assert [child.wait() for child in children] == [0] * len(children), "a compaction failed"
    return {"written": written, "compacted": time.perf_counter() - began}


def archive(folder: Path, sends: list[Send]) -> dict[str, float]:
    async def go() -> dict[str, float]:
        log = MemoryLog()
        await log.create(TOPICS.all())
        await log.send(sends)
        kept = Archive(TOPICS, log, folder)
        began = time.perf_counter()
        while await kept.turn():
            pass
        await kept.flush()
        written = time.perf_counter() - began
        await kept.close()
        return {"written": written}

    module.FLUSH_ROWS = module.READ_RECORDS = COMMIT
    return asyncio.run(go())


def read_back(rows: int) -> Figure:
    """A compacted table of payments read back as events: all partitions in turn, each in order, 4,096 at a time, as by a lane."""
    columns, name = columns_of(TOPICS)["payments"], "payments"
    values = [
        msgspec.json.encode({"payment_id": f"payment-{i:09}", "card": f"card-{i % 5000}", "amount": i / 100, "at": START})
        for i in range(COMMIT)
    ]
    said = columns.decode(values).columns
    with tempfile.TemporaryDirectory() as folder:
        tables = Tables(folder)
        for table in (name, TOPICS.dead_letters(name)):
            writer = TableWriter(Location(folder), table, columns_of(TOPICS)[table])
            writer.open("bench", PARTITIONS)
            share = COMMIT // PARTITIONS
            for first in range(0, rows // PARTITIONS if table == name else 0, share):
                offsets = np.tile(np.arange(first, first + share), PARTITIONS)
                place = {
                    "partition": pa.array(np.repeat(np.arange(PARTITIONS, dtype=np.int32), share)),
                    "offset": pa.array(offsets),
                }
                writer.append(pa.table({**place, **said}), dict.fromkeys(range(PARTITIONS), first + share), {})
        compact(tables, name)
        began = time.process_time()
        tables.taken(name).sort_by([("partition", "ascending"), ("offset", "ascending")])
        floor, past = time.process_time() - began, EventTables(tables)
        began, at, read = time.process_time(), dict.fromkeys(range(PARTITIONS), 0), 0
        while at:
            for number, first in list(at.items()):
                batch = past.read(Partition(name, number), first, 4096)
                if batch is None:
                    del at[number]
                else:
                    at[number], read = batch.next, read + len(batch)
        ours = time.process_time() - began
        assert read == rows, (read, rows)
    return Figure(
        name=f"archived events read back in order, {rows:,} of {PARTITIONS} partitions",
        unit="events/CPU s",
        better="higher",
        ours=rows / ours,
        beside={"the whole table in memory, sorted": rows / floor},
        goal=300_000,
        detail={"rows": rows},
    )


def run(quick: bool) -> Iterator[Figure]:
    yield read_back(20_000 if quick else 1_000_000)
    commits, rounds, held = (10, 1, 4) if quick else (300, 3, 20)
    sends = records(held * COMMIT)
    made = tables(sends)
    work: dict[str, tuple[int, Callable[[Path], dict[str, float]]]] = {
        "bare": (commits * COMMIT, lambda folder: bare(folder, made, commits)),
        "append": (commits * COMMIT, lambda folder: append(folder, made, commits)),
        "archive": (len(sends), lambda folder: archive(folder, sends)),
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, (n, what) in work.items():
            with tempfile.TemporaryDirectory() as folder:
                found[name].append({key: n / seconds for key, seconds in what(Path(folder)).items()})
                assert Tables(folder).table(NAME).rows == n
    rates = {name: {key: float(np.median([each[key] for each in runs])) for key in runs[0]} for name, runs in found.items()}
    for name, title, goal in (("append", "rows into Delta", 200_000), ("archive", "records to rows into Delta", None)):
        yield Figure(
            name=f"{title}, {COMMIT:,} a commit",
            unit="rows/s",
            better="higher",
            ours=rates[name]["written"],
            beside={"bare write_deltalake": rates["bare"]["written"]},
            goal=goal,
            detail={"commits": commits, "rounds": rounds, "rows_per_second": rates[name]},
        )
