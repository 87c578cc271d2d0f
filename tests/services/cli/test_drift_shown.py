"""`penstock drift show [MODEL]`: how far what models are asked has moved, in the newest window that was compared."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from tests.services import shop

from penstock.log import Send
from penstock.log.memory import MemoryLog
from penstock.records import Shift, Statistic
from penstock.topics import Topics

from .conftest import Cli

STEADY, MOVED = Shift(ks=0.05, psi=0.1, critical=0.08, n=900, floor=0.1), Shift(ks=0.3, psi=0.9, critical=0.08, n=900, floor=0.1)


def window(day: int, drift: dict[str, Shift]) -> Statistic:
    return Statistic(
        id=f"late/{day}", model="late", start=datetime(2026, 3, day, tzinfo=UTC), end=datetime(2026, 3, day + 1, tzinfo=UTC),
        quality={}, paired={}, log_loss={}, auc={}, prior=None, prior_loss=None, skill=None, drift=drift, counts={},
        reference="v1", missing={}, alarms=[],
    )  # fmt: skip


@pytest.fixture
def project(log: MemoryLog, tmp_path: Path) -> str:
    path = tmp_path / "shop.py"
    path.write_text("from tests.services.shop import declared\nproject = declared(None)\n")
    asyncio.run(log.create(Topics(shop.declared(None)).all()))
    return str(path)


def say(log: MemoryLog, *said: Statistic) -> None:
    topic = Topics(shop.declared(None)).statistics("late")
    asyncio.run(log.send([Send(topic, b"late", msgspec.json.encode(each)) for each in said]))


def test_the_newest_window_that_was_compared_is_shown_worst_input_first(cli: Cli, project: str, log: MemoryLog) -> None:
    say(log, window(1, {"a": MOVED, "b": STEADY}), window(2, {"a": STEADY, "b": MOVED}), window(3, {}))
    ran = cli("drift", "show", "--project", project)
    assert ran.exit_code == 0, ran.output
    assert [line.split()[1] for line in ran.stdout.splitlines()] == ["input", "b", "a"]
    assert [line.split()[-1] for line in ran.stdout.splitlines()[1:]] == ["drift", "900"]
    assert "late: 2026-03-02 00:00 to 2026-03-03 00:00, against v1" in ran.stderr
    assert cli.json("drift", "show", "late", "--project", project)["late"]["drift"]["b"]["ks"] == 0.3


def test_what_cannot_be_shown_is_said(cli: Cli, project: str) -> None:
    none = cli("drift", "show", "--project", project)
    assert (none.exit_code, none.stdout) == (0, "") and "no window of late has been compared yet" in none.stderr
    wrong = cli("drift", "show", "lste", "--project", project)
    assert wrong.exit_code == 1 and wrong.stderr == "shop has no model lste\n-> did you mean late?\n"
