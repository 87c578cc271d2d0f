"""The dashboard on the log in memory: what the page shows, what it says while there is nothing, and what it never does."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI

import penstock as ps
from penstock.log import LogError, Partition, Send
from penstock.log.memory import MemoryLog
from penstock.records import Alarm, Command, Decision, Quality, Shift, Statistic
from penstock.services.dashboard import service
from penstock.services.dashboard.headers import HEADERS
from penstock.services.dashboard.heat import COLUMNS, ROWS
from penstock.services.dashboard.lookout import Lookout
from penstock.services.dashboard.shown import STEPS
from penstock.topics import Topics

START = datetime(2013, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
HOSTILE = "</script><img src=x onerror=alert(1)>\"'&\r\n\r\nevent: picture\ndata: {}"


@ps.event("trips")
class Trip:
    trip_id: ps.Id[str]
    car: ps.Key[str]
    distance: float
    load: float
    at: ps.EventTime


@ps.event("ends")
class End:
    trip_id: ps.Key[str]
    late: bool
    at: ps.EventTime


def topics(name: str = "late") -> Topics:
    def build() -> ps.Learner:
        raise AssertionError("nobody fits here")

    build.__name__ = name
    model = ps.model(
        scores=Trip,
        features=[Trip.distance, Trip.load],
        label=ps.label(End.late, within="1h"),
        monitors=[ps.drift(every="1d", material=0.1)],
        retrain=ps.every("7d", first="3d"),
        rollout=[ps.shadow("1d"), ps.canary(0.25, "1d")],
    )(build)
    return Topics(ps.Project("cars", [model]))


CARS = topics()


def quality(n: int, loss: float) -> Quality:
    return Quality(n=n, positives=n // 3, loss=n * loss, squares=0.0)


def window(day: int, n: int = 100, loss: float = 0.5, drift: Mapping[str, Shift] | None = None, **more: float) -> Send:
    said = Statistic(
        id=f"late/{day}", model="late", start=START + day * DAY, end=START + (day + 1) * DAY,
        quality={"served": quality(n, loss), **{v: quality(n, x) for v, x in more.items()}} if n else {},
        paired={}, log_loss={}, auc={"served": 0.7} if n else {}, prior=0.3, prior_loss=0.6 if n else None, skill=0.1,
        drift=dict(drift or {}), counts={}, reference="v1",
    )  # fmt: skip
    return Send(CARS.statistics("late"), b"w", msgspec.json.encode(said))


def shift(ks: float, critical: float = 0.05) -> Shift:
    return Shift(ks=ks, psi=0.0, critical=critical, n=900)


def decision(alias: str, kind: str, version: str, reason: str = "", share: float = 0.0, **evidence: Any) -> Send:
    said = Decision(
        id=f"{kind}/{version}", model="late", kind=kind, version=version, at=START + DAY, actor="registry", reason=reason,
        share=share, expected="v0", evidence=evidence,
    )  # fmt: skip
    return Send(CARS.models, f"late/{alias}".encode(), msgspec.json.encode(said))


def alarm(state: str = "raised", **evidence: Any) -> Send:
    said = Alarm(id=f"late/drift/{state}", model="late", signal="drift", state=state, at=START + 2 * DAY, evidence=evidence)
    return Send(CARS.alarms, b"late", msgspec.json.encode(said))


async def filled(records: Sequence[Send] = (), declared: Topics = CARS) -> MemoryLog:
    log = MemoryLog()
    await log.create(declared.all())
    await log.send(records)
    return log


async def seen(records: Sequence[Send] = ()) -> Any:
    """What /picture answers about these records."""
    lookout = Lookout(CARS, await filled(records), clock=lambda: 0.0)
    await lookout.look()
    return json.loads(lookout.message())


def shown(*records: Send) -> Any:
    return asyncio.run(seen(records))["models"][0]


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
        await asyncio.wait_for(serving, 5)
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
        assert len(re.findall(r'<h3 [^>]*title="[^"]+The same: penstock [^"]+"', answer.text)) == tiles
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
        assert (await client.get("/readyz")).json() == {"ready": True, "missing": ""}

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
            assert HOSTILE in data["models"][0]["alarms"][0]["facts"][0]
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


def test_lag_is_what_became_neither_a_record_of_the_next_stage_nor_a_dead_letter() -> None:
    trips = [Send("trips", b"a", b"{}")] * 10
    rows = [Send(CARS.rows(CARS.project.events[0]), b"a", b"{}")] * 6
    answers = [Send(CARS.predictions("late"), b"a", b"{}")] * 5
    outcomes = [Send(CARS.outcomes("late"), b"a", b"{}")] * 2
    flow = asyncio.run(seen([*trips, *rows, *answers, *outcomes, Send("trips.dlq", b"a", b"x")]))["flow"]
    assert [place["waiting"] for place in flow["places"]] == [None, 3, 1, 3]
    assert (flow["dead_total"], flow["dead"]) == (1, [{"topic": "trips.dlq", "count": 1}])


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


# ---- what is shown of a model


def test_a_window_without_labels_is_a_gap_not_a_zero() -> None:
    steps = shown(window(0), window(1, n=0), window(2, loss=0.4))["steps"]
    assert [(step[2], step[3], step[4]) for step in steps] == [(100, 0.5, 0.6), (0, None, None), (100, 0.4, 0.6)]


def test_long_histories_are_added_together_and_stay_exact() -> None:
    days, losses = 4 * STEPS, [0.3 + (day % 7) / 10 for day in range(4 * STEPS)]
    model = shown(*[window(day, n=10 + day % 3, loss=losses[day]) for day in range(days)])
    assert (len(model["steps"]), model["covers"]) == (STEPS, 4)
    assert sum(step[2] for step in model["steps"]) == sum(10 + day % 3 for day in range(days))
    n = [10 + day % 3 for day in range(4)]
    assert model["steps"][0][3] == pytest.approx(sum(n[d] * losses[d] for d in range(4)) / sum(n), abs=1e-5)


def test_a_hole_in_time_stays_a_hole_when_windows_are_added_together() -> None:
    days = [*range(STEPS), *range(3 * STEPS, 4 * STEPS)]
    steps = shown(*[window(day) for day in days])["steps"]
    ends = [(a[1], b[0]) for a, b in pairwise(steps) if a[1] != b[0]]
    assert ends == [((START + STEPS * DAY).isoformat()[:19] + "Z", (START + 3 * STEPS * DAY).isoformat()[:19] + "Z")]


def test_drift_is_relative_to_the_greater_of_chance_and_what_is_material() -> None:
    model = shown(window(0, drift={"Trip.distance": shift(0.5, 0.05), "Trip.load": shift(0.3, 0.2)}))
    assert model["heat"]["rows"] == [
        {"input": "Trip.distance", "cells": [[0.5, 0.1, 900]]},
        {"input": "Trip.load", "cells": [[0.3, 0.2, 900]]},
    ]


def test_a_window_in_which_nothing_was_tested_is_a_column_of_its_own() -> None:
    tested = {"Trip.load": shift(0.2)}
    heat = shown(window(0, drift=tested), window(1), window(3, drift=tested))["heat"]
    assert [cell is None for cell in heat["rows"][0]["cells"]] == [False, True, True, False]
    assert len(heat["columns"]) == 4


def test_the_heat_map_keeps_the_newest_windows_and_the_inputs_that_moved_most() -> None:
    names = [f"input{at:03}" for at in range(2 * ROWS)]
    records = [window(day, drift={name: shift(0.001 * at) for at, name in enumerate(names)}) for day in range(COLUMNS + 5)]
    heat = shown(*records)["heat"]
    assert (len(heat["columns"]), heat["inputs"]) == (COLUMNS, 2 * ROWS)
    assert [row["input"] for row in heat["rows"]] == names[ROWS:]
    assert heat["columns"][-1] == (START + (COLUMNS + 5) * DAY).isoformat()[:19] + "Z"


def test_a_challenger_is_shown_with_its_stage_and_how_it_does() -> None:
    model = shown(
        decision("champion", "champion", "v1", share=1.0),
        decision("challenger", "canary", "v2", share=0.25, stage=1, n=700, mean=-0.02, error=0.01, against="v1"),
        window(0, v2=0.45),
    )
    assert model["challenger"]["trying"] == {"n": 700, "mean": -0.02, "error": 0.01, "against": "v1"}
    assert (model["challenger"]["stage"], model["challenger"]["share"]) == (1, 0.25)
    assert model["steps"][0][5] == 0.45


def test_a_challenger_that_was_promoted_is_no_challenger_any_more() -> None:
    model = shown(decision("challenger", "canary", "v2"), decision("champion", "champion", "v2"))
    assert (model["champion"]["version"], model["challenger"]) == ("v2", None)


def test_happenings_are_shown_newest_first_whatever_order_the_topics_are_read_in() -> None:
    model = shown(decision("champion", "champion", "v1", "first"), alarm(tested=3), alarm("cleared"))
    assert [(h["kind"], h["state"]) for h in model["happenings"]] == [
        ("alarm", "cleared"),
        ("alarm", "raised"),
        ("champion", "promoted"),
    ]
    assert [mark["kind"] for mark in model["marks"]] == ["champion", "alarm", "cleared"]
    assert model["alarms"] == []


def test_an_open_alarm_shows_the_inputs_that_moved_with_their_limits() -> None:
    inputs = [{"input": "Trip.load", "ks": 0.5, "critical": 0.05, "floor": 0.1, "n": 900}]
    opened = shown(alarm(since="2013-01-02T00:00:00+00:00", inputs=inputs, shifted=1))["alarms"][0]
    assert opened["facts"] == ["Trip.load: KS 0.50, limit 0.10, 900 values", "shifted 1"]
    assert opened["since"] == "2013-01-02T00:00:00+00:00"


def test_commands_of_people_reach_the_page_only_as_the_registry_decided_them() -> None:
    command = Command(id="c", model="late", action="promote", at=START, actor="somebody", reason=HOSTILE)
    assert shown(Send(CARS.commands, b"late", msgspec.json.encode(command)))["happenings"] == []
