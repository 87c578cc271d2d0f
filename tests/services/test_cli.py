"""The command line: what people see, what programs get, and the exit codes."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from penstock import local
from penstock.cli import app, broker, options, processes, screen, supervising
from penstock.cli.config import mermaid, picture
from penstock.deadletter import dead_letter
from penstock.errors import PenstockError, Refused, Unreachable
from penstock.lane import stamped
from penstock.local import kafka, port
from penstock.local.process import group
from penstock.log import Log, LogError, Partition, Send, Topic
from penstock.log.memory import MemoryLog
from penstock.project import load
from penstock.settings import SERVICES
from penstock.settings import load as load_settings
from penstock.topics import Topics

FLIGHTS = "penstock.examples.flights"


@pytest.fixture(autouse=True)
def somewhere_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test in a folder of its own, with no settings from outside."""
    for name in list(os.environ):
        if name.startswith("PENSTOCK_") or name in ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "NO_COLOR"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def in_json(*words: str, code: int = 0) -> Any:
    said = run(*words, "--json")
    assert said.exit_code == code, said.output
    return json.loads(said.stdout)


def commands() -> dict[str, Any]:
    """Every command by the words that call it."""
    found: dict[str, Any] = {}

    def walk(command: Any, words: tuple[str, ...]) -> None:
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner, (*words, name))
        if words and not hasattr(command, "commands"):
            found[" ".join(words)] = command

    walk(typer.main.get_command(app), ())
    return found


# -- the whole of it ---------------------------------------------------------------------------------------------------


def test_help_imports_nothing_heavy_and_so_answers_at_once() -> None:
    program = """
import sys
sys.argv = ["penstock", "--help"]
from penstock.cli import main
try:
    main()
finally:
    heavy = {"pydantic", "pydantic_settings", "numpy", "aiokafka", "fastapi", "redis", "numba", "pandas", "structlog", "river"}
    sys.stderr.write(" ".join(sorted(heavy & set(sys.modules))))
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 0
    assert "simulate" in said.stdout
    assert said.stderr == ""


def test_every_command_can_speak_json_and_explains_itself() -> None:
    for words, command in commands().items():
        assert any("--json" in option.opts for option in command.params), words
        assert command.help, words
        assert len(command.get_short_help_str(200)) <= 60, words  # whole on a terminal of 80 columns


def test_the_commands_are_those_that_the_readme_promises() -> None:
    assert set(commands()) >= {
        *("demo", "simulate", "up", "down", "status", "logs", "run", "doctor", "check", "topology", "publish", "version"),
        *("topics plan", "topics apply", "topics list", "topics tail", "dlq list", "dlq show", "dlq replay"),
        *("schemas export", "schemas check", "config show"),
    }


def test_the_services_are_those_of_the_settings() -> None:
    assert tuple(options.Service) == SERVICES


@pytest.mark.parametrize(
    ("words", "what", "fix"),
    [
        (["frobnicate"], "No such command 'frobnicate'.", "penstock --help"),
        (["topic", "list"], "Did you mean 'topics'?", "penstock --help"),
        (["run", "trainr"], "'trainr' is not one of", "penstock run --help"),
        (["publish", "scheduled"], "Missing option '--file'", "penstock publish --help"),
        (["publish", "scheduld", "--file", "x.csv"], "project flights has no event scheduld", "did you mean scheduled?"),
        (["publish", "scheduled", "--file", "x.csv"], "no such file: x.csv", "give the path"),
        (["publish", "scheduled", "--file", "x.csv", "--rate", "1", "--accelerate", "1"], "exclude each other", "give one"),
        (["--project", "nothing.py", "check"], "no such file: nothing.py", "project = ps.Project"),
        (["check", "--project", "penstock.nothing"], "penstock.nothing", "importable module"),
    ],
)
def test_wrong_use_is_one_line_what_and_one_line_what_to_type(words: list[str], what: str, fix: str) -> None:
    said = CliRunner().invoke(app, words, prog_name="penstock")
    first, second = said.stderr.strip().split("\n")
    assert what in first
    assert second.startswith("-> ")
    assert fix in second
    assert said.exit_code == 2
    assert said.stdout == ""


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("import penstock as ps\n\nproject = 1 / 0\n", "fraud.py, line 3: ZeroDivisionError: division by zero"),
        ("x = (\n", "fraud.py, line 1: SyntaxError"),
        ("x = 1\n", "has no `project`"),
    ],
)
def test_a_wrong_project_file_is_named_with_its_line(somewhere_empty: Path, text: str, what: str) -> None:
    (somewhere_empty / "fraud.py").write_text(text)
    said = run("check", "--project", "fraud.py")
    assert said.exit_code == 2
    assert what in said.stderr
    assert "Traceback" not in said.stderr


def test_debug_shows_where_an_error_comes_from(somewhere_empty: Path) -> None:
    (somewhere_empty / "fraud.py").write_text("project = 1 / 0\n")
    said = run("--debug", "check", "--project", "fraud.py")
    assert said.exit_code == 1
    assert said.exception is not None
    assert said.exception.__cause__.__class__ is ZeroDivisionError


def test_all_wrong_settings_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_PARTITIONS", "many")
    monkeypatch.setenv("PENSTOCK_LOG_LEVEL", "loud")
    said = run("topics", "list")
    assert said.exit_code == 2
    assert "many" in said.stderr
    assert "loud" in said.stderr
    assert "-> " in said.stderr


def test_without_a_broker_a_command_says_how_to_get_one() -> None:
    said = run("topics", "list")
    assert said.exit_code == 3
    assert said.stderr.startswith("no broker: KAFKA_BOOTSTRAP_SERVERS is not set")
    assert "-> penstock up" in said.stderr


def test_a_broker_that_does_not_answer_is_told_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", f"127.0.0.1:{port.free()}")
    began = time.monotonic()
    said = run("topics", "plan")
    assert time.monotonic() - began < 5
    assert said.exit_code == 3
    assert "nothing listens there" in said.stderr
    assert "-> penstock doctor" in said.stderr


def test_colours_need_a_terminal_and_no_objection(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    terminal: Any = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    assert screen.coloured(terminal)
    assert screen.paint("no", "red", terminal) == "\x1b[31mno\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert screen.paint("no", "red", terminal) == "no"
    assert "\x1b" not in run("doctor").output


def test_whoever_waits_longer_than_two_seconds_is_told_for_what(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(screen, "SILENCE", 0.01)

    async def slow() -> int:
        while "the broker" not in "".join(told):
            told.append(capsys.readouterr().err)
            await asyncio.sleep(0.001)
        return 7

    told: list[str] = []

    async def turn() -> int:
        return await asyncio.wait_for(screen.patiently(slow(), "the broker"), 10)

    assert asyncio.run(turn()) == 7


@pytest.mark.parametrize(
    ("words", "kind", "what", "fix"),
    [
        (
            "topic x does not exist; create it with: penstock topics apply",
            PenstockError,
            "topic x does not exist",
            "penstock topics apply",
        ),
        (
            "listing: Kafka at h:1 says no; look with: penstock doctor",
            Unreachable,
            "listing: Kafka at h:1 says no",
            "penstock doctor",
        ),
        ("odd", PenstockError, "odd", "penstock doctor"),
    ],
)
def test_what_the_log_says_becomes_what_and_what_to_type(words: str, kind: type[PenstockError], what: str, fix: str) -> None:
    found = broker.refusal(LogError(words))
    assert (type(found), str(found), found.fix) == (kind, what, fix)


# -- config, version, check, topology ----------------------------------------------------------------------------------


def settings_shown() -> dict[str, dict[str, Any]]:
    return {each["variable"]: each for each in in_json("config", "show")["settings"]}


def test_config_says_where_each_value_came_from(somewhere_empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_PARTITIONS", "8")
    (somewhere_empty / ".env").write_text("PENSTOCK_PARTITIONS=2\nPENSTOCK_LOG_LEVEL=debug\n")
    found = settings_shown()
    assert (found["PENSTOCK_PARTITIONS"]["value"], found["PENSTOCK_PARTITIONS"]["source"]) == (8, "environment")
    assert (found["PENSTOCK_LOG_LEVEL"]["value"], found["PENSTOCK_LOG_LEVEL"]["source"]) == ("debug", ".env")
    assert found["PENSTOCK_IDLE_AFTER"]["source"] == "default"
    assert load_settings().partitions == 8


def test_passwords_are_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://ada:lovelace@cache:6379/0")
    for words in (["config", "show"], ["config", "show", "--json"], ["config", "show", "--markdown"], ["status"]):
        assert "lovelace" not in run(*words).output
    assert settings_shown()["REDIS_URL"]["value"] == "redis://***@cache:6379/0"


def test_a_wrong_setting_is_shown_beside_the_right_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_PARTITIONS", "many")
    said = run("config", "show")
    assert said.exit_code == 2
    (line,) = [line for line in said.stdout.split("\n") if "PENSTOCK_PARTITIONS" in line]
    assert "many" in line
    assert "WRONG" in line
    assert "PENSTOCK_LOG_LEVEL" in said.stdout


def test_the_table_for_the_readme_has_every_setting_with_its_meaning() -> None:
    lines = run("config", "show", "--markdown").stdout.strip().split("\n")
    assert lines[:2] == ["| variable | default | meaning |", "| --- | --- | --- |"]
    assert len(lines) == 2 + len(settings_shown())
    assert all(len(line.split("|")[3].strip()) > 10 for line in lines[2:])


def test_the_version_is_the_installed_one() -> None:
    from importlib.metadata import version

    assert in_json("version")["penstock"] == version("penstock")
    assert run("--version").stdout.startswith(f"penstock {version('penstock')}")


def test_check_shows_what_a_project_declares() -> None:
    found = in_json("check", "--project", FLIGHTS)
    assert found["project"] == "flights"
    assert found["fingerprint"] == load(FLIGHTS).fingerprint
    assert found["problems"] == []
    assert "ok" in run("check").stdout


DERIVED = """
import math
import numpy as np
import penstock as ps

@ps.event("payments")
class Payment:
    payment_id: ps.Id[str]
    card_id: ps.Key[str]
    amount: float
    paid_at: ps.EventTime

@ps.features(by=Payment.card_id)
class Card:
    payments_1h = ps.count(Payment, over="1h")
    usual = ps.mean(Payment.amount, over="30d")

    @ps.derived
    def surge(self, now: Payment) -> float:
        return {body}

project = ps.Project("payments", rows={{Payment: [Card]}})
"""


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("now.amount / (self.usual + 1.0)", ""),
        ("now.amount / self.usual", ""),
        ("np.where(self.usual > 0, now.amount, 0.0)", ""),
        ("np.log1p(now.amount)", ""),
        ("now.amount if self.usual > 0 else 0.0", "Card.surge fails on arrays"),
        ("math.sqrt(now.amount)", "Card.surge fails on arrays"),
        ("now.amount - np.mean(self.usual)", "Card.surge is"),
        ("now.amount[0]", "Card.surge fails on one row"),
    ],
)
def test_a_derived_feature_must_mean_the_same_for_one_row_and_for_many(somewhere_empty: Path, body: str, said: str) -> None:
    (somewhere_empty / "fraud.py").write_text(DERIVED.format(body=body))
    found = run("check", "--project", "fraud.py")
    assert found.exit_code == (2 if said else 0), found.output
    assert said in found.stderr


def test_the_picture_has_every_topic_and_every_service() -> None:
    topics = Topics(load(FLIGHTS), 4)
    text, drawn = "\n".join(picture(topics)), "\n".join(mermaid(topics))
    for contract in topics.contracts():
        if contract.writes != ("any",):
            assert contract.topic.name in text
            assert contract.topic.name in drawn
    assert drawn.startswith("flowchart LR\n")
    assert all(name in drawn for name in ("feature_store", "inference", "monitoring", "trainer", "registry"))
    assert run("topology", "--mermaid").stdout.strip() == drawn


# -- topics, dead letters, publish, on the log in memory ---------------------------------------------------------------


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> MemoryLog:
    """The topics of the flights in memory; commands find this log instead of a broker."""
    kept = MemoryLog()

    @asynccontextmanager
    async def connected(settings: Any) -> AsyncIterator[Log]:
        yield kept

    monkeypatch.setattr(broker, "connected", connected)
    return kept


@pytest.fixture
def made(log: MemoryLog) -> MemoryLog:
    assert run("topics", "apply").exit_code == 0
    return log


def test_plan_says_what_apply_does_and_apply_twice_does_nothing_twice(log: MemoryLog) -> None:
    planned = in_json("topics", "plan")["topics"]
    assert {each["action"] for each in planned} == {"create"}
    done = in_json("topics", "apply")
    assert done == {"made": [each["topic"] for each in planned], "kept": 0}
    assert {each["action"] for each in in_json("topics", "plan")["topics"]} == {"keep"}
    assert in_json("topics", "apply") == {"made": [], "kept": len(planned)}
    assert asyncio.run(log.describe()) == {each["topic"]: each["partitions"] for each in planned}


def test_another_number_of_partitions_is_a_conflict_that_names_the_setting(
    made: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_PARTITIONS", "3")
    said = run("topics", "plan")
    assert said.exit_code == 1
    assert "scheduled has 4 partitions, 3 are declared" in said.stderr
    assert "PENSTOCK_PARTITIONS=4" in said.stderr
    assert run("topics", "apply").exit_code == 1


def test_list_counts_what_each_topic_holds(made: MemoryLog) -> None:
    asyncio.run(made.send([Send("weather", b"JFK", b"{}"), Send("weather", b"EWR", b"{}")]))
    found = {each["topic"]: each["records"] for each in in_json("topics", "list")["topics"]}
    assert found["weather"] == 2
    assert found["scheduled"] == 0
    assert "weather" in run("topics", "list").stdout


def test_list_tells_what_is_missing(log: MemoryLog) -> None:
    said = run("topics", "list")
    assert said.exit_code == 0
    assert "missing" in said.stdout
    assert "-> penstock topics apply" in said.stderr


def test_tail_prints_the_newest_records_and_stops_when_told(made: MemoryLog) -> None:
    asyncio.run(made.send([Send("flights.alarms", b"late", b'{"n": %d}' % n) for n in range(20)]))
    lines = run("topics", "tail", "flights.alarms", "--no-follow").stdout.strip().split("\n")
    assert len(lines) == 10
    assert lines[-1] == '0/19  late  {"n": 19}'
    assert len(run("topics", "tail", "flights.alarms", "--from-beginning", "--max", "3").stdout.strip().split("\n")) == 3


def test_tail_gives_programs_the_value_as_json_and_bytes_in_base64(made: MemoryLog) -> None:
    asyncio.run(
        made.send([Send("flights.alarms", b"late", b'{"n": 1}', (("ce_id", b"7"),)), Send("flights.alarms", None, b"\xff\x00")])
    )
    first, second = map(json.loads, run("topics", "tail", "flights.alarms", "--no-follow", "--json").stdout.strip().split("\n"))
    assert (first["key"], first["value"], first["headers"], first["offset"]) == ("late", {"n": 1}, {"ce_id": "7"}, 0)
    assert second["value"] == {"base64": "/wA="}


def test_a_misspelt_topic_is_answered_with_the_nearest(made: MemoryLog) -> None:
    said = run("topics", "tail", "flights.row.scheduled")
    assert said.exit_code == 1
    assert "did you mean flights.rows.scheduled?" in said.stderr


def letters(log: MemoryLog) -> list[Send]:
    """Two kinds of dead letters as the feature store writes them."""
    original = (("ce_id", b"F1"), ("traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"))
    sends = [
        dead_letter(
            "weather.dlq", Partition("weather", 2), 5, b"JFK", b"{oops", original, Refused("decode", "no JSON"), "feature_store"
        ),
        dead_letter("weather.dlq", Partition("weather", 1), 9, None, None, (), Refused("schema", "a tombstone"), "feature_store"),
    ]
    asyncio.run(log.send(stamped("feature_store.2", 3, sends)))
    return sends


def test_dead_letters_are_counted_and_shown_with_their_cause(made: MemoryLog) -> None:
    assert "no dead letters" in run("dlq", "list").stdout
    letters(made)
    assert in_json("dlq", "list") == {"topics": [{"topic": "weather.dlq", "records": 2, "reasons": {"decode": 1, "schema": 1}}]}
    shown = run("dlq", "show", "weather", "--reason", "decode").stdout
    assert "decode  no JSON" in shown
    assert "weather/2 at 5, refused by feature_store" in shown
    assert "JFK  {oops" in shown
    assert "tombstone" not in shown


def test_replay_sends_the_original_record_without_the_cause_and_without_the_number_of_its_writer(made: MemoryLog) -> None:
    letters(made)
    assert in_json("dlq", "replay", "weather", "--dry-run")["sent"] == 2
    assert asyncio.run(made.ends(["weather"])) == {Partition("weather", n): 0 for n in range(4)}
    assert in_json("dlq", "replay", "weather.dlq") == {"sent": 2, "topics": {"weather": 2}, "dry_run": False}
    found = [json.loads(line) for line in run("topics", "tail", "weather", "--no-follow", "--json").stdout.strip().split("\n")]
    by_key = {each["key"]: each for each in found}
    assert by_key["JFK"]["value"] == "{oops"
    assert set(by_key["JFK"]["headers"]) == {"ce_id", "traceparent"}
    assert (by_key[None]["value"], by_key[None]["partition"], by_key[None]["headers"]) == (None, 1, {})


def test_replay_can_be_limited_to_one_reason(made: MemoryLog) -> None:
    letters(made)
    assert in_json("dlq", "replay", "weather", "--reason", "schema")["sent"] == 1
    assert "nothing sent" in run("dlq", "replay", "weather", "--reason", "future").stdout


WEATHER = "origin,temp,observed_at\nEWR,1.5,2013-01-02T00:00:00Z\nJFK,,2013-01-01T00:00:00Z\nLGA,hot,2013-01-03T00:00:00Z\n"


def test_publish_sends_what_fits_in_order_of_time_and_tells_the_rest(made: MemoryLog, somewhere_empty: Path) -> None:
    (somewhere_empty / "weather.csv.gz").write_bytes(gzip.compress(WEATHER.encode()))
    said = run("publish", "Weather", "--file", "weather.csv.gz")
    assert said.exit_code == 1
    assert "2 events sent to weather" in said.stdout
    assert "1 row left out" in said.stdout
    assert "weather.csv.gz line 4: schema: column temp: 'hot' is no number" in said.stderr
    assert "sorted" in said.stderr
    summary = in_json("publish", "weather", "--file", "weather.csv.gz", code=1)
    assert (summary["type"], summary["sent"], summary["refused"], summary["rows"]) == ("summary", 2, 1, 3)
    assert (summary["first"], summary["last"]) == ("2013-01-01T00:00:00Z", "2013-01-02T00:00:00Z")
    assert [each["row"] for each in summary["refusals"]] == [4]


def clocks(*words: str) -> list[dict[str, Any]]:
    said = run("topics", "tail", "flights.clock", "--no-follow", "--from-beginning", "--json")
    return [json.loads(line)["value"] for line in said.stdout.strip().split("\n")]


def test_publish_closes_time_behind_each_part_for_its_own_topic_only(
    made: MemoryLog, somewhere_empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penstock.cli import publish

    monkeypatch.setattr(publish, "AT_ONCE", 2)
    times = [0, 60, 60, 120, 180]
    rows = [{"origin": "JFK", "observed_at": f"1970-01-01T00:{t // 60:02}:00Z"} for t in times]
    (somewhere_empty / "weather.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert run("publish", "weather", "--file", "weather.jsonl").exit_code == 0
    found = clocks()
    assert [(each["publisher"], each["before"]) for each in found] == [
        ("publish-weather", 60_000_000),  # a row of the same minute is still to come
        ("publish-weather", 180_000_000),
        ("publish-weather", 180_000_001),
    ]
    assert [sum(each["ends"]["weather"].values()) for each in found] == [2, 4, 5]
    assert all(set(each["ends"]) == {"weather"} for each in found)
    assert run("publish", "weather", "--file", "weather.jsonl", "--final", "--skip", "4").exit_code == 0
    assert clocks()[-1]["before"] == 1 << 60
    assert sum(asyncio.run(made.ends(["weather"])).values()) == 6


def test_publish_keeps_to_the_speed_it_was_given(made: MemoryLog, somewhere_empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await real(0)

    rows = [{"origin": "JFK", "observed_at": f"2013-01-0{day}T00:00:00Z"} for day in (1, 2, 3)]
    (somewhere_empty / "weather.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(screen, "coloured", lambda stream: True)  # no line every two seconds
    assert run("publish", "weather", "--file", "weather.jsonl", "--accelerate", "8640").exit_code == 0
    waits = [seconds for seconds in slept if seconds > 1]
    assert len(waits) == 2  # days apart, ten seconds each
    assert 9 < waits[0] <= 10
    assert 19 < waits[1] <= 20


def test_publish_of_nothing_that_fits_sends_nothing(made: MemoryLog, somewhere_empty: Path) -> None:
    (somewhere_empty / "weather.jsonl").write_text("{}\n[]\n")
    said = run("publish", "weather", "--file", "weather.jsonl")
    assert said.exit_code == 1
    assert "holds no event" in said.stderr
    assert sum(asyncio.run(made.ends(["weather", "flights.clock"])).values()) == 0


def test_publish_tells_what_was_sent_when_the_broker_goes_and_how_to_go_on(
    made: MemoryLog, somewhere_empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penstock.cli import publish

    monkeypatch.setattr(publish, "AT_ONCE", 2)
    rows = [{"origin": "JFK", "observed_at": f"2013-01-0{day}T00:00:00Z"} for day in (1, 2, 3, 4, 5)]
    (somewhere_empty / "weather.jsonl").write_text("\n".join(map(json.dumps, rows)))
    real, calls = made.send, 0

    async def send(records: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 4:
            raise LogError("sending: Kafka at h:1 gave no answer within 30 s; look with: penstock doctor")
        return await real(records)

    monkeypatch.setattr(made, "send", send)
    said = run("publish", "weather", "--file", "weather.jsonl")
    assert said.exit_code == 3
    assert "4 of 5 events were sent, then: sending: Kafka at h:1 gave no answer" in said.stderr
    assert "--skip 4" in said.stderr


def test_publish_before_the_topics_exist_says_how_to_make_them(log: MemoryLog, somewhere_empty: Path) -> None:
    asyncio.run(log.create([Topic("something", 1)]))
    (somewhere_empty / "weather.csv").write_text(WEATHER)
    said = run("publish", "weather", "--file", "weather.csv")
    assert said.exit_code == 1
    assert "topic weather does not exist" in said.stderr
    assert "-> penstock topics" in said.stderr


def test_on_a_real_broker_what_is_published_can_be_listed_read_and_replayed(
    kafka_bootstrap: str, somewhere_empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"cli{os.getpid()}"
    (somewhere_empty / "shop.py").write_text(
        DERIVED.format(body="now.amount")
        .replace('"payments"', f'"{name}.events"', 1)
        .replace('Project("payments"', f'Project("{name}x"')
    )
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka_bootstrap)
    monkeypatch.setenv("PENSTOCK_PROJECT", "shop.py")
    monkeypatch.setenv("PENSTOCK_TRACE_SAMPLE", "1")
    assert in_json("topics", "plan")["topics"][0] == {
        "action": "create",
        "topic": f"{name}.events",
        "partitions": 4,
        "there": None,
        "compacted": False,
    }
    assert in_json("topics", "apply")["kept"] == 0
    row = {"payment_id": "p1", "card_id": "c1", "amount": 3, "paid_at": "2013-01-01T00:00:00Z"}
    (somewhere_empty / "p.jsonl").write_text(json.dumps(row) + "\n" + json.dumps({**row, "payment_id": "p2"}))
    assert in_json("publish", "Payment", "--file", "p.jsonl")["sent"] == 2
    listed = {each["topic"]: each["records"] for each in in_json("topics", "list")["topics"]}
    assert (listed[f"{name}.events"], listed[f"{name}x.clock"]) == (2, 1)
    said = run("topics", "tail", f"{name}.events", "--max", "2", "--json")
    found = [json.loads(line) for line in said.stdout.strip().split("\n")]
    assert [each["value"]["payment_id"] for each in found] == ["p1", "p2"]
    assert found[0]["headers"]["traceparent"].startswith("00-")

    async def refuse() -> None:
        from penstock.log.kafka import KafkaLog

        log = KafkaLog(kafka_bootstrap)
        source = Partition(f"{name}.events", 0)
        await log.send(
            [dead_letter(f"{name}.events.dlq", source, 7, b"c1", b"{oops", (), Refused("decode", "no JSON"), "feature_store")]
        )
        await log.close()

    asyncio.run(refuse())
    assert in_json("dlq", "list")["topics"][0]["reasons"] == {"decode": 1}
    assert in_json("dlq", "replay", f"{name}.events")["sent"] == 1
    assert {each["topic"]: each["records"] for each in in_json("topics", "list")["topics"]}[f"{name}.events"] == 3
    missing = run("topics", "tail", f"{name}.evnts")
    assert missing.exit_code == 1
    assert f"did you mean {name}.events?" in missing.stderr


# -- processes ---------------------------------------------------------------------------------------------------------

FAKE = """
import sys, http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()
    def log_message(self, *words):
        pass
print("serving", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_each_service_is_told_where_everything_is_and_asked_on_its_own_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_HTTP_PORT", "8080")  # as in a container; here it would be one port for all
    settings = load_settings()
    found = supervising.processes(settings, SERVICES, "127.0.0.1:9092", "redis://127.0.0.1:6379/0")
    assert [process.name for process in found] == list(SERVICES)
    assert len({process.url for process in found}) == len(SERVICES)
    for process in found:
        assert process.argv[1:] == ["-m", "penstock.services", process.name]
        assert process.env["KAFKA_BOOTSTRAP_SERVERS"] == "127.0.0.1:9092"
        assert process.env["REDIS_URL"] == "redis://127.0.0.1:6379/0"
        assert process.env["PENSTOCK_HTTP_PORT"] == "0"
        assert Path(process.env["PENSTOCK_DATA"]).is_absolute()


def test_a_taken_port_is_told_before_anything_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("PENSTOCK_TRAINER_PORT", str(taken.getsockname()[1]))
        said = run("up", "--only", "trainer")
    assert said.exit_code == 3
    assert f"{taken.getsockname()[1] if taken.fileno() >= 0 else ''}" in said.stderr
    assert "for trainer" in said.stderr
    assert "PENSTOCK_TRAINER_PORT" in said.stderr
    assert not Path(".penstock").exists()


def test_up_without_java_or_redis_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervising, "_refuse_taken_ports", lambda settings, names: None)
    monkeypatch.setattr(kafka, "available", lambda: "no Java 17 -> apt-get install java")
    said = run("up")
    assert said.exit_code == 3
    assert said.stderr.strip().split("\n") == ["no Java 17", "-> apt-get install java"]


def test_status_down_and_logs_of_nothing_are_calm() -> None:
    said = run("status")
    assert said.exit_code == 1
    assert "nothing runs here" in said.stdout
    assert "-> penstock up" in said.stderr
    assert in_json("status", code=1)["processes"] == []
    assert in_json("down") == {"ended": [], "wiped": []}
    assert "one of: feature_store" in run("logs", "nobody").stderr
    assert "has written nothing here yet" in run("logs", "trainer").stderr


def test_logs_shows_the_newest_lines(somewhere_empty: Path) -> None:
    folder = somewhere_empty / ".penstock" / "logs"
    folder.mkdir(parents=True)
    (folder / "trainer.log").write_text("".join(f"line {n}\n" for n in range(100)))
    assert run("logs", "trainer", "-n", "2").stdout == "line 98\nline 99\n"
    assert json.loads(run("logs", "trainer", "-n", "1", "--json").stdout) == {"service": "trainer", "line": "line 99"}


def test_wipe_removes_the_data_folder(somewhere_empty: Path) -> None:
    (somewhere_empty / ".penstock" / "models").mkdir(parents=True)
    assert in_json("down", "--wipe")["wiped"] == [str(somewhere_empty / ".penstock")]
    assert not (somewhere_empty / ".penstock").exists()
    assert "nothing of Penstock's" in run("down", "--wipe").stdout


def test_wipe_of_a_folder_with_another_name_leaves_what_is_not_penstock_s(
    somewhere_empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_DATA", "data")
    (somewhere_empty / "data" / "models").mkdir(parents=True)
    (somewhere_empty / "data" / "thesis.pdf").touch()
    assert in_json("down", "--wipe")["wiped"] == [str(somewhere_empty / "data" / "models")]
    assert [path.name for path in (somewhere_empty / "data").iterdir()] == ["thesis.pdf"]


@pytest.mark.parametrize("folder", [".", "..", "x/..", "~", "/"])
def test_wipe_refuses_a_folder_that_holds_more(somewhere_empty: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    monkeypatch.setenv("HOME", str(somewhere_empty.parent))
    with pytest.raises(PenstockError, match="nothing was removed"):  # asked, never tried: a mistake here would be costly
        processes.wiped(Path(folder).expanduser().resolve())


def test_run_gives_the_service_to_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import ModuleType

    ran: list[tuple[str, str]] = []
    machine: Any = ModuleType("penstock.services.__main__")
    machine.run = lambda service: ran.append((service, os.environ["PENSTOCK_PROJECT"]))
    monkeypatch.setitem(sys.modules, "penstock.services.__main__", machine)
    monkeypatch.setenv("PENSTOCK_PROJECT", "other")
    assert run("run", "trainer", "--project", "fraud.py").exit_code == 0
    assert ran == [("trainer", "fraud.py")]


def test_doctor_says_everything_and_its_exit_code_says_what_kind_of_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    found = in_json("doctor", code=run("doctor").exit_code)
    assert {"python", "kafka", "redis", "java", "disk"} <= {check["name"] for check in found["checks"]}
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", f"127.0.0.1:{port.free()}")
    said = run("doctor")
    assert said.exit_code == 3
    assert "FAIL  kafka" in said.stdout
    assert "-> penstock up" in said.stdout


def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


class Outside:
    """`penstock up` as a process of its own, with stand-ins for the services on a real broker and a real Redis."""

    def __init__(self, folder: Path, kafka_bootstrap: str, redis_url: str) -> None:
        self.folder = folder
        self.ports = {name: port.free() for name in ("trainer", "registry")}
        (folder / "fake.py").write_text(FAKE)
        (folder / "sitecustomize.py").write_text(
            "import sys\n"
            "from penstock.cli import supervising\n"
            "supervising.TRIES = 2\n"
            f"ports = {self.ports!r}\n"
            f"supervising.command = lambda name: [sys.executable, {str(folder / 'fake.py')!r}, str(ports[name])]\n"
        )
        own = {f"PENSTOCK_{name.upper()}_PORT": str(number) for name, number in self.ports.items()}
        servers = {"KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap, "REDIS_URL": redis_url}
        self._environment = {**os.environ, "PYTHONPATH": str(folder), **servers, **own}

    def start(self, *words: str) -> subprocess.Popen[str]:
        only = [word for name in self.ports for word in ("--only", name)]
        command = [sys.executable, "-m", "penstock.cli", "up", *only, *words]
        out, err = (self.folder / "out").open("w"), (self.folder / "err").open("w")
        with out, err:
            return subprocess.Popen(command, env=self._environment, stdout=out, stderr=err, text=True, start_new_session=True)

    def finish(self, *words: str) -> int:
        return self.start(*words).wait(timeout=120)

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text()

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text()

    def events(self) -> list[str]:
        found = []
        for line in self.out.split("\n"):
            with suppress(ValueError):
                found.append(str(json.loads(line)["type"]))
        return found


@pytest.fixture
def outside(somewhere_empty: Path, kafka_bootstrap: str, redis_url: str) -> Outside:
    return Outside(somewhere_empty, kafka_bootstrap, redis_url)


def test_up_starts_all_in_the_background_and_down_leaves_nothing(somewhere_empty: Path, outside: Outside) -> None:
    try:
        assert outside.finish("--detach") == 0, outside.out + outside.err
        assert "up after" in outside.out
        assert "trainer" in outside.out
        found = in_json("status")
        assert {process["name"] for process in found["processes"]} == {"supervisor", "trainer", "registry"}
        pids = [process["pid"] for process in found["processes"]]
        assert run("logs", "trainer").stdout == "serving\n"
        assert outside.finish() == 3
        assert "is already up" in outside.err
        assert set(in_json("down")["ended"]) == {"supervisor", "trainer", "registry"}
        assert not [pid for pid in pids if group(pid)]
    finally:
        local.down(somewhere_empty / ".penstock")


def test_ctrl_c_ends_what_up_started(somewhere_empty: Path, outside: Outside) -> None:
    child = outside.start("--json")
    try:
        until(lambda: "up" in outside.events() or child.poll() is not None)
        pids = [process["pid"] for process in in_json("status")["processes"] if process["name"] != "supervisor"]
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=60) == 0, outside.out + outside.err
        assert [kind for kind in outside.events() if kind != "waiting"][-2:] == ["stopping", "down"]
        assert len(pids) == 2
        assert not [pid for pid in pids if group(pid)]
    finally:
        local.down(somewhere_empty / ".penstock")
        child.kill()


def test_a_service_that_cannot_start_is_told_with_its_last_words(somewhere_empty: Path, outside: Outside) -> None:
    (somewhere_empty / "fake.py").write_text("raise SystemExit('no such model')")
    assert outside.finish("--detach") == 3
    assert "ended 2 times while starting: no such model" in outside.err
    assert "-> read its log:" in outside.err
    assert local.status(somewhere_empty / ".penstock") == []
