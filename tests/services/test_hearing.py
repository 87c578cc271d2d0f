"""POST /flags and /reviews on the gateway: what people say lies in the log before they are thanked for it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.services.air import client_of
from tests.services.clinic import clinic, values

from penstock.artefact import Artefacts
from penstock.doors.access import Access
from penstock.doors.keys import Keys
from penstock.log import Partition
from penstock.log.memory import MemoryLog
from penstock.records import Flag, Review
from penstock.services.inference.gateway.api import gateway
from penstock.services.inference.meters import Meters
from penstock.services.inference.sessions import Sessions

TOPICS = clinic(4)


def told(
    folder: Path, *asked: tuple[str, Any], door: Any = lambda app: app, **more: Any
) -> tuple[MemoryLog, list[httpx.Response]]:
    async def work() -> tuple[MemoryLog, list[httpx.Response]]:
        log, meters = MemoryLog(), Meters()
        look: Any = None  # nothing is scored
        await log.create(TOPICS.all())
        app = gateway(TOPICS, log, Sessions(Artefacts(folder), meters), meters, look)
        async with app.router.lifespan_context(app), client_of(door(app)) as client:
            return log, [await client.post(path, json=body, **more) for path, body in asked]

    return asyncio.run(work())


def test_a_flag_and_a_review_are_written_to_the_partition_of_their_answer(tmp_path: Path) -> None:
    log, answers = told(
        tmp_path,
        ("/flags/readmission", {"prediction": "s1", "says": False, "why": "at home", "by": "ann"}),
        ("/reviews/readmission", {"prediction": "s1", "says": True, "by": "ada"}),
    )
    assert [a.status_code for a in answers] == [202, 202], answers[0].text
    assert answers[1].json() == {"prediction": "s1", "model": "readmission", "by": "ada"}
    (flag,) = [msgspec.json.decode(v or b"", type=Flag) for v in values(log, TOPICS.flags, 4)]
    (review,) = [msgspec.json.decode(v or b"", type=Review) for v in values(log, TOPICS.reviews, 4)]
    assert (flag.by, flag.says, flag.why, review.by, review.says) == ("ann", False, "at home", "ada", True)
    places = [{n for n in range(4) if log._stores[Partition(topic, n)].values} for topic in (TOPICS.flags, TOPICS.reviews)]
    assert places[0] == places[1]


def test_a_key_speaks_in_its_own_name_and_needs_the_scope_label(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json", "pepper")
    ada, words = keys.create("ada", ["label"])
    _, other = keys.create("app", ["predict", "publish"])

    def guarded(app: Any) -> Any:
        return Access(keys=str(keys.path), pepper="pepper").door(app, "0.0.0.0")

    said = ("/flags/readmission", {"prediction": "s1"})
    _, (answer,) = told(tmp_path, said, door=guarded, headers={"x-api-key": words})
    assert answer.json()["by"] == f"key:{ada.id}"
    _, (refused,) = told(tmp_path, said, door=guarded, headers={"x-api-key": other})
    assert (refused.status_code, "needs the scope label" in refused.json()["error"]) == (403, True)


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/flags/readmission", {"prediction": "s1"}, 400, "who says so?"),
        ("/flags/other", {"prediction": "s1", "by": "ann"}, 400, "there is: readmission"),
        ("/flags", {"prediction": "s1", "by": "ann"}, 400, "model ''"),
        ("/reviews/readmission", {"prediction": "s1", "by": "ann", "says": "yes"}, 400, "true or false, not 'yes'"),
        ("/reviews/readmission", {"prediction": "s" * 1025, "by": "ann", "says": True}, 400, "1024"),
        ("/reviews/readmission", {"prediction": "s", "by": "ann", "says": True, "why": "w" * 20_000}, 413, "longer"),
    ],
)
def test_what_cannot_be_taken_is_refused_in_a_sentence(tmp_path: Path, path: str, body: Any, status: int, words: str) -> None:
    log, (answer,) = told(tmp_path, (path, body))
    assert answer.status_code == status and words in answer.json()["error"], answer.text
    assert values(log, TOPICS.flags, 4) == values(log, TOPICS.reviews, 4) == []
