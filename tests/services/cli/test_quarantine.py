"""penstock quarantine: said, shown and lifted on the log, and by the alarms of a source."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from tests.rides import START, window

from penstock.log import Send
from penstock.project import load
from penstock.records import Alarm
from penstock.topics import Topics

if TYPE_CHECKING:
    from tests.services.cli.conftest import Cli

    from penstock.log.memory import MemoryLog

FILE = """
import penstock as ps

@ps.event("rides")
class Ride:
    ride_id: ps.Id[str]
    car: ps.Key[str]
    distance: float
    at: ps.EventTime

@ps.event("ends")
class End:
    ride_id: ps.Key[str]
    late: bool
    who: str
    at: ps.EventTime

said = ps.label(End.late, within="1d", sources=ps.sources(End.who, {"bank": 1, "shop": 0.1}, quarantine=True))

@ps.model(scores=Ride, features=[Ride.distance], label=said)
def late() -> ps.Learner:
    from sklearn.linear_model import LogisticRegression

    return ps.Learner(batch=LogisticRegression())

project = ps.Project("rides-late", [late])
"""


@pytest.fixture
def topics(log: MemoryLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Topics:
    path = tmp_path / "riding.py"
    path.write_text(FILE)
    monkeypatch.setenv("PENSTOCK_PROJECT", str(path))
    topics = Topics(load(str(path)), 1)
    closed = [Send(topics.statistics("late"), b"late", msgspec.json.encode(window(day))) for day in (1, 2)]

    async def work() -> None:
        await log.create(topics.all())
        await log.send(closed)

    asyncio.run(work())
    return topics


def test_a_quarantine_begins_after_the_newest_window_is_shown_while_it_stands_and_is_lifted(cli: Cli, topics: Topics) -> None:
    made = cli.json("quarantine", "add", "late", "--key", "c7", "--since", "2013-01-01T06:00+02:00", "--reason", "stolen")
    assert made["at"] == "2013-01-03T00:00:00.000001Z" and made["reason"] == "stolen"
    again = cli.json("quarantine", "add", "late", "--key", "c7", "--since", "2013-01-01T06:00+02:00")
    assert again["id"] == made["id"], "said twice is said once"
    assert [one["id"] for one in cli.json("quarantine", "list", "late")["quarantines"]] == [made["id"]]
    assert "key c7, events since 2013-01-01" in cli("quarantine", "list").output
    lifted = cli.json("quarantine", "lift", made["id"], "--reason", "found")
    assert (lifted["lifted"], lifted["at"]) == (made["at"], made["at"]) and lifted["reason"].endswith("lifted: found")
    assert cli.json("quarantine", "list")["quarantines"] == []
    assert len(cli.json("quarantine", "list", "--lifted")["quarantines"]) == 1
    assert "no quarantine" in cli("quarantine", "lift", made["id"]).output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("late",), "all outcomes would be left out"),
        (("lat", "--key", "c"), "no model 'lat'"),
        (("late", "--source", "shpo"), "did you mean shop?"),
        (("late", "--since", "2013-01-01"), "--since 2013-01-01 has no time zone"),
        (("late", "--since", "2013-01-02T00:00Z", "--until", "2013-01-02T00:00Z"), "is not after"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(cli: Cli, topics: Topics, words: tuple[str, ...], said: str) -> None:
    found = cli("quarantine", "add", *words)
    assert found.exit_code in (1, 2) and said in found.output


def test_a_source_above_its_cap_is_in_quarantine_until_somebody_lifts_it(cli: Cli, log: MemoryLog, topics: Topics) -> None:
    def sound(day: int, state: str, *names: str) -> Send:
        evidence = {"start": START.replace(day=day).isoformat(), "sources": [{"source": name} for name in names]}
        said = Alarm(id=f"a{day}", model="late", signal="sources", state=state, at=START.replace(day=day + 1), evidence=evidence)
        return Send(topics.alarms, b"late", msgspec.json.encode(said))

    sends = [sound(3, "raised", "shop"), sound(4, "held", "shop", "others"), sound(5, "held"), sound(6, "cleared")]
    asyncio.run(log.send(sends))
    shop, others = cli.json("quarantine", "list")["quarantines"]
    assert (shop["source"], shop["since"], shop["until"]) == ("shop", "2013-01-02T00:00:00Z", "2013-01-07T00:00:00Z")
    assert (others["source"], others["at"]) == ("others", "2013-01-05T00:00:00Z")
    cli.json("quarantine", "lift", shop["id"])
    assert [one["source"] for one in cli.json("quarantine", "list")["quarantines"]] == ["others"]
