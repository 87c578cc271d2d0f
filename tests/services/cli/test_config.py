"""config, version, check, topology: what is set, what is installed, what a project declares."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from penstock.cli.config import mermaid, picture
from penstock.project import load
from penstock.settings import load as load_settings
from penstock.topics import Topics

if TYPE_CHECKING:
    from tests.services.cli.conftest import Cli

FLIGHTS = "penstock.examples.flights"


def settings_shown(cli: Cli) -> dict[str, dict[str, Any]]:
    return {each["variable"]: each for each in cli.json("config", "show")["settings"]}


def test_config_says_where_each_value_came_from(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_PARTITIONS", "8")
    (here / ".env").write_text("PENSTOCK_PARTITIONS=2\nPENSTOCK_LOG_LEVEL=debug\n")
    found = settings_shown(cli)
    assert (found["PENSTOCK_PARTITIONS"]["value"], found["PENSTOCK_PARTITIONS"]["source"]) == (8, "environment")
    assert (found["PENSTOCK_LOG_LEVEL"]["value"], found["PENSTOCK_LOG_LEVEL"]["source"]) == ("debug", ".env")
    assert found["PENSTOCK_IDLE_AFTER"]["source"] == "default"
    assert load_settings().partitions == 8


def test_passwords_are_shown_nowhere(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://ada:lovelace@cache:6379/0")
    monkeypatch.setenv("PENSTOCK_KAFKA_SASL_PASSWORD", "lovelace")
    for words in (["config", "show"], ["config", "show", "--json"], ["config", "show", "--markdown"], ["status"]):
        assert "lovelace" not in cli(*words).output
    assert settings_shown(cli)["REDIS_URL"]["value"] == "redis://***@cache:6379/0"


def test_a_wrong_setting_is_shown_beside_the_right_ones(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_PARTITIONS", "many")
    said = cli("config", "show")
    assert said.exit_code == 2
    (line,) = [line for line in said.stdout.split("\n") if "PENSTOCK_PARTITIONS" in line]
    assert "many" in line
    assert "WRONG" in line
    assert "PENSTOCK_LOG_LEVEL" in said.stdout


def test_the_table_for_the_readme_has_every_setting_with_its_meaning(cli: Cli) -> None:
    lines = cli("config", "show", "--markdown").stdout.strip().split("\n")
    assert lines[:2] == ["| variable | default | meaning |", "| --- | --- | --- |"]
    assert len(lines) == 2 + len(settings_shown(cli))
    assert all(len(line.split("|")[3].strip()) > 10 for line in lines[2:])


def test_the_version_is_the_installed_one(cli: Cli) -> None:
    from importlib.metadata import version

    assert cli.json("version")["penstock"] == version("penstock")
    assert cli("--version").stdout.startswith(f"penstock {version('penstock')}")


def test_check_shows_what_a_project_declares(cli: Cli) -> None:
    found = cli.json("check", "--project", FLIGHTS)
    assert found["project"] == "flights"
    assert found["fingerprint"] == load(FLIGHTS).fingerprint
    assert found["problems"] == []
    assert "ok" in cli("check").stdout


DERIVED = """
import math
import numpy as np
import penstock as ps

@ps.event("payments")
class Payment:
    payment_id: ps.Id[str]
    card_id: ps.Key[str]
    amount: float
    paid_at: ps.EventTime

@ps.features(by=Payment.card_id)
class Card:
    payments_1h = ps.count(Payment, over="1h")
    usual = ps.mean(Payment.amount, over="30d")

    @ps.derived
    def surge(self, now: Payment) -> float:
        return {body}

project = ps.Project("payments", rows={{Payment: [Card]}})
"""


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("now.amount / (self.usual + 1.0)", ""),
        ("now.amount / self.usual", ""),
        ("np.where(self.usual > 0, now.amount, 0.0)", ""),
        ("np.log1p(now.amount)", ""),
        ("now.amount if self.usual > 0 else 0.0", "Card.surge fails on arrays"),
        ("math.sqrt(now.amount)", "Card.surge fails on arrays"),
        ("now.amount - np.mean(self.usual)", "Card.surge is"),
        ("now.amount[0]", "Card.surge fails on one row"),
    ],
)
def test_a_derived_feature_must_mean_the_same_for_one_row_and_for_many(cli: Cli, here: Path, body: str, said: str) -> None:
    (here / "fraud.py").write_text(DERIVED.format(body=body))
    found = cli("check", "--project", "fraud.py")
    assert found.exit_code == (2 if said else 0), found.output
    assert said in found.stderr


AROUND = """
@ps.event("chargebacks")
class Chargeback:
    payment_id: ps.Key[str]
    fraudulent: bool
    at: ps.EventTime

@ps.function(takes={{"amount": "FP64[*]"}}, gives={{"X": "FP32[*, 2]"}})
def shaped(amount):
    return {{"X": {body}}}

@ps.model(scores=Payment, features=[Payment.amount], label=ps.label(Chargeback.fraudulent, within="7d"), before=shaped)
def fraud() -> ps.Learner:
    return ps.Learner(batch=object())

project = ps.Project("payments", [fraud])
"""


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("np.stack([amount, amount], 1).astype(np.float32)", ""),
        ("amount[:, None].astype(np.float32)", "shaped gave X of shape [1, 1], where it declares [*, 2], on every row tried"),
        ("{}['oops']", "shaped failed with KeyError: 'oops' (fraud.py, line "),
    ],
)
def test_a_function_before_a_model_is_tried(cli: Cli, here: Path, body: str, said: str) -> None:
    head, _, _ = DERIVED.format(body="now.amount").partition("project = ")
    (here / "fraud.py").write_text(head + AROUND.format(body=body))
    found = cli("check", "--project", "fraud.py")
    assert found.exit_code == (2 if said else 0), found.output
    assert said in found.stderr


def test_the_picture_has_every_topic_and_every_service(cli: Cli) -> None:
    topics = Topics(load(FLIGHTS), 4)
    text, drawn = "\n".join(picture(topics)), "\n".join(mermaid(topics))
    for contract in topics.contracts():
        if contract.writes != ("any",):
            assert contract.topic.name in text
            assert contract.topic.name in drawn
    assert drawn.startswith("flowchart LR\n")
    assert all(name in drawn for name in ("feature_store", "inference", "monitoring", "trainer", "registry"))
    assert cli("topology", "--mermaid").stdout.strip() == drawn


def test_a_command_says_that_it_works_on_an_example_when_no_project_is_named(cli: Cli, here: Path) -> None:
    assert (
        "project penstock.examples.flights, an example, as none is named; yours:  export PENSTOCK_PROJECT" in cli("check").stderr
    )
    assert cli("check", "penstock.examples.electricity").stderr == ""
    (here / ".penstock").mkdir()
    (here / ".penstock" / "project").write_text("fraud.py")
    assert "as none is named; last up here:  export PENSTOCK_PROJECT=fraud.py" in cli("check").stderr
