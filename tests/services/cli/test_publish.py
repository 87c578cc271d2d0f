"""publish: what fits is sent in order of time at the speed that was asked for, and the rest is told."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from penstock.cli import screen
from penstock.log import LogError, Topic
from penstock.log.memory import MemoryLog

if TYPE_CHECKING:
    from tests.services.cli.conftest import Cli

WEATHER = "origin,temp,observed_at\nEWR,1.5,2013-01-02T00:00:00Z\nJFK,,2013-01-01T00:00:00Z\nLGA,hot,2013-01-03T00:00:00Z\n"


def test_publish_sends_what_fits_in_order_of_time_and_tells_the_rest(cli: Cli, made: MemoryLog, here: Path) -> None:
    (here / "weather.csv.gz").write_bytes(gzip.compress(WEATHER.encode()))
    said = cli("publish", "Weather", "--file", "weather.csv.gz")
    assert said.exit_code == 1
    assert "2 events sent to weather" in said.stdout
    assert "1 row left out" in said.stdout
    assert "weather.csv.gz line 4: schema: column temp: 'hot' is no number" in said.stderr
    assert "sorted" in said.stderr
    summary = cli.json("publish", "weather", "--file", "weather.csv.gz", code=1)
    assert (summary["type"], summary["sent"], summary["refused"], summary["rows"]) == ("summary", 2, 1, 3)
    assert (summary["first"], summary["last"]) == ("2013-01-01T00:00:00Z", "2013-01-02T00:00:00Z")
    assert [each["row"] for each in summary["refusals"]] == [4]


def test_what_does_not_meet_an_expectation_is_sent_for_the_stream_to_refuse(
    cli: Cli, log: MemoryLog, here: Path, shop: Callable[[str], None]
) -> None:
    shop("till")
    with (here / "shop.py").open("a") as file:
        file.write('ps.expect(Payment.amount, between=(0, 100), otherwise="dead_letter")\n')
    (here / "p.csv").write_text("payment_id,card_id,amount,paid_at\np1,c,3,2026-01-01T12:00Z\np2,c,500,2026-01-01T12:01Z\n")
    assert cli("topics", "apply", "--project", "shop.py").exit_code == 0
    said = cli("publish", "till.payments", "--file", "p.csv", "--project", "shop.py", "--json")
    summary = json.loads(said.stdout)
    assert (said.exit_code, summary["sent"], summary["refused"], summary["unexpected"]) == (0, 2, 0, 1)
    assert "line 3: the stream refuses it: expectation: Payment.amount is 500.0" in said.stderr
    assert "go to till.payments.dlq so: 1" in said.stderr


def clocks(cli: Cli) -> list[dict[str, Any]]:
    return [each["value"] for each in cli.lines("topics", "tail", "flights.clock", "--from-beginning")]


def test_publish_closes_time_behind_each_part_for_its_own_topic_only(
    cli: Cli, made: MemoryLog, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.cli.publish.AT_ONCE", 2)
    times = [0, 60, 60, 120, 180]
    rows = [{"origin": "JFK", "observed_at": f"1970-01-01T00:{t // 60:02}:00Z"} for t in times]
    (here / "weather.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert cli("publish", "weather", "--file", "weather.jsonl").exit_code == 0
    found = clocks(cli)
    assert [(each["publisher"], each["before"]) for each in found] == [
        ("publish-weather", 60_000_000),  # a row of the same minute is still to come
        ("publish-weather", 180_000_000),
        ("publish-weather", 180_000_001),
    ]
    assert [sum(each["ends"]["weather"].values()) for each in found] == [2, 4, 5]
    assert all(set(each["ends"]) == {"weather"} for each in found)
    assert cli("publish", "weather", "--file", "weather.jsonl", "--final", "--skip", "4").exit_code == 0
    assert clocks(cli)[-1]["before"] == 1 << 60
    assert sum(asyncio.run(made.ends(["weather"])).values()) == 6


def test_publish_keeps_to_the_speed_it_was_given(cli: Cli, made: MemoryLog, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await real(0)

    rows = [{"origin": "JFK", "observed_at": f"2013-01-0{day}T00:00:00Z"} for day in (1, 2, 3)]
    (here / "weather.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(screen, "coloured", lambda stream: True)  # no line every two seconds
    assert cli("publish", "weather", "--file", "weather.jsonl", "--accelerate", "8640").exit_code == 0
    waits = [seconds for seconds in slept if seconds > 1]
    assert len(waits) == 2  # days apart, ten seconds each
    assert 9 < waits[0] <= 10
    assert 19 < waits[1] <= 20


def test_publish_of_nothing_that_fits_sends_nothing(cli: Cli, made: MemoryLog, here: Path) -> None:
    (here / "weather.jsonl").write_text("{}\n[]\n")
    said = cli("publish", "weather", "--file", "weather.jsonl")
    assert said.exit_code == 1
    assert "holds no event" in said.stderr
    assert sum(asyncio.run(made.ends(["weather", "flights.clock"])).values()) == 0


def test_publish_tells_what_was_sent_when_the_broker_goes_and_how_to_go_on(
    cli: Cli, made: MemoryLog, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.cli.publish.AT_ONCE", 2)
    rows = [{"origin": "JFK", "observed_at": f"2013-01-0{day}T00:00:00Z"} for day in (1, 2, 3, 4, 5)]
    (here / "weather.jsonl").write_text("\n".join(map(json.dumps, rows)))
    real, calls = made.send, 0

    async def send(records: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 4:
            raise LogError("sending: Kafka at h:1 gave no answer within 30 s; look with: penstock doctor")
        return await real(records)

    monkeypatch.setattr(made, "send", send)
    said = cli("publish", "weather", "--file", "weather.jsonl")
    assert said.exit_code == 3
    assert "4 of 5 events were sent, then: sending: Kafka at h:1 gave no answer" in said.stderr
    assert "--skip 4" in said.stderr


def test_publish_before_the_topics_exist_says_how_to_make_them(cli: Cli, log: MemoryLog, here: Path) -> None:
    asyncio.run(log.create([Topic("something", 1)]))
    (here / "weather.csv").write_text(WEATHER)
    said = cli("publish", "weather", "--file", "weather.csv")
    assert said.exit_code == 1
    assert "topic weather does not exist" in said.stderr
    assert "-> penstock topics" in said.stderr


def folder(here: Path) -> Path:
    """A file per event of the flights; weather on the hour, the others a minute and more behind it."""
    from penstock.project import load

    found = here / "history"
    found.mkdir()
    rows: dict[str, list[dict[str, Any]]] = {event.topic: [] for event in load("penstock.examples.flights").events}
    for hour in range(3):
        rows["weather"].append({"origin": "JFK", "observed_at": f"2013-01-01T0{hour}:00:00Z"})
        departed = {"flight_id": f"F{hour}", "origin": "JFK", "delay": 1.0, "late": False}
        rows["departed"].append({**departed, "departed_at": f"2013-01-01T0{hour}:01:00Z"})
    for topic, lines in rows.items():
        (found / f"{topic}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return found


def test_publish_of_a_folder_merges_its_files_so_that_nothing_comes_after_its_time_was_closed(
    cli: Cli, made: MemoryLog, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.cli.publish.AT_ONCE", 1)
    summary = cli.json("publish", "--input", str(folder(here)))
    assert summary["events"] == {"scheduled": 0, "departed": 3, "weather": 3, "arrived": 0}
    assert (summary["sent"], summary["refused"]) == (6, 0)
    closed = clocks(cli)
    assert [sum(sum(ends.values()) for ends in each["ends"].values()) for each in closed] == [1, 2, 3, 4, 5, 6]
    assert all(set(each["ends"]) == set(summary["events"]) for each in closed)
    hour = 3_600_000_000
    assert [each["before"] % hour for each in closed] == [60_000_000, 0, 60_000_000, 0, 60_000_000, 60_000_001]


def test_publish_of_a_folder_goes_on_where_it_stopped(
    cli: Cli, made: MemoryLog, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.cli.publish.AT_ONCE", 2)
    history, real, calls = str(folder(here)), made.send, 0

    async def send(records: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:  # the first part is two kinds and the closed time; now the second kind of the second part
            raise LogError("sending: Kafka at h:1 gave no answer within 30 s; look with: penstock doctor")
        return await real(records)

    monkeypatch.setattr(made, "send", send)
    said = cli("publish", "--input", history)
    assert said.exit_code == 3
    assert "2 of 6 events were sent" in said.stderr  # a part of which some was sent is sent again, whole
    assert "the same command with --skip 2" in said.stderr
    assert cli.json("publish", "--input", history, "--skip", "2")["sent"] == 4
    assert sum(asyncio.run(made.ends(["departed"])).values()) == 3
    assert sum(asyncio.run(made.ends(["weather"])).values()) == 4  # that one, twice


def test_publish_of_a_folder_names_the_file_of_each_row_that_it_leaves_out_and_the_file_that_is_missing(
    cli: Cli, made: MemoryLog, here: Path
) -> None:
    history = folder(here)
    (history / "weather.jsonl").write_text('{"origin": "JFK"}\n')
    summary = cli.json("publish", "--input", str(history), code=1)
    assert [(each["file"], each["row"], each["reason"]) for each in summary["refusals"]] == [("weather.jsonl", 1, "schema")]
    (history / "arrived.jsonl").unlink()
    said = cli("publish", "--input", str(history))
    assert said.exit_code == 2
    assert "has no file for the event Arrived" in said.stderr
