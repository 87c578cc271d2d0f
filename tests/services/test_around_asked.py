"""What whoever asks is told where a function around the model does not do its part; and nobody else waits for it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pyarrow as pa
import pytest
from tests.services.air import flight
from tests.services.seams import HANGS, RAISES
from tests.services.tailor import PROJECT, SAYS, Tailor, data_of, door, event, inputs_of, late, rows, said

import penstock as ps
from penstock.cli import broker
from penstock.contributions.version import explained, explainer_of
from penstock.errors import PenstockError
from penstock.publish import FOREVER
from penstock.scoring import around, bulk
from penstock.scoring.around import Functions, Plan
from penstock.scoring.bulk import Job
from penstock.scoring.files import file_of
from penstock.scoring.process import Bounds
from penstock.scoring.scorers import opened
from penstock.scoring.sinks import sink_of
from penstock.services.embedded import Embedded


@pytest.fixture(scope="module")
def tailored(tmp_path_factory: pytest.TempPathFactory) -> Tailor:
    return Tailor(tmp_path_factory.mktemp("tailored") / "models")


@pytest.fixture(scope="module", autouse=True)
def brief() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(around, "BOUNDS", Bounds(seconds=1.0))
        yield


class TestOverHttp:
    def test_what_a_function_refuses_is_400_and_what_it_fails_on_500_and_others_are_answered(self, tailored: Tailor) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            for distance, (reason, words) in SAYS.items():
                status = 400 if reason == "schema" else 500
                alone = await client.post("/predict/late", json=event(int(distance) % 997, distance=distance))
                assert (alone.status_code, alone.json()) == (status, {"error": words})
            many = await client.post("/predict/late", json=[event(1), event(2, distance=-20_000.0), event(3, distance=RAISES)])
            first, second, third = many.json()
            assert first["version"] == "v1"
            assert (second["status"], third["status"]) == (400, 500)
            tensor = {"name": "X", "datatype": "FP32", "shape": [1, 5], "data": [1.0, 2.0, -20_000.0, 0.0, 1.0]}
            refused = await client.post("/v2/models/late/infer", json={"inputs": [tensor]})
            assert (refused.status_code, refused.json()) == (400, {"error": "cut: no flight is that short"})

        assert [json.loads(each.value or b"")["id"] for each in door(tailored, talk).recorded] == ["e1"]

    def test_while_a_function_hangs_others_are_answered_and_what_waits_too_long_is_told(self, tailored: Tailor) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            hanging = asyncio.create_task(client.post("/predict/late", json=event(1, distance=HANGS)))
            tensor = {"name": "X", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}
            slowest = 0.0
            for _ in range(20):
                began = time.monotonic()
                assert (await client.get("/healthz")).status_code == 200
                assert (await client.post("/v2/models/long/infer", json={"inputs": [tensor]})).status_code == 503
                slowest = max(slowest, time.monotonic() - began)
            assert not hanging.done() and slowest < 0.5
            assert (await hanging).json() == {"error": "cut did not answer within 1 s"}
            assert (await client.post("/predict/late", json=event(2))).status_code == 200

        door(tailored, talk)

    def test_an_answer_is_explained_by_the_inputs_as_they_came(self, tailored: Tailor) -> None:
        from penstock.contributions.explainer import dumped
        from penstock.contributions.permutation import Permutation

        decision, functions = tailored.decision(), Functions(Plan.of(late))
        assert decision.candidate is not None
        scorer = opened(tailored.artefacts, decision.candidate, functions)
        explainer = tailored.artefacts.put(dumped(Permutation(scorer.score, rows(100, 3))), "npz")
        candidate = msgspec.structs.replace(decision.candidate, explainer=explainer)
        row = rows(1, 9)[0].tolist()
        given = [None if value != value else value for value in row]
        found = explained(explainer_of(tailored.artefacts, candidate, plan=Plan.of(late)), "v1", candidate.inputs, given)
        assert found.probability == pytest.approx(tailored.answer(np.array([row], np.float32))[0], abs=1e-6)
        assert found.contributions[0].input == "Flight.distance"
        seats = next(part for part in found.contributions if part.input == "Flight.seats")
        assert seats.contribution == 0.0, "of which the functions take nothing"
        functions.close()
        with pytest.raises(PenstockError, match="was fitted with the function cut before the model, which the project no longer"):
            explainer_of(tailored.artefacts, candidate)


def test_a_run_in_one_process_answers_events_with_functions_and_its_loop_goes_on_while_one_hangs(
    tailored: Tailor, tmp_path: Path
) -> None:
    events = [event(n, distance=HANGS if n == 3 else 40.0 * n, at=f"2024-01-01T00:{n:02}:00Z") for n in range(20)]
    found: dict[str, Any] = {}

    async def run() -> None:
        machine = Embedded(ps.Project("air", [late]), tmp_path)
        await machine.start()
        machine.artefacts.put(tailored.artefacts.get(tailored.stored), "onnx")
        await machine.log.send([said(tailored)])
        await machine.settle()
        gap, last = 0.0, time.monotonic()
        sends = [("flights", b"JFK", msgspec.json.encode(each), 1_704_067_200_000_000 + n) for n, each in enumerate(events)]
        await machine.publish(sends, FOREVER)
        settling = asyncio.create_task(machine.settle())
        while not settling.done():
            await asyncio.sleep(0.01)
            gap, last = max(gap, time.monotonic() - last), time.monotonic()
        await settling
        topics = machine.topics
        for name in (topics.predictions("late"), topics.dead_letters(topics.rows(machine.project.models[0].scores))):
            found[name] = [record.value async for record in broker.held(machine.log, name)]
        found["gap"] = gap
        await machine.close()

    asyncio.run(run())
    predictions = [json.loads(value) for value in found["air.predictions.late"]]
    assert [each["id"] for each in predictions] == [f"e{n}" for n in range(20) if n != 3]
    (letter,) = found["air.rows.flights.dlq"]
    assert json.loads(letter)["id"] == "e3"
    assert found["gap"] < 1.0, "a call may take a second, and hung twice"
    with ps.load_model("late", project=PROJECT, data=tmp_path) as model:
        assert model.predict([each["inputs"] for each in predictions]).tolist() == [each["score"] for each in predictions]


def test_rows_in_bulk_say_why_they_have_no_score(tailored: Tailor, tmp_path: Path) -> None:
    rows = [inputs_of(flight(n)) for n in range(8)]
    rows[3]["Flight.distance"], rows[6]["Flight.distance"] = -20_000.0, RAISES
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    versions = ps.load_model("late", project=PROJECT, data=data_of(tailored))._versions
    job = Job.of(versions.charge(), versions.artefacts, file_of(file, late), PROJECT)
    assert job.lineage["members"][0]["functions"]["before"] == ["cut", tailored.codes["before"].sha256]
    sink = sink_of(str(tmp_path / "scores"), job.id, job.lineage)
    assert bulk.run(job, sink).bad == 2
    errors = pa.Table.from_batches(list(sink.batches(None)))["error"].to_pylist()
    assert errors[3] == "failed: cut: no flight is that short"
    assert errors[6] == "failed: cut failed with ValueError; the server's log says why"
    assert errors.count(None) == 6


def test_a_model_in_a_process_of_ones_own_gives_nan_and_a_warning_in_words(tailored: Tailor) -> None:
    rows = [inputs_of(flight(n)) for n in range(4)]
    rows[2]["Flight.distance"] = -20_000.0
    with ps.load_model("late", project=PROJECT, data=data_of(tailored)) as model:
        with pytest.warns(RuntimeWarning, match="1 of 4 rows have no score: row 2: cut: no flight is that short"):
            found = model.predict(rows)
        assert np.isnan(found).tolist() == [False, False, True, False]
