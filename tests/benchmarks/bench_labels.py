"""Labels that find their answers: what an open answer takes in memory, and how fast labels are joined.

1,000,000 answers of a model wait for their labels in the ledger of one partition; then 100,000 labels come in any order.

    ours    Ledger.answer and Ledger.label as monitoring calls them, with what they save and what they say of each outcome
    bare    a dict of the answers' bytes, of which each label takes one out and decodes it

Memory is the growth of the process per million answers; labels per second of CPU. Then a whole shard: labels and answers as bytes
from the log to outcomes and partials, without Kafka and the store.
"""

from __future__ import annotations

import gc
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

import penstock as ps
from penstock.event import from_micros, to_micros
from penstock.log import Batch, Partition
from penstock.records import Clock, Prediction
from penstock.services.monitoring.answers.ledger import Ledger
from penstock.services.monitoring.answers.packing import Answer
from penstock.services.monitoring.pairing import PairingShard
from penstock.store import Saved
from penstock.topics import Topics

from .bench_predictions import Chargeback, Payment
from .figure import Figure

START = to_micros(datetime(2026, 1, 1, tzinfo=UTC))
DAY = 86_400_000_000
PART = 5_000

_decode = msgspec.json.Decoder(Answer).decode


@ps.model(scores=Payment, features=[Payment.amount], label=ps.label(Chargeback.fraud, within="7d"))
def fraud() -> ps.Learner:
    raise NotImplementedError


def answers(first: int, n: int, inputs: int, step: int = 1) -> list[bytes]:
    """Predictions as they come: inputs of 4 decimals, two versions asked."""
    rng = np.random.default_rng(first)
    names = [f"Card.feature_{i:02d}" for i in range(inputs)]
    return [
        msgspec.json.encode(
            Prediction(
                id=f"p-{i:012d}",
                key=f"card-{i % 9_999:06d}",
                model="fraud",
                time=from_micros(START + i * step),
                inputs=msgspec.Raw(msgspec.json.encode(dict(zip(names, values, strict=True)))),
                score=values[0] % 1,
                scores={"v12": values[0] % 1, "online-7": values[1] % 1},
                weights={"v12": 1.0},
                version="v12",
                variant="champion",
                digest="",
                bucket=i % 10_000,
                latency=0.0012,
            )
        )
        for i, values in enumerate(rng.gamma(2, 20, (n, inputs)).round(4).tolist(), first)
    ]


def resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def ledger(n: int, inputs: int) -> dict[str, float]:
    """Of n open answers: bytes each, and answers and labels a second."""
    kept, before, took = Ledger("fraud", 7 * DAY, None), resident(), 0.0
    for first in range(0, n, PART):
        read = [_decode(value) for value in answers(first, PART, inputs)]
        began = time.process_time()
        for i, answer in enumerate(read, first):
            kept.answer(START + i, START + i, answer)
        took += time.process_time() - began
        kept.table.clear()
        del read, answer
    grown = resident() - before
    names = [f"p-{i:012d}" for i in np.random.default_rng(1).permutation(n)[: n // 10].tolist()]
    began = time.process_time()
    for i, name in enumerate(names):
        kept.label(START + n, START + n, name, i % 3 == 0)
    spent = time.process_time() - began
    assert kept.counts["outcomes"] == len(names)
    return {"bytes": grown / n, "answers": n / took, "labels": len(names) / spent}


def bare(n: int, inputs: int) -> dict[str, float]:
    kept, before = dict[str, bytes](), resident()
    for first in range(0, n, PART):
        kept |= {f"p-{i:012d}": value for i, value in enumerate(answers(first, PART, inputs), first)}
    grown = resident() - before
    names = [f"p-{i:012d}" for i in np.random.default_rng(1).permutation(n)[: n // 10].tolist()]
    began = time.process_time()
    for name in names:
        _decode(kept.pop(name))
    return {"bytes": grown / n, "labels": len(names) / (time.process_time() - began)}


def shard(n: int) -> float:
    """Labels a second through a whole shard, each with its answer."""
    topics = Topics(ps.Project("bench", [fraud]))
    running, step = PairingShard(0, topics.project.models, topics), 6 * DAY // n
    running.open(Saved())
    topic, took = topics.predictions("fraud"), 0.0
    for first in range(0, n, PART):
        values = answers(first, PART, 20, step)
        times = [START + (first + i) * step for i in range(PART)]
        labels = [
            msgspec.json.encode({"payment_id": f"p-{first + i:012d}", "fraud": i % 3 == 0, "at": from_micros(t)})
            for i, t in enumerate(times)
        ]
        keys = [f"p-{first + i:012d}".encode() for i in range(PART)]
        offsets, both = range(first, first + PART), ((topic, values), ("chargebacks", labels))
        batches = [Batch(Partition(name, 0), offsets, keys, what) for name, what in both]
        for who, name in (("inference.0", topic), ("bench", "chargebacks")):
            said = Clock(publisher=who, before=times[-1] + 1, ends={name: {0: first + PART}})
            batches.append(Batch(Partition(topics.clock, 0), [0], [b"c"], [msgspec.json.encode(said)]))
        began = time.process_time()
        running.take(batches, 0.0)
        assert running.step(()) is not None
        took += time.process_time() - began
    return n / took


def in_a_process(what: Callable[[int, int], dict[str, float]], n: int, inputs: int) -> dict[str, float]:
    """Measured in a process of its own, so that no memory is there that others left."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(what, n, inputs).result()


def run(quick: bool) -> Iterator[Figure]:
    gc.set_threshold(100_000, 50, 100)  # as services/__main__.py does
    n = 50_000 if quick else 1_000_000
    for inputs in (8, 20):
        ours, floor = (in_a_process(what, size, inputs) for what, size in ((ledger, n), (bare, n // 4)))
        yield Figure(
            name=f"1,000,000 open answers of {inputs} inputs", unit="MB", better="lower", ours=ours["bytes"],
            beside={"dict of the bytes": floor["bytes"]}, goal=300, detail={"measured on": n},
        )  # fmt: skip
        yield Figure(
            name=f"labels joined, {inputs} inputs", unit="labels/CPU s", better="higher", ours=ours["labels"],
            beside={"dict, decode": floor["labels"]}, goal=50_000, detail={"answers": ours["answers"]},
        )  # fmt: skip
    yield Figure(
        name="answers with their labels through a shard, 20 inputs", unit="labels/CPU s", better="higher",
        ours=shard(20_000 if quick else 200_000),
    )  # fmt: skip
