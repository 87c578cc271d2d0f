"""demo and simulate: the whole loop in one command. The machines are imported only when asked for."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from . import screen
from .options import chosen, project_settings, settings_of

__all__ = ["demo", "simulate"]

MACHINE = "penstock.services.demo"
FLIGHTS = "penstock.examples.flights"


def demo(
    days: Annotated[int, typer.Option(min=1, max=365, help="Days of flights; fewer than 20 are too few to judge.")] = 60,
    seed: Annotated[
        int | None, typer.Option(min=0, max=(1 << 32) - 1, help="Seed of the learners; default: PENSTOCK_SEED.")
    ] = None,
    embedded: Annotated[
        bool | None,
        typer.Option("--embedded/--kafka", help="In this process, or on Kafka and Redis; default: the most real that is here."),
    ] = None,
    partitions: Annotated[
        int | None, typer.Option(min=1, max=256, help="Partitions of the topics; default: PENSTOCK_PARTITIONS.")
    ] = None,
    tables: Annotated[
        str | None, typer.Option("--tables", metavar="DIR", help="With --embedded: keep here what a report is made from.")
    ] = None,
) -> None:
    """See the whole loop on real flights."""
    if tables is not None and not embedded:
        raise typer.BadParameter("--tables goes with --embedded; on Kafka the topics keep everything")
    settings = settings_of().model_copy(update={"project": chosen.project or FLIGHTS})
    if seed is not None:
        settings = settings.model_copy(update={"seed": seed})
    number = partitions or settings.partitions
    code = import_module(MACHINE).demo(
        settings, days=days, embedded=embedded, partitions=number, json=screen.form.json, tables=tables
    )
    raise typer.Exit(code)


def simulate(
    folder: Annotated[
        Path,
        typer.Option("--input", metavar="DIR", help="Folder with one file per event: <topic>.csv, .parquet or .jsonl."),
    ],
    days: Annotated[int | None, typer.Option(min=1, help="Only the first days of it.")] = None,
    utc: Annotated[bool, typer.Option("--utc", help="Times without a zone are UTC (else such rows are refused).")] = False,
    tables: Annotated[
        str | None,
        typer.Option("--tables", metavar="DIR", help="Keep events, rows, predictions and outcomes here, as offline tables."),
    ] = None,
) -> None:
    """Run the whole loop on files of your own, in one process.

    As fast as it can, in memory, labels at their own times; two runs give the same decisions. Files need not be in order:
    rows are sorted by time. Rows that do not fit are reported and left out (exit code 1); those that do not meet an
    expectation (ps.expect) are dead-lettered, as on Kafka. Nothing is kept but what --tables DIR asks for.
    """
    settings = project_settings()
    form = screen.form.json
    raise typer.Exit(import_module(MACHINE).simulate(settings, folder, days=days, utc=utc, json=form, tables=tables))
