"""`penstock fairness MODEL` and `penstock quality MODEL --by SEGMENT`: what the answers were to each group, and the gaps."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.services import shop
from tests.services.shop import AGE, REGION
from tests.services.test_segments import grouped, whole

from penstock.log import Send
from penstock.log.memory import MemoryLog
from penstock.records import Cohort
from penstock.statistics.binary import measured
from penstock.statistics.fairness import gaps, treated
from penstock.statistics.groups import added_groups
from penstock.topics import Topics

from .conftest import Cli


def staged(log: MemoryLog, tmp_path: Path, said: str, cohorts: list[bytes]) -> str:
    path = tmp_path / "shop.py"
    path.write_text(f"from tests.services.shop import *\nproject = declared(None{said})\n")

    async def stage() -> None:
        topics = Topics(shop.declared(None))
        await log.create(topics.all())
        await log.send([Send(topics.cohorts("late"), b"late", value) for value in cohorts])

    asyncio.run(stage())
    return str(path)


@pytest.fixture
def project(log: MemoryLog, tmp_path: Path) -> str:
    return staged(log, tmp_path, ", segments=(REGION, AGE)", whole(None).cohorts)


def newest() -> list[Cohort]:
    found = {cohort.start: cohort for cohort in sorted(whole(None).restated, key=lambda c: c.known_until)}
    return [found[start] for start in sorted(found)]


def test_the_quality_of_each_level_is_shown_in_order(cli: Cli, project: str) -> None:
    ran = cli("quality", "late", "--by", "age", "--days", "99", "--project", project)
    assert ran.exit_code == 0, ran.output
    lines = ran.stdout.splitlines()
    assert lines[0].split()[:4] == ["Order.age", "answers", "share", "settled"]
    assert [re.split(r"\s{2,}", line.strip())[0] for line in lines[1:]] == ["< 30", "30 to 60", "missing"]
    assert "by Order.age, scored 2026-03-01" in ran.stderr
    said = cli.json("quality", "late", "--by", AGE.name, "--days", "99", "--project", project)
    once = {p.id: p for p in grouped().predictions if p.version != "none"}
    asked = Counter((p.segments or {}).get(AGE.name, "missing") for p in once.values())
    assert {level: each["group"]["answers"] for level, each in said["levels"].items()} == asked
    groups = added_groups(*(cohort.groups for cohort in newest()))[AGE.name]
    for level, each in said["levels"].items():
        assert each["measures"] == msgspec.to_builtins(measured(groups[level].quality))


def test_gaps_are_those_of_all_cohorts_together(cli: Cli, project: str) -> None:
    said: dict[str, Any] = cli.json("fairness", "late", "--cohorts", "99", "--project", project)
    groups = added_groups(*(cohort.groups for cohort in newest()))
    assert said["segments"].keys() == {REGION.name, AGE.name}
    for name, each in said["segments"].items():
        expected = gaps({level: treated(group) for level, group in groups[name].items()})
        assert sorted(map(str, each["gaps"])) == sorted(str(msgspec.to_builtins(gap)) for gap in expected)
        assert each["population"].keys() == {"stability", "chance", "n", "m"}
    ran = cli("fairness", "late", "--by", "region", "--against", "南", "--cohorts", "99", "--project", project)
    assert ran.exit_code == 0, ran.output
    assert "against 南" in ran.stdout and "selection rate" in ran.stdout and "nørth" in ran.stdout
    assert "  南" not in ran.stdout, "nobody is compared with himself"


def test_a_wide_gap_says_so(cli: Cli, log: MemoryLog, tmp_path: Path) -> None:
    def chosen(share: int) -> dict[str, Any]:
        return {"answers": 1_000, "selected": share}

    last = newest()[-1]
    cohort = msgspec.to_builtins(last) | {"groups": {REGION.name: {"a": chosen(500), "b": chosen(300), "c": {"answers": 5}}}}
    project = staged(log, tmp_path, ", segments=(REGION,)", [msgspec.json.encode(cohort)])
    ran = cli("fairness", "late", "--project", project)
    lines = {tuple(re.split(r"\s{2,}", line.strip())[:2]): line for line in ran.stdout.splitlines()}
    assert lines["selection rate", "b"].endswith("wide")
    assert lines["selection rate", "c"].endswith("too small: 5 of 30")


def test_what_is_asked_wrongly_is_said_with_what_to_type(cli: Cli, project: str, log: MemoryLog, tmp_path: Path) -> None:
    ran = cli("fairness", "lste", "--project", project)
    assert ran.exit_code == 1 and "did you mean late?" in ran.stderr
    ran = cli("quality", "late", "--by", "regoin", "--project", project)
    assert ran.exit_code == 1 and "has no segment regoin" in ran.stderr and "Order.region" in ran.stderr
    ran = cli("quality", "orders", "--by", "region", "--project", project)
    assert ran.exit_code == 1 and "--by goes with a model" in ran.stderr
    ran = cli("fairness", "late", "--against", "nörth", "--by", "region", "--project", project)
    assert ran.exit_code == 1 and "did you mean nørth?" in ran.stderr
    (tmp_path / "bare.py").write_text("from tests.services.shop import *\nproject = declared(None)\n")
    ran = cli("fairness", "late", "--project", str(tmp_path / "bare.py"))
    assert ran.exit_code == 1 and "late has no segments\n-> declare one" in ran.stderr


def test_before_anything_is_known_that_is_said(cli: Cli, log: MemoryLog, tmp_path: Path) -> None:
    project = staged(log, tmp_path, ", segments=(REGION,)", [])
    for command in (("fairness", "late"), ("quality", "late", "--by", "region")):
        ran = cli(*command, "--project", project)
        assert (ran.exit_code, ran.stdout) == (0, "") and "is known yet" in ran.stderr
