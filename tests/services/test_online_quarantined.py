"""An online learner of classes, while a quarantine holds what came last."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from tests.services.parcels import DOORS, POLICY, Delivered

import penstock as ps
from penstock.artefact import Artefacts
from penstock.event import to_micros
from penstock.log import Batch, Partition
from penstock.records import Outcome, Quarantine
from penstock.services.trainer import desk as trainer
from penstock.services.trainer.triggers import Job, Triggers

START = datetime(2024, 1, 1, tzinfo=UTC)
NOW = to_micros(START) + 60 * 3_600_000_000


@ps.model(
    label=ps.label(Delivered.door, within="1h", classes=DOORS), **{**POLICY, "retrain": ps.incremental("1d"), "rollout": []}
)
def door() -> ps.Learner:
    from river import linear_model, multiclass, preprocessing

    return ps.Learner(online=preprocessing.StandardScaler() | multiclass.OneVsRestClassifier(linear_model.LogisticRegression()))


def outcome(number: int) -> Outcome:
    inputs = b'{"Sent.distance":%d,"Sent.weight":1,"Depot.parcels_24h":2}' % number
    return Outcome(
        id=f"p{number}", key="c", model="door", time=START + timedelta(hours=number),
        labelled=START + timedelta(hours=number + 1), label=False, answered=True,
        inputs=msgspec.Raw(inputs), score=0.5, scores={}, version="none", variant="none",
        truth=DOORS[number % len(DOORS)],
    )  # fmt: skip


def test_a_snapshot_is_proven_and_explained_on_the_newest_rows_that_are_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "PROVEN", 10)
    desk = trainer.Desk(door, ps.Project("parcels", [door]), Artefacts(tmp_path))
    said = [msgspec.json.encode(outcome(number)) for number in range(50)]
    desk.examples.add(Batch(Partition("p.outcomes.door", 0), range(50), [b""] * 50, said, ()))
    since = START + timedelta(hours=30)
    desk.quarantines["q"] = Quarantine(id="q", model="door", at=START, actor="ada", since=since)
    made = desk.work(Job("j", "door", "incremental", "increment:w", NOW, 0), Triggers(), trainer.Numbers())
    assert made.run.version == "online-1", made.run.data.get("refused")
    assert made.run.metrics["rows"] == 30 and made.run.metrics["parity_rows"] == 10
