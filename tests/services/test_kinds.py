"""Labels that are numbers or classes, through the whole loop: answered, joined, counted, judged, learned, served elsewhere."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import reduce
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics
from tests.services.air import talking
from tests.services.parcels import DOORS, START, at_most, door, history, hours, lines, monitored, project, records

import penstock as ps
from penstock.cli.cohorts import table, whole
from penstock.cli.explain import _archived, _explained, _version
from penstock.cli.screen import rows
from penstock.event import to_micros
from penstock.inputs import InputsDecoder
from penstock.offline import Tables
from penstock.online.readings import Readings
from penstock.proof.audit import Audit, audit
from penstock.proof.audit import lines as audit_lines
from penstock.publish import FOREVER
from penstock.records import Cohort, Confusion, Contributed, Decision, Outcome, Prediction, Run, Statistic
from penstock.report.records import as_known
from penstock.scoring.around import Plan
from penstock.scoring.bulk import Job
from penstock.scoring.bulk import run as bulk
from penstock.scoring.columnar import table_of
from penstock.scoring.loading import LoadedModel
from penstock.scoring.sinks import sink_of
from penstock.services.embedded import Embedded, scoring
from penstock.services.inference.gateway.api import gateway
from penstock.services.inference.meters import Meters
from penstock.services.inference.sessions import Sessions
from penstock.services.simulate import worse
from penstock.settings import load as load_settings
from penstock.statistics.errors import pinball
from penstock.statistics.quality import added

MODELS = ("hours", "at_most", "door")


@pytest.fixture(scope="module")
def run(parcels_delivered: tuple[Embedded, Path]) -> tuple[Embedded, Path]:
    return parcels_delivered


def _outcomes(embedded: Embedded, model: str) -> list[Outcome]:
    return [o for o in records(embedded, embedded.topics.outcomes(model), Outcome) if o.version != "none"]


def _whole(embedded: Embedded, model: str) -> Cohort:
    """The newest word on the cohort with the most answers of a version."""
    newest: dict[Any, Cohort] = {c.start: c for c in records(embedded, embedded.topics.cohorts(model), Cohort)}
    return max(newest.values(), key=lambda c: c.quality["served"].n if "served" in c.quality else 0)


def _of(embedded: Embedded, model: str, cohort: Cohort) -> list[Outcome]:
    return [o for o in _outcomes(embedded, model) if cohort.start <= o.time < cohort.end]


@pytest.mark.parametrize("model", MODELS)
def test_models_are_fitted_tried_and_promoted(run: tuple[Embedded, Path], model: str) -> None:
    embedded, _ = run
    kinds = [d.kind for d in records(embedded, embedded.topics.models, Decision) if d.model == model]
    assert {"champion", "shadow", "retired"} <= set(kinds)
    runs = [run for run in records(embedded, embedded.topics.runs, Run) if run.model == model]
    assert len(runs) >= 4
    assert not any(run.data.get("refused") for run in runs)
    words = {"hours": "squared error", "at_most": "pinball loss", "door": "log loss"}
    reasons = [d.reason for d in records(embedded, embedded.topics.models, Decision) if d.model == model]
    assert any(reason.startswith(words[model]) for reason in reasons)
    skills = [s.skill for s in records(embedded, embedded.topics.statistics(model), Statistic) if s.skill is not None]
    assert skills[-1] > 0.5


def test_measures_of_numbers_are_scikit_learns(run: tuple[Embedded, Path]) -> None:
    embedded, _ = run
    cohort = _whole(embedded, "hours")
    some = _of(embedded, "hours", cohort)
    truth, answer = [o.truth for o in some], [o.score for o in some]
    found = cohort.measures["served"]
    assert cohort.quality["served"].n == len(some) >= 100
    assert found["mae"].value == pytest.approx(metrics.mean_absolute_error(truth, answer), rel=1e-12)
    assert found["rmse"].value == pytest.approx(metrics.root_mean_squared_error(truth, answer), rel=1e-12)
    assert found["r2"].value == pytest.approx(metrics.r2_score(truth, answer), rel=1e-12)
    assert all(m.low <= m.value <= m.high for measures in cohort.measures.values() for m in measures.values())
    assert cohort.measures["prior"]["rmse"].value > 2 * found["rmse"].value
    assert {"bias", "mae", "rmse"} <= set(cohort.measures["last"])


def test_the_loss_of_a_quantile_is_scikit_learns(run: tuple[Embedded, Path]) -> None:
    embedded, _ = run
    cohort = _whole(embedded, "at_most")
    some = _of(embedded, "at_most", cohort)
    truth, answer = [o.truth for o in some], [o.score for o in some]
    loss = metrics.mean_pinball_loss(truth, answer, alpha=0.9)
    assert cohort.measures["served"]["pinball"].value == pytest.approx(loss, rel=1e-12)
    assert cohort.quality["served"].loss / len(some) == pytest.approx(loss, rel=1e-12)
    covered = float(np.mean(np.array(truth) <= np.array(answer)))
    assert cohort.measures["served"]["coverage"].value == covered > 0.8, "a quantile, not a mean"
    trials = [
        d.evidence for d in records(embedded, embedded.topics.models, Decision) if d.model == "at_most" and d.evidence.get("n")
    ]
    assert trials and all(0.8 < trial["coverage"] < 1 for trial in trials)


def test_measures_of_classes_are_scikit_learns(run: tuple[Embedded, Path]) -> None:
    embedded, _ = run
    cohort = _whole(embedded, "door")
    some = _of(embedded, "door", cohort)
    truth, answer = [o.truth for o in some], [o.answer for o in some]
    shares: Any = np.array([[o.probabilities[o.version][name] for name in sorted(DOORS)] for o in some])  # type: ignore[index]
    shares /= shares.sum(axis=1)[:, None]  # float32 in the graph
    found = {name: measure.value for name, measure in cohort.measures["served"].items()}
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(truth, answer))
    assert found["kappa"] == pytest.approx(metrics.cohen_kappa_score(truth, answer))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(truth, answer, average="macro"))
    assert found["weighted_f1"] == pytest.approx(metrics.f1_score(truth, answer, average="weighted"))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(truth, shares, labels=sorted(DOORS)), rel=1e-6)
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(truth, shares, multi_class="ovr", labels=sorted(DOORS)), abs=0.01)
    cells = cohort.quality["served"].confusion
    assert isinstance(cells, Confusion)
    assert np.array(cells.cells).reshape(3, 3).tolist() == metrics.confusion_matrix(truth, answer, labels=DOORS).tolist()
    assert {"kappa_temporal", "calibration_error"} <= set(found)
    assert set(cohort.measures) == {"served", "prior", "last"}


def test_an_answer_names_the_most_probable_class_and_gives_all(run: tuple[Embedded, Path]) -> None:
    embedded, _ = run
    answers = [p for p in records(embedded, embedded.topics.predictions("door"), Prediction) if p.version != "none"]
    assert answers
    for answer in answers:
        shares = answer.probabilities[answer.version]
        assert sum(shares.values()) == pytest.approx(1.0, abs=1e-5)
        assert answer.score == shares[answer.answer] == max(shares.values())
        assert answer.scores[answer.version] == answer.score


def test_records_of_yes_and_no_are_as_long_as_before() -> None:
    said = Outcome(
        id="a", key="k", model="m", time=START, labelled=START, label=True, answered=True, inputs=msgspec.Raw(b"{}"),
        score=0.5, scores={}, version="v", variant="champion",
    )  # fmt: skip
    assert {"truth", "answer", "probabilities"}.isdisjoint(json.loads(msgspec.json.encode(said)))


def test_statistics_do_not_depend_on_partitions_batches_and_restarts(run: tuple[Embedded, Path]) -> None:
    embedded, _ = run
    first, last = START + timedelta(days=5), START + timedelta(days=9)  # with and without a version, and versions in shadow
    answers = [p for model in MODELS for p in records(embedded, embedded.topics.predictions(model), Prediction)]
    answers = [p for p in answers if first <= p.time < last]
    told = [event for event in history() if to_micros(first) <= event[3] < to_micros(last)]
    decisions = records(embedded, embedded.topics.models, Decision)
    one, *others = [monitored(decisions, answers, told, partitions, seed=partitions) for partitions in (1, 4, 16)]
    assert any(s.paired for model in MODELS for s in one[model] if isinstance(s, Statistic))
    assert {s.loss for model in MODELS for s in one[model] if isinstance(s, Statistic)} == {
        "squared error", "pinball loss", "log loss",
    }  # fmt: skip
    for other in others:
        for model in MODELS:
            assert msgspec.json.encode(one[model]) == msgspec.json.encode(other[model])


def test_a_training_set_has_the_labels_that_monitoring_joined(run: tuple[Embedded, Path]) -> None:
    embedded, folder = run
    for model, name in ((hours, "hours"), (door, "door")):
        found = ps.training_set(model, Tables(folder / "tables"), project=project).set_index("id")
        known = found["label"].dropna()
        outcomes = {o.id: o.truth for o in records(embedded, embedded.topics.outcomes(name), Outcome)}
        assert known.to_dict() == outcomes
        assert len(found) > len(known), "some are never delivered"


def test_a_loaded_model_answers_to_the_last_bit_what_was_served(run: tuple[Embedded, Path]) -> None:
    embedded, folder = run
    for model in (hours, at_most, door):
        newest = records(embedded, embedded.topics.predictions(model.name), Prediction)[-1]
        with _loaded(f"{model.name}@{newest.version}", folder) as loaded:
            rows = InputsDecoder(model.inputs).matrix([newest.inputs])
            found = loaded.predict(rows)
        if model is door:
            assert found.shape == (1, 3)
            shares = dict(zip(loaded.classes, found[0].tolist(), strict=True))
            assert shares == pytest.approx(newest.probabilities[newest.version], abs=1e-6)  # a matrix product
        else:
            assert found.tolist() == [newest.score]


def _loaded(name: str, folder: Path) -> LoadedModel:
    return ps.load_model(name, project=project, data=folder)


def test_the_archive_has_the_truth_in_the_type_of_its_label(run: tuple[Embedded, Path]) -> None:
    embedded, folder = run
    tables = Tables(folder / "tables")
    numbers = tables.table(embedded.topics.outcomes("hours")).arrow().to_pandas()
    named = tables.table(embedded.topics.outcomes("door")).arrow().to_pandas()
    assert numbers["truth"].dtype == np.float64
    assert "label" not in numbers
    assert set(named["truth"]) == set(DOORS)
    last = named.sort_values("time").iloc[-1]
    assert json.loads(last["probabilities"])[last["version"]][last["answer"]] == last["score"]


def test_what_moves_numbers_and_classes_is_published_and_told_of_one_answer(run: tuple[Embedded, Path]) -> None:
    embedded, folder = run
    moves = {"hours": "Sent.distance", "at_most": "Sent.distance", "door": "Sent.weight"}
    for model in (hours, at_most, door):
        runs = [r for r in records(embedded, embedded.topics.runs, Run) if r.model == model.name and r.version]
        told = runs[-1].data["explained"]
        assert told == {"kind": "linear", "scale": "log-ratio"} if model is door else {"kind": "trees", "scale": "number"}
        statistics = records(embedded, embedded.topics.statistics(model.name), Statistic)
        total: dict[str, Contributed] = reduce(added, (s.contributions for s in statistics), {})
        newest = total[max(total)]
        assert newest.n > 20 and not any(s.counts.get("unexplained") for s in statistics)
        assert max(newest.absolute, key=newest.absolute.__getitem__) == moves[model.name]
        settings = load_settings(data=folder)
        answer = records(embedded, embedded.topics.predictions(model.name), Prediction)[-1]
        archived = _archived(settings, embedded.topics, model.name, answer.id)
        assert archived is not None
        assert (archived.scores, archived.probabilities) == (answer.scores, answer.probabilities)
        known = {d.version: d.candidate for d in records(embedded, embedded.topics.models, Decision) if d.model == model.name}
        (explanation,), unexplained = _explained(embedded.artefacts, answer, known, Plan.of(model))
        assert not unexplained
        assert explanation.answer == (answer.answer if model is door else "")
        assert explanation.probability == pytest.approx(answer.score, rel=1e-5)
        lines = list(_version(explanation, answer.score))
        assert not any("what explains it now" in line for line in lines)
        assert (", of " in lines[0]) == (model is door)


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_what_is_no_label_of_the_model_is_counted_and_teaches_nothing(tmp_path: Path) -> None:
    asked = [(START + timedelta(hours=n), "sent", _sent(n)) for n in range(3)]
    told = [
        (START + timedelta(hours=5), "delivered", _told(0, 2.0, "cellar")),  # no such door
        (START + timedelta(hours=6), "delivered", _told(1, 1e80, "gate")),  # beyond what is a number
        (START + timedelta(hours=7), "delivered", _told(2, None, "back")),  # nothing said
        (START + timedelta(hours=8), "delivered", _told(2, 4.0, "back")),
        (START + timedelta(hours=9), "delivered", _told(2, 5.0, "back")),  # hours corrected, door the same again
    ]
    embedded = Embedded(project, tmp_path)

    async def work() -> Audit:
        await embedded.start()
        await embedded.publish(lines([*asked, *told]), FOREVER)
        await embedded.settle()
        return await audit(embedded.log, embedded.topics)

    found = asyncio.run(work())
    assert (found.undeclared, found.lost, found.complaints) == (3, 0, []), "hours and at_most each of one number, door of a class"
    assert any("undeclared 3   lost 0" in line for line in audit_lines(found))
    counts: dict[str, dict[str, int]] = {}
    for model in ("hours", "door"):
        counts[model] = {}
        for s in records(embedded, embedded.topics.statistics(model), Statistic):
            for word, count in s.counts.items():
                counts[model][word] = counts[model].get(word, 0) + count
    assert {w: counts["hours"].get(w) for w in ("outcomes", "undeclared", "blank", "corrected")} == {
        "outcomes": 2, "undeclared": 1, "blank": 1, "corrected": 1,
    }  # fmt: skip
    assert {w: counts["door"].get(w) for w in ("outcomes", "undeclared", "duplicate")} == {
        "outcomes": 2, "undeclared": 1, "duplicate": 2,
    }  # fmt: skip
    corrections = [o for o in records(embedded, embedded.topics.outcomes("hours"), Outcome) if o.corrects is not None]
    assert [(o.id, o.truth, o.corrected) for o in corrections] == [("q2", 5.0, 4.0)]


def test_a_label_that_is_not_a_number_is_dead_lettered(tmp_path: Path) -> None:
    embedded = Embedded(project, tmp_path)
    wrong = b'{"parcel": "q0", "hours": "soon", "door": "gate", "at": "2026-03-02T05:00:00Z"}'
    nan = b'{"parcel": "q0", "hours": NaN, "door": "gate", "at": "2026-03-02T05:00:00Z"}'

    async def work() -> int:
        await embedded.start()
        asked = lines([(START, "sent", _sent(0))])
        at = to_micros(START + timedelta(hours=5))
        await embedded.publish([*asked, ("delivered", b"q0", wrong, at), ("delivered", b"q0", nan, at)], FOREVER)
        await embedded.settle()
        return sum((await embedded.log.ends(["delivered.dlq"])).values())

    assert asyncio.run(work()) == 2


def _sent(number: int) -> dict[str, Any]:
    at = START + timedelta(hours=number)
    return {"parcel": f"q{number}", "depot": "d", "distance": 1.0, "weight": 1.0, "sent_at": at}


def _told(number: int, took: float | None, door: str) -> dict[str, Any]:
    return {"parcel": f"q{number}", "hours": took, "door": door, "at": START + timedelta(hours=5 + number)}


def test_the_pinball_loss_weighs_both_sides() -> None:
    assert [pinball(1.0, 0.0, 0.9), pinball(0.0, 1.0, 0.9)] == pytest.approx([0.9, 0.1])


def test_the_audit_finds_all_of_it_and_better_than_the_first_model_and_the_prior(run: tuple[Embedded, Path]) -> None:
    embedded, _ = run
    found = asyncio.run(audit(embedded.log, embedded.topics, scoring(embedded.artefacts, project)))
    assert not found.complaints
    assert set(found.losses) == {"hours, squared error", "at_most, pinball loss", "door, log loss"}
    for each in found.losses.values():
        assert 0.9 < each["served"] / each["first_model"] < 1.05, "the world stays as it is"
        assert each["served"] < 0.7 * each["prior"]
    served = _outcomes(embedded, "hours")
    mean = np.mean([(float(o.truth) - o.score) ** 2 for o in served])  # type: ignore[arg-type]
    assert found.losses["hours, squared error"]["served"] == pytest.approx(mean, rel=0.01)
    assert all("the first model" in said for said in worse(found))
    assert any(line.startswith("door, log loss: served ") for line in audit_lines(found))


# --- asked over HTTP, in bulk, and shown ------------------------------------------------------------------------------


def _asked(embedded: Embedded, talk: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    async def look(event: Any, decoded: Sequence[Any]) -> Readings:
        never = np.zeros((len(decoded), 1), np.int64)
        return Readings(
            ("Depot.parcels_24h",), np.array([[120.0]] * len(decoded)), ("Depot",), never.astype(np.int8), never, never
        )

    async def whole() -> None:
        meters = Meters()
        app = gateway(embedded.topics, embedded.log, Sessions(embedded.artefacts, meters), meters, look)
        async with talking(app) as client:
            await talk(client)

    asyncio.run(whole())


def test_the_gateway_answers_numbers_and_classes_as_the_loaded_model_does(run: tuple[Embedded, Path]) -> None:
    embedded, folder = run
    event = {"parcel": "asked", "depot": "d1", "distance": 30.0, "weight": 2.0, "sent_at": "2026-03-20T00:00:00Z"}
    row = {"Sent.distance": 30.0, "Sent.weight": 2.0, "Depot.parcels_24h": 120.0}

    async def talk(client: httpx.AsyncClient) -> None:
        for model in (hours, at_most):
            told = (await client.post(f"/predict/{model.name}?explain=true", json=event)).json()
            with _loaded(f"{model.name}@{told['version']}", folder) as loaded:
                assert told["score"] == loaded.predict([row])[0]
            explained = told["explanation"]
            assert explained["scale"] == "number"
            assert explained["total"] == pytest.approx(told["score"], rel=1e-5)
            parts = sum(each["contribution"] for each in explained["contributions"])
            assert explained["base"] + parts == pytest.approx(told["score"], rel=1e-5)
            assert {"answer", "probabilities"}.isdisjoint(told)
        told = (await client.post("/predict/door", json=event)).json()
        assert told["answer"] in DOORS
        assert told["score"] == max(told["probabilities"].values()) == told["probabilities"][told["answer"]]
        other = (await client.post("/predict/door?explain=true", json={**event, "parcel": "another"})).json()
        assert (other["answer"], other["probabilities"]) == (told["answer"], told["probabilities"])
        explained = other["explanation"]
        assert (explained["answer"], explained["scale"], explained["kind"]) == (told["answer"], "log-ratio", "linear")
        assert explained["probability"] == pytest.approx(told["score"], rel=1e-5)
        logs = {name: math.log(share) for name, share in told["probabilities"].items()}
        assert explained["total"] == pytest.approx(logs[told["answer"]] - sum(logs.values()) / 3, abs=1e-4)
        parts = sum(each["contribution"] for each in explained["contributions"])
        assert explained["base"] + parts == pytest.approx(explained["total"])
        tensor = {"name": "inputs", "shape": [2, 3], "datatype": "FP32", "data": [[30, 2, 120], [5, 8, 120]]}
        described = (await client.get("/v2/models/door")).json()
        tensor["name"] = described["inputs"][0]["name"]
        output = (await client.post("/v2/models/door/infer", json={"inputs": [tensor]})).json()["outputs"][0]
        assert output["shape"] == [2, 3]
        assert output["data"][:3] == pytest.approx([told["probabilities"][name] for name in DOORS], abs=1e-6)

    _asked(embedded, talk)


def test_tables_are_scored_in_bulk_as_the_stream_was(run: tuple[Embedded, Path], tmp_path: Path) -> None:
    embedded, folder = run
    for model in (hours, door):
        version = records(embedded, embedded.topics.predictions(model.name), Prediction)[-1].version
        with _loaded(f"{model.name}@{version}", folder) as loaded:
            charge, artefacts = loaded._versions.charge(), loaded._versions.artefacts
        job = Job.of(charge, artefacts, table_of(Tables(folder / "tables"), "parcels.rows.sent", model), project)
        sink = sink_of(str(tmp_path / model.name), job.id, job.lineage)
        done = bulk(job, sink)
        found = pa.Table.from_batches(list(sink.batches(None))).to_pandas().set_index("id")
        answers = records(embedded, embedded.topics.predictions(model.name), Prediction)
        served = [p for p in answers if p.version == version and p.id in found.index]
        assert (done.bad, len(served) > 50) == (0, True)
        for answer in served:
            assert found.loc[answer.id, "score"] == pytest.approx(answer.score, abs=1e-6)
            if model is door:
                assert found.loc[answer.id, "answer"] == answer.answer
                assert json.loads(str(found.loc[answer.id, "probabilities"])).keys() == set(DOORS)


def test_the_quality_of_every_kind_fits_on_a_line_of_100_columns(run: tuple[Embedded, Path]) -> None:
    embedded, _ = run
    heads = {"hours": ["rmse", "mae"], "at_most": ["pinball", "coverage"], "door": ["log loss", "accuracy"]}
    for model in (hours, at_most, door):
        shown = as_known(records(embedded, embedded.topics.cohorts(model.name), Cohort), model.label)
        total = whole(model, [last for _, last in shown])
        lines = table(model, shown, total)
        assert list(lines[0]) == ["scored from", "answers", "settled", *heads[model.name], "first", "prior", "v1"]
        assert lines[-1][0] == "together"
        assert max(map(len, rows(lines))) <= 100
    outcomes = _outcomes(embedded, "door")
    assert total["accuracy"].value == pytest.approx(np.mean([o.answer == o.truth for o in outcomes]), abs=0.02)
