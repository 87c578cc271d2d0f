"""The dashboard on the log in memory: the page, who follows it, what it says in trouble, and what it never does."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager
from html import escape
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tests.services.cars import CARS, Trip, alarm, decision, topics, window

import penstock as ps
from penstock.log import LogError, Partition, Send
from penstock.log.memory import MemoryLog
from penstock.services.dashboard import service
from penstock.services.dashboard.headers import HEADERS
from penstock.services.dashboard.lookout import Lookout
from penstock.topics import Topics

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&\r\n\r\nevent: picture\ndata: {}"


async def filled(records: Sequence[Send] = (), declared: Topics = CARS) -> MemoryLog:
    log = MemoryLog()
    await log.create(declared.all())
    await log.send(records)
    return log


Messages = AsyncIterator[tuple[str, Any]]


@asynccontextmanager
async def events(app: FastAPI) -> AsyncIterator[Messages]:
    """The events of /events as (type, data), as a browser takes them; httpx's transport would wait for their end."""
    chunks: asyncio.Queue[bytes] = asyncio.Queue()
    gone = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            assert message["status"] == 200
            assert (b"content-type", b"text/event-stream; charset=utf-8") in message["headers"]
        elif message.get("body"):
            await chunks.put(message["body"])

    async def parsed() -> Messages:
        text = b""
        while True:
            text += await chunks.get()
            *whole, text = text.split(b"\n\n")
            for block in whole:
                fields = [line.partition(": ") for line in block.decode().split("\n")]
                data = "".join(value for name, _, value in fields if name == "data")
                if data:
                    yield next(value for name, _, value in fields if name == "event"), json.loads(data)

    scope = {"type": "http", "method": "GET", "path": "/events", "raw_path": b"/events", "query_string": b"", "headers": [], "http_version": "1.1", "scheme": "http", "server": ("test", 80), "client": ("test", 1), "root_path": ""}  # fmt: skip  # noqa: E501
    serving = asyncio.ensure_future(app(scope, receive, send))
    messages = parsed()
    try:
        yield messages
    finally:
        gone.set()
        async with asyncio.timeout(5):
            await serving
        await messages.aclose()  # type: ignore[attr-defined]


def served(
    check: Callable[[httpx.AsyncClient, FastAPI], Awaitable[None]], records: Sequence[Send] = (), declared: Topics = CARS
) -> None:
    """Run a check against the application as it is served, after its first look."""

    async def run() -> None:
        app = service.app(declared, await filled(records, declared))
        async with app.router.lifespan_context(app), events(app) as messages:
            await anext(messages)
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
                await check(client, app)

    asyncio.run(run())


# ---- the page


def test_the_page_shows_every_model_and_says_how_each_tile_is_computed() -> None:
    async def check(client: httpx.AsyncClient, _: FastAPI) -> None:
        answer = await client.get("/")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "<title>cars · Penstock</title>" in answer.text
        tiles = answer.text.count('<section class="tile')
        assert tiles == 6
        assert answer.text.count('<details class="how">') == tiles
        assert answer.text.count("<p>The same on the command line: <code>penstock ") == tiles
        assert "$" not in answer.text, "a place of the template was not filled"
        assert '<b class="number" data-count="events">2</b>' in answer.text

    served(check, [Send("trips", b"a", b"{}"), Send("ends", b"a", b"{}")])


def test_every_command_that_the_page_names_exists() -> None:
    from typer.main import get_command

    from penstock.cli import app as cli

    async def check(client: httpx.AsyncClient, _: FastAPI) -> None:
        text = re.sub(r"<[^>]+>", "", (await client.get("/")).text)
        script = (await client.get("/static/app.js")).text
        named = set(re.findall(r"penstock ([a-z]+)(?: ([a-z]+))?", text)) | set(re.findall(r"penstock ([a-z]+) ([a-z]+)", script))
        commands: Any = get_command(cli)
        for first, second in named:
            assert first in commands.commands, f"penstock {first}"
            below = getattr(commands.commands[first], "commands", None)
            assert below is None or second in below, f"penstock {first} {second}"

    served(check)


def test_an_empty_project_is_told_what_to_type() -> None:
    async def check(client: httpx.AsyncClient, _: FastAPI) -> None:
        page = (await client.get("/")).text
        empties = re.findall(r'<p class="empty"[^>]*>(.*?)</p>', page, re.S)
        assert len(empties) == 6
        assert all("<code>penstock " in empty for empty in empties)
        picture = (await client.get("/picture")).json()
        assert [place["count"] for place in picture["flow"]["places"]] == [0, 0, 0, 0]
        assert picture["flow"]["until"] is None
        model = picture["models"][0]
        assert (model["champion"], model["steps"], model["heat"]["rows"], model["alarms"], model["happenings"]) == (
            None,
            [],
            [],
            [],
            [],
        )
        assert (await client.get("/readyz")).json() == {"ready": True}

    served(check)


def test_a_project_without_models_is_told_how_to_declare_one() -> None:
    @ps.features(by=[Trip.car])
    class Car:
        trips = ps.count(Trip, over="1h")

    declared = Topics(ps.Project("rowsonly", rows={Trip: [Car]}))

    async def check(client: httpx.AsyncClient, _: FastAPI) -> None:
        assert "<code>@ps.model(...)</code>" in (await client.get("/")).text
        assert (await client.get("/picture")).json()["models"] == []

    served(check, declared=declared)


def test_the_page_loads_nothing_from_elsewhere_and_runs_no_inline_script() -> None:
    async def check(client: httpx.AsyncClient, _: FastAPI) -> None:
        page = await client.get("/")
        for name in ("app.js", "style.css", "icon.svg"):
            assert f"static/{name}" in page.text
            assert (await client.get(f"/static/{name}")).status_code == 200
        for path in ("/", "/picture", "/static/app.js", "/healthz", "/nowhere"):
            answer = await client.get(path)
            assert HEADERS.items() <= dict(answer.headers).items()
            assert answer.headers["cache-control"] in ("no-store", "no-cache")
        assert HEADERS["content-security-policy"].startswith("default-src 'self';")
        style = (await client.get("/static/style.css")).text
        assert not re.search(r"https?:|//\w|@import|url\(", page.text + style)
        assert not re.search(r"<script(?! src=)|<style|style=|\son\w+=|javascript:", page.text)

    served(check)


def test_files_beside_the_static_folder_are_not_served() -> None:
    async def check(client: httpx.AsyncClient, _: FastAPI) -> None:
        for path in ("/static/../service.py", "/static/%2e%2e/service.py", "/static/..%2fservice.py", "/static/"):
            assert (await client.get(path)).status_code == 404

    served(check)


# ---- what people write


def test_hostile_names_are_escaped_in_the_page() -> None:
    declared = topics(HOSTILE)

    async def check(client: httpx.AsyncClient, _: FastAPI) -> None:
        page = (await client.get("/")).text
        assert "<img src=x" not in page
        assert escape(HOSTILE).splitlines()[0] in page
        assert "`" not in page

    async def run() -> None:
        log = MemoryLog()  # Kafka would refuse such topics; a name must be harmless all the same
        await log.create(declared.all())
        app = service.app(declared, log)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
        ):
            await check(client, app)

    asyncio.run(run())


def test_hostile_reasons_stay_inside_their_event() -> None:
    records = [decision("champion", "champion", "v1", HOSTILE), alarm(inputs=[{"input": HOSTILE, "ks": 0.5}], why=HOSTILE)]

    async def run() -> None:
        app = service.app(CARS, await filled(records))
        async with app.router.lifespan_context(app), events(app) as messages:
            kind, data = await anext(messages)
            assert kind == "picture"
            assert data["models"][0]["champion"]["reason"] == HOSTILE
            assert " ".join(HOSTILE.split()) in data["models"][0]["alarms"][0]["facts"][0]
            kind, data = await anext(messages)
            assert (kind, data["models"]) == ("flow", None)

    asyncio.run(run())


def test_the_script_puts_text_in_as_text() -> None:
    script = (Path(service.__file__).parent / "static" / "app.js").read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc", script)


# ---- following


def test_the_first_event_has_everything_and_a_new_record_sends_everything_again() -> None:
    async def run() -> None:
        log = await filled([window(0)])
        lookout = Lookout(CARS, log, clock=lambda: 0.0)
        stream = lookout.stream()
        assert await anext(stream) == b"retry: 2000\n\n"
        kinds = []
        for record in (None, None, window(1), None):
            if record is not None:
                await log.send([record])
            await lookout.look()
            kinds.append((await anext(stream)).split(b"\n")[0])
        assert kinds == [b"event: picture", b"event: flow", b"event: picture", b"event: flow"]
        assert lookout.viewers == 1
        await stream.aclose()
        assert lookout.viewers == 0

    asyncio.run(run())


def test_whoever_leaves_is_no_longer_counted_and_too_many_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MOST_VIEWERS", 2)

    async def check(client: httpx.AsyncClient, app: FastAPI) -> None:
        async with events(app) as second:
            await anext(second)
            refused = await client.get("/events")
            assert refused.status_code == 503
            assert "close one" in refused.json()["error"]
        async with events(app) as again:
            assert (await anext(again))[0] == "picture"

    served(check)


def test_rates_are_records_a_second_over_the_last_looks() -> None:
    async def run() -> None:
        seconds = iter(range(100, 200, 2))
        log = await filled()
        lookout = Lookout(CARS, log, clock=lambda: next(seconds))
        await lookout.look()
        assert lookout.flow().places[0].rate is None
        for _ in range(20):
            await log.send([Send("trips", b"a", b"{}")] * 3 + [Send("ends", b"a", b"{}")])
            await lookout.look()
        events, rows, *_ = lookout.flow().places
        assert (events.count, events.rate, rows.rate) == (80, 2.0, 0.0)

    asyncio.run(run())


def test_it_sends_nothing_and_joins_no_group() -> None:
    class ReadOnly(MemoryLog):
        sealed = False

        async def send(self, records: Sequence[Send]) -> dict[Partition, int]:
            assert not self.sealed, "the dashboard wrote"
            return await super().send(records)

        async def join(self, *_: Any, **__: Any) -> Any:
            raise AssertionError("the dashboard shares no partitions")

    async def run() -> None:
        log = ReadOnly()
        await log.create(CARS.all())
        await log.send([window(0), alarm(), Send(CARS.alarms, b"late", b"not json")])
        log.sealed = True
        app = service.app(CARS, log)
        async with app.router.lifespan_context(app), events(app) as messages:
            assert (await anext(messages))[1]["flow"]["unreadable"] == 1

    asyncio.run(run())


# ---- trouble


def test_a_log_that_is_away_is_told_and_waited_for() -> None:
    class Flaky(MemoryLog):
        away = False

        async def ends(self, topics: Sequence[str]) -> dict[Partition, int]:
            if self.away:
                raise LogError("no broker at kafka:9092; start one with: penstock up")
            return await super().ends(topics)

    async def run() -> None:
        log = Flaky()
        await log.create(CARS.all())
        lookout = Lookout(CARS, log, clock=lambda: 0.0)
        assert lookout.missing() == "it has not read the topics to their end yet"
        log.away = True
        await lookout.look()
        assert "penstock up" in lookout.missing()
        assert "penstock up" in lookout.flow().log
        log.away = False
        await lookout.look()
        assert (lookout.missing(), lookout.flow().log) == ("", "")

    asyncio.run(run())


def test_a_log_that_does_not_answer_is_told_while_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.services.dashboard.lookout.SILENCE", 0.01)

    class Silent(MemoryLog):
        answers = asyncio.Event()

        async def ends(self, topics: Sequence[str]) -> dict[Partition, int]:
            await self.answers.wait()
            return await super().ends(topics)

    async def run() -> None:
        log = Silent()
        await log.create(CARS.all())
        app = service.app(CARS, log)
        async with app.router.lifespan_context(app), events(app) as messages:
            _, data = await anext(messages)
            assert data["flow"]["log"].startswith("no answer for 0 s; ")
            log.answers.set()
            while data["flow"]["log"]:
                _, data = await anext(messages)

    asyncio.run(run())


def test_a_gap_folds_the_topics_anew() -> None:
    async def run() -> None:
        log = await filled([alarm()])
        lookout = Lookout(CARS, log, clock=lambda: 0.0)
        await lookout.look()
        assert lookout.picture.alarms == 1
        await log.send([decision("champion", "champion", "v1")] * 3)
        log.trim(Partition(CARS.models, 0), 2)  # deleted unread
        await lookout.look()
        assert "anew" in lookout.missing()
        await lookout.look()
        assert lookout.missing() == ""
        assert (lookout.picture.alarms, lookout.picture.champions["late"].version) == (1, "v1")

    asyncio.run(run())


def test_a_reader_that_died_is_not_ready() -> None:
    class Broken(MemoryLog):
        async def begins(self, topics: Sequence[str]) -> dict[Partition, int]:
            raise ZeroDivisionError("a bug")

    async def run() -> None:
        log = Broken()
        await log.create(CARS.all())
        app = service.app(CARS, log)
        async with app.router.lifespan_context(app), events(app) as messages:
            assert "stopped reading: ZeroDivisionError: a bug" in (await anext(messages))[1]["flow"]["log"]
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
                assert (await client.get("/readyz")).status_code == 503
                assert (await client.get("/healthz")).json() == {"live": True}

    asyncio.run(run())
