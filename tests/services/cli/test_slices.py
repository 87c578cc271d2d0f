"""`penstock slices MODEL`: from the archived outcomes, as they are known by now."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tests.services import crew, shop

from penstock.event import from_micros
from penstock.log import Send
from penstock.log.memory import MemoryLog
from penstock.records import Outcome
from penstock.runtime.lane import FROM, SEQUENCE
from penstock.services.feature_store.archive import Archive
from penstock.topics import Topics

from .conftest import Cli

ROWS = 2_000


def outcomes(blind: float) -> list[Outcome]:
    """Answers, one a minute, that are mostly right but for amounts from 30 to 40, of which so many are wrong; all were labelled
    falsely at first. After them a hundred of before there was a model."""
    rng, found = np.random.default_rng(5), list[Outcome]()
    for number in range(ROWS + 100):
        amount, weight = float(rng.integers(0, 40)), None if number % 5 == 0 else float(rng.random())
        label = bool(rng.random() < 0.5)
        wrong = rng.random() < (blind if amount >= 30 else 0.1)
        score, version = 0.9 if label != wrong else 0.1, "v1" if number < ROWS else "none"
        at = from_micros(shop.START) + timedelta(minutes=number)
        said = Outcome(
            id=f"o{number}", key="s1", model="late", time=at, labelled=at, label=not label, answered=True, score=score,
            inputs=msgspec.Raw(msgspec.json.encode({"Order.amount": amount, "Order.weight": weight})),
            scores={"v1": score}, version=version, variant="champion",
        )  # fmt: skip
        found += [said, msgspec.structs.replace(said, label=label, corrects=not label)]
    return found


@pytest.fixture
def project(tmp_path: Path) -> str:
    path = tmp_path / "shop.py"
    path.write_text("from tests.services.shop import declared\nproject = declared(None)\n")
    return str(path)


def archived(folder: Path, found: list[Outcome]) -> None:
    topics, log = Topics(shop.declared(None), 2), MemoryLog()

    async def story() -> None:
        await log.create(topics.all())
        for number, each in enumerate(found):
            headers = ((FROM, b"monitoring.0"), (SEQUENCE, b"%d" % number))
            await log.send([Send(topics.outcomes("late"), each.id.encode(), msgspec.json.encode(each), headers)])
        await crew.settle(Archive(topics, log, folder / ".penstock" / "tables"))

    crew.played(story())


def test_the_slice_where_the_model_fails_is_shown_and_its_absence_is_said(cli: Cli, here: Path, project: str) -> None:
    archived(here, outcomes(blind=0.6))
    ran = cli("slices", "late", "--project", project)
    assert ran.exit_code == 0, ran.output
    first, heads, line = (each.split("  ") for each in ran.stdout.splitlines())
    assert first[1].startswith("1 slice found, worse than the rest on")
    assert [word.strip() for word in heads if word] == ["where", "rows", "share", "loss", "rest", "excess", "expected"]
    assert line[1] == "Order.amount > 29", "in words"
    assert "2,000 labelled answers of late, mean log loss" in ran.stderr
    whole = cli.json("slices", "late", "--project", project)
    (found,) = whole["slices"]
    assert (whole["rows"], whole["loss_is"], whole["surprising"]) == (ROWS, "log_loss", False)
    assert found["conditions"] == [{"input": "Order.amount", "above": 29.0}]
    assert found["loss"] == pytest.approx(0.6 * -np.log(0.1) + 0.4 * -np.log(0.9), abs=0.2)
    assert cli.json("slices", "late", "--surprising", "--project", project)["slices"][0]["where"] == "Order.amount > 29"

    midday = from_micros(shop.START + 500 * 60_000_000).isoformat()
    halves = [cli.json("slices", "late", "--project", project, word, midday)["rows"] for word in ("--from", "--until")]
    assert halves == [ROWS - 500, 500]
    none = cli.json("slices", "late", "--project", project, "--from", midday, "--until", midday)
    assert none["slices"] == [] and none["why"] == "no slice can be looked for: 0 answers have a label; 200 are needed"


def test_that_there_is_none_is_a_result(cli: Cli, here: Path, project: str) -> None:
    archived(here, outcomes(blind=0.1))
    ran = cli("slices", "late", "--project", project)
    assert ran.exit_code == 0 and ran.stdout.startswith("  no slice found: none of ")


def test_what_cannot_be_shown_is_said(cli: Cli, here: Path, project: str) -> None:
    wrong = cli("slices", "lste", "--project", project)
    assert wrong.exit_code == 1 and wrong.stderr == "shop has no model lste\n-> did you mean late?\n"
    odd = cli("slices", "late", "--project", project, "--from", "yesterday")
    assert odd.exit_code == 1 and odd.stderr.startswith("--from 'yesterday' is no moment\n-> write 2013-02-01")
    early = cli("slices", "late", "--project", project)
    assert early.exit_code == 1 and early.stderr.startswith("there is no table shop.outcomes.late in")
