"""quarantine: what no fit is to learn from."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from . import screen
from .options import command, moment, project_settings, topics_of

if TYPE_CHECKING:
    from ..log import Log
    from ..records import Quarantine
    from ..topics import Topics

__all__ = ["app"]

app = typer.Typer(help="What no fit is to learn from.", no_args_is_help=True)

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="Whose outcomes.", show_default=False)]
Reason = Annotated[str, typer.Option("--reason", help="Why, for those who ask.", show_default=False)]


@app.callback()
def _group() -> None:
    """What no fit is to learn from: outcomes of a source, of a key, of a span of time."""


@command(app)
def add(
    model: ModelName,
    source: Annotated[str, typer.Option("--source", help="Labels of this source only.", show_default=False)] = "",
    key: Annotated[str, typer.Option("--key", help="Events of this key only, such as a card.", show_default=False)] = "",
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Events from then on, such as 2026-02-01T00:00Z.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Events before then.")] = None,
    reason: Reason = "",
) -> None:
    """Leave outcomes out of all fits to come, until lifted.

    Of a source, a key, a span of time, or what they have in common. Fits of windows that are closed already stay as they are; the
    next one leaves the outcomes out, also those learned before, and its run says how many. Answers go on as they are; quality,
    alarms and gates count these labels on, within the caps of their sources.

    penstock quarantine add fraud --source merchant --since 2026-02-01T00:00Z --reason "a shop was taken over"
    """
    from getpass import getuser

    import msgspec

    from ..errors import PenstockError
    from ..log import Send
    from ..mistake import nearest
    from ..quarantine import identified
    from ..records import Quarantine
    from . import broker

    settings = project_settings()
    topics = topics_of(settings)
    declared = topics.project.model(model)
    sources = [name for name, _ in declared.label.sources.caps] if declared.label.sources else []
    if source and source not in sources:
        declares = f"its sources are {', '.join(sources)}" if sources else "it declares none: label(sources=ps.sources(...))"
        raise PenstockError(f"{model} has no source {source}", nearest(source, sources) if sources else declares)
    first, last = moment(since, "--since"), moment(until, "--until")
    if first is not None and last is not None and last <= first:
        raise PenstockError(f"--until {until} is not after --since {since}", "name the span from its beginning to its end")
    if not (source or key or first or last):
        raise PenstockError("all outcomes would be left out", "--source NAME, --key KEY, --since TIME, --until TIME, or several")

    async def work(log: Log) -> Quarantine:
        said = Quarantine(
            id="", model=model, at=await _now(log, topics, model), actor=getuser(), reason=reason, source=source, key=key,
            since=first, until=last,
        )  # fmt: skip
        said = identified(said)
        await log.send([Send(topics.quarantines, said.id.encode(), msgspec.json.encode(said))])
        return said

    said = broker.use(settings, work, f"writing to {topics.quarantines}")
    screen.answer(said, f"{said.id}: fits of {model} after {said.at:%Y-%m-%d %H:%M} leave out {_covers(said)}")
    screen.note(f"-> penstock quarantine lift {said.id}")


@command(app, name="list")
def listed(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="Only of this model.", show_default=False)] = None,
    lifted: Annotated[bool, typer.Option("--lifted", help="Those that were lifted, too.")] = False,
) -> None:
    """Show what is left out of fits, and since when."""
    from . import broker

    settings = project_settings()
    topics = topics_of(settings)
    if model is not None:
        topics.project.model(model)

    async def work(log: Log) -> list[Quarantine]:
        return await held(log, topics, model)

    found = [one for one in broker.use(settings, work, f"reading {topics.quarantines}") if lifted or one.lifted is None]
    table = [
        (one.id, one.model, _covers(one), f"{one.at:%Y-%m-%d %H:%M}", f"{one.lifted:%Y-%m-%d %H:%M}" if one.lifted else "-",
         f"{one.actor}: {one.reason or 'no reason given'}")
        for one in found
    ]  # fmt: skip
    screen.answer(
        {"quarantines": found}, screen.rows([("id", "model", "left out", "fits from", "to", "by"), *table]) if table else []
    )
    if not table:
        screen.note(f"nothing is in quarantine: {model or topics.prefix} learns from all outcomes")


@command(app)
def lift(
    name: Annotated[str, typer.Argument(metavar="ID", help="As `penstock quarantine list` says it.", show_default=False)],
    reason: Reason = "",
) -> None:
    """Let fits learn again from what was left out."""
    from getpass import getuser

    import msgspec

    from ..errors import PenstockError
    from ..log import Send
    from ..mistake import nearest
    from . import broker

    settings = project_settings()
    topics = topics_of(settings)

    async def work(log: Log) -> Quarantine:
        there = {one.id: one for one in await held(log, topics) if one.lifted is None}
        one = there.get(name)
        if one is None:
            fix = nearest(name, list(there)) if there else "nothing is in quarantine"
            raise PenstockError(f"no quarantine {name} stands", fix)
        told = "; ".join(each for each in (one.reason, reason and f"lifted: {reason}") if each)
        at = max(await _now(log, topics, one.model), one.at)
        said = msgspec.structs.replace(one, lifted=at, lifted_by=getuser(), reason=told)
        await log.send([Send(topics.quarantines, said.id.encode(), msgspec.json.encode(said))])
        return said

    said = broker.use(settings, work, f"writing to {topics.quarantines}")
    screen.answer(
        said, f"{said.id} is lifted: fits of {said.model} after {said.lifted:%Y-%m-%d %H:%M} learn from {_covers(said)}"
    )


async def held(log: Log, topics: Topics, model: str | None = None) -> list[Quarantine]:
    """The last word on each quarantine, those by alarms among them."""
    import msgspec

    from ..quarantine import automatic, known
    from ..records import Alarm, Quarantine
    from . import broker

    broker.known(topics.quarantines, await log.describe())
    said = [msgspec.json.decode(r.value or b"", type=Quarantine) async for r in broker.held(log, topics.quarantines)]
    alarms = [msgspec.json.decode(r.value or b"", type=Alarm) async for r in broker.held(log, topics.alarms)]
    by_alarms = [one for each in topics.project.models for one in automatic(each, alarms)]
    return [one for one in known(said, by_alarms) if model in (None, one.model)]


async def _now(log: Log, topics: Topics, model: str) -> datetime:
    """A moment after the newest closed window of a model: its fits so far were at the ends of windows."""
    from datetime import UTC, timedelta

    import msgspec

    from ..records import Statistic
    from . import broker

    topic = topics.statistics(model)
    broker.known(topic, await log.describe())
    begins, ends = await log.begins([topic]), await log.ends([topic])
    newest = {partition: max(end - 1, begins[partition]) for partition, end in ends.items()}
    found = [msgspec.json.decode(r.value or b"", type=Statistic).end async for r in broker.records(log, newest, ends)]
    return max(found, default=datetime(1970, 1, 1, tzinfo=UTC)) + timedelta(microseconds=1)


def _covers(said: Quarantine) -> str:
    """What a quarantine covers, in words."""
    span = " ".join(
        f"{word} {moment:%Y-%m-%d %H:%M}" for word, moment in (("since", said.since), ("until", said.until)) if moment is not None
    )
    named = [said.source and f"labels of {said.source}", said.key and f"key {said.key}", span and f"events {span}"]
    return ", ".join(each for each in named if each) or "everything"
