"""row -> prediction: the shard of inference, beside a bare loop of the same bytes and the model alone, in the same run.

Work: finished rows of 20 features as the feature store publishes them (some 700 bytes of JSON), in batches of 1,000 records; 100
boosted trees as ONNX, as `bench_serve` fits them; one in ten values missing. What goes in and out of Kafka is not in it
(`bench_log`): what is measured is what inference adds to its client.

    bare     the same bytes in and out and nothing in between: decode a row, encode a prediction of the same columns
    model    onnxruntime on the same matrices, one thread
    ours     the lane's shard as it runs in production: redeliveries, dead letters, buckets, who is on duty, scores, records
    around   the same with a function before and one after the model that only pass on (`passing`): a message to each for a batch

Predictions per second of CPU of the process and those of its functions; every other turn is another's, medians of the rounds.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

import penstock as ps
from penstock.artefact import Artefacts
from penstock.event import event_of
from penstock.fingerprint import fingerprint
from penstock.log import Batch, Headers, Partition
from penstock.records import Candidate, Code, Decision, Prediction, Row
from penstock.runtime.lane import FROM, SEQUENCE
from penstock.scoring.graph import Graph
from penstock.services.inference.meters import Meters
from penstock.services.inference.sessions import Sessions
from penstock.services.inference.shard import ScoringShard
from penstock.store import Saved
from penstock.topics import Topics

from .bench_rpc import spent
from .bench_serve import FEATURES, fitted
from .figure import Figure
from .passing import after, before


@ps.event("payments")
class Payment:
    payment_id: ps.Id[str]
    card: ps.Key[str]
    amount: float
    at: ps.EventTime


@ps.event("chargebacks")
class Chargeback:
    payment_id: ps.Key[str]
    fraud: bool
    at: ps.EventTime


@ps.features(by=Payment.card)
class Card:
    n_1h = ps.count(Payment, over="1h")
    n_24h = ps.count(Payment, over="24h")
    n_7d = ps.count(Payment, over="7d")
    sum_1h = ps.sum(Payment.amount, over="1h")
    sum_24h = ps.sum(Payment.amount, over="24h")
    sum_7d = ps.sum(Payment.amount, over="7d")
    mean_1h = ps.mean(Payment.amount, over="1h")
    mean_24h = ps.mean(Payment.amount, over="24h")
    mean_7d = ps.mean(Payment.amount, over="7d")
    min_1h = ps.min(Payment.amount, over="1h")
    min_24h = ps.min(Payment.amount, over="24h")
    min_7d = ps.min(Payment.amount, over="7d")
    max_1h = ps.max(Payment.amount, over="1h")
    max_24h = ps.max(Payment.amount, over="24h")
    max_7d = ps.max(Payment.amount, over="7d")
    std_1h = ps.std(Payment.amount, over="1h")
    std_24h = ps.std(Payment.amount, over="24h")
    std_7d = ps.std(Payment.amount, over="7d")
    since = ps.since_last(Payment)


@ps.model(scores=Payment, features=[Payment.amount, Card], label=ps.label(Chargeback.fraud, within="7d"))
def fraud() -> ps.Learner:
    raise NotImplementedError


TOPICS: Final = Topics(ps.Project("bench", [fraud]), 1)
ROWS: Final = Partition(TOPICS.rows(event_of(Payment)), 0)
MODELS: Final = Partition(TOPICS.models, 0)
BATCH: Final = 1_000
AROUND: Final = {role: Code(name=role, sha256=fingerprint(made)) for role, made in (("before", before), ("after", after))}


def batches(n: int) -> list[Batch]:
    assert len(fraud.inputs) == FEATURES
    drawn, start = np.random.default_rng(0), datetime(2026, 1, 1, tzinfo=UTC)
    encode, made = msgspec.json.encode, list[Batch]()
    for first in range(0, n, BATCH):
        values = drawn.normal(size=(BATCH, FEATURES)).astype(np.float32).astype(float)
        known = drawn.random(values.shape) > 0.1
        keys, rows, headers = list[bytes](), list[bytes](), list[Headers]()
        for i, (row, there) in enumerate(zip(values.tolist(), known.tolist(), strict=True), first):
            card = f"card-{i * 7919 % 100_000:06d}"
            event = {"payment_id": f"p-{i:012d}", "card": card, "amount": row[0], "at": start + timedelta(seconds=i)}
            names = zip(fraud.inputs[1:], row[1:], there[1:], strict=True)
            features = {name: value if known else None for name, value, known in names}
            said = Row(
                id=f"p-{i:012d}", time=start + timedelta(seconds=i), event=msgspec.Raw(encode(event)),
                features=msgspec.Raw(encode(features)), cursor={"source": [0, i], "card": [0, i]},
            )  # fmt: skip
            keys.append(card.encode())
            rows.append(encode(said))
            headers.append((FROM_HEADER, (SEQUENCE, b"%d" % i)))
        made.append(Batch(ROWS, range(first, first + BATCH), keys, rows, headers))
    return made


FROM_HEADER: Final = (FROM, b"feature_store.0")


def shard(folder: Path, onnx: bytes, functions: dict[str, Code]) -> ScoringShard:
    """With one champion, as after a restart."""
    artefacts, meters = Artefacts(folder / "models"), Meters()
    candidate = Candidate(
        id="c", model="fraud", version="full-1", kind="full", at=datetime(2026, 1, 1, tzinfo=UTC),
        artefact=artefacts.put(onnx, "onnx"), inputs=list(fraud.inputs), weights={}, edges={}, reference={}, metrics={},
        run="r", fingerprint="f", functions=functions,
    )  # fmt: skip
    decision = Decision(
        id="d", model="fraud", kind="champion", version="full-1", at=candidate.at, actor="registry", reason="", share=1.0,
        expected="", evidence={}, candidate=candidate,
    )  # fmt: skip
    found = ScoringShard(TOPICS, 0, Sessions(artefacts, meters), meters, ["feature_store.0"], time.time)
    found.open(Saved())
    found.take([Batch(MODELS, [0], [b"fraud/champion"], [msgspec.json.encode(decision)])], time.time())
    found.step([])
    return found


def bare() -> Callable[[Batch], None]:
    """The same bytes, and nothing in between."""
    fields = [(f"f{n}", float | None) for n in range(FEATURES - 1)]
    names = {f"f{n}": name for n, name in enumerate(fraud.inputs[1:])}
    event = msgspec.defstruct("Event", [("amount", float)], gc=False)
    features = msgspec.defstruct("Features", fields, rename=names, gc=False)
    row = msgspec.defstruct("Row", [("id", str), ("time", datetime), ("event", event), ("features", features)], gc=False)
    decode: Any = msgspec.json.Decoder(row).decode
    encode = msgspec.json.Encoder().encode

    def turn(batch: Batch) -> None:
        for key, value in zip(batch.keys, batch.values, strict=True):
            found = decode(value)
            said = Prediction(
                id=found.id, key=(key or b"").decode(), model="fraud", time=found.time,
                inputs=msgspec.Raw(encode(found.features)),
                score=0.5, scores={"full-1": 0.5}, weights={"full-1": 1.0}, version="full-1", variant="champion", digest="d" * 64,
                bucket=1, latency=0.1, trace="",
            )  # fmt: skip
            encode(said)

    return turn


def model(onnx: bytes, given: Sequence[Batch]) -> Callable[[Batch], None]:
    graph, drawn = Graph(onnx), np.random.default_rng(1)
    X = {id(batch): drawn.normal(size=(BATCH, FEATURES)).astype(np.float32) for batch in given}  # noqa: N806

    def turn(batch: Batch) -> None:
        graph.run(("probabilities",), {"X": X[id(batch)]})

    return turn


def run(quick: bool) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        place = Path(folder) / "model.onnx"
        fitted(place)
        onnx, given = place.read_bytes(), batches(4_000 if quick else 40_000)

        def turn(of: ScoringShard, batch: Batch) -> None:
            of.take([batch], time.time())
            effects = of.step([])
            assert effects is not None and len(effects.sends) == BATCH

        ours, around = (partial(turn, shard(Path(folder), onnx, functions)) for functions in ({}, AROUND))
        sides: dict[str, Callable[[Batch], None]] = {
            "ours": ours, "around": around, "bare": bare(), "model": model(onnx, given),
        }  # fmt: skip
        own, all_ = time.process_time(), spent(os.getpid())
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for batch in given:
            for name, side in sides.items():
                began = time.process_time()
                side(batch)
                rates[name].append(BATCH / (time.process_time() - began))
        elsewhere = (spent(os.getpid()) - all_ - (time.process_time() - own)) / (len(given) * BATCH)
        found = {name: statistics.median(values[1:]) for name, values in rates.items()}
        found["around"] = 1 / (1 / found["around"] + max(elsewhere, 0.0))
        both = 1 / (1 / found["bare"] + 1 / found["model"])
        detail = {"bare": found["bare"], "model": found["model"], "batch": BATCH, "rows": len(given) * BATCH}
        yield Figure(
            name="rows to predictions, 100 trees of 20 features", unit="/s of CPU", better="higher", ours=found["ours"],
            beside={"bare + model": both}, goal=50_000, detail=detail,
        )  # fmt: skip
        yield Figure(
            name="the same through two Python functions", unit="/s of CPU", better="higher", ours=found["around"],
            beside={"without": found["ours"]}, detail={"batch": BATCH, "rows": len(given) * BATCH},
        )  # fmt: skip
