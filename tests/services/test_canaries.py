"""Canaries: what is fitted on turned labels is not offered, and an alarm says so. What is opened and answers them otherwise is
not served, and the version before goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests import rides
from tests.rides import DAY, START, End, Ride, a_model, candidate
from tests.services.test_trainer import Stage, both, outcomes

import penstock as ps
from penstock.artefact import Artefacts
from penstock.canaries import broken
from penstock.records import Alarm, Candidate, Decision, Outcome, Run
from penstock.scoring.roster import Roster, Rosters
from penstock.services.inference.duty import Duty
from penstock.services.inference.meters import Meters
from penstock.services.inference.sessions import Sessions


@ps.event("arrivals")
class Arrival:
    ride_id: ps.Key[str]
    minutes: float
    why: str
    at: ps.EventTime


CANARIES = [
    ps.known({Ride.distance: 3.0, Ride.load: 3.0}, above=0.6),
    ps.known({Ride.distance: -3.0, Ride.load: 0.0}, below=0.4),
]
TURNED = range(4, 7)
"""Days."""


def model(**more: Any) -> Any:
    retrain = ps.every("2d", on="1d", first="2d") | ps.incremental("1d")
    return a_model(both, retrain=retrain, canaries=CANARIES, **more)


def turned(told: list[Outcome]) -> list[Outcome]:
    """Whoever labels says the contrary for some days."""
    return [msgspec.structs.replace(o, label=not o.label) if int((o.labelled - START) / DAY) in TURNED else o for o in told]


Said = tuple[list[Run], list[Alarm], list[Candidate]]


def played(folder: Path, told: list[Outcome], days: int, restarts: bool = False) -> Said:
    stage = Stage(folder, rides.topics(model(), 3))

    async def go() -> Said:
        await stage.play(days, told, restarts=restarts)
        reader = await stage.log.reader(dict.fromkeys(await stage.log.ends([stage.t.alarms]), 0))
        alarms = [msgspec.json.decode(v or b"", type=Alarm) for b in await reader.read(1000, 0) for v in b.values]
        return await stage.runs(), alarms, await stage.candidates()

    return asyncio.run(go())


@pytest.mark.parametrize("restarts", [False, True])
def test_what_is_fitted_on_turned_labels_is_not_offered_and_the_alarm_lasts_until_something_is(
    tmp_path: Path, restarts: bool
) -> None:
    runs, alarms, made = played(tmp_path, turned(outcomes(12, a_day=300)), 12, restarts)
    full = [run for run in runs if run.kind == "full"]
    assert [bool(run.version) for run in full] == [True, True, False, True, True, True], "day 6 learned from day 5 alone"
    assert "2 of 2 canaries are answered otherwise" in full[2].data["refused"]
    assert [(a.signal, a.state, a.at) for a in alarms if a.signal == "canaries/full"] == [
        ("canaries/full", "raised", START + 6 * DAY),
        ("canaries/full", "cleared", START + 8 * DAY),
    ]
    assert len([c for c in made if c.kind == "full"]) == 5
    assert all(run.version or run.data["canaries"] for run in runs)


def test_a_learner_that_has_hardly_begun_raises_nothing(tmp_path: Path) -> None:
    told = [o for o in turned(outcomes(12, a_day=300)) if o.labelled >= START + 4 * DAY and o.labelled < START + 7 * DAY]
    runs, alarms, made = played(tmp_path, told, 7)
    assert not made and not alarms and any("canaries" in run.data for run in runs)


def decision(version: str, artefact: Any) -> Decision:
    found = msgspec.structs.replace(candidate(version), artefact=artefact)
    return Decision(
        id=version, model="late", kind="champion", version=version, at=START, actor="", reason="", share=1.0, expected="",
        evidence={}, candidate=found,
    )  # fmt: skip


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artefacts, Decision, Decision]:
    """A version that knows the canaries and one that does not."""
    folder = tmp_path_factory.mktemp("stored")
    _, _, made = played(folder / "good", outcomes(3, a_day=300), 3)
    good = next(c for c in made if c.kind == "full")
    stage = Stage(folder / "bad", rides.topics(HONEST, 3))
    bad_told = [msgspec.structs.replace(o, label=not o.label) for o in outcomes(3, a_day=300)]

    async def go() -> list[Candidate]:
        await stage.play(3, bad_told)
        return await stage.candidates()

    (bad,) = asyncio.run(go())
    store = Artefacts(folder / "all")
    first, second = (
        decision(version, store.put(Artefacts(folder / of).get(c.artefact), "onnx"))
        for version, of, c in (("v1", "good", good), ("v2", "bad", bad))
    )
    return store, first, second


HONEST = a_model(both, retrain=ps.every("2d", on="1d", first="2d"))
Stored = tuple[Artefacts, Decision, Decision]


def leads(duty: Duty) -> str:
    return duty.serving.champion.version if duty.serving.champion is not None else "nobody"


def test_a_version_that_answers_canaries_otherwise_is_not_served_and_the_one_before_goes_on(stored: Stored) -> None:
    store, first, second = stored
    meters = Meters()
    duty = Duty(model(), Sessions(store, meters))
    duty.follow(Roster(champion=first), 0.0)
    duty.follow(Roster(champion=second), 1.0)
    assert leads(duty) == "v1"
    assert meters.artefacts.labels("late", "refused")._value.get() == 1
    trusting = Duty(HONEST, Sessions(store, Meters()))
    trusting.follow(Roster(champion=second), 0.0)
    assert leads(trusting) == "v2"


def test_a_canary_that_is_declared_later_takes_nobody_out_of_service_where_there_is_no_other(stored: Stored) -> None:
    store, first, second = stored
    meters = Meters()
    duty = Duty(model(), Sessions(store, meters))
    duty.follow(Roster(champion=second), 0.0)
    assert leads(duty) == "v2"
    assert meters.artefacts.labels("late", "refused")._value.get() == 1, "it is said all the same"
    duty.follow(Roster(champion=second, challenger=second), 1.0)
    assert leads(duty) == "v2" and duty.serving.challenger is None
    duty.follow(Roster(champion=second, probation=first), 2.0)
    assert leads(duty) == "v1", "others are looked for each time"


def test_one_that_was_refused_is_not_served_after_its_probation_either(stored: Stored) -> None:
    """Who begins anew reads the compacted topic: the version before is there under its own name alone."""
    store, first, second = stored
    rosters = Rosters()
    retired = msgspec.structs.replace(first, kind="retired", share=0.0)
    replaced = msgspec.structs.replace(second, expected="v1")
    for key, said in (("v1", retired), ("champion", replaced), ("v2", replaced), ("probation", None)):
        rosters.hear(f"late/{key}".encode(), msgspec.json.encode(said) if said else None)
    for heard in (rosters, Rosters.restored(rosters.aliases)):
        duty = Duty(model(), Sessions(store, Meters()))
        duty.follow(heard.of("late"), 0.0)
        assert leads(duty) == "v1"
        assert duty.served is not None and duty.served.version == "v1", "kept for a restart"
    rosters.hear(b"late/v1", msgspec.json.encode(msgspec.structs.replace(first, kind="rolled_back")))
    assert rosters.of("late").earlier is None


def test_an_answer_that_is_no_number_is_no_known_answer() -> None:
    (found,) = broken(CANARIES[:1], ["Ride.distance", "Ride.load"], lambda rows: np.full(len(rows), np.nan))
    assert found["answer"] is None and found["above"] == 0.6


def test_a_version_that_comes_back_is_asked_again(tmp_path: Path) -> None:
    """It knew them when it was opened; then its scorer is another."""
    _, _, made = played(tmp_path / "good", outcomes(3, a_day=300), 3)
    good = next(c for c in made if c.kind == "full")
    sessions = Sessions(Artefacts(tmp_path / "good"), Meters())
    first, other = decision("v1", good.artefact), decision("v2", good.artefact)
    duty = Duty(model(), sessions)
    duty.follow(Roster(champion=first), 0.0)
    asked: list[int] = []
    for key, scorer in sessions._open.items():
        sessions._open[key] = Counted(scorer, asked)
    duty.follow(Roster(champion=other), 1.0)
    duty.follow(Roster(champion=first), 2.0)
    assert asked == [2, 2], "rows: both canaries, each time"


class Counted:
    """A scorer that notes how many rows it was asked."""

    def __init__(self, scorer: Any, asked: list[int]) -> None:
        self._scorer, self._asked = scorer, asked

    def score(self, X: Any) -> Any:  # noqa: N803
        self._asked.append(len(X))
        return self._scorer.score(X)


def test_a_number_is_known_to_be_near_or_between() -> None:
    near, least = ps.known({"x": 1.0}, answer=12.0, within=3.0), ps.known({"x": 2.0}, above=-40.0)
    assert broken([near, least], ["x"], lambda rows: np.array([15.0, -40.0])) == []
    (missed, low) = broken([near, least], ["x"], lambda rows: np.array([15.1, -41.0]))
    assert (missed["known"], missed["answer"]) == ("to lie between 9 and 15", 15.1)
    assert (low["known"], low["below"]) == ("to be -40 or more", None)


def test_a_class_is_known_to_be_the_most_probable_one() -> None:
    bug, sure = ps.known({"x": 1.0}, answer="bug"), ps.known({"x": 1.0}, answer="bug", above=0.6)
    classes = ["question", "bug"]
    assert broken([bug], ["x"], lambda rows: np.array([[0.45, 0.55]]), classes) == []
    (unsure,) = broken([bug, sure], ["x"], lambda rows: np.array([[0.45, 0.55]] * 2), classes)
    assert (unsure["above"], unsure["answer"]) == (0.6, 0.55)
    (other,) = broken([bug], ["x"], lambda rows: np.array([[0.7, 0.3]]), classes)
    assert (other["class"], other["known"]) == ("question", "to be bug")
    (nobody,) = broken([bug], ["x"], lambda rows: np.array([[0.7, float("nan")]]), classes)
    assert nobody["answer"] is None


@pytest.mark.parametrize(
    ("label", "canary", "words"),
    [
        (End.late, ps.known({Ride.load: 1.0}, above=1.5), "a probability"),
        (End.late, ps.known({Ride.load: 1.0}, answer="late"), "no classes"),
        (Arrival.minutes, ps.known({Ride.load: 1.0}, answer="late"), "no classes"),
        (Arrival.why, ps.known({Ride.load: 1.0}, above=0.5), "one of the classes: answer='fog'"),
        (Arrival.why, ps.known({Ride.load: 1.0}, answer="rain"), "one of the classes: answer='fog'"),
    ],
)
def test_a_canary_that_cannot_be_an_answer_is_a_mistake(label: Any, canary: Any, words: str) -> None:
    classes = ("fog", "queue") if label is Arrival.why else ()
    with pytest.raises(ps.DefinitionError, match=words):
        ps.model(
            scores=Ride, features=[Ride.load], label=ps.label(label, within="1d", classes=classes), canaries=[canary]
        )(both)  # fmt: skip


@pytest.mark.parametrize(
    ("inputs", "bounds"),
    [
        ({}, {"above": 0.5}),
        ({Ride.distance: 1.0}, {}),
        ({Ride.distance: float("nan")}, {"above": 0.5}),
        ({Ride.load: 1.0}, {"above": 0.6, "below": 0.5}),
        ({Ride.load: 1.0}, {"answer": 3.0}),
        ({Ride.load: 1.0}, {"answer": 3.0, "within": 1.0, "above": 2.0}),
    ],
)
def test_what_says_nothing_is_a_mistake(inputs: dict[Any, float], bounds: dict[str, Any]) -> None:
    with pytest.raises(ps.DefinitionError):
        ps.known(inputs, **bounds)


def test_a_canary_names_inputs_of_the_model() -> None:
    with pytest.raises(ps.DefinitionError, match=r"a canary names Ride\.weight"):
        ps.model(
            scores=Ride, features=[Ride.distance], label=ps.label(End.late, within="1d"),
            canaries=[ps.known({"Ride.weight": 1.0}, above=0.5)],
        )(both)  # fmt: skip
