"""Numbers and classes whose answers are expected to be so good, known beforehand, and looked at by people: through the whole
loop, and as reviewers see them."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.services.browser import Tab, browsing
from tests.services.clinic import values
from tests.services.depot import answer, apart, project, said, sent
from tests.services.opened import opened
from tests.services.parcels import Sent, history, records

import penstock as ps
from penstock import known
from penstock.artefact import Artefacts
from penstock.cli.cohorts import expected
from penstock.log.memory import MemoryLog
from penstock.records import Cohort, Decision, Flag, Outcome, Prediction, Queued, Review, Reviewed, Run
from penstock.records.answers import MIXED
from penstock.review import drawn
from penstock.reviewing.panel import Panel
from penstock.scoring.roster import Roster
from penstock.services.dashboard import service
from penstock.services.embedded import Embedded, slices
from penstock.services.inference.duty import Duty
from penstock.services.inference.meters import Meters
from penstock.services.inference.sessions import Sessions
from penstock.services.monitoring.service import lanes
from penstock.store.memory import MemoryStore
from penstock.topics import Topics

WORDS: dict[str, Any] = {"hours": 12.5, "door": "gate"}
OTHER = {
    "hours": known({Sent.distance: 45.0, Sent.weight: 5.0}, above=500.0, below=900.0),
    "door": known({Sent.distance: 45.0, Sent.weight: 5.0}, answer="front"),
}
"""What no version knows."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Embedded, Path]:
    """Nine days of parcels; on the seventh an answer of each model, whose label never comes, is flagged and reviewed."""
    folder = tmp_path_factory.mktemp("depot")
    events = apart(history(days=9, a_day=80))
    labelled = {key for topic, key, *_ in events if topic == "took"}
    asked = [msgspec.json.decode(value)["parcel"] for topic, _, value, _ in events if topic == "sent"]
    named = next(name for name in asked if name > "p00500" and name.encode() not in labelled)
    embedded = Embedded(project, folder, 2)

    async def whole() -> None:
        await embedded.start()
        for some, before in slices(events, 12 * 3_600_000_000):
            await embedded.publish(some, before)
            await embedded.settle()
            if any(topic == "sent" and named.encode() in value for topic, _, value, _ in some):
                for model, word in WORDS.items():
                    words = [
                        said(Flag, model, named, "ann", word),
                        *(said(Review, model, named, by, word) for by in ("ada", "bob")),
                    ]
                    await embedded.log.send([sent(embedded.topics, each) for each in words])
        await embedded.close()

    asyncio.run(whole())
    return embedded, folder


@pytest.mark.parametrize("model", WORDS)
def test_what_reviewers_say_of_an_answer_becomes_its_outcome_in_the_whole_loop(run: tuple[Embedded, Path], model: str) -> None:
    embedded, _ = run
    (end,) = [r for r in records(embedded, embedded.topics.reviewed, Reviewed) if r.model == model and r.state == "labelled"]
    assert (end.decided, end.words[0]) == (WORDS[model], WORDS[model])
    (found,) = [o for o in records(embedded, embedded.topics.outcomes(model), Outcome) if o.id == end.prediction]
    assert found.truth == WORDS[model]
    assert not any(q.prediction == end.prediction for q in waiting(embedded.log, embedded.topics) if q.model == model)


def waiting(log: MemoryLog, topics: Topics) -> list[Queued]:
    async def work() -> list[Queued]:
        panel = Panel(topics)
        await panel.watch(log)
        return panel.waiting()

    return asyncio.run(work())


@pytest.mark.parametrize(("model", "measures"), [("hours", {"mae", "rmse"}), ("door", {"accuracy", "log_loss"})])
def test_answers_are_expected_to_be_about_as_good_as_they_turn_out(
    run: tuple[Embedded, Path], model: str, measures: set[str]
) -> None:
    embedded, _ = run
    newest: dict[Any, Cohort] = {c.start: c for c in records(embedded, embedded.topics.cohorts(model), Cohort)}
    told = [c for c in newest.values() if c.estimated and c.complete]
    assert len(told) >= 3 and all(set(c.estimated) == measures for c in told)
    last = max(told, key=lambda c: c.start)
    for name, estimate in last.estimated.items():
        truth = last.measures["served"][name].value
        assert estimate.value == pytest.approx(truth, rel=0.5), name
        assert estimate.compared >= 1 and estimate.error is not None
    shown = "\n".join(" ".join(row) for row in expected([last]))
    assert "-> " in shown and all(f"{name.replace('_', ' ')} expected" in shown for name in measures)
    untold = [c for c in newest.values() if "served" not in c.quality and c.answers]
    assert all(not c.estimated for c in untold), "of answers before there was a model"


def test_what_does_not_know_its_canaries_is_not_offered_and_the_rest_is(run: tuple[Embedded, Path]) -> None:
    embedded, _ = run
    runs = records(embedded, embedded.topics.runs, Run)
    assert all(r.version for r in runs if r.model in WORDS) and {r.model for r in runs if r.version} == set(WORDS)
    refused = [r.data["refused"] for r in runs if r.model == "wrong"]
    assert refused and all("known to lie between 896 and 904" in reason for reason in refused)


@pytest.mark.parametrize("model", WORDS)
def test_whoever_opens_a_version_asks_it_what_is_known(run: tuple[Embedded, Path], model: str) -> None:
    embedded, folder = run
    champion = [d for d in records(embedded, embedded.topics.models, Decision) if d.model == model and d.kind == "champion"][-1]
    sessions = Sessions(Artefacts(folder / "models"), Meters())
    declared = project.model(model)
    duty = Duty(declared, sessions)
    duty.follow(Roster(champion=champion), 0.0)
    assert duty.serving.champion is not None
    odd = dataclasses.replace(declared, canaries=(OTHER[model],))
    of = champion, odd.inputs, odd.label, odd.canaries
    assert sessions.member(*of) is None
    assert sessions.member(*of, alone=True) is not None, "there is nobody else, and it was in charge before they were declared"
    assert ps.load_model(model, project=project, data=folder).version == champion.version
    with pytest.raises(ps.PenstockError, match="answers canaries otherwise"):
        ps.load_model(model, project=ps.Project("depot", [odd]), data=folder)


class Office:
    """Reviewers of both models over the log in memory; `work` lets monitoring work."""

    def __init__(self) -> None:
        self.topics, self.log = Topics(project), MemoryLog()
        self._lane: Any = None

    async def work(self, *words: Prediction | Flag | Review) -> Any:
        if self._lane is None:
            await self.log.create(self.topics.all())
            (self._lane,) = [each for each in lanes(project, self.topics, self.log, MemoryStore()) if each.name == "review"]
        await self.log.send([sent(self.topics, each) for each in words])
        while await self._lane.turn(0):
            pass
        return self._lane

    def labels(self, topic: str) -> list[dict[str, Any]]:
        return [msgspec.json.decode(value or b"") for value in values(self.log, topic)]

    def ends(self) -> list[tuple[str, str, Any, Any]]:
        found = [msgspec.json.decode(value or b"", type=Reviewed) for value in values(self.log, self.topics.reviewed)]
        return [(end.prediction, end.state, end.decided, list(end.words)) for end in found]


def names(model: str, paired: bool) -> list[str]:
    """Ids of answers that are, or are not, given to two."""
    return [name for name in map("a{}".format, range(40)) if (drawn("pair", model, name) < 0.5) == paired]


def office(*words: Prediction | Flag | Review) -> Office:
    found = Office()
    asyncio.run(found.work(*words))
    return found


def shares(front: float, back: float) -> dict[str, float]:
    return {"front": front, "back": back, "gate": 1 - front - back}


def test_classes_are_asked_about_where_the_two_most_probable_are_close() -> None:
    far, close, third = shares(0.60, 0.30), shares(0.45, 0.40), shares(0.34, 0.33)
    found = office(answer("door", "far", 0.6, far), answer("door", "close", 0.45, close), answer("door", "third", 0.34, third))
    queued = waiting(found.log, found.topics)
    assert [(q.prediction, q.answer, round(q.distance, 3)) for q in queued] == [
        ("third", "front", 0.005), ("close", "front", 0.025),
    ]  # fmt: skip


def test_what_several_versions_answered_together_is_asked_about_by_what_was_answered() -> None:
    sure, torn = answer("door", "sure", 0.9, shares(0.45, 0.44)), answer("door", "torn", 0.45, shares(0.9, 0.05))
    assert isinstance(sure.probabilities, dict) and isinstance(torn.probabilities, dict)
    sure.probabilities[MIXED], torn.probabilities[MIXED] = shares(0.9, 0.05), shares(0.45, 0.44)
    found = office(sure, torn)
    assert [(q.prediction, round(q.distance, 3)) for q in waiting(found.log, found.topics)] == [("torn", 0.005)]


def test_numbers_are_asked_about_where_inputs_are_missing_and_when_flagged() -> None:
    blind = msgspec.structs.replace(answer("hours", "blind", 8.0), inputs=msgspec.Raw(b'{"a":null,"b":null,"c":1.0}'))
    found = office(answer("hours", "sure", 9.0), blind, answer("hours", "odd", 7.0), said(Flag, "hours", "odd", "ann", 30.0))
    queued = {q.prediction: q for q in waiting(found.log, found.topics)}
    assert set(queued) == {"blind", "odd"} and queued["odd"].notes == ["ann: 30 would be right"]


@pytest.mark.parametrize(
    ("said_", "state", "label"),
    [([10.0, 11.0], "labelled", 10.5), ([10.0, 20.0, 12.5], "labelled", 12.5), ([10.0, 20.0], "contradicted", None)],
)
def test_two_numbers_within_the_declared_distance_are_the_same_else_the_median_of_three(
    said_: list[float], state: str, label: float | None
) -> None:
    name = names("hours", paired=True)[0]
    words = [said(Review, "hours", name, by, word) for by, word in zip(["ada", "bob", "cyd"], said_, strict=False)]
    found = office(answer("hours", name, 5.0), said(Flag, "hours", name, "ann", 9.0), *words)
    assert found.ends()[-1] == (name, state, label, said_)
    assert [each["hours"] for each in found.labels("took")] == ([] if label is None else [label])


def test_of_classes_the_first_that_two_have_named_is_the_label() -> None:
    name = names("door", paired=True)[0]
    found = office(answer("door", name, 0.4, shares(0.4, 0.35)))
    for by, word in zip(["ada", "bob", "cyd"], ["front", "back", "gate"], strict=True):
        asyncio.run(found.work(said(Review, "door", name, by, word)))
    (still,) = waiting(found.log, found.topics)
    assert (still.have, still.want) == (3, 4), "three named three"
    asyncio.run(found.work(said(Review, "door", name, "dan", "gate")))
    assert [each["door"] for each in found.labels("came")] == ["gate"]
    assert [end[1] for end in found.ends()] == ["contradicted", "labelled"]


def test_words_of_another_kind_are_dead_lettered_with_the_reason() -> None:
    found = office(
        said(Review, "door", "a", "ada", "roof"), said(Review, "hours", "a", "ada", "long"), said(Flag, "hours", "a", "x", 1e80)
    )
    told = [dict(each) for topic in (found.topics.reviews, found.topics.flags) for each in headers(found.log, f"{topic}.dlq")]
    causes = b" ".join(value for each in told for value in each.values())
    assert b"no class 'roof'" in causes and b"is a number, and 'long' is none" in causes and len(told) == 3


def headers(log: MemoryLog, topic: str) -> list[Any]:
    from penstock.log import Partition

    return list(log._stores[Partition(topic, 0)].headers)


def test_people_say_numbers_and_classes_in_a_browser(tmp_path: Path) -> None:
    place, doors = Office(), names("door", paired=True)[:2]
    number = names("hours", paired=False)[0]

    async def made() -> Any:
        lane = await place.work(
            *(answer("door", name, 0.4, shares(0.4, 0.36)) for name in doors), said(Review, "door", doors[0], "ada", "gate"),
            answer("hours", number, 12.345678), said(Flag, "hours", number, "ann", 30.0),
        )  # fmt: skip
        place.running = asyncio.create_task(lane.run())  # type: ignore[attr-defined]
        return service.app(place.topics, place.log)

    async def story(tab: Tab, url: str) -> None:
        await tab.open(f"{url}/reviews")
        await tab.until("document.querySelectorAll('.case').length === 3")
        case = "[...document.querySelectorAll('.case')].find((node) => node.querySelector('.name').textContent === '%s')"
        begun, hours = case % doors[0], case % number
        assert "1 of 2 have decided" in await tab.run(f"{begun}.textContent")
        assert "0 of 2 have decided" in await tab.run(f"({case % doors[1]}).textContent")
        assert "front 0.400" in await tab.run(f"({begun}).textContent")
        assert "12.3457" in await tab.run(f"({hours}).textContent")
        await tab.run("document.getElementById('by').value = 'bob'")
        if picture := os.environ.get("PICTURE"):
            await tab.picture(Path(picture))
        await tab.run(f"({hours}).querySelector('input').focus()")
        await tab.run(f"({hours}).querySelector('input').value = '29.5'")
        await tab.run(f"[...({begun}).querySelectorAll('button')].find((b) => b.textContent === 'gate').click()")
        await tab.until("document.querySelectorAll('.case').length === 2")
        assert await tab.run(f"({hours}).querySelector('input').value") == "29.5", "typed, and not taken away"
        await tab.run(f"({hours}).querySelector('button').click()")
        await tab.until("document.querySelectorAll('.case').length === 1")
        await tab.run("document.querySelectorAll('.flag')[0].querySelector('input').value = 'nobody'")
        assert tab.said == []

    async def browse(url: str) -> None:
        async with browsing(tmp_path / "browser") as tab, asyncio.timeout(120):
            await story(tab, url)
        async with httpx.AsyncClient(base_url=url) as client:
            for model, word in (("hours", "long"), ("hours", True), ("door", "roof"), ("door", 3)):
                refused = await client.post(f"/reviews/{model}", json={"prediction": "x", "says": word, "by": "bob"})
                assert refused.status_code == 400, refused.text
                assert ("number" if model == "hours" else "no class") in refused.json()["error"]
            missing = await client.post("/reviews/door", json={"prediction": "x", "by": "bob"})
            assert "front|back|gate" in missing.json()["error"]
            while len(place.labels("took")) + len(place.labels("came")) < 2:
                await asyncio.sleep(0.01)

    with opened(made) as url:
        asyncio.run(browse(url))
    assert [(each["parcel"], each["hours"]) for each in place.labels("took")] == [(number, 29.5)]
    assert [(each["parcel"], each["door"]) for each in place.labels("came")] == [(doors[0], "gate")]
