"""Answers that people may be asked about: how many a second the lane of reviews reads, and what one takes in memory.

ours    ReviewShard, answers as bytes from the log to what is saved and queued, without Kafka and the store
bare    the same bytes decoded, and the time and score of each put into a dict
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator

import msgspec

import penstock as ps
from penstock.log import Batch, Partition
from penstock.services.monitoring.docket import Asked
from penstock.services.monitoring.reviewer import ReviewShard
from penstock.store import Saved
from penstock.topics import Topics

from .bench_labels import PART, answers, in_a_process, resident
from .bench_predictions import Chargeback, Payment
from .figure import Figure

STEP = 1_000_000


@ps.model(scores=Payment, features=[Payment.amount], label=ps.label(Chargeback.fraud, within="30d"), review=ps.review())
def fraud() -> ps.Learner:
    raise NotImplementedError


def shard(n: int, inputs: int) -> dict[str, float]:
    topics = Topics(ps.Project("bench", [fraud]))
    running, place = ReviewShard(0, topics), Partition(topics.predictions("fraud"), 0)
    running.open(Saved())
    before, took = resident(), 0.0
    for first in range(0, n, PART):
        values = [value.replace(b'"digest":""', b'"digest":"d"') for value in answers(first, PART, inputs, STEP)]
        batch = Batch(place, range(first, first + PART), [None] * PART, values)
        began = time.process_time()
        running.take([batch], 0.0)
        running.step(())
        took += time.process_time() - began
        del values, batch
    return {"answers": n / took, "bytes": (resident() - before) / n}


def bare(n: int, inputs: int) -> dict[str, float]:
    decode, kept, took = msgspec.json.Decoder(Asked).decode, dict[str, tuple[object, float]](), 0.0
    for first in range(0, n, PART):
        values = answers(first, PART, inputs, STEP)
        began = time.process_time()
        for answer in map(decode, values):
            kept[answer.id] = answer.time, answer.score
        took += time.process_time() - began
    return {"answers": n / took}


def run(quick: bool) -> Iterator[Figure]:
    gc.set_threshold(100_000, 50, 100)  # as services/__main__.py does
    n = 50_000 if quick else 400_000
    ours, floor = in_a_process(shard, n, 20), in_a_process(bare, n, 20)
    yield Figure(
        name="answers through a shard of reviews, 20 inputs", unit="answers/CPU s", better="higher", ours=ours["answers"],
        beside={"decode, dict": floor["answers"]}, detail={"bytes an open answer": ours["bytes"]},
    )  # fmt: skip
