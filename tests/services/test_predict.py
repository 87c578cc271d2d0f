"""/predict takes one event or many, answers an id once and for all, and tells administrators what others would have said."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.services.air import EVENT, TOPICS, Door, client_of, late, said_wrong, talking
from tests.services.test_explainers import explaining as decided

from penstock.log import Send as Record
from penstock.records import Artefact, Prediction
from penstock.services.inference.gateway import predictor
from penstock.services.inference.sessions import OnnxScorer
from penstock.services.monitoring.answers.ledger import Answer, Ledger


def events(n: int, **changes: Any) -> list[dict[str, Any]]:
    return [{**EVENT, "flight": f"f{i}", "origin": f"o{i % 7}", "distance": float(i), **changes} for i in range(n)]


class TestLists:
    def test_each_event_of_a_list_is_answered_as_it_is_alone(self, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
        def by_distance(_: OnnxScorer, X: Any) -> Any:  # noqa: N803
            return abs(X[:, 2]).astype(float) / 1000

        async def talk(client: httpx.AsyncClient) -> None:
            monkeypatch.setattr(OnnxScorer, "score", by_distance)
            asked = events(30)
            said = (await client.post("/predict/late", json=asked)).json()
            alone = [(await client.post("/predict/late", json={**e, "flight": f"again-{e['flight']}"})).json() for e in asked]
            assert [one["id"] for one in said] == [e["flight"] for e in asked]
            assert [one["score"] for one in said] == pytest.approx([one["score"] for one in alone], abs=1e-9)
            assert len({one["score"] for one in said}) == 30
            recorded = [msgspec.json.decode(r.value or b"", type=Prediction) for r in door.recorded[:30]]
            assert [(r.id, r.score) for r in recorded] == [(one["id"], one["score"]) for one in said]

        door.run(talk, door.said("champion", "v1"))

    def test_features_of_all_are_read_together(self, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
        sizes: list[int] = []
        look = door.look

        async def counted(event: Any, decoded: Any) -> Any:
            sizes.append(len(decoded))
            return await look(event, decoded)

        monkeypatch.setattr(door, "look", counted)

        async def talk(client: httpx.AsyncClient) -> None:
            await client.post("/predict/late", json=events(400))
            assert sizes == [400]
            await asyncio.gather(*(client.post("/predict/late", json={**EVENT, "flight": f"one{i}"}) for i in range(40)))
            assert len(sizes) < 10

        door.run(talk, door.said("champion", "v1"))

    def test_a_bad_event_has_its_error_and_the_others_their_answers(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            asked: list[Any] = events(5)
            asked[1] = {"flight": "x"}
            asked[2] = 7
            asked[3] = {**EVENT, "flight": "f0", "distance": -1.0}
            answer = await client.post("/predict/late", json=asked)
            assert answer.status_code == 200
            said = answer.json()
            assert [one.get("status", 200) for one in said] == [200, 400, 400, 409, 200]
            assert "another content" in said[3]["error"]
            assert len(door.recorded) == 2

        door.run(talk, door.said("champion", "v1"))

    @pytest.mark.parametrize(
        ("body", "status", "words"),
        [
            (json.dumps(events(1001)), 413, "1001 events are more than 1000"),
            (json.dumps([{**EVENT, "more": "x" * (1 << 20)}]), 413, "longer than"),
            ("[{]", 400, "not a list of JSON objects"),
            ("[" * 5000, 400, "not a list"),
        ],
        ids=["1,001 events", "too long", "broken", "deep"],
    )
    def test_what_is_no_list_is_refused_whole(self, door: Door, body: str, status: int, words: str) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            answer = await client.post("/predict/late", content=body)
            assert answer.status_code == status
            assert words in said_wrong(answer)
            assert door.recorded == []

        door.run(talk, door.said("champion", "v1"))

    def test_no_event_is_answered_by_no_answer_and_a_thousand_by_a_thousand(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            assert (await client.post("/predict/late", json=[])).json() == []
            assert len((await client.post("/predict/late", json=events(1000))).json()) == len(door.recorded) == 1000

        door.run(talk, door.said("champion", "v1"))

    def test_a_list_that_nobody_can_answer_is_refused_whole(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            answer = await client.post("/predict/late", json=events(3))
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")

        door.run(talk)


class TestSlowModels:
    def test_many_rows_of_a_slow_model_hold_up_nobody_else(self, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
        plain, where = OnnxScorer.score, list[tuple[int, bool]]()

        def slow(scorer: OnnxScorer, X: Any) -> Any:  # noqa: N803
            where.append((len(X), threading.current_thread() is threading.main_thread()))
            time.sleep(0.005 * len(X))  # what the model takes
            return plain(scorer, X)

        async def talk(client: httpx.AsyncClient) -> None:
            monkeypatch.setattr(OnnxScorer, "score", slow)
            for round_ in ("a", "b"):
                asked = [{**one, "flight": f"{round_}{one['flight']}"} for one in events(20)]
                said = (await client.post("/predict/late", json=asked)).json()
                assert [one["id"] for one in said] == [one["flight"] for one in asked]
            assert where == [(20, True), (20, False)]  # how slow it is shows the first time
            assert len(door.recorded) == 40

        door.run(talk, door.said("champion", "v1"))


class TestAgain:
    def test_two_processes_may_answer_an_id_each_and_one_answer_counts(self, door: Door) -> None:
        async def talk(one: httpx.AsyncClient) -> None:
            async with talking(door.app()) as other:
                await one.post("/predict/late", json=EVENT)
                await other.post("/predict/late", json=EVENT)
            told = [(record.key, *(dict(record.headers)[name] for name in ("ce_source", "ce_id"))) for record in door.recorded]
            assert told == [(b"f1", b"/air/gateway", b"f1")] * 2  # of one partition, and known as the same
            ledger = Ledger("late", 10**9, None)
            values = [record.value or b"" for record in door.recorded]
            new = [ledger.answer(0, 0, msgspec.json.decode(value, type=Answer)) for value in values]
            assert new == [True, False]
            assert (ledger.counts["predictions"], ledger.counts["duplicate"]) == (1, 1)

        door.run(talk, door.said("champion", "v1"))

    def test_an_id_asked_again_has_the_first_answer_and_one_record(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            first = (await client.post("/predict/late", json=EVENT)).json()
            await door.log.send([door.said("champion", "v2")])
            others = (f"other{n}" for n in range(1000))
            while (await client.post("/predict/late", json={**EVENT, "flight": next(others)})).json()["version"] == "v1":
                pass
            reordered = dict(reversed({**EVENT, "unknown": 1}.items()))  # the same columns
            assert (await client.post("/predict/late", json=reordered)).json() == first
            assert first["version"] == "v1"
            assert sum(record.key == b"f1" for record in door.recorded) == 1

        door.run(talk, door.said("champion", "v1"))

    def test_at_the_same_time_too(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            answers = await asyncio.gather(*(client.post("/predict/late", json=EVENT) for _ in range(20)))
            assert len({answer.text for answer in answers}) == 1
            assert len(door.recorded) == 1

        door.run(talk, door.said("champion", "v1"))

    def test_with_another_content_it_is_a_conflict(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            await client.post("/predict/late", json=EVENT)
            answer = await client.post("/predict/late", json={**EVENT, "distance": 7.0})
            assert answer.status_code == 409
            assert "another content" in said_wrong(answer)
            assert (await client.post("/predict/long", json=EVENT)).status_code == 503  # another model knows nothing of it

        door.run(talk, door.said("champion", "v1"))

    def test_an_answer_that_was_not_given_is_not_remembered(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            assert (await client.post("/predict/late", json=EVENT)).status_code == 503
            await door.log.send([door.said("champion", "v1")])
            while (await client.post("/predict/late", json={**EVENT, "distance": 7.0})).status_code == 503:
                await asyncio.sleep(0)

        door.run(talk)

    def test_the_newest_ids_alone_are_remembered(self, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(predictor, "REMEMBERED", 5)

        async def talk(client: httpx.AsyncClient) -> None:
            await client.post("/predict/late", json=events(6))
            again = (await client.post("/predict/late", json=events(6, distance=0.5)[1:])).json()
            assert [one["status"] for one in again] == [409] * 5
            assert (await client.post("/predict/late", json=events(1, distance=0.5)[0])).status_code == 200
            names = [dict(record.headers)["ce_id"] for record in door.recorded if record.key == b"f0"]
            assert names == [b"f0", b"f0"]  # by which readers know the second for a repeat

        door.run(talk, door.said("champion", "v1"))


def keyed(app: ASGIApp, *scopes: str) -> ASGIApp:
    """The application behind doors that let in a key of these scopes."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "principal": SimpleNamespace(scopes=scopes)}, receive, send)

    return guarded


class TestVariants:
    def test_a_variant_answers_alone_and_leaves_no_record(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            values = [3.0, None, 100.5, 1.0, 200.0]
            for variant, version in (("champion", "v1"), ("challenger", "v2")):
                said = (await client.post(f"/predict/late?variant={variant}", json=EVENT)).json()
                assert (said["version"], said["variant"]) == (version, variant)
                assert said["score"] == pytest.approx(door.world.answer(version, values), abs=1e-6)
            both = (await client.post("/predict/late?variant=challenger", json=events(3))).json()
            assert [one["version"] for one in both] == ["v2"] * 3
            assert door.recorded == []
            answer = await client.post("/predict/late?variant=probation", json=EVENT)
            assert answer.status_code == 404
            assert "no probation now" in said_wrong(answer)

        door.run(talk, door.said("champion", "v1"), door.said("challenger", "v2", "shadow"))

    def test_it_is_for_administrators(self, door: Door) -> None:
        async def whole() -> None:
            app = door.app()
            async with door.opened(door.said("champion", "v1"), app=app) as client:
                await client.post("/predict/late", json=EVENT)
                for scopes, status in ((("predict",), 403), (("predict", "admin"), 200)):
                    async with client_of(keyed(app, *scopes)) as known:  # type: ignore[arg-type]
                        assert (await known.post("/predict/late?variant=champion", json=EVENT)).status_code == status
                        assert (await known.post("/predict/late", json=EVENT)).status_code == 200

        asyncio.run(whole())

    @pytest.mark.parametrize("query", ["variant=best", "explain=yes", "other=1", "variant=champion&explain=true", "explain"])
    def test_other_options_are_refused_in_words(self, door: Door, query: str) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            answer = await client.post(f"/predict/late?{query}", json=EVENT)
            assert answer.status_code == 400
            assert said_wrong(answer)

        door.run(talk, door.said("champion", "v1"))


VALUES = (3.0, None, 100.5, 1.0, 200.0)
"""What the model sees of EVENT, in its order of inputs."""


def explaining(door: Door, version: str, beside: Artefact | None = None) -> Record:
    """The champion, with an explainer: its own, or another file."""
    decision = decided(door.world, version)
    if beside is not None and decision.candidate is not None:
        candidate = msgspec.structs.replace(decision.candidate, explainer=beside)
        decision = msgspec.structs.replace(decision, candidate=candidate)
    return Record(TOPICS.models, b"late/champion", msgspec.json.encode(decision))


class TestExplanations:
    def test_the_largest_contributions_come_with_the_answer(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            said = (await client.post("/predict/late?explain=true", json=EVENT)).json()
            found, parts = said["explanation"], said["explanation"]["contributions"]
            assert (found["version"], found["kind"], found["scale"]) == ("v1", "trees", "log-odds")
            assert found["probability"] == pytest.approx(said["score"], abs=1e-6)
            assert found["base"] + sum(part["contribution"] for part in parts) == pytest.approx(found["total"])
            assert {part["input"]: part["value"] for part in parts} == dict(zip(late.inputs, VALUES, strict=True))
            assert (await client.post("/predict/late?explain=true", json=EVENT)).json() == said
            assert len(door.recorded) == 1
            await client.post("/predict/late", json={**EVENT, "flight": "f2"})
            answer = await client.post("/predict/late?explain=true", json={**EVENT, "flight": "f2"})
            assert answer.status_code == 409
            assert "penstock explain f2" in said_wrong(answer)

        door.run(talk, explaining(door, "v1"))

    def test_of_a_mixed_answer_each_version_that_counted_is_explained(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            said = (await client.post("/predict/late?explain=true", json=EVENT)).json()
            assert said["version"] == "v1"
            assert said["weights"] == {"online-1": 0.75, "v1": 0.25}
            both = [said["explanation"], *said["also"]]
            assert [(one["version"], one["kind"]) for one in both] == [("online-1", "linear"), ("v1", "trees")], "by weight"
            mixed = sum(said["weights"][one["version"]] * one["probability"] for one in both)
            assert mixed == pytest.approx(said["score"], abs=1e-6)
            assert "unexplained" not in said

        online = door.said("online", "online-1", "snapshot", 0.0, weights={"batch": 0.25, "online": 0.75})
        door.run(talk, explaining(door, "v1"), online)

    def test_what_cannot_be_explained_of_a_mixed_answer_is_said_beside_the_rest(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            said = (await client.post("/predict/late?explain=true", json=EVENT)).json()
            assert said["explanation"]["version"] == "online-1"
            assert "also" not in said
            assert "cannot be read" in said["unexplained"]

        online = door.said("online", "online-1", "snapshot", 0.0, weights={"batch": 0.25, "online": 0.75})
        lost = Artefact(uri="00/lost.npz", sha256="0" * 64, size=1, format="npz")
        door.run(talk, explaining(door, "v1", lost), online)

    def test_a_version_that_cannot_explain_says_so_before_anything_is_answered(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            answer = await client.post("/predict/late?explain=true", json=EVENT)
            assert answer.status_code == 501
            assert "v1 of late was fitted without an explainer" in said_wrong(answer)
            assert door.recorded == []

        door.run(talk, door.said("champion", "v1"))

    def test_an_explainer_that_is_away_costs_the_explanation_and_not_the_answer(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            said = (await client.post("/predict/late?explain=true", json=EVENT)).json()
            assert said["score"] == pytest.approx(door.world.answer("v1", VALUES), abs=1e-6)
            assert "explanation" not in said
            assert "cannot be read" in said["unexplained"]
            assert len(door.recorded) == 1

        lost = Artefact(uri="00/lost.npz", sha256="0" * 64, size=1, format="npz")
        door.run(talk, explaining(door, "v1", lost))

    def test_an_explainer_that_fails_as_nobody_thought_costs_no_answer_of_its_turn_and_no_record(
        self, door: Door, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: Any) -> None:
            raise ValueError("the columns of nodes do not fit")

        monkeypatch.setattr(predictor.Explainers, "explained", broken)

        async def talk(client: httpx.AsyncClient) -> None:
            other = {**EVENT, "flight": "f2"}
            asked = [("/predict/late?explain=true", EVENT), ("/predict/late", other)]
            for _ in range(2):
                first, second = await asyncio.gather(*(client.post(path, json=event) for path, event in asked))
                assert (first.status_code, second.status_code) == (200, 200)
                assert "its log says why" in first.json()["unexplained"]
            assert sorted(record.key or b"" for record in door.recorded) == [b"f1", b"f2"]

        door.run(talk, explaining(door, "v1"))

    def test_beyond_a_bound_no_more_explanations_are_let_in_and_plain_questions_still_are(
        self, door: Door, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(predictor, "EXPLAINED", 3)

        async def talk(client: httpx.AsyncClient) -> None:
            many = [{**EVENT, "flight": f"f{n}"} for n in range(5)]
            found = await asyncio.gather(*(client.post("/predict/late?explain=true", json=one) for one in many))
            assert [answer.status_code for answer in found] == [200] * 3 + [503] * 2
            assert all("explanation" in answer.json() for answer in found[:3])
            answer = await client.post("/predict/late?explain=true", json=many[3])
            assert "explanation" in answer.json(), "there is room again"
            assert (await client.post("/predict/late", json={**EVENT, "flight": "f9"})).status_code == 200

        door.run(talk, explaining(door, "v1"))


class Spans:
    """A collector's side of `Tracing`."""

    on = True

    def __init__(self) -> None:
        self.said: list[tuple[str, str, str]] = []

    def start(self, trace: str, operation: str, topic: str) -> None:
        self.said.append((trace, operation, topic))

    def record(self, trace: str, operation: str, topic: str) -> str:
        self.start(trace, operation, topic)
        return trace[:36] + "0000000000000001-01"


class TestTraces:
    def test_a_sampled_trace_gets_a_span_and_goes_on_with_the_record(self, door: Door) -> None:
        async def whole() -> None:
            spans: Any = Spans()
            async with door.opened(door.said("champion", "v1"), app=door.app(tracing=spans)) as client:
                trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0"
                for n in (0, 1):
                    said = await client.post(
                        "/predict/late", json={**EVENT, "flight": f"f{n}"}, headers={"traceparent": f"{trace}{n}"}
                    )
                    assert said.json()["trace"] == trace[3:35]
                assert (await client.post("/predict/late", json={**EVENT, "flight": "f2"})).json()["trace"] == ""
                assert spans.said == [(trace + "1", "process", "air.predictions.late")]
                passed = [dict(record.headers).get("traceparent", b"").decode() for record in door.recorded]
                assert passed == [f"{trace}0", f"{trace[:36]}0000000000000001-01", ""]

        asyncio.run(whole())

    def test_a_trace_with_other_flags_beside_is_sampled_too(self, door: Door) -> None:
        async def whole() -> None:
            spans: Any = Spans()
            async with door.opened(door.said("champion", "v1"), app=door.app(tracing=spans)) as client:
                trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03"  # sampled, and its id random (level 2)
                await client.post("/predict/late", json=EVENT, headers={"traceparent": trace})
                assert spans.said == [(trace, "process", "air.predictions.late")]

        asyncio.run(whole())

    def test_a_share_of_events_begins_one(self, door: Door) -> None:
        async def whole() -> None:
            spans: Any = Spans()
            async with door.opened(door.said("champion", "v1"), app=door.app(tracing=spans, share=0.3)) as client:
                said = (await client.post("/predict/late", json=events(200))).json()
                traced = [one["trace"] for one in said if one["trace"]]
                assert [trace[3:35] for trace, _, _ in spans.said] == traced
                assert 30 < len(traced) < 90

        asyncio.run(whole())


class TestLoad:
    def test_while_the_oldest_waits_too_long_no_other_is_let_in(self, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
        held = asyncio.Event()
        look = door.look

        async def slow(event: Any, decoded: Any) -> Any:
            await held.wait()
            return await look(event, decoded)

        monkeypatch.setattr(door, "look", slow)
        monkeypatch.setattr(predictor, "PATIENCE", 0.0)
        monkeypatch.setattr(predictor, "TOGETHER", 1)

        async def talk(client: httpx.AsyncClient) -> None:
            asked = [asyncio.create_task(client.post("/predict/late", json=event)) for event in events(8)]
            for _ in range(50):
                await asyncio.sleep(0)
            held.set()
            statuses = [(await one).status_code for one in asked]
            assert statuses.count(503) >= 1
            assert statuses.count(200) == len(door.recorded) >= 1

        door.run(talk, door.said("champion", "v1"))
