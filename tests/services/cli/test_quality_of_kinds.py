"""`penstock quality MODEL --json` of every kind of label: each measure, with its interval, of what was served and baselines."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.services import parcels
from tests.services.test_replay import PROJECT, events
from typer.testing import CliRunner

from penstock.cli import app, broker, screen
from penstock.project import load
from penstock.services.embedded import Embedded
from penstock.services.simulate import run

YES_NO = {
    "auc", "average_precision", "log_loss", "brier", "accuracy", "kappa", "kappa_temporal", "f1", "f2", "precision", "recall",
    "specificity", "calibration_error", "value",
}  # fmt: skip
CLASSES = {
    "auc", "average_precision", "log_loss", "brier", "accuracy", "kappa", "kappa_temporal", "macro_f1", "weighted_f1",
    "calibration_error",
}  # fmt: skip
NUMBERS = {"mae", "rmse", "bias", "r2"}
KINDS = {"fraud": YES_NO, "door": CLASSES, "hours": NUMBERS, "at_most": NUMBERS | {"pinball"}}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the command says of each model, asked of the log of the whole loop."""
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "shop.py").write_text(PROJECT)
    (folder / "parcels.py").write_text("from tests.services.parcels import project\n")
    shop = Embedded(load(str(folder / "shop.py")), folder / "shop")
    asyncio.run(run(shop, events()[:2_200]))
    logs = {"parcels": parcels.delivered(parcels.history(days=9), folder).log, "shop": shop.log}
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        for model in KINDS:
            project = "shop" if model == "fraud" else "parcels"
            patch.setattr(broker, "connected", _connected(logs[project]))
            patch.setattr(screen.form, "json", False)
            said = CliRunner().invoke(app, ["quality", model, "--project", str(folder / f"{project}.py"), "--json"])
            assert said.exit_code == 0, said.output
            found[model] = json.loads(said.stdout)
    return found


def _connected(log: Any) -> Any:
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def connected(settings: Any) -> Any:
        yield log

    return connected


@pytest.mark.parametrize(("model", "measures"), KINDS.items())
def test_every_measure_of_the_kind_is_there_with_its_interval(told: dict[str, Any], model: str, measures: set[str]) -> None:
    said = told[model]
    assert set(said["total"]) >= measures - {"kappa_temporal"}, "which needs a window before"
    served = [each["known"]["measures"].get("served", {}) for each in said["cohorts"]]
    assert {name for each in served for name in each} >= measures
    for each in [said["total"], *(m for cohort in said["cohorts"] for m in cohort["known"]["measures"].values())]:
        assert all(found["low"] <= found["value"] <= found["high"] for found in each.values())
    spread = {name for each in served for name, found in each.items() if found["low"] < found["high"]}
    assert spread >= measures, "an interval, not a point"


@pytest.mark.parametrize(("model", "measures"), KINDS.items())
def test_each_stands_beside_the_prior_the_usual_label_and_the_first_model(
    told: dict[str, Any], model: str, measures: set[str]
) -> None:
    said = told[model]
    loss = "rmse" if model == "hours" else "pinball" if model == "at_most" else "log_loss"
    for baseline in ("prior", "last", "first"):
        assert any(loss in each["known"]["measures"].get(baseline, {}) for each in said["cohorts"]), baseline
    assert {"prior", "last", "v1"} <= said["against"].keys()
    assert all(each["low"] <= each["value"] <= each["high"] and each["n"] > 0 for each in said["against"].values())
    assert said["against"]["prior"]["high"] < 0, "surely better than the prior"


def test_confusion_is_told_by_truth_with_intervals_and_adds_up(told: dict[str, Any]) -> None:
    assert told["hours"]["confusion"] == {}
    for model, names in (("fraud", {"yes", "no"}), ("door", set(parcels.DOORS))):
        matrix = told[model]["confusion"]
        assert set(matrix) == names and all(set(row) == names for row in matrix.values())
        n = sum(cell["n"] for row in matrix.values() for cell in row.values())
        assert n == sum(each["known"]["quality"]["served"]["n"] for each in told[model]["cohorts"] if each["known"]["measures"])
        for row in matrix.values():
            assert sum(cell["share"]["value"] for cell in row.values()) == pytest.approx(1.0)
            assert all(cell["share"]["low"] <= cell["share"]["value"] <= cell["share"]["high"] for cell in row.values())
        right = sum(matrix[name][name]["n"] for name in names) / n
        assert model == "fraud" or right == pytest.approx(told[model]["total"]["accuracy"]["value"])
