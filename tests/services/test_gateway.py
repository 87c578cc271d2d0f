"""The gateway answers events as the stream would, records every answer it gives, and says when it cannot answer."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import structlog
from tests.services.air import EVENT, TOPICS, Door, client_of, said_wrong

from penstock.log import Batch, LogError, Partition
from penstock.log.memory import MemoryLog
from penstock.online.reader import OnlineFeatures
from penstock.records import Prediction
from penstock.runtime.telemetry import logs
from penstock.scoring.roster import bucket
from penstock.services.__main__ import Machine, inference
from penstock.services.inference.duty import Duties
from penstock.settings import load as load_settings
from penstock.store import StoreError

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class TestPredict:
    def test_an_event_gets_the_answer_that_its_row_would_get(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            answer = await client.post("/predict/late", json=EVENT, headers={"traceparent": TRACE})
            assert answer.status_code == 200
            expected = pytest.approx(door.world.answer("v1", [3.0, None, 100.5, 1.0, 200.0]), abs=1e-6)
            assert answer.json() == {
                "id": "f1", "score": expected, "version": "v1", "variant": "champion", "scores": {"v1": expected},
                "features_status": {"Origin": "fresh"}, "trace": TRACE[3:35],
            }  # fmt: skip
            assert door.looked == [("flights", "JFK")]

        door.run(talk, door.said("champion", "v1"))

    def test_the_answer_is_recorded_as_a_prediction(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            said = (await client.post("/predict/late", json=EVENT, headers={"traceparent": TRACE})).json()
            (record,) = door.recorded
            found = msgspec.json.decode(record.value or b"", type=Prediction)
            assert (record.topic, record.key) == (TOPICS.predictions("late"), b"f1")
            assert dict(record.headers)["traceparent"] == TRACE.encode()
            assert (found.id, found.key, found.version, found.score) == ("f1", "JFK", "v1", said["score"])
            assert json.loads(bytes(found.inputs)) == {
                "Origin.flights_1h": 3.0, "Origin.mean_distance": None, "Flight.distance": 100.5, "Flight.night": 1.0,
                "Flight.seats": 200.0,
            }  # fmt: skip
            assert found.bucket == bucket("late", "JFK")
            assert 0 < found.latency < 5
            assert (await door.log.ends([record.topic]))[Partition(record.topic, 0)] == 1

        door.run(talk, door.said("champion", "v1"))

    def test_no_content_type_and_no_optional_field_are_needed(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            few = {name: value for name, value in EVENT.items() if name != "seats"}
            assert (await client.post("/predict/late", content=json.dumps(few))).status_code == 200

        door.run(talk, door.said("champion", "v1"))

    def test_a_canary_answers_its_share_over_http_too(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            for n in range(40):
                said = (await client.post("/predict/late", json={**EVENT, "flight": f"f{n}", "origin": f"o{n}"})).json()
                assert said["variant"] == ("canary" if bucket("late", f"o{n}") < 5000 else "champion")

        door.run(talk, door.said("champion", "v1"), door.said("challenger", "v2", "canary", 0.5))

    def test_requests_in_flight_during_swaps_are_all_answered(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            versions = set()
            for n in range(10):
                await door.log.send([door.said("champion", f"v{n % 3 + 1}")])
                asked = [client.post("/predict/late", json={**EVENT, "flight": f"f{n}-{i}"}) for i in range(10)]
                for answer in await asyncio.gather(*asked):
                    assert answer.status_code == 200
                    versions.add(answer.json()["version"])
            assert versions <= {"v1", "v2", "v3"}
            assert len(versions) > 1
            assert len({r.key for r in door.recorded}) == 100

        door.run(talk, door.said("champion", "v1"))

    def test_a_trace_header_that_is_none_is_ignored(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            for wrong in ("", "00-xyz", TRACE.upper(), TRACE + "x", "é"):
                headers = {b"traceparent": wrong.encode()}
                said = (await client.post("/predict/late", json=EVENT, headers=headers)).json()
                assert said["trace"] == ""

        door.run(talk, door.said("champion", "v1"))


class TestFaults:
    def test_before_the_first_version_there_is_no_answer_but_a_sentence(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            answer = await client.post("/predict/late", json=EVENT)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
            assert "late has no version in charge yet" in said_wrong(answer)
            assert door.recorded == []
            await door.log.send([door.said("champion", "v1")])
            while (answer := await client.post("/predict/late", json=EVENT)).status_code == 503:
                await asyncio.sleep(0)
            assert answer.json()["version"] == "v1"

        door.run(talk)

    def test_versions_that_all_fail_give_no_answer_but_a_sentence(self, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(*_: Any) -> None:
            raise ArithmeticError("secret detail")

        async def talk(client: httpx.AsyncClient) -> None:
            monkeypatch.setattr("penstock.services.inference.sessions.OnnxScorer.score", fails)
            answer = await client.post("/predict/late", json=EVENT)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
            assert "gives a probability" in (sentence := said_wrong(answer))
            assert "secret" not in sentence
            assert door.recorded == []
            text = (await client.get("/metrics")).text
            assert 'penstock_scores_failed_total{model="late"} 1.0' in text

        door.run(talk, door.said("champion", "v1"))

    def test_what_cannot_be_recorded_is_not_answered(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            door.log.trouble = LogError("the broker is away")
            answer = await client.post("/predict/late", json=EVENT)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert "away" in said_wrong(answer)
            door.log.trouble = None
            assert (await client.post("/predict/late", json=EVENT)).status_code == 200

        door.run(talk, door.said("champion", "v1"))

    def test_without_the_store_an_event_is_answered_as_of_nobody_known(self, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            door.trouble = StoreError("Redis is away")
            said = (await client.post("/predict/late", json=EVENT)).json()
            assert said["features_status"] == {"Origin": "missing"}
            assert said["score"] == pytest.approx(door.world.answer("v1", [None, None, 100.5, 1.0, 200.0]), abs=1e-6)
            found = msgspec.json.decode(door.recorded[0].value or b"", type=Prediction)
            assert json.loads(bytes(found.inputs))["Origin.flights_1h"] is None
            door.trouble = None
            await client.post("/predict/late", json={**EVENT, "flight": "f2"})
            assert door.looked == []  # it is not asked again at once, so that nobody waits for it
            monkeypatch.setattr("penstock.services.inference.gateway.predictor.AWAY", 0.0)
            assert "penstock_features_unread_total 2.0" in (await client.get("/metrics")).text

        door.run(talk, door.said("champion", "v1"))

    def test_a_model_that_takes_no_missing_values_gives_no_answer_without_the_store(
        self, door: Door, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def gives(_: Any, X: Any) -> Any:  # noqa: N803
            return X.sum(axis=1) * 0 + 0.5

        async def talk(client: httpx.AsyncClient) -> None:
            monkeypatch.setattr("penstock.services.inference.sessions.OnnxScorer.score", gives)
            door.trouble = StoreError("Redis is away")
            answer = await client.post("/predict/late", json=EVENT)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
            assert "without the online store, which is away" in said_wrong(answer)
            assert door.recorded == []

        door.run(talk, door.said("champion", "v1"))

    def test_where_features_are_demanded_nothing_is_answered_without_the_store(self, door: Door) -> None:
        async def whole() -> None:
            async with door.opened(door.said("champion", "v1"), app=door.app(demanding=True)) as client:
                door.trouble = StoreError("Redis is away")
                answer = await client.post("/predict/late", json=EVENT)
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
                assert "Redis is away" in said_wrong(answer)
                door.trouble = None
                assert (await client.post("/predict/late", json=EVENT)).status_code == 200

        asyncio.run(whole())

    def test_a_fault_of_ours_shows_no_traceback(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            door.trouble = RuntimeError("secret detail")
            answer = await client.post("/predict/late", json=EVENT)
            assert answer.status_code == 500
            assert "secret" not in said_wrong(answer)

        door.run(talk, door.said("champion", "v1"))

    @pytest.mark.parametrize("terminal", [False, True])
    def test_a_fault_of_ours_is_logged_without_a_word_of_the_key_and_of_what_was_sent(
        self, door: Door, monkeypatch: pytest.MonkeyPatch, terminal: bool
    ) -> None:
        said, before = io.StringIO(), structlog.get_config()
        monkeypatch.setattr(said, "isatty", lambda: terminal)
        monkeypatch.setattr(sys, "stderr", said)

        async def talk(client: httpx.AsyncClient) -> None:
            door.trouble = RuntimeError("what nobody thought of")
            logs("inference")
            for path, sent in (("/predict/late", EVENT), ("/v2/models/late/infer", {"inputs": []}), ("/healthz", EVENT)):
                for name in ("authorization", "x-api-key"):
                    await client.post(path, json=sent, headers={name: "Bearer penstock_0123456789ab_secret"})
            monkeypatch.setattr("penstock.runtime.health.generate_latest", broken)
            await client.get("/metrics", headers={"authorization": "Bearer penstock_0123456789ab_secret"})

        def broken(*_: Any) -> bytes:
            raise RuntimeError("what nobody thought of")

        try:
            door.run(talk, door.said("champion", "v1"))
        finally:
            structlog.configure(**before)
            structlog.contextvars.clear_contextvars()
        assert "what nobody thought of" in said.getvalue()
        assert "penstock_0123" not in said.getvalue()
        assert "JFK" not in said.getvalue()

    def test_nothing_is_answered_before_the_decisions_are_known(self, door: Door) -> None:
        async def whole() -> None:
            async with client_of(door.app()) as client:  # not started, so not following yet
                for path in ("/readyz", "/v2/health/ready"):
                    assert (await client.get(path)).status_code == 503
                assert "still reading" in said_wrong(await client.get("/readyz"))
                answer = await client.post("/predict/late", json=EVENT)
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
                assert (await client.get("/healthz")).status_code == 200
                assert (await client.get("/v2/health/live")).json() == {"live": True}

        asyncio.run(whole())

    def test_it_is_not_ready_before_reads_of_features_are_compiled(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Else the first who asks waits for a compiler, and so does everybody else, as it holds up the event loop."""
        beside: list[Any] = []

        def kept(_: Machine, work: Any, meaning: str) -> Any:
            beside.append(work)
            return lambda: meaning

        monkeypatch.setattr(Machine, "beside", kept)
        settings = load_settings(data=tmp_path, REDIS_URL="redis://127.0.0.1:1")
        machine: Any = Machine("inference", settings, TOPICS, MemoryLog())
        inference(machine)
        assert [work.__func__ for work in beside] == [OnlineFeatures.warm]

        async def whole() -> None:
            async with client_of(machine.app) as client:
                assert "being compiled" in said_wrong(await client.get("/readyz"))

        asyncio.run(whole())

    def test_a_log_that_is_away_at_the_start_is_waited_for(self, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("penstock.runtime.patience.RETRY_SECONDS", (0.0,))

        async def whole() -> None:
            app = door.app()  # its topics do not exist yet
            async with app.router.lifespan_context(app):
                await asyncio.sleep(0)
                async with door.opened(door.said("champion", "v1"), app=app) as client:
                    for _ in range(1000):  # the topics may be there, and found empty, before the decision is
                        if (answer := await client.post("/predict/late", json=EVENT)).status_code == 200:
                            break
                        await asyncio.sleep(0.001)
                    assert answer.json()["version"] == "v1"

        asyncio.run(whole())

    def test_a_part_that_has_failed_is_said_and_it_is_ready_no_longer(self, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: Any) -> bool:
            raise RuntimeError("what nobody thought of")

        async def talk(client: httpx.AsyncClient) -> None:
            monkeypatch.setattr(Duties, "hear", broken)
            await door.log.send([door.said("champion", "v2")])
            for _ in range(1000):
                if (answer := await client.get("/readyz")).status_code == 503:
                    break
                await asyncio.sleep(0.001)
            assert "no longer follows who is on duty; the log says why" in said_wrong(answer)

        door.run(talk, door.said("champion", "v1"))

    def test_it_stops_also_when_a_client_of_the_log_drops_the_cancellation(
        self, door: Door, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dropped: list[bool] = []

        async def deaf(*_: Any) -> list[Batch]:
            """As `asyncio.wait_for` of Python 3.11 when a record comes in the same moment."""
            try:
                await asyncio.sleep(0 if not dropped else 3600)
            except asyncio.CancelledError:
                if dropped:
                    raise
                dropped.append(True)
            return []

        async def whole() -> None:
            reader = await door.log.reader({})
            monkeypatch.setattr(type(reader), "read", deaf)
            async with door.opened():
                pass

        async def watched() -> None:
            done, _ = await asyncio.wait([asyncio.create_task(whole())], timeout=5)
            assert done
            assert dropped

        asyncio.run(watched())


class TestSurroundings:
    def test_metrics_count_answers_and_refusals(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            await client.post("/predict/late", json=EVENT)
            await client.post("/predict/late", content=b"{")
            await client.get("/nowhere")
            text = (await client.get("/metrics")).text
            assert 'penstock_predictions_total{model="late",variant="champion"} 1.0' in text
            assert 'penstock_http_requests_total{route="/predict/{model}",status="400"} 1.0' in text
            assert 'penstock_http_requests_total{route="other",status="404"} 1.0' in text
            assert 'penstock_serving{duty="champion",model="late",version="v1"} 1.0' in text

        door.run(talk, door.said("champion", "v1"))

    def test_the_description_names_every_operation_and_one_form_of_error(self, door: Door) -> None:
        described = door.app().openapi()
        operations = [said for path in described["paths"].values() for said in path.values()]
        named = [said["operationId"] for said in operations]
        assert len(set(named)) == len(named) >= 13
        assert "/predict/{model}" in described["paths"]
        given = {said["operationId"]: set(said["responses"]) for said in operations}
        assert given.pop("publish") == {"202", "default"}
        assert all(statuses == {"200", "default"} for statuses in given.values())
