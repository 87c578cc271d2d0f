"""Inference answers every row once, with what the registry says, whatever crashes or is repeated."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from datetime import timedelta

import msgspec
import pytest
from tests.services.air import MODELS, ROWS, START, TOPICS, Driven, Flight, Origin, World, answers, batch, flight, late

import penstock as ps
from penstock.log import Batch, Headers, Log, Partition, Send
from penstock.log.memory import MemoryLog
from penstock.records import Clock
from penstock.runtime.deadletter import cause_of
from penstock.runtime.lane import FROM, SEQUENCE, Lane, stamped
from penstock.scoring.roster import bucket
from penstock.services.inference import service
from penstock.services.inference.meters import Meters
from penstock.services.inference.sessions import Sessions
from penstock.store import Change
from penstock.store.memory import MemoryStore
from penstock.topics import Topics

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
        assert (first["ce_specversion"], first["ce_type"]) == (b"1.0", b"penstock.prediction.v1")
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
        assert letter.headers[: len(bad.headers)] == bad.headers, "its headers are untouched"

    def test_numbers_that_float32_cannot_hold_are_answered(self, driven: Driven) -> None:
        (found,) = answers(driven.take(driven.world.said("champion", "v1"), flight(1, distance=1e300)))
        assert 0 < found.score < 1
        assert json.loads(bytes(found.inputs))["Flight.distance"] == 1e300

    def test_a_wrong_traceparent_does_no_harm(self, driven: Driven) -> None:
        row = flight(1)._replace(headers=(("traceparent", b"\xff" * 60),))
        assert len(answers(driven.take(row))) == 1


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
