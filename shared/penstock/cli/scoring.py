"""score: all rows of a file or an offline table, by a version of a model."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import screen
from .options import project_of, project_settings

if TYPE_CHECKING:
    from datetime import datetime

    from ..scoring.bulk import Job
    from ..settings import Settings

__all__ = ["score"]


def score(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL[@ALIAS|@VERSION]",
            help="Who scores: late (all in charge, as services do), late@champion, late@v3.",
            show_default=False,
        ),
    ],
    table: Annotated[
        str | None, typer.Option("--table", metavar="NAME", help="An offline table: rows, or one with the inputs.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="A .parquet, .csv or .jsonl file with the inputs.")
    ] = None,
    version: Annotated[int | None, typer.Option("--version", min=0, help="The table as it was at this version.")] = None,
    as_of: Annotated[
        str | None, typer.Option("--as-of", metavar="TIME", help="The table as it was then, such as 2026-02-01T12:00Z.")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", metavar="FILE.parquet|DIR", help="A Parquet file, or a Delta table; default: in PENSTOCK_DATA/scores."
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes; default: one a core.")] = None,
) -> None:
    """Score all rows of a file or an offline table.

    Every row gives one row with `score`, or with `error` where it has none (exit code 1). What was interrupted goes on where it
    was when it is asked for again. The result says what made it: model, version, digest, source and its version, definitions.

    penstock score late@champion --table flights.rows.scheduled
    """
    from ..scoring.bulk import run
    from ..scoring.sinks import sink_of

    if (table is None) == (file is None):
        raise typer.BadParameter("name what is to be scored: --table NAME   or   --file FILE")
    if file is not None and (version is not None or as_of is not None):
        raise typer.BadParameter("--version and --as-of are of a table")
    if version is not None and as_of is not None:
        raise typer.BadParameter("--version and --as-of exclude each other")
    settings = project_settings()
    job = _job(settings, model, table, file, version, _moment(as_of))
    members = " + ".join(member["version"] for member in job.lineage["members"])
    place = out or str(settings.data / "scores" / f"{job.charge.model}-{job.id}")
    source = job.source
    what = f"{table} version {source.said['version']}" if table is not None else str(file)
    screen.note(f"{what} by {job.charge.model} {members} to {place}")
    began, sink = time.monotonic(), sink_of(place, job.id, job.lineage)
    with _bar(sum(part.size for part in source.parts), source.unit) as told:
        done = run(job, sink, workers or os.cpu_count() or 1, told)
    seconds = time.monotonic() - began
    for row in done.first:
        told_place = ", ".join(f"{name} {value}" for name, value in row.items() if name != "error" and value is not None)
        screen.note(f"no score  {told_place}: {row['error']}")
    if done.bad > len(done.first):
        screen.note(f"no score  ... and {done.bad - len(done.first):,} more: those with an `error`")
    went_on = f", {screen.count(done.again, 'part')} of {len(source.parts):,} were there already" if done.again else ""
    without = f", {done.bad:,} without a score" if done.bad else ""
    screen.answer(
        {
            "type": "scored", "out": place, "rows": done.rows, "bad": done.bad, "first_bad": done.first, "job": job.id,
            "lineage": job.lineage, "parts": len(source.parts), "parts_there": done.again, "seconds": round(seconds, 3),
        },
        f"{screen.count(done.rows, 'row')} scored to {place} in {seconds:.1f} s{without}{went_on}",
    )  # fmt: skip
    if done.bad:
        raise typer.Exit(1)


def _job(
    settings: Settings, model: str, table: str | None, file: Path | None, version: int | None, as_of: datetime | None
) -> Job:
    from ..scoring.bulk import Job
    from ..scoring.columnar import table_of
    from ..scoring.files import file_of
    from ..scoring.loading import heard

    project = project_of(settings)
    screen.hush()
    versions, _, _ = heard(model, project, settings)
    if table is not None:
        from ..offline import Tables

        source = table_of(Tables(settings.offline), table, versions.model, version, as_of)
    elif file is not None:
        source = file_of(file, versions.model)
    return Job.of(versions.charge(), versions.artefacts, source, project)


def _moment(text: str | None) -> datetime | None:
    from datetime import datetime

    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"--as-of {text}: write it as 2026-02-01T12:00Z") from None


@contextmanager
def _bar(total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, else a line when it has been quiet for long."""
    if screen.coloured(sys.stderr):
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("scoring", total=total)
            yield lambda size: bar.advance(task, size)
        return
    done, said = 0, time.monotonic()

    def told(size: int) -> None:
        nonlocal done, said
        done += size
        if time.monotonic() - said > screen.AGAIN:
            said = time.monotonic()
            screen.note(f"  {done:,} of {total:,} {unit}")

    yield told
