"""demo and simulate: the whole loop in one command. The machines are imported only when asked for."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import InJson, ProjectName, settings_of

__all__ = ["demo", "simulate"]


def demo(
    days: Annotated[int, typer.Option(min=1, max=365, help="Days of flights to replay.")] = 60,
    embedded: Annotated[
        bool | None,
        typer.Option("--embedded/--kafka", help="In this process, or on Kafka and Redis; default: the most real that is here."),
    ] = None,
    partitions: Annotated[
        int | None, typer.Option(min=1, max=256, help="Partitions of the topics; default: PENSTOCK_PARTITIONS.")
    ] = None,
    project: ProjectName = None,
    json: InJson = False,
) -> None:
    """See the whole loop on real flights."""
    settings = settings_of(project)
    _leave(_machine().demo(settings, days=days, embedded=embedded, partitions=partitions or settings.partitions, json=json))


def simulate(
    project: Annotated[str, typer.Argument(metavar="PROJECT", help="Module or .py file with `project = ps.Project(...)`.")],
    folder: Annotated[
        Path,
        typer.Option("--input", metavar="DIR", help="Folder with one file per event: <topic>.csv, .parquet or .jsonl."),
    ],
    days: Annotated[int | None, typer.Option(min=1, help="Only the first days of it.")] = None,
    json: InJson = False,
) -> None:
    """Run the whole loop on files of your own, in one process.

    As fast as it can, in memory, labels at their own times; two runs give the same decisions.
    """
    _leave(_machine().simulate(settings_of(project), folder, days=days, json=json))


def _machine() -> Any:
    return import_module("penstock.services.demo")


def _leave(code: int | None) -> None:
    if code:
        raise typer.Exit(code)
