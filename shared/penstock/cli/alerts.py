"""alerts: who is told of alarms, what they were told, and what they want not to hear."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from . import screen
from .options import command, project_settings, settings_of, topics_of

if TYPE_CHECKING:
    from ..log import Log, Readable
    from ..records import Notice, Silence
    from ..topics import Topics

__all__ = ["app", "stream_now"]

app = typer.Typer(help="Who is told of alarms, and what.", no_args_is_help=True)

FILES: Final = "penstock.services.monitoring"
"""The package that has the folders prometheus and grafana."""
FOLDERS: Final = ("prometheus", "grafana")
WIDE: Final = 160
"""Characters of evidence on a line."""


@app.callback()
def _group() -> None:
    """Who is told of alarms, what they were told, and what they want not to hear."""


@command(app, name="list", kept=True)
def listed(
    newest: Annotated[int, typer.Option("--newest", min=1, help="At most so many notices, the newest.")] = 20,
) -> None:
    """Show what people were told and why, and which silences hold.

    The evidence that weighs most comes first; all of it is in --json. What a route could not deliver is in the dead letters:
    penstock dlq list
    """
    import msgspec

    from ..pages.words import cut
    from ..records import Notice
    from . import broker

    settings = project_settings()
    topics = topics_of(settings)

    async def work(log: Readable) -> tuple[list[Notice], list[Silence], datetime]:
        broker.known(topics.notices, await log.describe())
        said = [msgspec.json.decode(found.value or b"", type=Notice) async for found in broker.held(log, topics.notices)]
        now = await stream_now(log, topics)
        return said[-newest:], [s for s in await _silences(log, topics) if s.until > now], now

    notices, silences, now = broker.read(settings, topics, work, f"reading {topics.notices}")
    table = [(f"{n.alarms[0].at:%Y-%m-%d %H:%M}", n.subject, n.state, _signals(n), cut(_because(n), WIDE)) for n in notices]
    quiet = [
        f"  silent  {s.subject} {s.cause} until {s.until:%Y-%m-%d %H:%M}, {s.actor}: {s.reason or 'no reason given'}".rstrip()
        for s in silences
    ]
    screen.answer(
        {"notices": notices, "silences": silences, "stream_time": now},
        screen.rows([("at (stream)", "of", "", "alarms", "because"), *table]) if table else [],
        quiet,
    )
    if not table:
        screen.note(f"nobody was told anything of {topics.prefix} yet: no alarm was raised")


def _signals(notice: Notice) -> str:
    names = [alarm.signal for alarm in notice.alarms]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _because(notice: Notice) -> str:
    """What the first of its alarms goes by."""
    from ..evidence import summary

    return summary(notice.alarms[0].evidence)


@command(app)
def silence(
    subject: Annotated[str, typer.Argument(metavar="MODEL|TOPIC", help="A model, or the topic of an event.", show_default=False)],
    lasts: Annotated[str, typer.Option("--for", metavar="TIME", help="How long, in stream time, such as 2h.")] = "2h",
    reason: Annotated[str, typer.Option("--reason", help="Why, for those who ask.", show_default=False)] = "",
    cause: Annotated[str, typer.Option("--cause", help="Only drift, skill or quality.", show_default=False)] = "",
    end: Annotated[bool, typer.Option("--end", help="End the silence that holds.")] = False,
) -> None:
    """Tell people nothing of a model or topic for a while.

    Alarms are raised all the same, and act. A silence ends by itself; what still lasts then is told.

    penstock alerts silence late --for 6h --reason "the new terminal opens"
    """
    from datetime import timedelta
    from getpass import getuser

    import msgspec

    from ..duration import micros
    from ..errors import PenstockError
    from ..log import Send
    from ..mistake import nearest
    from ..records import Silence
    from . import broker

    settings = project_settings()
    topics = topics_of(settings)
    known = [*(model.name for model in topics.project.models), *(event.topic for event in topics.project.events)]
    if subject not in known:
        raise PenstockError(f"{topics.prefix} has no model or event {subject}", nearest(subject, known))
    length = timedelta(microseconds=micros(lasts))

    async def work(log: Log) -> Silence | None:
        broker.known(topics.silences, await log.describe())
        now = await stream_now(log, topics)
        said = Silence(subject=subject, cause=cause, since=now, until=now + length, actor=getuser(), reason=reason)
        value = None if end else msgspec.json.encode(said)
        await log.send([Send(topics.silences, f"{subject}/{cause}".encode(), value)])
        return None if end else said

    said = broker.use(settings, work, f"writing to {topics.silences}")
    words = f"{subject} {cause}".strip()
    if said is None:
        screen.answer({"ended": subject, "cause": cause}, f"alarms about {words} are told again")
    else:
        screen.answer(said, f"no word about {words} until {said.until:%Y-%m-%d %H:%M:%S} UTC of the stream's time")


@command(app)
def test() -> None:
    """Send a test message by every route, and say what happened."""
    import asyncio

    from ..alerts.message import Message
    from ..alerts.routes import Delayed, Route, Undeliverable, routes_of
    from ..errors import PenstockError, SettingError

    settings = settings_of()
    if not (routes := routes_of(settings)):
        raise SettingError(
            "no route is set: nobody is told of alarms", "export PENSTOCK_ALERT_SLACK=https://...   or _WEBHOOK or _SMTP"
        )
    at = _wall()
    said = Message(
        id=f"penstock_test_{at:%Y%m%dT%H%M%S%f}",
        title="[penstock] this is a test",
        lines=["Somebody typed: penstock alerts test", "Messages about alarms come this way."],
        project=settings.project,
        subject="",
        cause="",
        state="test",
        at=at,
        alarms=[],
    )

    async def one(route: Route) -> tuple[bool, str]:
        try:
            return True, await route.send(said)
        except (Delayed, Undeliverable) as error:
            return False, str(error)

    async def every() -> list[tuple[bool, str]]:
        return list(await asyncio.gather(*map(one, routes)))

    found = asyncio.run(screen.patiently(every(), "waiting for the routes to answer"))
    told = [(route.name, "ok" if ok else "FAILED", words) for route, (ok, words) in zip(routes, found, strict=True)]
    screen.answer([dict(zip(("route", "end", "answer"), line, strict=True)) for line in told], screen.rows(told))
    if failed := [name for name, word, _ in told if word != "ok"]:
        raise PenstockError(f"{screen.count(len(failed), 'route')} failed: {', '.join(failed)}", "penstock config show")


@command(app)
def export(
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Where to write them.")] = Path("monitoring"),
) -> None:
    """Write rules for Prometheus and dashboards for Grafana.

    They are those of this version; labels and bounds are yours to change.
    """
    import shutil
    from importlib import resources

    written = []
    for folder in FOLDERS:
        with resources.as_file(resources.files(FILES) / folder) as source:
            shutil.copytree(source, to / folder, dirs_exist_ok=True)
            written += sorted(str(to / folder / path.relative_to(source)) for path in source.rglob("*") if path.is_file())
    screen.answer({"written": written}, [f"  wrote {path}" for path in written])
    screen.note(f"check:  promtool check rules {to}/prometheus/rules.yml   see the head of {to}/prometheus/prometheus.yml")


async def _silences(log: Readable, topics: Topics) -> list[Silence]:
    """Those that were not taken back."""
    import msgspec

    from ..records import Silence
    from . import broker

    found: dict[Any, Silence] = {}
    async for record in broker.held(log, topics.silences):
        if record.value is None:
            found.pop(record.key, None)
        else:
            found[record.key] = msgspec.json.decode(record.value, type=Silence)
    return list(found.values())


async def stream_now(log: Readable, topics: Topics) -> datetime:
    """The time of the stream: up to which the feature store has closed it, else that of the newest window or alarm, else the
    wall's."""
    import msgspec

    from ..event import from_micros
    from ..records import Clock
    from ..runtime.telemetry import ENDED
    from . import broker

    there = topics.clock in await log.describe()  # tables keep no clock
    clocks = [found.value or b"" async for found in broker.held(log, topics.clock)] if there else []
    said = [msgspec.json.decode(value, type=Clock) for value in clocks]
    closed = {one.publisher: one.before for one in said if one.publisher.startswith("feature_store.") and 0 < one.before < ENDED}
    if closed:
        return from_micros(min(closed.values()))
    return await broker.latest(log, topics) or _wall()


def _wall() -> datetime:
    from datetime import UTC

    return datetime.now(UTC)
