"""report: what a model did over a period, for whoever answers for it."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import PenstockError
from ..log import Readable
from . import broker, screen
from .options import model_of, moment, project_settings, topics_of, write_page

if TYPE_CHECKING:
    from ..report.records import Answered, Found, Records, Slices
    from ..report.report import Report
    from ..settings import Settings
    from ..topics import Topics

__all__ = ["report"]


def report(
    model: Annotated[
        str | None, typer.Argument(help="The model; may be left out where there is one.", show_default=False)
    ] = None,
    since: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Where the period begins; default: 30 days before its end.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Where it ends; default: with the newest answers.")
    ] = None,
    known_at: Annotated[
        str | None, typer.Option("--known-at", metavar="TIME", help="As it was known then, such as 2026-02-01T00:00Z.")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page that stands by itself.")] = None,
    markdown: Annotated[
        Path | None,
        typer.Option("--markdown", metavar="FILE", help="Write Markdown, short enough for a pull request; - prints it."),
    ] = None,
) -> None:
    """Report what a model did over a period.

    Quality with intervals and baselines, per version and as labels restated it, calibration, groups, slices, drift, alarms,
    labels, reviews, what moves the answers, refits and rollouts, the most wrong answers. From the topics, or where no broker is,
    from the offline tables, as single answers always are. Times are stream time; the same records give the same bytes.
    """
    from ..report.records import Records
    from ..report.report import report_of

    settings = project_settings()
    topics = topics_of(settings)
    name = _named(topics, model)
    times = [moment(since, "--from"), moment(until, "--until"), moment(known_at, "--known-at")]
    records = Records.of(topics.prefix, topics.project.model(name), _found(settings, topics, name, times), *times)
    made = report_of(_with_answers(settings, topics, records))
    for file, text, option in ((html, made.to_html, "--html"), (markdown, made.to_markdown, "--markdown")):
        if file is not None and str(file) != "-":
            write_page(file, text(), option)
    if str(markdown) == "-":
        screen.say(made.to_markdown())
    else:
        screen.answer(made.described(), *_lines(made))
    for file in (html, markdown):
        if file is not None and str(file) != "-":
            screen.note(f"-> open {file}")
    if html is None and markdown is None:
        screen.note(f"-> the whole of it:  penstock report {name} --html report.html")


def _named(topics: Topics, model: str | None) -> str:
    names = [each.name for each in topics.project.models]
    if model is None and len(names) == 1:
        return names[0]
    if model is None:
        fix = f"penstock report {names[0]}   ({', '.join(names)})" if names else "declare one with @ps.model(...)"
        raise PenstockError(f"{topics.prefix} has {len(names) or 'no'} models: which one?", fix)
    return model_of(topics, model).name


def _found(settings: Settings, topics: Topics, model: str, times: list[datetime | None]) -> Found:
    from ..report.reading import found_of

    async def work(log: Readable) -> Found:
        there = await log.describe()

        async def held(topic: str) -> AsyncIterator[bytes]:
            async for found in broker.held(log, broker.known(topic, there)):
                if found.value is not None:
                    yield found.value

        return await found_of(topics, model, held, *times)

    return broker.read(settings, topics, work, f"reading what is recorded of {model}")


def _with_answers(settings: Settings, topics: Topics, records: Records) -> Records:
    """With what the offline tables have of single answers; without it a report is whole but for its examples."""
    from ..offline import Tables
    from ..report.reading import answered_of

    found: Answered | None = None
    why = f"no outcomes are archived in {settings.offline}"
    try:
        tables = Tables(settings.offline)
        found = answered_of(tables, topics, records.model, records.start, records.until, records.known_at)
    except PenstockError as error:
        why = str(error)
    looked = _slices(settings, topics, records) if found and found.outcomes and records.known_at is None else None
    return dataclasses.replace(records, answered=found, unanswered="" if found else why, slices=looked)


def _slices(settings: Settings, topics: Topics, records: Records) -> Slices:
    """Where the answers of the period were worst."""
    from ..frames.slices import archived
    from ..frames.slices import slices as found_in
    from ..offline import Tables
    from ..report.records import Slice, Slices

    model, segments = records.model, [segment.name for segment in records.model.segments]
    outcomes, tables = topics.outcomes(model.name), Tables(settings.offline)
    frame = archived(tables, outcomes, model.label, model.inputs, records.start, records.until, segments)
    made = found_in(frame, quantile=model.label.quantile)
    found = [Slice([*map(str, s.conditions)], s.rows, s.share, s.loss, s.rest, s.low, s.high, s.expected) for s in made.slices]
    return Slices(made.why, made.loss_is, found, made.tried)


def _lines(made: Report) -> list[str]:
    colours = {"good": "green", "warn": "yellow", "bad": "red"}
    lines = [screen.paint(made.said, colours.get(made.tone, "bold")), ""]
    period = ", ".join(f"{name} {value}" for name, value in made.head)
    return [*lines, f"  {period}", *screen.rows([(section.title.lower(), section.said) for section in made.sections])]
