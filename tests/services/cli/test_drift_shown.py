"""`penstock drift show [MODEL]`: how far what models are asked has moved, in the newest window that was compared."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from tests.services import shop

from penstock.log import Send
from penstock.log.memory import MemoryLog
from penstock.records import Latency, LevelStatistic, Moments, Population, Shift, Statistic
from penstock.topics import Topics

from .conftest import Cli

STEADY, MOVED = Shift(ks=0.05, psi=0.1, critical=0.08, n=900, floor=0.1), Shift(ks=0.3, psi=0.9, critical=0.08, n=900, floor=0.1)


def window(day: int, drift: dict[str, Shift]) -> Statistic:
    return Statistic(
        id=f"late/{day}", model="late", start=datetime(2026, 3, day, tzinfo=UTC), end=datetime(2026, 3, day + 1, tzinfo=UTC),
        quality={}, paired={}, log_loss={}, auc={}, prior=None, prior_loss=None, skill=None, drift=drift, counts={},
        reference="v1", missing={}, alarms=[],
        moments={"v1": {"b": Moments(n=900, mean=12.5, variance=4.0, least=1.0, greatest=20.0)}},
        latency={"champion": Latency(n=900, p50=0.002, p90=0.004, p99=1.5, counts={90: 900})},
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
    assert [line.split()[1] for line in ran.stdout.splitlines()] == ["watched", "b", "a"]
    assert [line.split()[-1] for line in ran.stdout.splitlines()[1:]] == ["drift", "900"]
    assert "late: 2026-03-02 00:00 to 2026-03-03 00:00, against v1" in ran.stderr
    assert "late, champion: 900 answers, half within 2 ms, 99 % within 1.5 s" in ran.stderr
    assert "late: score, label not judged: the first week of v1 is their reference" in ran.stderr
    told = cli.json("drift", "show", "late", "--project", project)["late"]
    assert (told["drift"]["b"]["ks"], told["moments"]["b"]["mean"], told["latency"]["champion"]["p99"]) == (0.3, 12.5, 1.5)
    assert told["not_judged"] == ["score", "label"]


def test_a_window_of_the_past_is_shown_and_what_of_the_answers_has_moved(cli: Cli, project: str, log: MemoryLog) -> None:
    say(log, window(1, {"score": MOVED, "label": STEADY}), window(2, {"b": STEADY}))
    ran = cli("drift", "show", "--at", "2026-03-02T00:00Z", "--project", project)
    assert [line.split()[1] for line in ran.stdout.splitlines()] == ["watched", "score", "label"]
    assert "not judged" not in ran.stderr
    none = cli("drift", "show", "--at", "2026-03-01T00:00Z", "--project", project)
    assert "no window of late has been compared yet" in none.stderr and "over by 2026-03-01T00:00Z" in none.stderr
    wrong = cli("drift", "show", "--at", "noon", "--project", project)
    assert wrong.exit_code == 1 and wrong.stderr.startswith("--at ")


def test_what_cannot_be_shown_is_said(cli: Cli, project: str) -> None:
    none = cli("drift", "show", "--project", project)
    assert (none.exit_code, none.stdout) == (0, "") and "no window of late has been compared yet" in none.stderr
    wrong = cli("drift", "show", "lste", "--project", project)
    assert wrong.exit_code == 1 and wrong.stderr == "shop has no model lste\n-> did you mean late?\n"


def test_a_label_that_is_a_number_is_said_not_to_be_judged(cli: Cli, log: MemoryLog, tmp_path: Path) -> None:
    path = tmp_path / "shop.py"
    path.write_text(
        "import penstock as ps\nfrom tests.services.shop import Order, Paid\n"
        "@ps.event('took')\nclass Took:\n    order_id: ps.Key[str]\n    hours: float\n    at: ps.EventTime\n"
        "@ps.model(scores=Order, features=[Order.amount], label=ps.label(Took.hours, within='6h'), monitors=[ps.drift()])\n"
        "def late() -> ps.Learner:\n    raise NotImplementedError\n"
        "project = ps.Project('shop', [late])\n"
    )
    asyncio.run(log.create(Topics(shop.declared(None)).all()))
    say(log, window(1, {"b": MOVED}))
    ran = cli("drift", "show", "--project", str(path))
    assert ran.exit_code == 0, ran.output
    assert "late: score not judged: the first week of v1 is their reference" in ran.stderr
    assert "late: label not judged: it is a number, and drift is of a rate of yes and no" in ran.stderr


def apart(day: int) -> Statistic:
    """Two regions, of which one has moved; nothing is known of a third."""
    took, told = (
        Latency(n=5, p50=0.002, p90=0.003, p99=0.004, counts={80: 5}),
        Moments(n=450, mean=7.0, variance=1.0, least=1.0, greatest=9.0),
    )
    levels = {
        "north": LevelStatistic(
            drift={"Order.amount": MOVED}, moments={"v1": {"Order.amount": told}}, latency={"champion": took}
        ),
        "south": LevelStatistic(drift={"Order.amount": STEADY}),
        "west": LevelStatistic(missing={"Order.amount": "2 of at least 7 periods of its reference"}),
    }
    usual, moved = Population(stability=0.01, chance=0.02, n=900, m=9_000), Population(stability=0.2, chance=0.02, n=900, m=9_000)
    return msgspec.structs.replace(
        window(day, {"Order.amount": STEADY}), levels={"Order.region": levels}, population={"Order.region": usual},
        mix={"Order.region": moved},
    )  # fmt: skip


def test_what_has_moved_within_the_levels_of_a_segment_is_shown(cli: Cli, log: MemoryLog, tmp_path: Path) -> None:
    path = tmp_path / "shop.py"
    path.write_text("from tests.services.shop import *\nproject = declared(None, segments=(REGION, AGE))\n")
    asyncio.run(log.create(Topics(shop.declared(None)).all()))
    say(log, apart(1), apart(2), window(3, {"a": STEADY}))
    ran = cli("drift", "show", "--segment", "region", "--project", str(path))
    assert ran.exit_code == 0, ran.output
    assert [line.split()[0] for line in ran.stdout.splitlines()] == ["Order.region", "north", "south", "west"]
    assert ["drift" in line for line in ran.stdout.splitlines()] == [False, True, False, False]
    assert "not judged" in ran.stdout.splitlines()[-1]
    for said in (
        "late by Order.region: 2026-03-02 00:00 to 2026-03-03 00:00, against v1", "north, champion: 5 answers, half within 2 ms",
        "shares of the levels have moved against the training rows of v1: PSI 0.200, by chance 0.020",
        "shares of the levels have not moved against the weeks before: PSI 0.010, by chance 0.020",
        "not judged: 2 of at least 7 periods of its reference", "as there are too many levels for so many inputs: Order.weight",
    ):  # fmt: skip
        assert said in ran.stderr, said
    told = cli.json("drift", "show", "late", "--segment", "Order.region", "--project", str(path))["late"]
    assert told["levels"]["north"]["drift"]["Order.amount"]["psi"] == 0.9 and told["mix"]["stability"] == 0.2
    assert told["left_out"] == ["Order.weight"]
    none = cli("drift", "show", "--segment", "age", "--project", str(path))
    assert none.exit_code == 0 and "nothing of late is counted by Order.age yet" in none.stderr
    wrong = cli("drift", "show", "--segment", "regoin", "--project", str(path))
    assert wrong.exit_code == 1 and wrong.stderr == "late has no segment regoin\n-> it has: Order.region, Order.age\n"


def test_a_project_without_models_has_no_segment_either(cli: Cli, shop: Callable[[str], None]) -> None:
    shop("toys")
    ran = cli("drift", "show", "--segment", "origin", "--project", "shop.py")
    assert ran.exit_code == 1 and ran.stderr.startswith("no model has a segment origin\n-> declare one:")
