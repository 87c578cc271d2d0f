"""Functions around a model of the loop: the same by every way to a score, and whatever one of them does, no row is lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from tests.services import seams
from tests.services.air import ROWS, World, answers, flight
from tests.services.seams import EMPTY, HANGS
from tests.services.tailor import PROJECT, SAYS, Stream, Tailor, data_of, door, event, inputs_of, matrix, other

import penstock as ps
from penstock.errors import PenstockError
from penstock.records import Code
from penstock.runtime.deadletter import cause_of, revived
from penstock.scoring import around, bulk
from penstock.scoring.bulk import Job
from penstock.scoring.files import file_of
from penstock.scoring.process import Bounds, Function
from penstock.scoring.sinks import sink_of
from penstock.services.inference.meters import Meters
from penstock.services.inference.sessions import Sessions
from penstock.services.inference.shard import ScoringShard
from penstock.topics import Topics


@pytest.fixture(scope="module")
def tailored(tmp_path_factory: pytest.TempPathFactory) -> Tailor:
    return Tailor(tmp_path_factory.mktemp("tailored") / "models")


@pytest.fixture(scope="module", autouse=True)
def brief() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(around, "BOUNDS", Bounds(seconds=1.0))
        yield


@pytest.fixture(scope="module")
def stream(tailored: Tailor) -> Iterator[Stream]:
    found = Stream(tailored)
    yield found
    found.close()


class TestEveryWay:
    """The stream, requests about events, tensors, batches, and a process of one's own."""

    def test_gives_the_same_bits_and_those_of_plain_calls(self, tailored: Tailor, stream: Stream, tmp_path: Path) -> None:
        sent = stream.flights(200)
        rows = [inputs_of(one) for one in sent]
        streamed = [p.score for some in (sent[:1], sent[1:8], sent[8:]) for p in answers(stream.take(*some))]
        data = data_of(tailored)
        with ps.load_model("late", project=PROJECT, data=data) as model:
            together, alone = model.predict(rows), [float(model.predict([row])[0]) for row in rows[:30]]
            framed = model.predict(pd.DataFrame(rows))
            versions = model._versions
            file = tmp_path / "rows.jsonl"
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
            job = Job.of(versions.charge(), versions.artefacts, file_of(file, versions.model), PROJECT)
        sink = sink_of(str(tmp_path / "scores"), job.id, job.lineage)
        assert bulk.run(job, sink).bad == 0
        table = pa.Table.from_batches(list(sink.batches(None)))
        assert together.tolist() == framed.tolist() == streamed == table["score"].to_pylist()
        assert alone == streamed[:30]
        assert self.over_http(tailored, rows[:30]) == streamed[:30]
        assert streamed == pytest.approx(tailored.answer(matrix(rows)).tolist(), abs=1e-6)
        assert {0.05, 0.9, 0.95} < set(streamed), "the last function had its say"

    def over_http(self, tailored: Tailor, rows: Sequence[dict[str, Any]]) -> list[float]:
        found: list[float] = []

        async def talk(client: httpx.AsyncClient) -> None:
            data = [[None if v is None else float(np.float32(v)) for v in row.values()] for row in rows]
            tensor = {"name": "X", "datatype": "FP32", "shape": [len(rows), 5], "data": data}
            answer = await client.post("/v2/models/late/infer", json={"inputs": [tensor]})
            found.extend(answer.json()["outputs"][0]["data"])

        door(tailored, talk)
        return found

    def test_about_an_event_as_in_a_process(self, tailored: Tailor) -> None:
        found: list[dict[str, Any]] = []

        async def talk(client: httpx.AsyncClient) -> None:
            told = await asyncio.gather(*[client.post("/predict/late", json=event(n, distance=30.0 * n)) for n in range(20)])
            found.extend(each.json() for each in told)

        recorded = door(tailored, talk).recorded
        rows = [
            {"Origin.flights_1h": 3, "Origin.mean_distance": None, "distance": 30.0 * n, "night": True, "seats": 200}
            for n in range(20)
        ]
        with ps.load_model("late", project=PROJECT, data=data_of(tailored)) as model:
            assert model.predict(rows).tolist() == [each["score"] for each in found]
        inputs = json.loads(recorded[7].value or b"")["inputs"]
        assert inputs["Flight.distance"] == 30.0 * 7, "what is recorded are the inputs, as before any function"


class TestOnTheStream:
    @pytest.mark.parametrize("distance", SAYS)
    def test_a_row_of_which_nothing_is_made_is_a_dead_letter_in_words(self, stream: Stream, distance: float) -> None:
        before, bad, after = stream.flights(5), stream.flights(1, distance=distance), stream.flights(6)
        sends = stream.take(*before, *bad, *after)
        (letter,) = [send for send in sends if send.topic.endswith(".dlq")]
        cause = cause_of(letter.headers)
        assert (cause["dlq.reason"], cause["dlq.error"]) == SAYS[distance]
        assert letter.value == bad[0].value
        mine, others = answers(sends), answers(sends, "long")
        assert [found.id.encode() for found in mine] == [json.loads(s.value or b"")["id"].encode() for s in (*before, *after)]
        assert {found.version for found in mine} == {"v1"}
        assert len(others) == 12, "the other model has no function"

    def test_nan_is_a_missing_value_to_the_learner(self, stream: Stream) -> None:
        assert answers(stream.take(*stream.flights(1, distance=EMPTY)))[0].version == "v1"

    def test_a_dead_letter_that_is_sent_again_is_answered_where_the_function_takes_it_now(
        self, tailored: Tailor, stream: Stream
    ) -> None:
        bad = stream.flights(1, distance=-20_000.0)
        sends = stream.take(*bad)
        (letter,) = [send for send in sends if send.topic.endswith(".dlq")]
        again = revived(ROWS, 0, letter.key, letter.value, letter.headers)
        assert answers(stream.take(again)) == [], "it is a dead letter again"
        project = other(before=seams.short)
        codes = tailored.codes | {"before": Code(name="short", sha256=project.models[0].codes["short"])}
        repaired = Stream(tailored, project, codes=codes)
        assert [found.id for found in answers(repaired.take(again))] == [json.loads(bad[0].value or b"")["id"]]
        repaired.close()

    def test_where_all_rows_hang_it_takes_the_time_of_a_few_and_loses_none(self, stream: Stream) -> None:
        began = time.monotonic()
        sends = stream.take(*stream.flights(60, distance=HANGS))
        letters = [cause_of(send.headers)["dlq.error"] for send in sends if send.topic.endswith(".dlq")]
        assert len(letters) == 60 and answers(sends) == []
        assert len([told for told in letters if "was not asked about this row: it has just hung or died 4 times" in told]) == 57
        assert time.monotonic() - began < 30
        assert len(answers(stream.take(*stream.flights(10)))) == 10

    def test_a_process_that_is_killed_is_missed_by_no_row(self, stream: Stream) -> None:
        for _ in range(2):
            (functions,) = stream.sessions._functions.values()
            for function in functions._open.values():
                os.kill(function.pid or 0, signal.SIGKILL)
            sends = stream.take(*stream.flights(10))
            assert [found.version for found in answers(sends)] == ["v1"] * 10

    def test_a_batch_is_one_message_for_each_function(self, stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
        calls, ask = list[str](), Function.run

        def counted(self: Any, *of: Any) -> Any:
            calls.append(self.name)
            return ask(self, *of)

        monkeypatch.setattr(Function, "run", counted)
        stream.take(*stream.flights(1000))
        assert calls == ["cut", "hold"]

    def test_a_score_that_is_no_probability_is_no_answer(self, tailored: Tailor) -> None:
        project = other(before=seams.cut, after=seams.double)
        codes = tailored.codes | {"after": Code(name="double", sha256=project.models[0].codes["double"])}
        stream = Stream(tailored, project, codes=codes)
        sends = stream.take(*stream.flights(40))
        letters = [cause_of(send.headers)["dlq.error"] for send in sends if send.topic.endswith(".dlq")]
        assert 0 < len(letters) < 40 and len(answers(sends)) == 40 - len(letters)
        assert all(told.startswith("double gave 1.") and told.endswith("which is not a probability") for told in letters)
        stream.close()


class TestAVersion:
    def test_is_not_opened_with_code_that_is_another(self, tailored: Tailor) -> None:
        wrong = {"before": Code(name="cut", sha256="0" * 64)}
        with pytest.raises(
            PenstockError, match=r"fitted with the function cut before the model, whose code is another now"
        ) as told:
            ps.load_model("late", project=PROJECT, data=data_of(tailored, codes=wrong))
        assert "put cut back and give the new code another name, or fit anew" in told.value.fix
        gone = {"before": Code(name="sew", sha256="0" * 64)}
        with pytest.raises(PenstockError, match="sew before the model, which the project no longer has"):
            ps.load_model("late", project=PROJECT, data=data_of(tailored, codes=gone))

    def test_goes_on_with_its_function_where_the_model_declares_another(self, tailored: Tailor) -> None:
        rows = [inputs_of(flight(n)) for n in range(20)]
        found = []
        for project in (PROJECT, other(after=seams.double), other(before=None, after=None)):
            with ps.load_model("late", project=project, data=data_of(tailored)) as model:
                found.append(model.predict(rows).tolist())
        assert found[0] == found[1] == found[2]

    def test_that_was_fitted_without_functions_is_asked_without(self, world: World, tailored: Tailor) -> None:
        from tests.services.air import Driven

        bare = Driven(world)
        bare.shard = ScoringShard(Topics(PROJECT, 1), 0, Sessions(world.artefacts, Meters()), Meters(), ["feature_store.0"])
        bare.take(world.said("champion", "v1"))
        sent = flight(1)
        assert answers(bare.take(sent))[0].score == pytest.approx(world.expected("v1", sent), abs=1e-6)

    def test_whose_model_does_not_take_what_its_function_gives_is_not_opened(self, tailored: Tailor) -> None:
        project = other(before=seams.centre, after=None)
        codes = {"before": Code(name="centre", sha256=project.models[0].codes["centre"])}
        with pytest.raises(PenstockError, match="the ONNX model takes 3 inputs, its record names 5"):
            ps.load_model("late", project=project, data=data_of(tailored, codes=codes))
