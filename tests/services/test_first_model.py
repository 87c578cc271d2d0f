"""The first model as a baseline: kept in shadow for good where the model says so, and told beside what was served, paired."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.services.parcels import at_most, delivered, door, history, hours, project, records

from penstock.cli.cohorts import table
from penstock.model import Model
from penstock.policy import Policy
from penstock.project import Project
from penstock.records import Cohort, Decision, Outcome, Prediction, Statistic
from penstock.report.beside import differences
from penstock.report.records import as_known
from penstock.services.embedded import Embedded
from penstock.statistics.errors import pinball


def alone(model: Model, keep: bool) -> Project:
    found = project.under(model, Policy())
    found.models = (replace(found.models[0], keep_first=keep),)
    return found


@pytest.fixture(scope="module", params=[hours, at_most, door], ids=lambda model: model.name)
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Embedded, Model]:
    model: Model = request.param
    return delivered(history(days=11), tmp_path_factory.mktemp(model.name), project=alone(model, keep=True)), model


def loss(model: Model, outcome: Outcome, version: str | None) -> float:
    """Of what was served (None), or of a version: from the outcome alone."""
    if model is door:
        shares = outcome.probabilities[version or outcome.version]  # type: ignore[index]
        return float(-np.log(np.clip(shares[str(outcome.truth)], 1e-6, 1 - 1e-6)))
    said, truth = outcome.score if version is None else outcome.scores[version], float(outcome.truth)  # type: ignore[arg-type]
    return pinball(truth, said, 0.9) if model is at_most else (said - truth) ** 2


def test_the_first_version_in_charge_is_asked_for_good_and_answers_nobody_else(kept: tuple[Embedded, Model]) -> None:
    embedded, model = kept
    decisions = [d for d in records(embedded, embedded.topics.models, Decision) if d.kind == "champion"]
    assert decisions[0].version == "v1" and decisions[-1].version != "v1"
    answers = [p for p in records(embedded, embedded.topics.predictions(model.name), Prediction) if p.version != "none"]
    assert all("v1" in p.scores for p in answers)
    assert answers[-1].version != "v1" and "v1" not in answers[-1].weights


def test_its_measures_and_the_difference_are_those_of_the_outcomes_themselves(kept: tuple[Embedded, Model]) -> None:
    embedded, model = kept
    outcomes = [o for o in records(embedded, embedded.topics.outcomes(model.name), Outcome) if o.version != "none"]
    cohorts = [known for _, known in as_known(records(embedded, embedded.topics.cohorts(model.name), Cohort), model.label)]
    told = [c for c in cohorts if "served" in c.measures]
    assert len(told) > 3
    for cohort in told:
        assert cohort.first == "v1" and "first" in cohort.measures
        some = [o for o in outcomes if cohort.start <= o.time < cohort.end]
        apart = np.array([loss(model, o, None) - loss(model, o, "v1") for o in some])
        found = cohort.against["v1"]
        assert found.n == len(some) == cohort.quality["v1"].n
        assert found.sum == pytest.approx(apart.sum(), abs=1e-5)
        assert found.squares == pytest.approx((apart**2).sum(), abs=1e-4)
    every = [o for o in outcomes if any(c.start <= o.time < c.end for c in told)]
    apart = np.array([loss(model, o, None) - loss(model, o, "v1") for o in every])
    mean, error = apart.mean(), apart.std() / np.sqrt(len(apart))
    whole = differences(cohorts)["v1"]
    assert whole.n == len(every) and whole.value == pytest.approx(mean, abs=1e-6)
    assert whole.low == pytest.approx(mean - 1.96 * error, abs=1e-4)
    assert whole.high == pytest.approx(mean + 1.96 * error, abs=1e-4)
    statistics = records(embedded, embedded.topics.statistics(model.name), Statistic)
    assert {s.first for s in statistics if s.quality.get("served")} == {"v1"}


def test_where_it_is_not_kept_it_is_told_only_while_it_has_a_duty(tmp_path: Path) -> None:
    embedded = delivered(history(days=14), tmp_path, project=alone(hours, keep=False))
    shown = as_known(records(embedded, embedded.topics.cohorts("hours"), Cohort), project.model("hours").label)
    told = [known for _, known in shown if "served" in known.measures]
    assert "first" in told[0].measures and "first" not in told[-1].measures and told[-1].first == "v1"
    windows = [s for s in records(embedded, embedded.topics.statistics("hours"), Statistic) if s.measures.get("served")]
    assert all(("first" in s.measures) != ("first" in s.missing) for s in windows)
    assert windows[-1].missing["first"].startswith("v1 was asked about 0 of ")
    heads, *lines = table(hours, shown)
    assert heads[-1] == "v1" and lines[-1][-1] == "–"
