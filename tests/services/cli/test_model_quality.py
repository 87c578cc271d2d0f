"""`penstock quality MODEL`: its answers by cohort, as known then or now, beside what was known first."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.services import shop

from penstock.cli.cohorts import table
from penstock.event import from_micros
from penstock.log import Send
from penstock.log.memory import MemoryLog
from penstock.topics import Topics

from .conftest import Cli

FOUND = shop.run(shop.WORLD, otherwise=None)


@pytest.fixture
def project(log: MemoryLog, tmp_path: Path) -> str:
    path = tmp_path / "shop.py"
    path.write_text("from tests.services.shop import declared\nproject = declared(None)\n")
    topics = Topics(shop.declared(None))

    async def staged() -> None:
        await log.create(topics.all())
        await log.send([Send(topics.cohorts("late"), b"late", value) for value in FOUND.cohorts])

    asyncio.run(staged())
    return str(path)


def test_the_newest_cohorts_are_shown_with_intervals_and_the_prior(cli: Cli, project: str) -> None:
    ran = cli("quality", "late", "--project", project)
    assert ran.exit_code == 0, ran.output
    lines, estimates = (part.splitlines() for part in ran.stdout.split("\n\n"))
    assert lines[0].split() == ["scored", "from", "answers", "settled", "log", "loss", "auc", "first", "prior", "v1"]
    starts = sorted({cohort.start for cohort in FOUND.restated})
    assert len(lines) == 1 + min(14, len(starts)) + 1
    assert all(" ±" in line or " – " in line for line in lines[1:])
    assert max(map(len, lines)) <= 100
    assert len(estimates) == len(lines) - 1 and estimates[0].split()[2:4] == ["accuracy", "expected"]
    assert all(("not yet known" in line and " -> " in line) or " – " in line for line in estimates[1:]), "of too few cohorts"


def test_the_last_line_is_of_all_cohorts_together(cli: Cli, project: str) -> None:
    shown = cli("quality", "late", "--project", project, "--days", "99").stdout
    lines = shown.split("\n\n")[0].splitlines()
    whole: dict[str, Any] = cli.json("quality", "late", "--project", project, "--days", "99")
    sums = [each["known"]["quality"]["served"] for each in whole["cohorts"] if "served" in each["known"]["quality"]]
    loss = sum(each["loss"] for each in sums) / sum(each["n"] for each in sums)
    assert whole["total"]["log_loss"]["value"] == pytest.approx(loss)
    assert lines[-1].split()[:5] == ["together", "300", "all", f"{loss:.4f}", f"±{_half(whole['total']['log_loss'])}"]


def _half(measure: dict[str, float]) -> str:
    return f"{(measure['high'] - measure['low']) / 2:.4f}"


def test_as_known_then_is_what_had_been_said_by_then(cli: Cli, project: str) -> None:
    whole: dict[str, Any] = cli.json("quality", "late", "--project", project, "--days", "99")
    newest = {each["known"]["start"]: each["known"] for each in whole["cohorts"]}
    assert all(each["complete"] for each in newest.values())
    for hours in (18, 30, 60):
        then = from_micros(shop.START) + timedelta(hours=hours)
        said = cli.json("quality", "late", "--project", project, "--days", "99", "--as-known", then.isoformat())
        expected = [c for c in FOUND.restated if c.known_until <= then]
        known = {c.start: msgspec.to_builtins(c) for c in sorted(expected, key=lambda c: c.known_until)}
        first = {c.start: msgspec.to_builtins(c) for c in sorted(expected, key=lambda c: c.known_until, reverse=True)}
        assert [each["known"] for each in said["cohorts"]] == [known[start] for start in sorted(known)]
        assert [each["first"] for each in said["cohorts"]] == [first[start] for start in sorted(first)]


def test_a_skill_monitor_that_has_too_few_labels_is_named(cli: Cli, project: str, log: MemoryLog) -> None:
    newest = max(FOUND.windows, key=lambda window: window.end)
    few = msgspec.structs.replace(newest, missing={"skill_monitor": "336 of 500 labels in 7d: on fewer it does not judge"})
    topic = Topics(shop.declared(None)).statistics("late")
    asyncio.run(log.send([Send(topic, b"late", msgspec.json.encode(few))]))
    ran = cli("quality", "late", "--project", project)
    assert "judged nothing in the newest window: 336 of 500 labels in 7d" in ran.stderr


def test_less_than_all_is_never_shown_as_100_percent() -> None:
    late = msgspec.structs.replace(FOUND.restated[0], complete=False, answers=1_000, labels=996, silent=0, unanswered=0)
    assert table(shop.declared(False).models[0], [(late, late)])[1][2] == "99%"


def test_what_cannot_be_shown_is_said(cli: Cli, project: str) -> None:
    early = cli("quality", "late", "--project", project, "--as-known", "2020-01-01T00:00Z")
    assert (early.exit_code, early.stdout) == (0, "")
    assert "no quality of late was known by 2020-01-01T00:00:00+00:00" in early.stderr
    wrong = cli("quality", "lste", "--project", project)
    assert wrong.exit_code == 1 and wrong.stderr == "shop has no event or model lste\n-> did you mean late?\n"
    odd = cli("quality", "late", "--project", project, "--as-known", "yesterday")
    assert odd.exit_code == 1 and odd.stderr.startswith("--as-known 'yesterday' is no moment\n-> write 2013-02-01")
    event = cli("quality", "orders", "--project", project, "--as-known", "2026-03-02T00:00Z")
    assert event.exit_code == 1 and "--as-known goes with a model" in event.stderr
