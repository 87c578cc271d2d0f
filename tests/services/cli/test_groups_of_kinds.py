"""Groups of answers that are numbers and classes, from the embedded services to the commands: what is counted is what a brute
force finds, the depot whose parcels are treated worse raises the alarm, and everybody is told of it."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics
from tests.services.parcels import START, project, records

from penstock.evidence import facts
from penstock.log import Send
from penstock.log.memory import MemoryLog
from penstock.records import Alarm, Cohort, Group, Outcome, Prediction, Statistic
from penstock.report.groups import groups
from penstock.report.records import Found, Records, as_known
from penstock.services.embedded import Embedded
from penstock.statistics.exact import valued
from penstock.statistics.groups import added_groups
from penstock.statistics.kinds import kind_of

from .conftest import Cli

DEPOT = "Sent.depot"
MODELS = ("hours", "at_most", "door")


@pytest.fixture(scope="module")
def embedded(parcels_delivered: tuple[Embedded, Path]) -> Embedded:
    return parcels_delivered[0]


def told(embedded: Embedded, model: str) -> tuple[list[Outcome], list[Prediction]]:
    """Outcomes and answers of a version."""
    topics = embedded.topics
    outcomes = records(embedded, topics.outcomes(model), Outcome)
    answers = records(embedded, topics.predictions(model), Prediction)
    until = START + timedelta(days=14)  # another test asks for more over HTTP
    return [o for o in outcomes if o.version != "none"], [p for p in answers if p.version != "none" and p.time < until]


def known(embedded: Embedded, model: str) -> list[Cohort]:
    """The newest word on each cohort."""
    return [pair[1] for pair in as_known(records(embedded, embedded.topics.cohorts(model), Cohort), project.model(model).label)]


def whole(embedded: Embedded, model: str) -> dict[str, Group]:
    return added_groups(*(cohort.groups for cohort in known(embedded, model)))[DEPOT]


@pytest.mark.parametrize("model", MODELS)
def test_windows_and_cohorts_count_the_same_groups(embedded: Embedded, model: str) -> None:
    windows = records(embedded, embedded.topics.statistics(model), Statistic)
    in_windows, in_cohorts = added_groups(*(w.groups for w in windows))[DEPOT], whole(embedded, model)
    assert in_windows.keys() == in_cohorts.keys() == {"d0", "d1", "d2"}
    for level, group in in_windows.items():
        other = in_cohorts[level]
        assert (group.answers, group.quality.n, group.classes) == (other.answers, other.quality.n, other.classes)
        assert group.given == other.given
        assert group.quality.errors == other.quality.errors


@pytest.mark.parametrize("model", ["hours", "at_most"])
def test_groups_of_numbers_are_what_the_brute_force_finds(embedded: Embedded, model: str) -> None:
    outcomes, answers = told(embedded, model)
    kind = kind_of(project.model(model).label)
    for level, group in whole(embedded, model).items():
        said = [p.score for p in answers if (p.segments or {})[DEPOT] == level]
        some = [o for o in outcomes if (o.segments or {})[DEPOT] == level]
        truth, answer = np.array([o.truth for o in some], float), np.array([o.score for o in some])
        assert (group.answers, group.quality.n) == (len(said), len(some))
        assert valued(group.given) == pytest.approx(sum(said), rel=1e-12)
        assert valued(group.given_squares) == pytest.approx(sum(s * s for s in said), rel=1e-12)
        found = kind.measured(group.quality, None, None)
        assert found["mae"].value == pytest.approx(metrics.mean_absolute_error(truth, answer))
        assert found["bias"].value == pytest.approx((answer - truth).mean())
        covered = {0: int((truth > answer).sum()), 1: int((truth <= answer).sum())} if model == "at_most" else {}
        assert group.quality.errors.covered == {side: n for side, n in covered.items() if n}  # type: ignore[union-attr]
        assert "r2" not in found and not group.quality.errors.sizes, "what is counted of a group has one size"  # type: ignore[union-attr]


def test_groups_of_classes_are_what_the_brute_force_finds(embedded: Embedded) -> None:
    outcomes, answers = told(embedded, "door")
    for level, group in whole(embedded, "door").items():
        said = Counter(p.answer for p in answers if (p.segments or {})[DEPOT] == level)
        some = [o for o in outcomes if (o.segments or {})[DEPOT] == level]
        expected = {
            name: (
                said[name], sum(o.truth == name for o in some), sum(o.answer == name for o in some),
                sum(o.truth == name == o.answer for o in some),
            )
            for name in ("front", "back", "gate")
        }  # fmt: skip
        assert {name: (c.chosen, c.true, c.said, c.right) for name, c in group.classes.items()} == expected
        assert group.quality.positives == sum(o.truth == o.answer for o in some)
        assert group.scores == pytest.approx(sum(o.score for o in some), rel=1e-6)
        found = kind_of(project.model("door").label).measured(group.quality, None, None)
        assert found.keys() == {"accuracy", "log_loss", "calibration_error"}
        assert found["accuracy"].value == pytest.approx(np.mean([o.truth == o.answer for o in some]))


WORST = {"hours": "mae of d2", "at_most": "pinball of d2", "door": "accuracy of d2"}


@pytest.mark.parametrize("model", MODELS)
def test_the_depot_that_is_answered_worse_raises_the_alarm_and_is_named(embedded: Embedded, model: str) -> None:
    alarms = [a for a in records(embedded, embedded.topics.alarms, Alarm) if (a.model, a.signal) == (model, "fairness")]
    assert alarms and alarms[0].state == "raised"
    lines = [line for alarm in alarms for line in facts(alarm.evidence)]
    assert any(WORST[model] in line for line in lines), lines


@pytest.mark.parametrize(("model", "loss"), [("hours", "absolute_error"), ("at_most", "pinball_loss"), ("door", "zero_one_loss")])
def test_slices_of_the_archive_go_by_the_error_of_the_kind(
    cli: Cli, parcels_delivered: tuple[Embedded, Path], staged: str, here: Path, model: str, loss: str
) -> None:
    embedded, folder = parcels_delivered
    (here / ".penstock").mkdir()
    (here / ".penstock" / "tables").symlink_to(folder / "tables")
    said = cli.json("slices", model, "--project", staged)
    outcomes, _ = told(embedded, model)
    assert (said["loss_is"], said["rows"]) == (loss, len(outcomes))
    losses: dict[str, Callable[[Any], float]] = {
        "absolute_error": lambda o: abs(o.truth - o.score),
        "pinball_loss": lambda o: max(0.9 * (o.truth - o.score), 0.1 * (o.score - o.truth)),
        "zero_one_loss": lambda o: float(o.truth != o.answer),
    }
    assert "zero one" not in cli("slices", model, "--project", staged).stderr
    assert said["loss"] == pytest.approx(np.mean([losses[loss](o) for o in outcomes]), rel=0.2), "the mean of one half"


@pytest.fixture
def staged(embedded: Embedded, log: MemoryLog, here: Path) -> str:
    """The cohorts where commands find them."""
    (here / "parcels_project.py").write_text("from tests.services.parcels import project\n")

    async def stage() -> None:
        await log.create(embedded.topics.all())
        for model in MODELS:
            topic = embedded.topics.cohorts(model)
            kept = [store for partition, store in sorted(embedded.log._stores.items()) if partition.topic == topic]
            await log.send([Send(topic, key, value) for s in kept for key, value in zip(s.keys, s.values, strict=True)])

    asyncio.run(stage())
    return str(here / "parcels_project.py")


@pytest.mark.parametrize(
    ("model", "measures", "wide"),
    [
        ("hours", {"mean_answer", "bias", "mae"}, "mae"),
        ("at_most", {"mean_answer", "coverage", "pinball"}, "pinball"),
        (
            "door",
            {"accuracy", "selection_rate", "true_positive_rate", "false_positive_rate", "precision", "calibration"},
            "accuracy",
        ),
    ],
)
def test_the_command_shows_the_gaps_of_the_kind(cli: Cli, staged: str, model: str, measures: set[str], wide: str) -> None:
    said: dict[str, Any] = cli.json("fairness", model, "--cohorts", "99", "--project", staged)["segments"][DEPOT]
    assert {gap["measure"] for gap in said["gaps"]} == measures
    of = {gap["of"] for gap in said["gaps"] if gap["measure"] == "true_positive_rate"}
    assert of == ({"front", "back", "gate"} if model == "door" else set())
    assert ("d2", wide) in {(gap["group"], gap["measure"]) for gap in said["wide"]}
    text = cli("fairness", model, "--cohorts", "99", "--against", "d0", "--project", staged)
    assert text.exit_code == 0, text.output
    rows = {tuple(re.split(r"\s{2,}", line.strip())[:2]): line for line in text.stdout.splitlines()}
    assert rows[wide.replace("_", " "), "d2"].endswith("wide")
    assert model != "door" or ("true positive rate (gate)", "d1") in rows


@pytest.mark.parametrize(
    ("model", "heads"), [("hours", {"mae", "bias"}), ("at_most", {"pinball", "coverage"}), ("door", {"accuracy"})]
)
def test_quality_by_segment_has_the_measures_of_the_kind(cli: Cli, staged: str, model: str, heads: set[str]) -> None:
    said = cli.json("quality", model, "--by", "depot", "--days", "99", "--project", staged)["levels"]
    assert said.keys() == {"d0", "d1", "d2"}
    for level in said.values():
        assert heads <= level["measures"].keys()
        assert all(m["low"] <= m["value"] <= m["high"] for m in level["measures"].values())
    text = cli("quality", model, "--by", "depot", "--days", "99", "--project", staged)
    assert heads <= set(re.split(r"\s{2,}", text.stdout.splitlines()[0].strip()))


@pytest.mark.parametrize("model", MODELS)
def test_the_report_has_the_groups(embedded: Embedded, model: str) -> None:
    topics = embedded.topics
    windows, cohorts = (
        records(embedded, topics.statistics(model), Statistic), records(embedded, topics.cohorts(model), Cohort)
    )  # fmt: skip
    section = groups(Records.of(project.name, project.model(model), Found(statistics=windows, cohorts=cohorts)))
    assert section.tone == "warn" and f" of {DEPOT} d2 " in section.said
