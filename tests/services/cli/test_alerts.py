"""penstock alerts: silences and notices on the log, and test messages by real servers."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from tests.services.letterbox import Answer, Postman, mail_server, web_server

from penstock.event import to_micros
from penstock.log import Send
from penstock.log.memory import MemoryLog
from penstock.project import load
from penstock.publish import FOREVER
from penstock.records import Alarm, Clock, Notice
from penstock.topics import Topics

from .conftest import told

if TYPE_CHECKING:
    from tests.services.cli.conftest import Cli

TOPICS = Topics(load("penstock.examples.flights"), 4)
NOON = datetime(2013, 2, 8, 12, tzinfo=UTC)


def said(log: MemoryLog, *sends: Send) -> None:
    async def work() -> None:
        await log.create(TOPICS.all())
        await log.send(sends)

    asyncio.run(work())


def closed(at: int) -> list[Send]:
    found = [Clock(publisher=f"feature_store.{n}", before=at + n, ends={}) for n in range(4)]
    return [Send(TOPICS.clock, clock.publisher.encode(), msgspec.json.encode(clock)) for clock in found]


ALARM = Alarm(id="1", model="late", signal="drift", state="raised", at=NOON, evidence={})
NOTICE = Notice(id="1", subject="late", cause="drift", state="raised", alarms=[ALARM])


def test_a_silence_is_as_long_as_said_in_the_time_of_the_stream_shown_while_it_holds_and_taken_back(
    cli: Cli, log: MemoryLog
) -> None:
    said(log, *closed(to_micros(NOON)), Send(TOPICS.notices, b"late/drift", msgspec.json.encode(NOTICE)))
    made = cli.json("alerts", "silence", "late", "--for", "90m", "--reason", "storm")
    assert (made["since"], made["until"]) == ("2013-02-08T12:00:00Z", "2013-02-08T13:30:00Z")
    shown = cli.json("alerts", "list")
    assert [s["reason"] for s in shown["silences"]] == ["storm"] and [n["id"] for n in shown["notices"]] == ["1"]
    assert "silent  late  until 2013-02-08 13:30" in cli("alerts", "list").output
    cli("alerts", "silence", "late", "--end")
    assert cli.json("alerts", "list")["silences"] == []
    cli("alerts", "silence", "arrived", "--for", "1h", "--cause", "quality")
    said(log, *closed(to_micros(NOON + timedelta(hours=2))))
    assert cli.json("alerts", "list")["silences"] == []


def test_without_a_broker_the_tables_say_what_was_told_and_what_is_silent(
    cli: Cli, log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    notice = Send(TOPICS.notices, b"late/drift", msgspec.json.encode(NOTICE))
    said(log, *closed(FOREVER), Send(TOPICS.alarms, b"late", msgspec.json.encode(ALARM)), notice)
    cli("alerts", "silence", "late", "--for", "1h")
    cli("alerts", "silence", "arrived", "--for", "1h")
    cli("alerts", "silence", "arrived", "--end")
    live, kept = told(cli, log, TOPICS, "alerts list", monkeypatch)
    assert live == kept and "silent  late" in live[0] and "silent  arrived" not in live[0]


def test_of_a_stream_that_has_ended_the_newest_alarm_says_the_time(cli: Cli, log: MemoryLog) -> None:
    said(log, *closed(FOREVER), Send(TOPICS.alarms, b"late", msgspec.json.encode(ALARM)))
    assert cli.json("alerts", "silence", "late", "--for", "1h")["since"] == "2013-02-08T12:00:00Z"


def test_who_asks_for_a_silence_of_nothing_known_is_told_the_nearest(cli: Cli, log: MemoryLog) -> None:
    said(log)
    found = cli("alerts", "silence", "lat")
    assert found.exit_code == 1 and "has no model or event lat" in found.output and "late" in found.output


def test_a_test_message_goes_by_every_route_and_each_says_what_happened(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    postman = Postman()
    with web_server() as hook, web_server([Answer(404, body=b"no_service")]) as slack, mail_server(postman) as port:
        monkeypatch.setenv("PENSTOCK_ALERT_WEBHOOK", hook.url)
        monkeypatch.setenv("PENSTOCK_ALERT_SLACK", slack.url)
        monkeypatch.setenv("PENSTOCK_ALERT_SMTP", f"smtp+plain://127.0.0.1:{port}")
        monkeypatch.setenv("PENSTOCK_ALERT_FROM", "penstock@example.org")
        monkeypatch.setenv("PENSTOCK_ALERT_TO", "ada@example.org")
        found = cli("alerts", "test")
    ends = [line.split()[:2] for line in found.stdout.splitlines()]
    assert ends == [["webhook", "ok"], ["slack", "FAILED"], ["email", "ok"]]
    assert found.exit_code == 1 and "404: no_service" in found.stdout
    assert (len(hook.posts), len(postman.letters)) == (1, 1)
    assert "secret" not in found.output


def test_without_a_route_it_says_how_to_set_one(cli: Cli) -> None:
    found = cli("alerts", "test")
    assert found.exit_code == 2 and "PENSTOCK_ALERT_SLACK" in found.output


def test_what_is_secret_of_a_route_is_not_shown(cli: Cli, monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    monkeypatch.setenv("PENSTOCK_ALERT_SLACK", "https://hooks.slack.com/services/T0/B0/hunter2")
    monkeypatch.setenv("PENSTOCK_ALERT_WEBHOOK", "https://ada:hunter2@example.org/hunter2?token=hunter2")
    monkeypatch.setenv("PENSTOCK_ALERT_WEBHOOK_KEY", "whsec_hunter2")
    monkeypatch.setenv("PENSTOCK_ALERT_SMTP", "smtps://ada:hunter2@mail.example.org")
    for words in (("config", "show"), ("config", "show", "--json")):
        shown = cli(*words).output
        assert "hunter2" not in shown and "https://hooks.slack.com/***" in shown and "mail.example.org" in shown
