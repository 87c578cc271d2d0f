"""What is allowed and will hardly do what was meant is warned of, in words, with what to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from river.linear_model import LinearRegression
from typer.testing import CliRunner

import penstock as ps
from penstock.checking.trap import traps
from penstock.cli import app
from penstock.model import Model
from penstock.project import load


@ps.event("asked")
class Asked:
    name: ps.Key[ps.Id[str]]
    size: float
    at: ps.EventTime


@ps.event("told")
class Told:
    name: ps.Key[str]
    right: bool
    at: ps.EventTime


def model(within: str = "30d", otherwise: bool | None = False, **policy: Any) -> Model:
    sound = {
        "retrain": ps.every("90d"),
        "gates": [ps.no_worse(by=0.01)],
        "rollout": [ps.shadow("50d"), ps.canary(0.1, "1d")],
    }

    @ps.model(
        scores=Asked,
        features=[Asked.size],
        label=ps.label(Told.right, within=within, otherwise=otherwise),
        **{**sound, **policy},
    )
    def guess() -> ps.Learner:
        return ps.Learner(online=object())  # type: ignore[arg-type]

    return guess


BATCH, ONLINE = ps.Learner(batch=object()), ps.Learner(online=object())  # type: ignore[arg-type]


def test_a_sound_model_and_the_examples_are_warned_of_nothing() -> None:
    assert traps(model(), BATCH) == []
    for name in ("flights", "electricity"):
        for declared in load(f"penstock.examples.{name}").models:
            assert traps(declared, declared.build()) == []


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        (model(otherwise=None, rollout=[ps.shadow("9d")]), "gives up after 3 times 9d, and labels may take 30d"),
        (model(rollout=[]), "gates are looked at in a rollout, and there is none"),
        (model(gates=[]), "a rollout without gates lets every candidate pass"),
        (model(retrain=ps.every("90d") | ps.on_alarm("60d"), monitors=[ps.drift()]), "replaces the candidate in shadow"),
        (model(retrain=ps.every("90d") | ps.on_alarm("80d"), monitors=[ps.drift()]), "50d, after 30d until labels count, so few"),
        (model(retrain=None), "nothing ever fits it"),
        (model(retrain=ps.every("90d", first="59d")), "fit comes after 59d, and labels count after 30d, so it learns from 29d"),
        (model(retrain=ps.every("90d", on="59d")), 'on="59d" keeps events so new'),
        (model(retrain=ps.every("90d") | ps.on_alarm("90d")), "ps.on_alarm waits for alarms, and no monitor raises any"),
        (model(monitors=[ps.skill(floor=0.0, over="1d", every="7d")]), "skill looks at the last 1d once in 7d"),
    ],
)  # fmt: skip
def test_each_trap_is_told_alone(declared: Model, said: str) -> None:
    (trap,) = traps(declared)
    assert trap.startswith("model guess: ")
    assert said in trap


@pytest.mark.parametrize(
    ("retrain", "learner", "said"),
    [
        (ps.every("90d") | ps.incremental("6h"), BATCH, "ps.incremental needs an online learner"),
        (ps.every("90d"), ps.Learner(BATCH.batch, ONLINE.online), "the online learner is never served"),
        (ps.every("90d") | ps.incremental("6h"), ONLINE, "ps.every and ps.on_alarm fit a batch learner"),
        (ps.incremental("6h"), ps.Learner(BATCH.batch, ONLINE.online), "the batch learner is never fitted"),
        (ps.incremental("6h"), ps.Learner(online=LinearRegression()), "online= is a regressor, and Told.right is no number"),
    ],
)
def test_triggers_and_learners_must_fit_each_other(retrain: Any, learner: ps.Learner, said: str) -> None:
    (trap,) = traps(model(retrain=retrain), learner)
    assert said in trap


def test_where_silence_means_nothing_a_stage_may_be_shorter_than_the_horizon() -> None:
    """Flights land after hours, though they are waited for two days; a stage is extended while labels are few."""
    assert traps(model(otherwise=None, rollout=[ps.shadow("10d")])) == []


def test_where_labels_wait_a_stage_begins_with_the_first_that_count_and_may_have_any_length() -> None:
    assert traps(model(rollout=[ps.shadow("1d")])) == []


def test_check_prints_warnings_and_still_succeeds(tmp_path: Path) -> None:
    file = tmp_path / "guess.py"
    file.write_text(PROJECT.format(retrain='ps.every("7d")', returned="ps.Learner(online=LogisticRegression())"))
    said = CliRunner().invoke(app, ["check", "--project", str(file)])
    assert said.exit_code == 0, said.output
    assert "warning  model guess: ps.every and ps.on_alarm fit a batch learner" in said.stdout
    assert "warning  model guess: the online learner is never served" in said.stdout
    assert said.stdout.rstrip().split("\n")[-1].startswith("ok: ")


@pytest.mark.parametrize(
    ("returned", "what"),
    [
        ("LogisticRegression()", "guess() returns no learner; end it with: return ps.Learner(batch=...)"),
        ("ps.Learner()", "a Learner without a learner; give batch=, online= or both"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_check_calls_the_model_s_function_and_names_the_line_that_is_wrong(tmp_path: Path, returned: str, what: str) -> None:
    file = tmp_path / "guess.py"
    file.write_text(PROJECT.format(retrain='ps.every("7d")', returned=returned))
    said = CliRunner().invoke(app, ["check", "--project", str(file)])
    assert said.exit_code == 2
    assert "guess.py, line " in said.stderr
    assert what in said.stderr


PROJECT = """
import penstock as ps

@ps.event("asked")
class Asked:
    name: ps.Key[ps.Id[str]]
    right: bool
    at: ps.EventTime

@ps.model(scores=Asked, features=[Asked.right], label=ps.label(Asked.right, within="1d"), retrain={retrain})
def guess() -> ps.Learner:
    from river.linear_model import LogisticRegression
    return {returned}

project = ps.Project("guesses", [guess])
"""
