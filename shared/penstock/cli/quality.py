"""quality: how good the days of a stream were, and the answers of a model."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from ..log import Readable
from ..records import DataQuality
from . import broker, cohorts, groups, screen
from .options import moment, project_settings, topics_of

__all__ = ["quality"]

DAYS: Final = 14
"""Days that are shown, as a fortnight fits on a screen."""


def quality(
    name: Annotated[
        str | None, typer.Argument(help="The topic of an event, or a model; default: all events.", show_default=False)
    ] = None,
    days: Annotated[int, typer.Option("--days", min=1, help="At most so many (of a model: cohorts), the newest.")] = DAYS,
    as_known: Annotated[
        str | None, typer.Option(metavar="TIME", help="Of a model: as it was known then, such as 2026-02-01T00:00Z.")
    ] = None,
    by: Annotated[
        str | None, typer.Option("--by", metavar="SEGMENT", help="Of a model: by the levels of a segment, over those cohorts.")
    ] = None,
) -> None:
    """Show how good events, or the answers of a model, were.

    Of an event: accuracy, completeness, consistency, timeliness, and the expectations that were not met. A day is shown when it
    is over in stream time, in all partitions. Shares are of all records of the day.

    Of a model: its answers by when they were given, with the labels known by now (or --as-known), beside what was known first and
    the prior; at the end all of them together. Measures have 95 % intervals; --json has more of them, and the sums behind them.
    Below: what was expected of them before labels came, from their scores alone, beside what came true. That says nothing of
    concept drift. Gaps between the levels of a segment are shown by:  penstock fairness
    """
    import msgspec

    from ..errors import PenstockError
    from ..mistake import nearest

    settings = project_settings()
    topics = topics_of(settings)
    names, models = [found.topic for found in topics.project.events], [model.name for model in topics.project.models]
    event = name
    if name in models and name not in names:
        known = moment(as_known, "--as-known")
        if by is not None:
            groups.show(settings, topics, name, by, days, known)
        else:
            cohorts.show(settings, topics, topics.project.model(name), days, known)
        return
    if event is not None and event not in names:
        kinds = "event or model" if models else "event"
        raise PenstockError(f"{topics.prefix} has no {kinds} {event}", nearest(event, [*names, *models]))
    if as_known is not None or by is not None:
        wrong, what = ("--as-known", "TIME") if as_known is not None else ("--by", "SEGMENT")
        raise PenstockError(f"{wrong} goes with a model", f"penstock quality MODEL {wrong} {what}   ({', '.join(models)})")

    async def work(log: Readable) -> list[DataQuality]:
        broker.known(topics.quality, await log.describe())
        return [msgspec.json.decode(found.value or b"", type=DataQuality) async for found in broker.held(log, topics.quality)]

    said = {
        record.id: record for record in broker.read(settings, topics, work, f"reading {topics.quality}")
    }  # a repeat says the same
    shown = [
        record
        for name in names
        if event in (None, name)
        for record in sorted((r for r in said.values() if r.event == name), key=lambda r: (r.start, r.part))[-days:]
    ]
    heads = ("event", "day", "records", "accurate", "complete", "consistent", "timely", "refused", "not met")
    table = [heads, *map(_line, shown)]
    screen.answer({"days": shown}, screen.rows(table) if shown else [])
    if not shown:
        screen.note(f"no day of {event or topics.prefix} is over yet: a day is told when all its partitions are past it")
        return
    examples = {
        f"{record.event}: {name}": met.example for record in shown for name, met in record.expectations.items() if met.example
    }
    for name, example in examples.items():
        screen.note(f"  {name}, such as {example}")


def _line(record: DataQuality) -> tuple[str, ...]:
    shares = (record.accuracy, record.completeness, record.consistency, record.timeliness)
    broken = sum(met.broken for met in record.expectations.values())
    refused = sum(record.refused.values())
    day = f"{record.start:%Y-%m-%d}" + (f" +{record.part}" if record.part else "")
    counts = [f"{number:,}" if number else "" for number in (refused, broken)]
    return record.event, day, f"{record.records:,}", *("–" if s is None else _percent(s) for s in shares), *counts


def _percent(share: float) -> str:
    """Two digits behind the point, and never 100 % of less than all.

    >>> _percent(1.0), _percent(0.999999), _percent(0.5)
    ('100 %', '99.99 %', '50.00 %')
    """
    return "100 %" if share == 1 else f"{int(share * 10_000) / 100:.2f} %"
