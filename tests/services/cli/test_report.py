"""`penstock report MODEL`: one page or one comment, from the topics, or from what a simulation kept."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from tests.services import shop
from tests.services.chargebacks import chargeback, payment, shopping
from tests.unit.test_report import RAN, found, records

from penstock.cli.report import _slices
from penstock.log import Send
from penstock.log.memory import MemoryLog
from penstock.settings import load
from penstock.topics import Topics

from .conftest import Cli

encode = msgspec.json.encode


@pytest.fixture
def project(log: MemoryLog, tmp_path: Path) -> str:
    path = tmp_path / "shop.py"
    path.write_text("from tests.services.shop import declared\nproject = declared(None)\n")
    topics = Topics(shop.declared(None))

    async def staged() -> None:
        await log.create(topics.all())
        await log.send(recorded(topics))

    asyncio.run(staged())
    return str(path)


def recorded(topics: Topics) -> list[Send]:
    """What is recorded of the model of the shop."""
    known = found()
    said = [Send(topics.statistics("late"), b"late", value) for value in RAN.statistics]
    said += [Send(topics.cohorts("late"), b"late", value) for value in RAN.cohorts]
    said += [Send(topics.alarms, b"late", value) for value in RAN.alarms]
    said += [Send(topics.models, b"late/champion", encode(known.decisions[0])), Send(topics.models, b"late/online-1", None)]
    return said + [Send(topics.partials, b"late", encode(each)) for each in known.partials]


def test_a_report_is_written_as_page_and_as_markdown(cli: Cli, project: str, tmp_path: Path) -> None:
    ran = cli("report", "--project", project, "--html", "r.html", "--markdown", "r.md")
    assert ran.exit_code == 0, ran.output
    assert ran.stdout.startswith("v2 is in charge. Log loss ") and "-> open r.html\n-> open r.md\n" in ran.stderr
    page, text = (tmp_path / "r.html").read_text(encoding="utf-8"), (tmp_path / "r.md").read_text(encoding="utf-8")
    assert "<svg" in page and "Order.amount" in page and "| Order.amount |" in text.replace("\\", "")
    assert "no outcomes are archived in" in text, "said, as there are no tables"
    cli("report", "late", "--project", project, "--html", "again.html")
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "r.html").read_bytes()
    printed = cli("report", "--project", project, "--markdown", "-")
    assert printed.stdout.strip() == text.strip()


def test_a_program_is_told_the_verdict_and_every_section(cli: Cli, project: str) -> None:
    said = cli.json("report", "late", "--project", project)
    assert said["verdict"] in ("good", "warn", "bad") and said["champion"] == "v2"
    assert [section["name"] for section in said["sections"]][:3] == ["quality", "versions", "calibration"]
    assert all(section["said"] for section in said["sections"])
    then = cli.json("report", "late", "--project", project, "--known-at", "2026-03-03T00:00Z")
    assert then["until"] == then["known_at"] == "2026-03-03T00:00:00Z"


def test_what_cannot_be_reported_is_said_with_what_to_type(cli: Cli, project: str) -> None:
    for words, what in {
        ("lste",): "shop has no model lste\n-> did you mean late?",
        ("late", "--from", "yesterday"): "--from",
        ("late", "--until", "2020-01-01T00:00Z"): "before it begins",
        ("late", "--html", "no/r.html"): "no/r.html cannot be written",
    }.items():
        ran = cli("report", *words, "--project", project)
        assert ran.exit_code == 1 and what in ran.stderr and "Traceback" not in ran.stderr, ran.stderr


def test_without_a_broker_it_is_made_of_what_a_simulation_kept(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = [payment(i, 2 * i, float(i), "c") for i in range(40)] + [chargeback(i, 2 * i + 1.5, i % 2 == 0) for i in range(40)]
    machine = shopping(tmp_path, sorted(said, key=lambda each: each.get("paid_at") or each["reported_at"]))
    asyncio.run(machine.embedded.close())
    monkeypatch.setenv("PENSTOCK_TABLES", str(tmp_path / "tables"))
    monkeypatch.setenv("PENSTOCK_PROJECT", "tests.services.chargebacks")
    ran = cli("report", "fraud")
    assert ran.exit_code == 0, ran.output
    assert "from the tables, up to 20" in ran.stderr
    assert "No version is in charge yet." in ran.stdout and "40 answers" in ran.stdout
    told = cli("explain", str(said[3]["payment_id"]))
    assert told.exit_code == 0 and "no version was in charge yet" in told.stdout and "from the tables" in told.stderr, told.output
    assert cli("tables", "verify").exit_code == 0, "what was kept beside the tables is as they are"
    monkeypatch.setenv("PENSTOCK_TABLES", str(tmp_path / "none"))
    none = cli("report", "fraud")
    assert none.exit_code == 3 and "penstock simulate --input DIR --tables" in none.stderr


@pytest.mark.parametrize("words", ["report late", "alerts list", "quality late", "drift show", "quarantine list", "novelty late"])
def test_that_no_table_keeps_what_is_asked_for_is_said_with_what_makes_one(cli: Cli, project: str, words: str) -> None:
    ran = cli(*words.split(), "--tables", "--project", project)
    assert ran.exit_code == 1 and ran.stderr.startswith("no table keeps shop."), ran.stderr
    assert "penstock tables list" in ran.stderr and "topics" not in ran.stderr


def test_slices_of_a_report_go_by_declared_segments_too(tmp_path: Path) -> None:
    from deltalake import write_deltalake

    rng = np.random.default_rng(1)
    regions, amounts = rng.choice(["nørth", "南"], 4_000), rng.integers(0, 10, 4_000).astype(float)
    right = rng.random(4_000) < np.where(regions == "南", 0.4, 0.9)
    columns = {
        "id": [f"o{number}" for number in range(4_000)], "time": [records().start] * 4_000, "label": right,
        "version": ["v1"] * 4_000, "score": [0.9] * 4_000, "Order.amount": amounts,
        "partition": [0] * 4_000, "offset": range(4_000),
        "segments": [msgspec.json.encode({shop.REGION.name: region}).decode() for region in regions.tolist()],
    }  # fmt: skip
    topics = Topics(shop.declared(None, segments=[shop.REGION]))
    write_deltalake(str(tmp_path / topics.outcomes("late")), pa.table(columns))
    told = replace(records(), model=topics.project.model("late"))
    found = _slices(load(tables=str(tmp_path)), topics, told)
    assert [each.conditions for each in found.found] == [[f"{shop.REGION.name} is 南"]]
