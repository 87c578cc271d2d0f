"""The page of reviews: people decide on it in a real browser, and nobody else can have a browser decide for them."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.services.browser import Tab, browsing
from tests.services.clinic import answer, clinic, flag, labels, review, sent, values
from tests.services.opened import opened

from penstock.doors.access import Access
from penstock.doors.keys import Keys
from penstock.log.memory import MemoryLog
from penstock.records import Flag, Prediction, Review
from penstock.services.dashboard import service
from penstock.services.monitoring.service import lanes
from penstock.store.memory import MemoryStore
from penstock.topics import Topics

HOSTILE = "<img src=x onerror=alert(1)>"
SAID: list[Prediction | Flag | Review] = [
    *(answer(f"stay-{i}", 0.42 + 0.02 * i, i, pulse=None if i == 7 else 60.0 + i) for i in range(8)),
    answer("stay-9", 0.97, 9), flag("stay-9", "nurse", False, f"she is at home {HOSTILE}"),
    *(review(f"stay-{i}", "ada", i > 4) for i in (0, 1, 6)), *(review(f"stay-{i}", "bob", i > 3) for i in (0, 1, 6)),
]  # fmt: skip


class Desk:
    """The dashboard and the lane of reviews over one log, on a real socket."""

    def __init__(self, topics: Topics, door: Callable[[Any], Any] = lambda app: app) -> None:
        self.topics, self.log, self._door = topics, MemoryLog(), door
        self._tasks: list[asyncio.Task[None]] = []

    async def made(self) -> Any:
        await self.log.create(self.topics.all())
        await self.log.send([sent(self.topics, said) for said in SAID])
        (lane,) = [lane for lane in lanes(self.topics.project, self.topics, self.log, MemoryStore()) if lane.name == "review"]
        self._tasks.append(asyncio.create_task(lane.run()))
        return self._door(service.app(self.topics, self.log))


def test_people_decide_in_a_browser_and_the_label_is_published(tmp_path: Path) -> None:
    desk = Desk(clinic(pairs=0.5))

    async def story(tab: Tab, url: str) -> None:
        await tab.open(f"{url}/reviews")
        await tab.until("document.querySelectorAll('.case').length > 3")
        first = "document.querySelector('.case')"
        assert "1 of 2 have decided" not in await tab.run(f"{first}.textContent")
        pair = "[...document.querySelectorAll('.case')].find((node) => node.textContent.includes('0 of 2 have decided'))"
        await tab.until(f"{pair} !== undefined")
        assert HOSTILE in await tab.run(f"{first}.textContent"), "flagged ones are first; what people wrote is text"
        if picture := os.environ.get("PICTURE"):
            await tab.picture(Path(picture))
        await tab.run(f"{first}.querySelectorAll('button')[1].click()")
        await tab.until("document.getElementById('trouble').textContent.includes('Who says so?')")
        await tab.run("document.getElementById('by').value = 'cyd'")
        await tab.run(f"{first}.querySelectorAll('button')[1].click()")
        await tab.until(f"!{first}.textContent.includes('stay-9')")
        await tab.run("document.querySelector('.flag input').value = 'stay-3'")
        await tab.run("document.querySelector('.flag button').click()")
        await tab.until("document.querySelector('.flag input').value === ''")
        assert tab.said == [], "no script failed, and the policy kept nothing back"

    async def browse(url: str) -> None:
        async with browsing(tmp_path / "browser") as tab, asyncio.timeout(120):
            await story(tab, url)

    with opened(desk.made) as url:
        asyncio.run(browse(url))
        found = {x["stay_id"]: x["returned"] for x in labels(desk.log, desk.topics)}
        assert found["stay-9"] is False
    flags = [msgspec.json.decode(v or b"", type=Flag) for v in values(desk.log, desk.topics.flags)]
    assert [(f.prediction, f.by, f.says) for f in flags[1:]] == [("stay-3", "cyd", None)]


Talk = Callable[[httpx.AsyncClient], Awaitable[None]]


def talked(desk: Desk, talk: Talk) -> None:
    async def whole(url: str) -> None:
        async with httpx.AsyncClient(base_url=url) as client:
            while not (await client.get("/readyz")).json().get("ready"):
                await asyncio.sleep(0.01)
            await talk(client)

    with opened(desk.made) as url:
        asyncio.run(whole(url))


def test_what_a_page_from_elsewhere_could_send_is_refused() -> None:
    desk = Desk(clinic(), lambda app: Access().door(app, "127.0.0.1"))
    body = json.dumps({"prediction": "stay-2", "says": True, "by": "eve"})

    async def talk(client: httpx.AsyncClient) -> None:
        async def status(**headers: str) -> int:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return (await client.post("/reviews/readmission", content=body, headers=named)).status_code

        plain = "application/json"
        assert await status(content_type="text/plain") == 415, "what a form sends"
        assert await status(content_type="application/x-www-form-urlencoded") == 415
        assert await status(content_type=plain, sec_fetch_site="cross-site") == 403
        assert await status(content_type=plain, sec_fetch_site="same-site") == 403
        assert await status(content_type=plain, origin="https://elsewhere.example") == 403
        assert values(desk.log, desk.topics.reviews)[6:] == []
        assert await status(content_type=plain, sec_fetch_site="same-origin") == 202

    talked(desk, talk)


def test_with_keys_people_speak_in_the_name_of_their_key_and_a_remembered_password_decides_nothing(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json", "pepper")
    ada, words = keys.create("ada", ["label"])
    _, reading = keys.create("reports", ["predict"])
    access = Access(keys=str(keys.path), pepper="pepper")
    desk = Desk(clinic(), lambda app: access.door(app, "0.0.0.0"))
    said = {"prediction": "stay-2", "says": True}

    async def talk(client: httpx.AsyncClient) -> None:
        bearer, other = {"authorization": f"Bearer {words}"}, {"authorization": f"Bearer {reading}"}
        where = "/reviews/readmission"
        assert (await client.post(where, json=said)).status_code == 401
        assert (await client.post(where, json=said, headers=other)).status_code == 403
        assert (await client.post(where, json=said, auth=("ada", words))).status_code == 401, "as a browser sends it by itself"
        page = await client.get("/reviews", auth=("ada", words))
        assert page.status_code == 200 and "<label hidden>you are" in page.text
        assert (await client.get("/static/reviews.js", auth=("ada", words))).status_code == 200
        assert (await client.get("/", auth=("ada", words))).status_code == 403, "the rest is for administrators"
        wrong = await client.post(where, json={**said, "by": "bob"}, headers=bearer)
        assert (wrong.status_code, "speaks for" in wrong.json()["error"]) == (400, True)
        assert (await client.post(where, json=said, headers=bearer)).status_code == 202

    async def ready(client: httpx.AsyncClient) -> None:
        await talk(client)

    talked(desk, ready)
    found = [msgspec.json.decode(v or b"", type=Review) for v in values(desk.log, desk.topics.reviews)]
    assert found[-1].by == f"key:{ada.id}"


@pytest.mark.parametrize(
    ("path", "said", "status", "words"),
    [
        ("/reviews/readmission", {"prediction": "stay-2", "by": "x"}, 400, "give `says`"),
        ("/reviews/readmission", {"prediction": "stay-2", "says": True}, 400, "who says so?"),
        ("/reviews/readmission", {"prediction": "stay-9", "says": True, "by": "nurse"}, 400, "another person decides"),
        ("/reviews/other", {"prediction": "stay-2", "says": True, "by": "x"}, 400, "there is: readmission"),
        ("/flags/readmission", {"prediction": "", "by": "x"}, 400, "prediction"),
        ("/flags/readmission", {"prediction": "a", "by": "x" * 81}, 400, "by"),
        ("/flags/readmission", ["a"], 400, "not {"),
        ("/flags/readmission", {"prediction": "a", "by": "x", "why": "w" * 20_000}, 413, "longer than"),
    ],
)
def test_what_cannot_be_taken_is_refused_in_a_sentence(path: str, said: Any, status: int, words: str) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        while not (await client.get("/reviews/waiting")).json()[0]["waiting"]:
            await asyncio.sleep(0.01)
        answer = await client.post(path, json=said)
        assert answer.status_code == status and words in answer.json()["error"], answer.text

    talked(Desk(clinic(pairs=0.5)), talk)


def test_the_page_runs_no_inline_script_and_puts_text_in_as_text() -> None:
    import re

    folder = Path(service.__file__).parent
    page, script = (folder / "templates/reviews.html").read_text(), (folder / "static/reviews.js").read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc", script)
    assert not re.search(r"<script(?! src=)|<style|style=|\son\w+=|javascript:|https?:", page)
