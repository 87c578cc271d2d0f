"""penstock flag and penstock review: what people say on the command line, and what they are told."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from tests.services import depot
from tests.services.clinic import answer, clinic, labels, review, sent, values

from penstock.log.memory import MemoryLog
from penstock.records import Flag
from penstock.review import drawn
from penstock.services.monitoring.service import lanes
from penstock.store.memory import MemoryStore
from penstock.topics import Topics

from .conftest import told

if TYPE_CHECKING:
    from tests.services.cli.conftest import Cli

PROJECT = """
from tests.services import depot
from tests.services.clinic import clinic
project = clinic(4, pairs=0.5).project
"""
TOPICS = clinic(4, pairs=0.5)


class Ward:
    """The clinic on the log in memory; `work` lets monitoring work."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self._lane: Any = None

    def work(self, *said: Any) -> None:
        async def go() -> None:
            if self._lane is None:
                await self.log.create(TOPICS.all())
                found = lanes(TOPICS.project, TOPICS, self.log, MemoryStore())
                (self._lane,) = [lane for lane in found if lane.name == "review"]
            await self.log.send([sent(TOPICS, each) for each in said])
            while await self._lane.turn(0):
                pass

        asyncio.run(go())


@pytest.fixture
def ward(log: MemoryLog, here: Path, monkeypatch: pytest.MonkeyPatch) -> Ward:
    (here / "clinic.py").write_text(PROJECT)
    monkeypatch.setenv("PENSTOCK_PROJECT", "clinic.py")
    monkeypatch.setenv("PENSTOCK_PARTITIONS", "4")
    found = Ward(log)
    found.work(*(answer(f"s{i}", 0.9 + i / 1000, i) for i in range(5)))
    return found


def test_from_a_flag_to_the_label_and_what_came_of_it(cli: Cli, ward: Ward) -> None:
    said = cli.json("flag", "s1", "--model", "readmission", "--says", "no", "--why", "at home", "--by", "nurse")
    assert said == {"prediction": "s1", "model": "readmission", "by": "nurse", "says": False, "known": True}
    found = [msgspec.json.decode(v or b"", type=Flag) for v in values(ward.log, TOPICS.flags, 4)]
    assert [(f.prediction, f.says, f.why) for f in found] == [("s1", False, "at home")]
    ward.work()
    shown = cli("review", "list").output
    assert "s1" in shown and "flagged" in shown and "nurse: no would be right - at home" in shown
    assert cli.json("review", "list", "--by", "nurse") == [], "who flagged it does not decide on it"
    assert "Discharge.age 60.0" in cli("review", "show", "s1").output
    refused = cli("review", "decide", "s1", "--says", "no", "--by", "nurse")
    assert refused.exit_code == 1 and "another person decides" in refused.output
    assert "by ada" in cli("review", "decide", "s1", "--says", "no", "--by", "ada").output
    cli("review", "decide", "s1", "--says", "no", "--by", "bob")
    ward.work()
    assert [(x["stay_id"], x["returned"]) for x in labels(ward.log, TOPICS)] == [("s1", False)]
    assert "labelled no" in cli("review", "show", "s1").output
    late = cli("review", "decide", "s1", "--says", "yes", "--by", "cyd")
    assert late.exit_code == 1 and "was decided already" in late.output and "penstock review show s1" in late.output


def test_without_a_broker_the_tables_say_what_waits_and_what_ended(cli: Cli, ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("s1", "s2", "s3"):
        cli("flag", name, "--says", "no", "--by", "nurse")
    ward.work()
    for name, by in (("s1", "ada"), ("s1", "bob")):
        cli("review", "decide", name, "--says", "no", "--by", by)
        ward.work()
    for words in ("review list", "review agreement"):
        live, kept = told(cli, ward.log, TOPICS, words, monkeypatch)
        assert live == kept and live[0].strip()
    assert "s1" not in [row["prediction"] for row in cli.json("review", "list", "--tables")], "it no longer waits"


def test_what_somebody_says_of_an_answer_steers_no_terminal(cli: Cli, ward: Ward) -> None:
    hostile = "\x1b]0;owned\x07\x1b[2J\u202e"
    cli.json("flag", "s1", "--model", "readmission", "--why", hostile, "--by", "eve\x1b[8m")
    ward.work()
    for words in (("review", "list"), ("review", "show", "s1")):
        shown = cli(*words).output
        assert "eve\ufffd[8m" in shown and "owned" in shown
        assert not set(shown) & set(hostile) & {"\x1b", "\x07", "\u202e"}


def test_a_flag_of_what_nobody_answered_is_told_to_wait_for_its_answer(cli: Cli, ward: Ward) -> None:
    found = cli("flag", "nobodys", "--says", "no", "--by", "nurse")
    assert found.exit_code == 0 and "no answer that is known yet" in found.output and "review list" not in found.output
    assert "30d of stream time at most" in found.output and "penstock review show nobodys" in found.output
    assert cli.json("flag", "nobodys", "--by", "eve")["known"] is False
    assert "reviewers see it in" in cli("flag", "s1", "--by", "nurse").output


def test_who_decides_hears_whether_others_are_asked(cli: Cli, ward: Ward) -> None:
    pairs = {i for i in range(40) if drawn("pair", "readmission", f"u{i}") < 0.5}
    (one, two, *_), single = (f"u{i}" for i in sorted(pairs)), f"u{min(set(range(40)) - pairs)}"
    ward.work(*(answer(name, 0.5, 6) for name in (one, two, single)))
    assert "asked" not in cli("review", "decide", single, "--says", "yes", "--by", "ada").output
    for name in (one, two):
        assert "1 of 2, another reviewer is asked" in cli("review", "decide", name, "--says", "yes", "--by", "ada").output
    ward.work()
    assert "2 of 2, that decides it" in cli("review", "decide", one, "--says", "yes", "--by", "bob").output
    assert "they differ: a third is asked" in cli("review", "decide", two, "--says", "no", "--by", "bob").output
    ward.work()
    assert "3 of 3, that decides it" in cli("review", "decide", two, "--says", "no", "--by", "cyd").output


def test_how_far_reviewers_agree_and_how_reviews_ended(cli: Cli, ward: Ward) -> None:
    assert "no answer was decided by two reviewers yet" in cli("review", "agreement").output
    asked = [answer(f"u{i}", 0.5, 6) for i in range(80)]
    ward.work(*asked, *(review(a.id, "ada", i % 2 == 0) for i, a in enumerate(asked)))
    ward.work(*(review(a.id, "bob", i % 2 == 0 and i % 5 > 0) for i, a in enumerate(asked)))
    said = cli.json("review", "agreement")["readmission"]
    assert said["agreement"]["metric"] == "nominal" and 0.4 < said["agreement"]["alpha"] < 1
    assert said["ended"]["labelled"] + len(cli.json("review", "list", "--first", "100")) == 80
    shown = cli("review", "agreement").output
    assert "alpha 0." in shown and "answers that two decided" in shown and "labelled" in shown
    third = cli.json("review", "list")[0]
    assert (third["want"], third["have"], third["not_for"]) == (3, 2, ["ada", "bob"])
    assert "contradicted" in cli("review", "list").output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["flag", "s1", "--model", "readmision"], "has no model readmision that is reviewed"),
        (["flag", "s1", "--says", "maybe"], "neither yes nor no"),
        (["review", "decide", "s2", "--says", "yes"], "penstock flag s2 --model readmission"),
        (["review", "show", "nobody"], "has no answer 'nobody'"),
        (["flag", "s1", "--by", "x" * 90], "80"),
    ],
)
def test_what_cannot_be_is_told_with_what_to_type(cli: Cli, ward: Ward, words: list[str], said: str) -> None:
    found = cli(*words)
    assert found.exit_code in (1, 2) and said in found.output, found.output
    assert "Traceback" not in found.output


def test_a_project_without_reviews_is_told_how_to_declare_them(cli: Cli, made: MemoryLog) -> None:
    found = cli("review", "list")
    assert found.exit_code == 1 and "review=ps.review()" in found.output


@pytest.fixture
def depot_(log: MemoryLog, here: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Answers that are numbers and classes, before reviewers; what is called lets monitoring work."""
    (here / "project.py").write_text("from tests.services.depot import project\n")
    monkeypatch.setenv("PENSTOCK_PROJECT", "project.py")
    monkeypatch.setenv("PENSTOCK_PARTITIONS", "1")
    topics, lane = Topics(depot.project), list[Any]()

    def work(*words: Any) -> None:
        async def go() -> None:
            if not lane:
                await log.create(topics.all())
                lane.extend(each for each in lanes(topics.project, topics, log, MemoryStore()) if each.name == "review")
            await log.send([depot.sent(topics, each) for each in words])
            while await lane[0].turn(0):
                pass

        asyncio.run(go())

    doors = [depot.answer("door", f"d{n}", 0.4, {"front": 0.4, "back": 0.38, "gate": 0.22}) for n in range(30)]
    work(*(depot.answer("hours", f"h{n}", 12.0 + n) for n in range(30)), *doors)
    return work


def test_numbers_and_classes_are_said_and_shown_as_they_are(cli: Cli, depot_: Any, log: MemoryLog) -> None:
    hours = next(f"h{n}" for n in range(30) if drawn("pair", "hours", f"h{n}") < 0.5)
    door = next(f"d{n}" for n in range(30) if drawn("pair", "door", f"d{n}") >= 0.5)
    said = cli.json("flag", hours, "--model", "hours", "--says", "40", "--by", "ann")
    assert said["says"] == 40.0
    depot_()
    assert "ann: 40 would be right" in cli("review", "show", hours, "--model", "hours").output
    shown = cli("review", "list", "--model", "door").output
    assert "front 0.400" in shown and "0 of 2" in shown
    assert "decided: gate" in cli("review", "decide", door, "--model", "door", "--says", "gate", "--by", "ada").output
    decide = ("review", "decide", hours, "--model", "hours", "--says")
    assert "1 of 2, another reviewer is asked" in cli(*decide, "40.5", "--by", "ada").output
    depot_()
    assert "2 of 2, that decides it" in cli(*decide, "42.5", "--by", "bob").output, "two hours apart is the same"
    depot_()
    assert "labelled 41.5  ada 40.5, bob 42.5" in cli("review", "show", hours, "--model", "hours").output
    assert "labelled gate" in cli("review", "show", door, "--model", "door").output
    assert [json.loads(value or b"")["hours"] for value in values(log, "took")] == [41.5]
    found = cli.json("review", "agreement")
    assert (found["hours"]["agreement"]["metric"], found["hours"]["agreement"]["answers"]) == ("interval", 1)


def test_numbers_that_differ_are_given_to_a_third(cli: Cli, depot_: Any) -> None:
    hours = next(f"h{n}" for n in range(30) if drawn("pair", "hours", f"h{n}") < 0.5)
    cli.json("flag", hours, "--model", "hours", "--by", "ann")
    depot_()
    decide = ("review", "decide", hours, "--model", "hours", "--says")
    cli(*decide, "10", "--by", "ada")
    depot_()
    assert "they differ: a third is asked" in cli(*decide, "20", "--by", "bob").output
    depot_()
    assert "3 of 3, that decides it" in cli(*decide, "13", "--by", "cyd").output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["d1", "--model", "door", "--says", "gat"], "did you mean gate"),
        (["d1", "--model", "door", "--says", "yes"], "front|back|gate"),
        (["h1", "--model", "hours", "--says", "yes"], "is a number, and 'yes' is none"),
        (["h1", "--model", "hours", "--says", "nan"], "NUMBER"),
    ],
)
def test_a_word_of_another_kind_is_told_with_what_to_type(cli: Cli, depot_: Any, words: list[str], said: str) -> None:
    for command in (("flag",), ("review", "decide")):
        found = cli(*command, *words)
        assert found.exit_code == 2 and said in " ".join(found.output.split()), found.output
