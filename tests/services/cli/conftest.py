"""The command line in a folder of its own, on the log in memory."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.services.crew import settle
from typer.testing import CliRunner, Result

from penstock.cli import app, broker, screen
from penstock.log import Log
from penstock.log.memory import MemoryLog
from penstock.services.feature_store.archive import Archive
from penstock.settings import load
from penstock.topics import Topics


class Cli:
    """`cli("topics", "list")` runs a command in this process."""

    def __call__(self, *words: str) -> Result:
        return CliRunner().invoke(app, list(words), prog_name="penstock")

    def json(self, *words: str, code: int = 0) -> Any:
        """The one JSON value that it prints."""
        (found,) = self.lines(*words, code=code)
        return found

    def lines(self, *words: str, code: int = 0) -> list[Any]:
        """Every JSON line that it prints."""
        said = self(*words, "--json")
        assert said.exit_code == code, said.output
        return [json.loads(line) for line in said.stdout.splitlines()]


@pytest.fixture
def cli() -> Cli:
    return Cli()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test in a folder of its own, with no settings from outside, nor a --json of the test before."""
    monkeypatch.setattr(screen.form, "json", False)
    for name in list(os.environ):
        if name.startswith("PENSTOCK_") or name in ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "NO_COLOR"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> MemoryLog:
    """The log in memory that commands find instead of a broker."""
    kept = MemoryLog()

    @asynccontextmanager
    async def connected(settings: Any) -> AsyncIterator[Log]:
        yield kept

    monkeypatch.setattr(broker, "connected", connected)
    return kept


def told(cli: Cli, log: MemoryLog, topics: Topics, words: str, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], list[str]]:
    """What a command prints, for people and for programs, from the log as from a broker; and from tables archived of that log."""
    settings = load()

    async def archive() -> None:
        for whole in (False, True):
            await settle(Archive(topics, log, settings.offline, whole=whole))

    asyncio.run(archive())
    monkeypatch.setattr(broker, "servers", lambda settings: ("memory", ""))
    forms = [words.split(), [*words.split(), "--json"]]
    live, kept = [cli(*form) for form in forms], [cli(*form, "--tables") for form in forms]
    assert [ran.exit_code for ran in live + kept] == [0] * 4, [ran.output for ran in live + kept]
    assert all(
        "from the tables" in ran.stderr and "from the tables" not in was.stderr for ran, was in zip(kept, live, strict=True)
    )
    return [ran.stdout for ran in live], [ran.stdout for ran in kept]


@pytest.fixture
def made(cli: Cli, log: MemoryLog) -> MemoryLog:
    """With the topics of the flights."""
    assert cli("topics", "apply").exit_code == 0
    return log


SHOP = """
import penstock as ps

@ps.event("{name}.payments")
class Payment:
    payment_id: ps.Id[str]
    card_id: ps.Key[str]
    amount: float
    paid_at: ps.EventTime

@ps.features(by=Payment.card_id)
class Card:
    payments_1h = ps.count(Payment, over="1h")

project = ps.Project("{name}x", rows={{Payment: [Card]}})
"""


@pytest.fixture
def shop(here: Path) -> Callable[[str], None]:
    """Writes shop.py: the rows of `<name>.payments`, without a model."""

    def write(name: str) -> None:
        (here / "shop.py").write_text(SHOP.format(name=name))

    return write
