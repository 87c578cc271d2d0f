"""Replay: other policies live through what has been, and the same events give the same decisions, byte for byte."""

from __future__ import annotations

import asyncio
import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from penstock.cli import app
from penstock.event import to_micros
from penstock.policy import Policy, drift, on_alarm
from penstock.project import Project, load
from penstock.proof.audit import read_all
from penstock.records import Partial
from penstock.services.embedded import Embedded, Event
from penstock.services.replay import judged, lived
from penstock.services.simulate import run

START, DAYS, CHANGED = datetime(2026, 3, 2, tzinfo=UTC), 24, 16

PROJECT = """
import penstock as ps

@ps.event("payments")
class Payment:
    payment_id: ps.Id[str]
    card: ps.Key[str]
    amount: float
    at: ps.EventTime

@ps.event("chargebacks")
class Chargeback:
    payment_id: ps.Key[str]
    fraudulent: bool
    at: ps.EventTime

@ps.model(
    scores=Payment,
    features=[Payment.amount],
    label=ps.label(Chargeback.fraudulent, within="12h"),
    monitors=[ps.drift(every="1d")],
    retrain=ps.every("90d", first="8d"),
    gates=[ps.no_worse(by=1.0, least=20)],
    rollout=[ps.shadow("1d")],
    value=ps.value(true_positive=5, false_positive=-5),
)
def fraud() -> ps.Learner:
    from sklearn.linear_model import LogisticRegression
    return ps.Learner(batch=LogisticRegression())

project = ps.Project("shop", [fraud])
"""
TRIED = """
import penstock as ps

refits = ps.Policy(retrain=ps.every("90d", first="8d") | ps.on_alarm(at_most_every="2d", on="2d"))
blind = ps.Policy(monitors=[])
changes = {"dearer": "2026-03-18T00:00Z"}
"""


def history() -> list[tuple[str, str, dict[str, Any], datetime]]:
    """Payments every quarter of an hour; from day CHANGED on they are greater, and what was fraud is none."""
    rng, found = random.Random(3), []
    for i in range(DAYS * 96):
        at, changed = START + timedelta(minutes=15 * i), i >= CHANGED * 96
        amount = rng.gauss(1.5 if changed else 0.0, 1)
        fraudulent = rng.random() < (0.9 if (amount > 0) != changed else 0.1)
        found.append(("payments", f"c{i % 20}", {"payment_id": f"p{i:05}", "card": f"c{i % 20}", "amount": amount}, at))
        later = at + timedelta(minutes=rng.randrange(10, 300))
        found.append(("chargebacks", f"p{i:05}", {"payment_id": f"p{i:05}", "fraudulent": fraudulent}, later))
    return sorted(found, key=lambda event: event[3])


def events() -> list[Event]:
    return [(t, key.encode(), msgspec.json.encode({**said, "at": at}), to_micros(at)) for t, key, said, at in history()]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PENSTOCK_PROJECT", "shop.py")
    Path("shop.py").write_text(PROJECT)
    Path("tried.py").write_text(TRIED)
    Path("past").mkdir()
    for topic in ("payments", "chargebacks"):
        lines = [msgspec.json.encode({**said, "at": at}) + b"\n" for named, _, said, at in history() if named == topic]
        Path(f"past/{topic}.jsonl").write_bytes(b"".join(lines))
    return tmp_path


def cli(*words: str, code: int = 0) -> Any:
    said = CliRunner().invoke(app, [*words, "--json"], prog_name="penstock")
    assert said.exit_code == code, said.output
    return [json.loads(line) for line in said.stdout.splitlines()]


def test_policies_are_compared_by_delay_false_alarms_fits_quality_and_worth_as_table_and_page(shop: Path) -> None:
    words = ("replay", "fraud", "--input", "past", "--policy", "tried.py", "--from", "2026-03-12T00:00Z", "--html", "page.html")
    (said,) = cli(*words)
    declared, refits, blind = said["policies"]
    assert [each["policy"] for each in said["policies"]] == ["declared", "refits", "blind"]
    (change,) = declared["changes"]
    assert (change["name"], change["signal"], change["delay"]) == ("dearer", "drift", 86_400.0)
    assert (declared["false_alarms"], blind["alarms"], blind["changes"][0]["delay"]) == (0, [], None)
    assert [each["fits_by_alarm"] for each in said["policies"]] == [0, 1, 0]
    losses = [each["measures"]["served"]["log_loss"]["value"] for each in said["policies"]]
    assert losses[1] < losses[0] == losses[2]
    assert refits["value"] > declared["value"] and refits["seconds"] > 0
    page = Path("page.html").read_text()
    assert all(word in page for word in ("<svg", "dearer", "refits", "missed")) and "<script" not in page


def test_the_archive_gives_the_decisions_that_the_files_gave_byte_for_byte(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("simulate", "--input", "past", "--tables", "kept")
    (filed,) = cli("replay", "fraud", "--input", "past", "--policy", "tried.py")
    monkeypatch.setenv("PENSTOCK_TABLES", "kept")
    (archived,) = cli("replay", "fraud", "--policy", "tried.py")
    for one, other in zip(filed["policies"], archived["policies"], strict=True):
        one["seconds"] = other["seconds"] = None
        assert one == other
    assert len({each["decisions"] for each in filed["policies"]}) == 3


def test_monitors_judge_what_was_served_from_the_counts_alone_and_say_what_they_said(shop: Path) -> None:
    project = load("shop.py")
    model = project.models[0]

    async def work() -> tuple[list[Partial], list[bytes | None]]:
        machine = Embedded(project, shop / "machine", partitions=4)
        await run(machine, events())
        partials = await read_all(machine.log, machine.topics.partials)
        alarms = await read_all(machine.log, machine.topics.alarms)
        return [msgspec.json.decode(p[3] or b"", type=Partial) for p in partials], [alarm[3] for alarm in alarms]

    partials, alarms = asyncio.run(work())
    told = judged(model, partials)
    assert alarms and [msgspec.json.encode(alarm) for alarm in told.alarms] == alarms
    deaf = judged(model.under(Policy(monitors=[drift(every="1d", material=0.9)])), partials)
    assert deaf.alarms == [] and len(deaf.statistics) == len(told.statistics)


def test_a_run_depends_neither_on_the_other_policies_nor_on_when_it_is_run(shop: Path) -> None:
    project: Project = load("shop.py")
    under = project.under(project.models[0], Policy(retrain=on_alarm("4d")))
    first, second = (asyncio.run(lived(under, events())) for _ in range(2))
    assert list(first.raw) == list(second.raw) and first.alarms and first.decisions
    assert project.models[0].retrain != under.models[0].retrain, "the project itself stays as it is"


@pytest.mark.parametrize(
    ("written", "what"),
    [
        ("x = 1", "tried.py names no policy"),
        ("import penstock as ps\na = ps.Policy(monitors=[ps.drift(every='often')])", "line 2"),
        (
            "import penstock as ps\na = ps.Policy()\nchanges = {'it': '2026-03-02'}",
            "tried.py: it: 2026-03-02 has no time",
        ),
        ("import penstock as ps\ndeclared = ps.Policy()", "there is another policy declared"),
        ("import penstock as ps\na = ps.Policy(monitors=[ps.drift(1)])", "line 2"),
    ],
)
def test_a_policy_file_that_is_wrong_is_told_with_what_to_write(shop: Path, written: str, what: str) -> None:
    Path("tried.py").write_text(written)
    said = CliRunner().invoke(app, ["replay", "fraud", "--input", "past", "--policy", "tried.py"], prog_name="penstock")
    assert said.exit_code == 2 and what in said.output and "-> " in said.output
    assert "Traceback" not in said.output


def test_what_cannot_be_replayed_is_said(shop: Path) -> None:
    def complaint(*words: str) -> str:
        said = CliRunner().invoke(app, ["replay", *words], prog_name="penstock")
        assert said.exit_code in (1, 2), said.output
        return said.output

    assert "no model 'frod'" in complaint("frod", "--input", "past")
    assert "has no table payments" in complaint("fraud")
    assert "nothing happened from" in complaint("fraud", "--input", "past", "--from", "2030-01-01T00:00Z")
    assert "no event before" in complaint("fraud", "--input", "past", "--until", "2020-01-01T00:00Z")
    assert "--change" in complaint("fraud", "--input", "past", "--change", "yesterday")
