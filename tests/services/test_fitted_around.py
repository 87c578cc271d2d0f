"""What the trainer and the registry make of functions around a model: training sees what serving sees, and says with what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests import rides
from tests.rides import DAY, START, a_model, command, window
from tests.services import seams
from tests.services.test_trainer import Stage, outcomes, played

import penstock as ps
from penstock.contributions.version import explained, explainer_of
from penstock.model import Model
from penstock.records import Candidate, Code, Outcome, Run
from penstock.scoring.around import Functions, Plan, Unanswered
from penstock.scoring.scorers import opened
from penstock.services.registry.lifecycle import decide


def learner() -> ps.Learner:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return ps.Learner(batch=HistGradientBoostingClassifier(max_iter=10, max_leaf_nodes=8))


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """What learners were fitted on."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    found, learn = list[tuple[Any, Any]](), HistGradientBoostingClassifier.fit

    def fit(self: Any, X: Any, y: Any) -> Any:  # noqa: N803
        found.append((X, y))
        return learn(self, X, y)

    monkeypatch.setattr(HistGradientBoostingClassifier, "fit", fit)
    return found


def fitted(folder: Path, days: int = 4, **around: Any) -> tuple[Stage, Model, list[Outcome], list[Candidate], list[Run]]:
    model = a_model(learner, retrain=ps.every("30d", first="4d"), **around)
    told = outcomes(days + 1)
    stage = Stage(folder, rides.topics(model, 3))
    return stage, model, told, *played(stage, days, told)


def inputs_of(told: list[Outcome]) -> tuple[Any, Any]:
    raw = [msgspec.json.decode(o.inputs, type=dict[str, float | None]) for o in told]
    found = [[np.nan if row[name] is None else row[name] for name in ("Ride.distance", "Ride.load")] for row in raw]
    return np.array(found, np.float32), np.array([o.label for o in told])


def test_the_learner_sees_what_serving_asks_it_with_and_rows_that_are_refused_are_left_out(
    tmp_path: Path, shown: list[tuple[Any, Any]]
) -> None:
    stage, model, told, (candidate,), (run,) = fitted(tmp_path, before=seams.weigh, after=seams.doubt)
    rows, labels = inputs_of([o for o in told if o.labelled < START + 4 * DAY])
    taken = ~(rows[:, 1] > 4)
    ((X, y),) = shown  # noqa: N806
    wide = rows[taken].astype(np.float64)
    expected = seams.weigh(wide[:, 0], wide[:, 1])["X"]
    order = np.lexsort(X.T), np.lexsort(expected.T)
    assert np.array_equal(X[order[0]], expected[order[1]], equal_nan=True)
    assert sorted(y.tolist()) == sorted(labels[taken].tolist())
    assert 0 < (~taken).sum() == run.data["refused_by_function"]["rows"]
    assert run.data["refused_by_function"]["first"] == "weigh: no car carries that much"
    assert run.data["rows"] == len(rows) and run.metrics["rows"] == taken.sum()
    assert {role: code.name for role, code in candidate.functions.items()} == {"before": "weigh", "after": "doubt"}
    assert run.parameters["functions"]["before"] == {"name": "weigh", "sha256": model.codes["weigh"]}
    assert list(candidate.reference) == ["Ride.distance", "Ride.load"], "monitors hold inputs against inputs"

    functions = Functions(Plan.of(model))
    scorer = opened(stage.artefacts, candidate, functions)
    some = rows[taken][:50]
    answers = scorer.score(some)
    assert answers.tolist() == pytest.approx([0.5 if np.isnan(row[1]) else scorer.score(row[None])[0] for row in some], abs=1e-7)
    with pytest.raises(Unanswered, match="row 0: weigh: no car carries that much"):
        scorer.score(np.array([[0.0, 5.0]], np.float32))
    said = explained(explainer_of(stage.artefacts, candidate, scorer.score), "v1", candidate.inputs, some[0].tolist())
    assert said.kind == "permutation" and said.probability == pytest.approx(answers[0], abs=1e-6)
    functions.close()


@pytest.mark.parametrize(
    ("around", "why"),
    [
        (
            {"before": seams.lean},
            "lean makes something else of a row alone than among others, so answers are not what was learned",
        ),
        ({"before": seams.stumble}, "stumble failed with KeyError"),
        ({"after": seams.double}, "answers to training rows are none: double gave 1."),
    ],
)
def test_functions_that_cannot_be_served_give_no_version_and_the_run_says_why(tmp_path: Path, around: Any, why: str) -> None:
    _, _, _, candidates, (run,) = fitted(tmp_path, **around)
    assert candidates == [] and run.version == ""
    assert why in run.data["refused"]


def test_an_online_learner_beside_functions_is_refused_in_words(tmp_path: Path) -> None:
    from tests.services.test_trainer import both

    model = a_model(both, retrain=ps.incremental("1d"), before=seams.weigh)
    candidates, runs = played(Stage(tmp_path, rides.topics(model, 3)), 2, outcomes(3))
    assert candidates == []
    assert {run.data["refused"] for run in runs} == {
        "online= learns inputs as they are; give batch= beside before= and after=, and leave ps.incremental out"
    }


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_compression_is_judged_behind_the_function(tmp_path: Path) -> None:
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def network() -> ps.Learner:
        net = make_pipeline(StandardScaler(), MLPClassifier((64, 64), max_iter=10))
        return ps.Learner(batch=net, compress=ps.float16(within=0.5))

    model = a_model(network, retrain=ps.every("30d", first="4d"), before=seams.weigh)
    full = [msgspec.structs.replace(o, inputs=msgspec.Raw(bytes(o.inputs).replace(b"null", b"0.5"))) for o in outcomes(5)]
    candidates, (run,) = played(Stage(tmp_path, rides.topics(model, 3)), 4, full)
    assert candidates, run.data.get("refused")
    (candidate,) = candidates
    assert run.compression is not None and run.compression.served, run.compression
    assert candidate.functions["before"].name == "weigh"


class TestTheRegistry:
    def offered(self, sha256: str, version: str = "v1") -> Candidate:
        return msgspec.structs.replace(rides.candidate(version), functions={"before": Code(name="weigh", sha256=sha256)})

    def test_takes_a_version_whose_functions_the_project_has_and_rejects_others(self) -> None:
        model = a_model(before=seams.weigh)
        ((_, first), *_) = decide({}, model, self.offered(model.codes["weigh"]))
        assert first is not None and first.kind == "champion"
        ((_, wrong), *_) = decide({}, model, self.offered("0" * 64))
        assert wrong is not None and wrong.kind == "rejected"
        assert wrong.reason.startswith("fitted with the function weigh before the model, of code 000000000000, which is ")

    def test_promotes_no_version_whose_function_has_changed_since(self) -> None:
        model, state = a_model(before=seams.weigh), dict[str, Any]()
        for offered in (self.offered(model.codes["weigh"]), rides.candidate("v2")):
            for key, decision in decide(state, model, offered):
                state[key] = decision
        stale = state["v1"]
        state["v1"] = msgspec.structs.replace(stale, candidate=self.offered("0" * 64))
        back = command("promote", version="v1", expected=state["champion"].version)
        ((_, answer), *_) = [change for change in decide(state, model, back) if change[0].startswith("command-")]
        assert answer is not None and answer.kind == "rejected"
        assert window(1)
