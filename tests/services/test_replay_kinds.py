"""Replay of labels that are numbers or classes: quality in the loss of their kind, beside delay, false alarms, fits and cost."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn import metrics
from tests.services.parcels import START, delivered, history, project, records
from typer.testing import CliRunner

from penstock.cli import app
from penstock.event import from_micros
from penstock.policy import Policy
from penstock.records import Outcome
from penstock.services.embedded import Event

CHANGED, SINCE = START + timedelta(days=7), START + timedelta(days=5)
TRIED = """
import penstock as ps
watched = ps.Policy(
    monitors=[ps.skill(floor=0.3, over="2d", every="1d", least=50)],
    retrain=ps.every("30d", first="4d") | ps.on_alarm(at_most_every="2d", on="2d"),
)
"""


def events() -> list[Event]:
    """Nine days; from CHANGED on what took long is short, and who came by the front comes by the gate."""
    found, turned = [], {"front": "gate", "gate": "front", "back": "back"}
    for topic, key, value, at in history(days=9):
        said = msgspec.json.decode(value)
        if topic == "delivered" and from_micros(at) >= CHANGED:
            said |= {"hours": 20.0 - said["hours"], "door": turned[said["door"]]}
        found.append((topic, key, msgspec.json.encode(said), at))
    return found


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replayed")
    (folder / "parcels.py").write_text("from tests.services.parcels import project\n")
    (folder / "tried.py").write_text(TRIED)
    (folder / "past").mkdir()
    for name in ("sent", "delivered"):
        (folder / f"past/{name}.jsonl").write_bytes(b"".join(v + b"\n" for topic, _, v, _ in events() if topic == name))
    return folder


def replayed(past: Path, model: str, *words: str) -> Any:
    files = ["--project", str(past / "parcels.py"), "--input", str(past / "past"), "--policy", str(past / "tried.py")]
    times = ["--from", SINCE.isoformat(), "--change", f"turn={CHANGED.isoformat()}"]
    said = CliRunner().invoke(app, ["replay", model, *files, *times, *words], prog_name="penstock")
    assert said.exit_code == 0, said.output
    return said


@pytest.mark.parametrize(
    ("model", "shown", "loss"),
    [
        ("hours", ["rmse", "mae"], "squared error"),
        ("at_most", ["pinball", "coverage"], "pinball loss"),
        ("door", ["log_loss", "accuracy"], "log loss"),
    ],
)
def test_policies_of_every_kind_are_compared_by_their_own_loss(past: Path, model: str, shown: list[str], loss: str) -> None:
    page = past / f"{model}.html"
    said = json.loads(replayed(past, model, "--json", "--html", str(page)).stdout)
    declared, watched = said["policies"]
    assert (declared["shown"], declared["loss"]) == (shown, loss)
    (change,) = watched["changes"]
    assert change["signal"] == "skill" and 0 < change["delay"] <= 2 * 86_400 and watched["false_alarms"] == 0
    assert watched["fits_by_alarm"] == 1 and watched["seconds"] > 0
    assert declared["skill"] < 0, "what has turned is answered worse than by the prior"
    drawn = page.read_text()
    assert f"Alarms, fits and {loss} of declared" in drawn and f'<span class="now">{loss}</span>' in drawn

    embedded = delivered(events(), past / f"alone-{model}", project=project.under(project.model(model), Policy()))
    until = max(window["end"] for window in declared["windows"])
    some = [o for o in records(embedded, embedded.topics.outcomes(model), Outcome) if o.version != "none"]
    some = [o for o in some if o.labelled >= SINCE and o.labelled.isoformat() < until]
    assert declared["outcomes"] == len(some) > 200
    for name in shown:
        assert declared["measures"]["served"][name]["value"] == pytest.approx(oracle(name, some), rel=1e-6)


def oracle(name: str, some: list[Outcome]) -> float:
    """What scikit-learn says of it, and of coverage its definition; a probability counts as no less than a millionth."""
    truth: Any = [o.truth for o in some]
    if name == "accuracy":
        return float(metrics.accuracy_score(truth, [o.answer for o in some]))
    if name == "log_loss":
        said = [o.probabilities[o.version][str(o.truth)] for o in some]  # type: ignore[index]
        return float(-np.log(np.clip(said, 1e-6, 1 - 1e-6)).mean())
    said = [o.score for o in some]
    if name == "coverage":
        return float(np.mean([o.truth <= o.score for o in some]))  # type: ignore[operator]
    return float(
        metrics.mean_pinball_loss(truth, said, alpha=0.9) if name == "pinball"
        else metrics.mean_absolute_error(truth, said) if name == "mae"
        else np.mean(np.asarray(truth) <= np.asarray(said)) if name == "coverage"
        else metrics.root_mean_squared_error(truth, said)
    )  # fmt: skip


def test_the_table_names_the_measures_of_the_kind(past: Path) -> None:
    heads = replayed(past, "hours").stdout.splitlines()[1]
    assert "RMSE" in heads and "MAE" in heads and "log loss" not in heads and "AUC" not in heads
