"""Online learners of numbers and of classes, alone and mixed with a batch learner, through the whole loop."""

from __future__ import annotations

import asyncio
import math
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.services.parcels import DOORS, POLICY, Delivered, delivered, history, records
from tests.services.parcels import project as parcels

import penstock as ps
from penstock.inputs import Floats, InputsDecoder, Matrix
from penstock.model import Model
from penstock.proof.audit import audit
from penstock.records import Candidate, Cohort, Contributed, Decision, Outcome, Prediction, Run, Statistic
from penstock.services.embedded import Embedded, scoring
from penstock.statistics.quality import added

ONLINE: dict[str, Any] = {**POLICY, "retrain": ps.every("4d", first="4d") | ps.incremental("1d")}
ALONE: dict[str, Any] = {**POLICY, "retrain": ps.incremental("1d"), "rollout": []}


@ps.model(label=ps.label(Delivered.hours, within="36h"), gates=[ps.no_worse(by=0.5, least=50)], **ONLINE)  # type: ignore[arg-type]  # may be blank
def hours() -> ps.Learner:
    from river import linear_model, preprocessing
    from sklearn.ensemble import HistGradientBoostingRegressor

    online = preprocessing.StandardScaler() | linear_model.LinearRegression()
    return ps.Learner(HistGradientBoostingRegressor(max_iter=30, early_stopping=False), online, half_life=300)


@ps.model(label=ps.label(Delivered.hours, within="36h", quantile=0.9), **ALONE)  # type: ignore[arg-type]
def at_most() -> ps.Learner:
    from river import linear_model, optim, preprocessing

    learner = linear_model.LinearRegression(optim.SGD(0.1), optim.losses.Quantile(0.9), intercept_lr=0.3)
    return ps.Learner(online=preprocessing.StandardScaler() | learner, half_life=300)


@ps.model(label=ps.label(Delivered.door, within="36h", classes=DOORS), gates=[ps.no_worse(by=0.05, least=50)], **ONLINE)
def door() -> ps.Learner:
    from river import linear_model, preprocessing
    from sklearn.ensemble import HistGradientBoostingClassifier

    online = preprocessing.StandardScaler() | linear_model.SoftmaxRegression()
    return ps.Learner(HistGradientBoostingClassifier(max_iter=20, early_stopping=False), online, sharpness=5.0, half_life=300)


project = ps.Project("parcels", [hours, at_most, door])
MODELS = ("hours", "at_most", "door")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Embedded, Path]:
    folder = tmp_path_factory.mktemp("parcels")
    assert parcels.name == project.name
    return delivered(history(7, 60), folder, project=project), folder


def _known(embedded: Embedded, model: str) -> dict[str, Candidate]:
    found = records(embedded, embedded.topics.candidates, Candidate)
    return {candidate.version: candidate for candidate in found if candidate.model == model}


@pytest.mark.parametrize("model", MODELS)
def test_snapshots_are_exported_proven_served_and_better_than_the_prior(run: tuple[Embedded, Path], model: str) -> None:
    embedded, _ = run
    runs = [r for r in records(embedded, embedded.topics.runs, Run) if r.model == model and r.kind == "incremental"]
    done = [r for r in runs if r.version]
    assert len(done) >= 5, [r.data.get("refused") for r in runs]
    named = {"hours": "recent_squared_error", "at_most": "recent_pinball_loss", "door": "recent_log_loss"}[model]
    assert all({named, "parity_max"} <= r.metrics.keys() and r.metrics["parity_max"] < 1e-5 for r in done)
    assert done[-1].metrics["parity_rows"] == min(1_000, done[-1].metrics["rows"])
    assert done[-1].data["explained"] == {"kind": "linear", "scale": "log-ratio" if model == "door" else "number"}
    candidate = _known(embedded, model)[done[-1].version]
    assert (candidate.artefact.format, candidate.task) == ("onnx", "multiclass" if model == "door" else "regression")
    kinds = {d.kind for d in records(embedded, embedded.topics.models, Decision) if d.model == model}
    assert "snapshot" in kinds and "rejected" not in kinds
    cohorts = [c for c in records(embedded, embedded.topics.cohorts(model), Cohort) if c.complete]
    versions = {v for c in cohorts[-2:] for v in c.quality if v.startswith("online-")}
    assert versions, "what the snapshots said is counted apart"
    loss = {"hours": "rmse", "at_most": "pinball", "door": "log_loss"}[model]
    newest = cohorts[-1].measures
    assert newest["served"][loss].value < newest["prior"][loss].value


def test_answers_are_the_mixture_that_the_weights_say(run: tuple[Embedded, Path]) -> None:
    embedded, _ = run
    for model in ("hours", "door"):
        answers = records(embedded, embedded.topics.predictions(model), Prediction)
        mixed = [p for p in answers if len(p.weights) == 2]
        assert len(mixed) > 100
        for p in mixed:
            assert sum(p.weights.values()) == pytest.approx(1.0)
            if model == "hours":
                assert p.score == pytest.approx(sum(w * p.scores[v] for v, w in p.weights.items()))
                continue
            shares = p.probabilities["served"]
            each = {v: s for v, s in p.probabilities.items() if v != "served"}
            for name in DOORS:
                said = sum(w * each[v].get(name, 0.0) for v, w in p.weights.items())
                assert shares[name] == pytest.approx(said, abs=1e-12)
            assert (p.answer, p.score) == (max(shares, key=shares.__getitem__), max(shares.values()))
            assert p.scores == {v: s.get(str(p.answer), 0.0) for v, s in each.items()}
        alone = [p for p in answers if list(p.weights) != [] and len(p.weights) == 1]
        assert alone and all("served" not in (p.probabilities or {}) for p in alone)


def test_outcomes_statistics_and_weights_know_the_mixture(run: tuple[Embedded, Path]) -> None:
    embedded, _ = run
    outcomes = [o for o in records(embedded, embedded.topics.outcomes("door"), Outcome) if o.version != "none"]
    loss = -np.mean([math.log(max(_served(o)[str(o.truth)], 1e-6)) for o in outcomes])
    cohorts: dict[Any, Cohort] = {c.start: c for c in records(embedded, embedded.topics.cohorts("door"), Cohort)}
    served = [c.quality["served"] for c in cohorts.values() if "served" in c.quality]
    assert sum(q.loss for q in served) / sum(q.n for q in served) == pytest.approx(loss, rel=1e-6)
    pairs = [s.paired for s in records(embedded, embedded.topics.statistics("door"), Statistic)]
    assert any(pairs) and not any("served" in each or "served" in others for each in pairs for others in each.values())
    weights = [c.weights for v, c in _known(embedded, "door").items() if v.startswith("online-")]
    assert weights[0] == {"batch": 0.5, "online": 0.5} and 0 < weights[-1]["online"] < 0.5, "trees are better at doors"
    hours = [c.weights for v, c in _known(embedded, "hours").items() if v.startswith("online-")]
    assert hours[-1]["batch"] != 0.5


def _served(outcome: Outcome) -> dict[str, float]:
    assert isinstance(outcome.probabilities, dict)
    return outcome.probabilities.get("served", outcome.probabilities[outcome.version])


def test_the_audit_holds_and_a_loaded_model_mixes_as_the_services_do(run: tuple[Embedded, Path]) -> None:
    embedded, folder = run
    found = asyncio.run(audit(embedded.log, embedded.topics, scoring(embedded.artefacts, project)))
    assert not found.complaints
    assert all(each["served"] < each["prior"] for each in found.losses.values())
    for model in (hours, door):
        answers = records(embedded, embedded.topics.predictions(model.name), Prediction)[-20:]
        rows = InputsDecoder(model.inputs).matrix([answer.inputs for answer in answers])
        mixed, batch, online = (_asked(model, which, rows, folder) for which in ("", "@champion", "@online"))
        said = [d for d in records(embedded, embedded.topics.models, Decision) if d.model == model.name and d.kind == "snapshot"]
        assert said[-1].candidate is not None
        share = said[-1].candidate.weights["online"]
        assert mixed == pytest.approx((1 - share) * batch + share * online, abs=1e-9)


def _asked(model: Model, which: str, rows: Matrix, folder: Path) -> Floats:
    with ps.load_model(f"{model.name}{which}", project=project, data=folder) as loaded:
        return loaded.predict(rows)


def test_what_moves_the_answers_of_snapshots_is_published(run: tuple[Embedded, Path]) -> None:
    embedded, _ = run
    statistics = records(embedded, embedded.topics.statistics("at_most"), Statistic)
    total: dict[str, Contributed] = reduce(added, (s.contributions for s in statistics), {})
    newest = total[max(total, key=lambda version: int(version.removeprefix("online-")))]
    assert newest.n > 10
    assert max(newest.absolute, key=newest.absolute.__getitem__) == "Sent.distance"
    assert not any(s.counts.get("unexplained") for s in statistics)


def test_the_quantile_that_is_learned_online_covers_about_what_it_says(run: tuple[Embedded, Path]) -> None:
    embedded, _ = run
    cohorts = [c for c in records(embedded, embedded.topics.cohorts("at_most"), Cohort) if c.complete]
    days = [c.measures["served"]["coverage"].value for c in cohorts[-4:]]
    assert np.mean(days) == pytest.approx(0.9, abs=0.05), days


# --- made smaller -----------------------------------------------------------------------------------------------------

NETWORK: dict[str, Any] = {"hidden_layer_sizes": (100, 50), "solver": "lbfgs", "max_iter": 30, "tol": 0.1, "random_state": 0}
SMALL: dict[str, Any] = {**POLICY, "explain": 0.0}


@ps.model(label=ps.label(Delivered.hours, within="36h"), **SMALL)  # type: ignore[arg-type]
def small_hours() -> ps.Learner:
    from sklearn.impute import SimpleImputer
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return ps.Learner(make_pipeline(SimpleImputer(), StandardScaler(), MLPRegressor(**NETWORK)), compress=ps.int8(within=0.05))


@ps.model(label=ps.label(Delivered.door, within="36h", classes=DOORS), **SMALL)
def small_door() -> ps.Learner:
    from sklearn.impute import SimpleImputer
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return ps.Learner(make_pipeline(SimpleImputer(), StandardScaler(), MLPClassifier(**NETWORK)), compress=ps.float16())


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
def test_networks_of_numbers_and_classes_are_made_smaller_and_served(tmp_path: Path) -> None:
    embedded = delivered(history(5, 60), tmp_path, project=ps.Project("parcels", [small_hours, small_door]))
    runs = {r.model: r for r in records(embedded, embedded.topics.runs, Run)}
    for model, loss in (("small_hours", "squared error"), ("small_door", "log loss")):
        said = runs[model].compression
        assert said is not None, runs[model].data
        assert said.served and said.after is not None, said.reason
        candidate = _known(embedded, model)[runs[model].version]
        assert candidate.artefact.size == said.after.size < 0.75 * said.before.size
        assert said.loss == loss
        assert {"small_hours": "r2", "small_door": "accuracy"}[model] in said.after.measures
        assert runs[model].data["explained"]["kind"] == "permutation"
        answered = [p for p in records(embedded, embedded.topics.predictions(model), Prediction) if p.version != "none"]
        assert len(answered) > 30
