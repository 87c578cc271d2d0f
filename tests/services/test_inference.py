"""Inference answers every row once, with what the registry says, whatever crashes, is swapped or is tampered with."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import penstock as ps
from penstock.artefact import Artefacts, dump_river
from penstock.deadletter import cause_of
from penstock.event import event_of
from penstock.inputs import squashed
from penstock.lane import FROM, SEQUENCE, Effects, Lane, stamped
from penstock.log import Batch, Headers, Log, Partition, Send
from penstock.log.memory import MemoryLog
from penstock.records import Artefact, Candidate, Clock, Decision, Prediction, Row
from penstock.services.inference import service
from penstock.services.inference.meters import Meters
from penstock.services.inference.roster import bucket
from penstock.services.inference.sessions import Sessions
from penstock.services.inference.shard import ScoringShard
from penstock.store import Change, Saved
from penstock.store.memory import MemoryStore
from penstock.topics import Topics


@ps.event("flights")
class Flight:
    flight: ps.Id[str]
    origin: ps.Key[str]
    distance: float
    seats: int | None
    night: bool
    at: ps.EventTime


@ps.event("arrivals")
class Arrival:
    flight: ps.Key[str]
    late: bool
    at: ps.EventTime


@ps.features(by=Flight.origin)
class Origin:
    flights_1h = ps.count(Flight, over="1h")
    mean_distance = ps.mean(Flight.distance, over="30d")


LABEL = ps.label(Arrival.late, within="48h")


@ps.model(scores=Flight, features=[Origin, Flight.distance, Flight.night, Flight.seats], label=LABEL)
def late() -> ps.Learner:
    raise NotImplementedError


@ps.model(scores=Flight, features=[Flight.distance], label=LABEL)
def long() -> ps.Learner:
    raise NotImplementedError


TOPICS = Topics(ps.Project("air", [late, long]), 1)
ROWS = Partition(TOPICS.rows(event_of(Flight)), 0)
MODELS, CLOCK = Partition(TOPICS.models, 0), Partition(TOPICS.clock, 0)
START = datetime(2024, 1, 1, tzinfo=UTC)


# --- a small world --------------------------------------------------------------------------------------------------


def fitted(width: int, seed: int) -> tuple[Any, bytes]:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.ensemble import HistGradientBoostingClassifier

    drawn = np.random.default_rng(seed)
    inputs = drawn.normal(size=(400, width)).astype(np.float32) * 100
    inputs[drawn.random(inputs.shape) < 0.1] = np.nan
    labels = np.nan_to_num(inputs[:, 0]) + drawn.normal(size=400) * 50 > 0
    model = HistGradientBoostingClassifier(max_iter=8, random_state=seed).fit(inputs, labels)
    exported = to_onnx(
        model, initial_types=[("X", FloatTensorType([None, width]))], options={id(model): {"zipmap": False}},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )  # fmt: skip
    return model, exported.SerializeToString()


def learnt(names: Sequence[str], seed: int = 0) -> Any:
    from river import compose, linear_model, optim, preprocessing

    model = compose.Pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression(optimizer=optim.SGD(0.05)))
    drawn = random.Random(seed)
    for _ in range(200):
        x = {name: drawn.gauss(0, 2) for name in names}
        model.learn_one(x, x[names[0]] > 0)
    return model


class World:
    """Artefacts fitted once for all tests."""

    def __init__(self, folder: Path) -> None:
        self.artefacts = Artefacts(folder)
        self.models: dict[str, Any] = {}
        self.stored: dict[str, Artefact] = {}
        for seed, version in enumerate(("v1", "v2", "v3")):
            self.models[version], data = fitted(len(late.inputs), seed)
            self.stored[version] = self.artefacts.put(data, "onnx")
        self.models["online-1"] = learnt(late.inputs)
        self.stored["online-1"] = self.artefacts.put(dump_river(self.models["online-1"]), "river")

    def decision(self, version: str, kind: str = "champion", share: float = 1.0, **fields: Any) -> Decision:
        candidate = Candidate(
            id=f"c-{version}", model=fields.get("model", "late"), version=version, kind="full", at=START,
            artefact=fields.get("artefact") or self.stored[version], inputs=list(fields.get("inputs", late.inputs)),
            weights=fields.get("weights", {}), edges={}, reference={}, metrics={}, run="r", fingerprint="f",
        )  # fmt: skip
        return Decision(
            id=f"{kind}-{version}", model=candidate.model, kind=kind, version=version, at=START, actor="registry",
            reason="", share=share, expected="", evidence={}, candidate=candidate,
        )  # fmt: skip

    def said(self, alias: str, version: str | None, kind: str = "champion", share: float = 1.0, **fields: Any) -> Send:
        value = None if version is None else msgspec.json.encode(self.decision(version, kind, share, **fields))
        return Send(TOPICS.models, f"{fields.get('model', 'late')}/{alias}".encode(), value)

    def expected(self, version: str, sent: Send) -> float:
        """What a version answers for a row, by the library that fitted it."""
        row = msgspec.json.decode(sent.value or b"", type=Row)
        event, features = json.loads(bytes(row.event)), json.loads(bytes(row.features))
        values = [features[n] if n in features else event.get(n.partition(".")[2]) for n in late.inputs]
        matrix = np.array([[np.nan if v is None else float(v) for v in values]], np.float32)
        if version.startswith("online"):
            x = dict(zip(late.inputs, squashed(matrix)[0].tolist(), strict=True))
            return float(self.models[version].predict_proba_one(x)[True])
        return float(self.models[version].predict_proba(matrix)[0, 1])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("artefacts"))


def flight(n: int, **changes: Any) -> Send:
    """A finished row as the feature store publishes it."""
    drawn = random.Random(n)
    event: dict[str, Any] = {
        "flight": f"f{n}", "origin": f"o{n % 40}", "distance": round(drawn.uniform(-300, 300), 1),
        "night": drawn.random() < 0.5, "at": (START + timedelta(minutes=n)).isoformat(), "unknown": {"x": [1]},
    }  # fmt: skip
    if n % 3:
        event["seats"] = drawn.choice([None, drawn.randrange(400)])
    features = {
        "Origin.mean_distance": None if n % 5 == 0 else drawn.uniform(-99, 99),
        "Origin.flights_1h": float(n % 7),
    }
    row = Row(
        id=f"f{n}", time=START + timedelta(minutes=n), event=msgspec.Raw(msgspec.json.encode(event | changes)),
        features=msgspec.Raw(msgspec.json.encode(features)), cursor={"source": [0, n]},
    )  # fmt: skip
    headers: Headers = ((FROM, b"feature_store.0"), (SEQUENCE, b"%d" % n))
    if n % 10 == 0:
        headers = (("traceparent", b"00-%032x-%016x-01" % (n + 1, n + 1)), *headers)
    return Send(ROWS.topic, event["origin"].encode(), msgspec.json.encode(row), headers)


def batch(partition: Partition, first: int, sends: Sequence[Send]) -> Batch:
    return Batch(
        partition, range(first, first + len(sends)), [s.key for s in sends], [s.value for s in sends],
        [s.headers for s in sends],
    )  # fmt: skip


class Driven:
    """A shard driven by hand, with a store that can crash after or before it writes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.saved = Saved()
        self.sent: list[Send] = []
        self.closed: list[int] = []
        self.counts = {ROWS: 0, MODELS: 0, CLOCK: 0}
        self.open()

    def open(self) -> dict[Partition, int]:
        self.meters = Meters()
        self.shard = ScoringShard(TOPICS, 0, Sessions(self.world.artefacts, self.meters), self.meters, ["feature_store.0"])
        return dict(self.shard.open(self.saved))

    def take(self, *sends: Send, now: float = 0.0) -> list[Send]:
        """One turn with new records, in the order in which a lane hands them over."""
        batches = []
        for partition in (MODELS, CLOCK, ROWS):
            if mine := [s for s in sends if s.topic == partition.topic]:
                batches.append(batch(partition, self.counts[partition], mine))
                self.counts[partition] += len(mine)
        self.shard.take(batches, now)
        effects = self.shard.step([])
        return [] if effects is None else self.write(effects)

    def write(self, effects: Effects) -> list[Send]:
        table = {**self.saved.table}
        for key, value in effects.change.table.items():
            table.pop(key, None)
            if value is not None:
                table[key] = value
        self.saved = Saved(self.saved.version + 1, effects.change.position, b"", table)
        self.sent += effects.sends
        if effects.closed is not None:
            self.closed.append(effects.closed)
        return effects.sends


@pytest.fixture
def driven(world: World) -> Driven:
    return Driven(world)


def answers(sends: Sequence[Send], model: str = "late") -> list[Prediction]:
    found = [s for s in sends if s.topic == TOPICS.predictions(model)]
    return [msgspec.json.decode(s.value or b"", type=Prediction) for s in found]


# --- answering ------------------------------------------------------------------------------------------------------


class TestAnswers:
    def test_rows_before_the_first_model_are_answered_by_nobody(self, driven: Driven) -> None:
        for found in answers(driven.take(flight(0), flight(1))):
            assert (found.version, found.variant, found.score, found.weights) == ("none", "none", 0.5, {})

    def test_are_those_of_the_library_that_fitted_the_model(self, driven: Driven) -> None:
        rows = [flight(n) for n in range(60)]
        found = answers(driven.take(driven.world.said("champion", "v1"), *rows))
        assert [p.score for p in found] == pytest.approx([driven.world.expected("v1", r) for r in rows], abs=1e-6)
        assert {(p.version, p.variant, p.digest) for p in found} == {("v1", "champion", driven.world.stored["v1"].sha256)}

    def test_carry_the_inputs_as_used_in_the_order_of_the_model(self, driven: Driven) -> None:
        (found,) = answers(driven.take(flight(5, night=True, seats=7, distance=1.5)))
        inputs = json.loads(bytes(found.inputs))
        assert list(inputs) == list(late.inputs)
        assert inputs == {
            "Origin.flights_1h": 5.0, "Origin.mean_distance": None, "Flight.distance": 1.5, "Flight.night": 1.0,
            "Flight.seats": 7.0,
        }  # fmt: skip
        assert (found.id, found.key, found.time) == ("f5", "o5", START + timedelta(minutes=5))

    def test_come_for_every_model_that_scores_the_event(self, driven: Driven) -> None:
        sends = driven.take(flight(0), flight(1))
        assert [p.id for p in answers(sends, "late")] == [p.id for p in answers(sends, "long")] == ["f0", "f1"]
        assert all(list(json.loads(bytes(p.inputs))) == ["Flight.distance"] for p in answers(sends, "long"))

    def test_mix_batch_and_online_by_the_weights_of_the_snapshot(self, driven: Driven) -> None:
        world, rows = driven.world, [flight(n) for n in range(30)]
        online = world.said("online", "online-1", "snapshot", 0.0, weights={"batch": 0.25, "online": 0.75})
        for row, found in zip(rows, answers(driven.take(world.said("champion", "v1"), online, *rows)), strict=True):
            v1, o1 = world.expected("v1", row), world.expected("online-1", row)
            assert found.scores == pytest.approx({"v1": v1, "online-1": o1}, abs=1e-6)
            assert found.weights == {"v1": 0.25, "online-1": 0.75}
            assert found.score == pytest.approx(0.25 * v1 + 0.75 * o1, abs=1e-6)

    def test_of_a_shadow_are_recorded_and_not_served(self, driven: Driven) -> None:
        world = driven.world
        sends = driven.take(world.said("champion", "v1"), world.said("challenger", "v2", "shadow", 0.0), flight(0))
        (found,) = answers(sends)
        assert set(found.scores) == {"v1", "v2"}
        assert (found.version, found.weights, found.score) == ("v1", {"v1": 1.0}, found.scores["v1"])

    def test_of_a_canary_go_to_its_share_of_the_entities(self, driven: Driven) -> None:
        world, rows = driven.world, [flight(n) for n in range(80)]
        sends = driven.take(world.said("champion", "v1"), world.said("challenger", "v2", "canary", 0.3), *rows)
        found = answers(sends)
        for prediction in found:
            inside = bucket("late", prediction.key) < 3000
            assert prediction.bucket == bucket("late", prediction.key)
            assert (prediction.version, prediction.variant) == (("v2", "canary") if inside else ("v1", "champion"))
        assert {p.variant for p in found} == {"champion", "canary"}

    def test_are_cloud_events_and_pass_the_trace_on(self, driven: Driven) -> None:
        first, second = (dict(s.headers) for s in driven.take(flight(10), flight(11)) if s.topic.endswith("late"))
        assert (first["ce_specversion"], first["ce_type"], first["ce_id"]) == (
            b"1.0",
            b"penstock.prediction.v1",
            b"f10",
        )
        assert (first["ce_time"], first["ce_source"]) == (b"2024-01-01T00:10:00Z", b"/air/inference")
        assert first["traceparent"] == b"00-%032x-%016x-01" % (11, 11)
        assert "traceparent" not in second
        assert [p.trace for p in answers(driven.sent)] == [f"{11:032x}", ""]

    def test_are_keyed_by_the_id_that_labels_answer(self, driven: Driven) -> None:
        assert {s.key for s in driven.take(flight(3))} == {b"f3"}


# --- bad rows -------------------------------------------------------------------------------------------------------

GOOD = flight(1)
BAD_ROWS = {
    "tombstone": None,
    "empty": b"",
    "truncated": (GOOD.value or b"")[:-5],
    "not JSON": b"hello",
    "another type": b"[1,2]",
    "no id": b'{"time":"2024-01-01T00:00:00Z","event":{},"features":{}}',
    "empty id": (GOOD.value or b"").replace(b'"id":"f1"', b'"id":""'),
    "no zone": (GOOD.value or b"").replace(b"00:01:00Z", b"00:01:00"),
    "no feature": (GOOD.value or b"").replace(b"Origin.flights_1h", b"Origin.flights_2h"),
    "wrong type": (GOOD.value or b"").replace(b'"Origin.flights_1h":1', b'"Origin.flights_1h":"1'),
    "number beyond range": (GOOD.value or b"").replace(b'"Origin.flights_1h":1.0', b'"Origin.flights_1h":1e999'),
    "NaN": (GOOD.value or b"").replace(b'"Origin.flights_1h":1.0', b'"Origin.flights_1h":NaN'),
    "invalid UTF-8": (GOOD.value or b"").replace(b'"f1"', b'"f\xff"'),
    "deep": b'{"cursor":' + b"[" * 200_000,
}


class TestBadRows:
    @pytest.mark.parametrize("value", BAD_ROWS.values(), ids=BAD_ROWS)
    def test_leave_by_the_side_door_and_the_others_are_answered(self, driven: Driven, value: bytes | None) -> None:
        bad = Send(ROWS.topic, b"o1", value, ((FROM, b"feature_store.0"), (SEQUENCE, b"1"), ("own", b"kept")))
        sends = driven.take(flight(0), bad, flight(2))
        assert [p.id for p in answers(sends)] == ["f0", "f2"]
        (letter,) = [s for s in sends if s.topic == TOPICS.dead_letters(ROWS.topic)]
        cause = cause_of(letter.headers)
        assert (letter.key, letter.value, cause["dlq.offset"], cause["dlq.topic"]) == (b"o1", value, "1", ROWS.topic)
        assert cause["dlq.reason"] in ("decode", "schema")
        assert dict(letter.headers)["own"] == b"kept"
        assert not {name for name, _ in letter.headers} & {FROM, SEQUENCE}

    def test_numbers_that_float32_cannot_hold_are_answered(self, driven: Driven) -> None:
        (found,) = answers(driven.take(driven.world.said("champion", "v1"), flight(1, distance=1e300)))
        assert 0 < found.score < 1
        assert json.loads(bytes(found.inputs))["Flight.distance"] == 1e300

    def test_a_wrong_traceparent_does_no_harm(self, driven: Driven) -> None:
        row = flight(1)._replace(headers=(("traceparent", b"\xff" * 60),))
        assert len(answers(driven.take(row))) == 1


# --- swaps ----------------------------------------------------------------------------------------------------------


SPOILT = ("tampered", "cut short", "missing", "not a model", "other width", "other inputs", "wicked")


class TestSwaps:
    def test_leave_no_gap(self, driven: Driven) -> None:
        world = driven.world
        driven.take(world.said("champion", "v1"))
        for n in range(0, 200, 20):
            swap = [world.said("champion", f"v{n // 20 % 3 + 1}")]
            driven.take(*swap, *(flight(i) for i in range(n, n + 20)))
        found = answers(driven.sent)
        assert [p.id for p in found] == [f"f{n}" for n in range(200)]
        assert [p.version for p in found] == [f"v{n // 20 % 3 + 1}" for n in range(200)]
        for n, prediction in enumerate(found):
            assert prediction.score == pytest.approx(world.expected(prediction.version, flight(n)), abs=1e-6)

    @pytest.mark.parametrize("how", SPOILT)
    def test_to_an_artefact_that_cannot_be_trusted_do_not_happen(self, driven: Driven, how: str) -> None:
        world = driven.world
        driven.take(world.said("champion", "v1"))
        said = spoilt(world, how)
        try:
            found = answers(driven.take(said, flight(0), flight(1)))
            assert [(p.version, set(p.scores)) for p in found] == [("v1", {"v1"})] * 2
            assert sum(s.value for m in driven.meters.artefacts.collect() for s in m.samples if "total" in s.name) == 1
            driven.open()
            found = answers(driven.take(flight(2)))
            assert [p.version for p in found] == ["v1"], "a restart falls back on the same version"
        finally:
            mended(world)
        (found_now,) = answers(driven.take(world.said("champion", "v3"), flight(3)))
        assert found_now.version == "v3"

    def test_to_a_challenger_that_cannot_be_trusted_leave_the_champion_alone(self, driven: Driven, tmp_path: Path) -> None:
        world = driven.world
        spoilt(world, "tampered")
        try:
            sends = driven.take(world.said("champion", "v1"), world.said("challenger", "v2", "canary", 0.9), flight(0))
        finally:
            mended(world)
        assert [(p.version, p.variant, set(p.scores)) for p in answers(sends)] == [("v1", "champion", {"v1"})]

    def test_happen_late_when_the_file_comes_late(self, driven: Driven) -> None:
        world = driven.world
        path = world.artefacts.root / world.stored["v2"].uri
        kept = path.read_bytes()
        path.unlink()
        driven.take(world.said("champion", "v1"))
        assert [p.version for p in answers(driven.take(world.said("champion", "v2"), flight(0), now=100.0))] == ["v1"]
        path.write_bytes(kept)
        assert [p.version for p in answers(driven.take(flight(1), now=101.0))] == ["v1"]
        assert [p.version for p in answers(driven.take(flight(2), now=106.0))] == ["v2"]

    def test_to_a_bad_snapshot_keep_the_online_learner_that_was_there(self, driven: Driven) -> None:
        world, weights = driven.world, {"batch": 0.5, "online": 0.5}
        driven.take(world.said("champion", "v1"), world.said("online", "online-1", "snapshot", weights=weights))
        wicked = world.artefacts.put(b"\x80\x05cos\nsystem\n.", "river")
        (found,) = answers(driven.take(world.said("online", "online-2", "snapshot", artefact=wicked, weights=weights), flight(0)))
        assert found.weights == {"v1": 0.5, "online-1": 0.5}

    def test_a_version_fitted_before_an_input_was_added_goes_on(self, driven: Driven) -> None:
        names = ["Flight.distance", "Origin.flights_1h"]
        old = driven.world.artefacts.put(dump_river(learnt(names)), "river")
        said = driven.world.said("champion", "online-0", artefact=old, inputs=names)
        (found,) = answers(driven.take(said, flight(4)))
        x = {"Flight.distance": json.loads(bytes(found.inputs))["Flight.distance"], "Origin.flights_1h": 4.0}
        values = squashed(np.array([list(x.values())], np.float32))[0].tolist()
        assert found.score == pytest.approx(learnt(names).predict_proba_one(dict(zip(names, values, strict=True)))[True])

    def test_an_undecodable_decision_is_counted_and_changes_nothing(self, driven: Driven) -> None:
        driven.take(driven.world.said("champion", "v1"))
        sends = driven.take(Send(TOPICS.models, b"late/champion", b"{"), flight(0))
        assert [p.version for p in answers(sends)] == ["v1"]
        assert driven.meters.decisions._value.get() == 1

    def test_back_after_a_roll_back_need_no_file(self, driven: Driven) -> None:
        world = driven.world
        driven.take(world.said("champion", "v1"))
        driven.take(world.said("champion", "v2"), world.said("probation", "v1", "retired"))
        path = world.artefacts.root / world.stored["v1"].uri
        path.rename(path.with_suffix(".gone"))
        try:
            (found,) = answers(driven.take(world.said("champion", "v1"), world.said("probation", None), flight(0)))
        finally:
            path.with_suffix(".gone").rename(path)
        assert found.version == "v1"


def spoilt(world: World, how: str) -> Send:
    """The decision that makes v2 champion, with something wrong."""
    path = world.artefacts.root / world.stored["v2"].uri
    if not path.with_suffix(".kept").exists():
        path.with_suffix(".kept").write_bytes(path.read_bytes())
    data = path.read_bytes()
    if how == "tampered":
        path.write_bytes(data[:1000] + bytes([data[1000] ^ 1]) + data[1001:])
    elif how == "cut short":
        path.write_bytes(data[:-1])
    elif how == "missing":
        path.unlink()
    elif how == "not a model":
        return world.said("champion", "v2", artefact=world.artefacts.put(b"\x08\x08", "onnx"))
    elif how == "other width":
        return world.said("champion", "v2", artefact=world.artefacts.put(fitted(3, 1)[1], "onnx"))
    elif how == "other inputs":
        return world.said("champion", "v2", inputs=["Gone.feature", *late.inputs[1:]])
    elif how == "wicked":
        return world.said("champion", "v2", artefact=world.artefacts.put(b"\x80\x05cos\nsystem\n.", "river"))
    return world.said("champion", "v2")


def mended(world: World) -> None:
    path = world.artefacts.root / world.stored["v2"].uri
    path.write_bytes(path.with_suffix(".kept").read_bytes())


# --- crashes, repeats, time -----------------------------------------------------------------------------------------


class TestPositions:
    def test_rows_published_twice_are_answered_once(self, driven: Driven) -> None:
        rows = [flight(n) for n in range(6)]
        driven.take(*rows[:4])
        driven.take(*rows[2:])
        assert [p.id for p in answers(driven.sent)] == [f"f{n}" for n in range(6)]
        driven.open()
        assert answers(driven.take(*rows)) == []

    def test_a_restart_goes_on_where_it_was_with_the_models_that_it_had(self, driven: Driven) -> None:
        world = driven.world
        driven.take(world.said("champion", "v1"), world.said("champion", "v2"), *(flight(n) for n in range(5)))
        positions = driven.open()
        assert positions == {ROWS: 5}
        old = batch(MODELS, 0, [world.said("champion", "v1"), world.said("champion", "v2")])
        for cut in (0, 1, 2):  # however much of the old decisions comes with the first rows
            driven.shard.take([Batch(MODELS, range(cut), old.keys[:cut], old.values[:cut]), batch(ROWS, 5, [flight(5)])], 0)
            effects = driven.shard.step([])
            assert effects is not None
            assert [p.version for p in answers(effects.sends)] == ["v2"]
            driven.open()

    def test_time_is_closed_as_far_as_rows_have_been_answered(self, driven: Driven) -> None:
        def closing(before: int, end: int) -> Send:
            said = Clock(publisher="feature_store.0", before=before, ends={ROWS.topic: {0: end}, "air.other": {0: 1}})
            return Send(TOPICS.clock, b"feature_store.0", msgspec.json.encode(said))

        driven.take(flight(0), closing(100, 1))
        driven.take(closing(200, 3), flight(1))
        assert driven.closed == [100]
        driven.take(flight(2))
        driven.take(flight(3))
        assert driven.closed == [100, 200]
        driven.take(closing(150, 4))
        assert driven.closed == [100, 200]

    def test_time_that_others_close_says_nothing_of_rows(self, driven: Driven) -> None:
        said = Clock(publisher="somebody", before=100, ends={ROWS.topic: {0: 0}})
        driven.take(Send(TOPICS.clock, b"somebody", msgspec.json.encode(said)), flight(0))
        assert driven.closed == []

    def test_nothing_to_do_is_no_step(self, driven: Driven) -> None:
        driven.shard.take([], 0.0)
        assert driven.shard.step([]) is None


class CrashError(Exception):
    pass


class Brittle(MemoryStore):
    """Crashes before or after the n-th write."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.after = 1 << 30, False

    async def write(self, shard: str, seen: int, change: Change) -> int:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise CrashError
        version = await super().write(shard, seen, change)
        if self.left == 0:
            raise CrashError
        return version


async def lane_of(world: World, log: Log, store: MemoryStore) -> Lane:
    (lane,) = service.lanes(TOPICS, log, store, Sessions(world.artefacts, Meters()), Meters(), None)
    return lane


async def whole(log: Log, topic: str) -> list[tuple[bytes | None, bytes | None, Headers]]:
    reader = await log.reader({Partition(topic, 0): 0})
    found = []
    while batches := await reader.read(10_000, 0):
        for got in batches:
            found += list(zip(got.keys, got.values, got.headers or [()] * len(got), strict=True))
    return found


class TestCrashes:
    @pytest.mark.parametrize("after", [False, True], ids=["before the write", "after the write"])
    @pytest.mark.parametrize("at", [1, 2, 4, 6])
    def test_lose_nothing_and_answer_nothing_twice(self, world: World, at: int, after: bool) -> None:
        async def run(crash_at: int) -> list[tuple[bytes | None, bytes | None]]:
            log, store = MemoryLog(), Brittle()
            await log.create(TOPICS.all())
            store.left, store.after = crash_at, after
            lane = await lane_of(world, log, store)
            crashes = 0
            for n in range(0, 120, 20):
                await log.send([world.said("champion", f"v{n // 20 % 2 + 1}")])
                await log.send(stamped("feature_store.0", n, [flight(i)._replace(headers=()) for i in range(n, n + 20)]))
                moved = True
                while moved:
                    try:
                        moved = await lane.turn(0)
                    except CrashError:
                        crashes += 1
                        await lane.close()
                        lane = await lane_of(world, log, store)
            assert crashes == (crash_at < 100)
            published = await whole(log, TOPICS.predictions("late"))
            numbers = [(dict(h)[FROM], int(dict(h)[SEQUENCE])) for _, _, h in published]
            kept = dict(zip(numbers, [(k, v) for k, v, _ in published], strict=True))  # what readers keep
            assert len({(n, v) for n, (_, v, _) in zip(numbers, published, strict=True)}) == len(kept)
            return list(kept.values())

        assert asyncio.run(run(at)) == asyncio.run(run(1000))
        assert len(asyncio.run(run(at))) == 120


class TestTheProcess:
    def test_serving_onnx_imports_no_learner_library(self) -> None:
        code = (
            "import sys; from penstock.services.inference import service;"
            "print([m for m in ('sklearn', 'pandas', 'river', 'skl2onnx', 'onnx', 'mlflow') if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.strip() == "[]"

    def test_a_project_without_models_has_no_lane(self, world: World) -> None:
        topics = Topics(ps.Project("quiet", rows={Flight: [Origin]}))
        assert service.lanes(topics, MemoryLog(), MemoryStore(), Sessions(world.artefacts, Meters()), Meters()) == []
