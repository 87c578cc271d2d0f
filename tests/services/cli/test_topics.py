"""topics and dlq: what is declared, what the broker has, what is in it, what could not be taken."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from penstock.cli import screen, topics
from penstock.errors import Refused
from penstock.log import LogError, Partition, Send
from penstock.log.memory import MemoryLog
from penstock.runtime.deadletter import dead_letter
from penstock.runtime.lane import stamped

if TYPE_CHECKING:
    from tests.services.cli.conftest import Cli


def test_plan_says_what_apply_does_and_apply_twice_does_nothing_twice(cli: Cli, log: MemoryLog) -> None:
    planned = cli.json("topics", "plan")["topics"]
    assert {each["action"] for each in planned} == {"create"}
    done = cli.json("topics", "apply")
    assert done == {"made": [each["topic"] for each in planned], "kept": 0}
    assert {each["action"] for each in cli.json("topics", "plan")["topics"]} == {"keep"}
    assert cli.json("topics", "apply") == {"made": [], "kept": len(planned)}
    assert asyncio.run(log.describe()) == {each["topic"]: each["partitions"] for each in planned}


def test_another_number_of_partitions_is_a_conflict_that_names_the_setting(
    cli: Cli, made: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_PARTITIONS", "3")
    said = cli("topics", "plan")
    assert said.exit_code == 1
    assert "scheduled has 4 partitions, 3 are declared" in said.stderr
    assert "PENSTOCK_PARTITIONS=4" in said.stderr
    assert cli("topics", "apply").exit_code == 1


def test_list_counts_what_each_topic_holds(cli: Cli, made: MemoryLog) -> None:
    asyncio.run(made.send([Send("weather", b"JFK", b"{}"), Send("weather", b"EWR", b"{}")]))
    found = {each["topic"]: each["records"] for each in cli.json("topics", "list")["topics"]}
    assert found["weather"] == 2
    assert found["scheduled"] == 0
    assert "weather" in cli("topics", "list").stdout


def test_list_tells_what_is_missing(cli: Cli, log: MemoryLog) -> None:
    said = cli("topics", "list")
    assert said.exit_code == 0
    assert "missing" in said.stdout
    assert "-> penstock topics apply" in said.stderr


def test_tail_prints_the_newest_records_and_stops(cli: Cli, made: MemoryLog) -> None:
    asyncio.run(made.send([Send("flights.alarms", b"late", b'{"n": %d}' % n) for n in range(20)]))
    lines = cli("topics", "tail", "flights.alarms").stdout.splitlines()
    assert len(lines) == 10
    assert lines[-1] == '0/19  late  {"n": 19}'
    assert cli("topics", "tail", "flights.alarms", "-n", "1").stdout.splitlines() == lines[-1:]
    assert [each["offset"] for each in cli.lines("topics", "tail", "flights.alarms", "--from-beginning", "-n", "3")] == [0, 1, 2]
    assert len(cli.lines("topics", "tail", "flights.alarms", "--from-beginning")) == 20
    assert cli("topics", "tail", "flights.runs").stderr == "flights.runs is empty\n"


def test_whoever_follows_a_topic_is_told_that_nothing_comes_and_sees_what_does(
    made: MemoryLog, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(screen, "SILENCE", 0.01)

    async def turn() -> tuple[str, str]:
        following = asyncio.create_task(topics.watch(made, "flights.alarms", await made.ends(["flights.alarms"])))
        told = ""
        while "waiting for new records of flights.alarms" not in told:
            told += capsys.readouterr().err
            await asyncio.sleep(0)
        await made.send([Send("flights.alarms", b"late", b"1")])
        shown = ""
        while not shown:
            shown += capsys.readouterr().out
            await asyncio.sleep(0)
        following.cancel()
        return told, shown

    told, shown = asyncio.run(asyncio.wait_for(turn(), 20))
    assert told.count("waiting") == 1
    assert shown == "0/0  late  1\n"


def test_whoever_follows_a_topic_hears_when_the_broker_goes(made: MemoryLog, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(names: object) -> None:
        raise LogError("looking up positions: Kafka at h:1 gave no answer within 30 s; look with: penstock doctor")

    monkeypatch.setattr(screen, "SILENCE", 0.01)
    ends = asyncio.run(made.ends(["flights.alarms"]))
    monkeypatch.setattr(made, "ends", away)
    with pytest.raises(LogError, match="gave no answer"):
        asyncio.run(asyncio.wait_for(topics.watch(made, "flights.alarms", ends), 20))


def test_tail_gives_programs_the_value_as_json_and_bytes_in_base64(cli: Cli, made: MemoryLog) -> None:
    asyncio.run(
        made.send([Send("flights.alarms", b"late", b'{"n": 1}', (("ce_id", b"7"),)), Send("flights.alarms", None, b"\xff\x00")])
    )
    first, second = cli.lines("topics", "tail", "flights.alarms")
    assert (first["key"], first["value"], first["headers"], first["offset"]) == ("late", {"n": 1}, {"ce_id": "7"}, 0)
    assert second["value"] == {"base64": "/wA="}


def test_a_misspelt_topic_is_answered_with_the_nearest(cli: Cli, made: MemoryLog) -> None:
    said = cli("topics", "tail", "flights.row.scheduled")
    assert said.exit_code == 1
    assert "did you mean flights.rows.scheduled?" in said.stderr


def letters(log: MemoryLog) -> list[Send]:
    """Two kinds of dead letters as the feature store writes them."""
    original = (("ce_id", b"F1"), ("traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"))
    sends = [
        dead_letter(Partition("weather", 2), 5, b"JFK", b"{oops", original, Refused("decode", "no JSON"), "feature_store"),
        dead_letter(Partition("weather", 1), 9, None, None, (), Refused("schema", "a tombstone"), "feature_store"),
    ]
    asyncio.run(log.send(stamped("feature_store.2", 3, sends)))
    return sends


def test_dead_letters_are_counted_and_shown_with_their_cause(cli: Cli, made: MemoryLog) -> None:
    assert "no dead letters" in cli("dlq", "list").stdout
    letters(made)
    assert cli.json("dlq", "list") == {"topics": [{"topic": "weather.dlq", "records": 2, "reasons": {"decode": 1, "schema": 1}}]}
    shown = cli("dlq", "show", "weather", "--reason", "decode").stdout
    assert "decode  no JSON" in shown
    assert "weather/2 at 5, refused by feature_store" in shown
    assert "JFK  {oops" in shown
    assert "tombstone" not in shown


def sent(cli: Cli) -> dict[str | None, Any]:
    """What lies in the topic of the weather, by key."""
    return {each["key"]: each for each in cli.lines("topics", "tail", "weather", "--from-beginning")}


def test_replay_sends_the_original_record_without_the_cause_and_without_the_number_of_its_writer(
    cli: Cli, made: MemoryLog
) -> None:
    letters(made)
    assert cli.json("dlq", "replay", "weather", "--dry-run")["sent"] == 2
    assert asyncio.run(made.ends(["weather"])) == {Partition("weather", n): 0 for n in range(4)}
    assert cli.json("dlq", "replay", "weather.dlq") == {"sent": 2, "sent_before": 0, "topics": {"weather": 2}, "dry_run": False}
    found = sent(cli)
    assert found["JFK"]["value"] == "{oops"
    assert set(found["JFK"]["headers"]) == {"ce_id", "traceparent", "dlq.replay"}
    assert (found[None]["value"], found[None]["partition"]) == (None, 1)
    assert found[None]["headers"] == {"dlq.replay": "weather.dlq/1/0"}


def test_replay_can_be_limited_to_one_reason(cli: Cli, made: MemoryLog) -> None:
    letters(made)
    assert cli.json("dlq", "replay", "weather", "--reason", "schema")["sent"] == 1
    assert "nothing sent" in cli("dlq", "replay", "weather", "--reason", "future").stdout


def test_what_was_replayed_is_not_sent_again_unless_asked_for(cli: Cli, made: MemoryLog) -> None:
    letters(made)
    cli("dlq", "replay", "weather", "--reason", "schema")
    second = cli("dlq", "replay", "weather")
    assert "1 record sent to weather" in second.stdout
    assert "1 record left out, sent before; to send them once more:  --again" in second.stdout
    assert cli.json("dlq", "replay", "weather") == {"sent": 0, "sent_before": 2, "topics": {}, "dry_run": False}
    assert cli.json("dlq", "replay", "weather", "--again")["sent"] == 2
    assert sum(asyncio.run(made.ends(["weather"])).values()) == 4


def test_what_is_refused_once_more_is_a_new_dead_letter_that_says_which_one_it_was(cli: Cli, made: MemoryLog) -> None:
    letters(made)
    cli("dlq", "replay", "weather", "--reason", "decode")
    again = sent(cli)["JFK"]
    headers = tuple((name, value.encode()) for name, value in again["headers"].items())
    place, refusal = Partition("weather", again["partition"]), Refused("decode", "no JSON")
    letter = dead_letter(place, again["offset"], b"JFK", b"{oops", headers, refusal, "feature_store")
    asyncio.run(made.send([letter]))
    assert "sent again as weather.dlq/2/0" in cli("dlq", "show", "weather").stdout
    assert cli.json("dlq", "replay", "weather", "--reason", "decode")["sent"] == 0, "once more would change nothing"
    assert cli.json("dlq", "replay", "weather", "--reason", "decode", "--again")["sent"] == 2


def test_on_a_real_broker_what_is_published_can_be_listed_read_and_replayed(
    cli: Cli, shop: Callable[[str], None], kafka_bootstrap: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"cli{os.getpid()}"
    shop(name)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka_bootstrap)
    monkeypatch.setenv("PENSTOCK_PROJECT", "shop.py")
    monkeypatch.setenv("PENSTOCK_TRACE_SAMPLE", "1")
    assert cli.json("topics", "plan")["topics"][0] == {
        "action": "create",
        "topic": f"{name}.payments",
        "partitions": 4,
        "there": None,
        "compacted": False,
    }
    assert cli.json("topics", "apply")["kept"] == 0
    row = {"payment_id": "p1", "card_id": "c1", "amount": 3, "paid_at": "2013-01-01T00:00:00Z"}
    (here / "p.jsonl").write_text(json.dumps(row) + "\n" + json.dumps({**row, "payment_id": "p2"}))
    assert cli.json("publish", "Payment", "--file", "p.jsonl")["sent"] == 2
    listed = {each["topic"]: each["records"] for each in cli.json("topics", "list")["topics"]}
    assert (listed[f"{name}.payments"], listed[f"{name}x.clock"]) == (2, 1)
    found = cli.lines("topics", "tail", f"{name}.payments", "-n", "2")
    assert [each["value"]["payment_id"] for each in found] == ["p1", "p2"]
    assert found[0]["headers"]["traceparent"].startswith("00-")

    async def refuse() -> None:
        from penstock.log.kafka import KafkaLog

        log = KafkaLog(kafka_bootstrap)
        source = Partition(f"{name}.payments", 0)
        await log.send([dead_letter(source, 7, b"c1", b"{oops", (), Refused("decode", "no JSON"), "feature_store")])
        await log.close()

    asyncio.run(refuse())
    assert cli.json("dlq", "list")["topics"][0]["reasons"] == {"decode": 1}
    assert cli.json("dlq", "replay", f"{name}.payments")["sent"] == 1
    assert cli.json("dlq", "replay", f"{name}.payments")["sent"] == 0
    assert {each["topic"]: each["records"] for each in cli.json("topics", "list")["topics"]}[f"{name}.payments"] == 3
    missing = cli("topics", "tail", f"{name}.paymnts")
    assert missing.exit_code == 1
    assert f"did you mean {name}.payments?" in missing.stderr
