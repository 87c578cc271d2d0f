"""What every command shares: the options --project and --json, and with them the settings and the project."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ..errors import PenstockError, SettingError
from . import screen

if TYPE_CHECKING:
    from datetime import datetime

    from ..model import Model
    from ..project import Project
    from ..settings import Settings
    from ..topics import Topics

__all__ = [
    "PROJECT_FILE",
    "ProjectName",
    "Service",
    "chosen",
    "command",
    "model_of",
    "moment",
    "project_of",
    "project_settings",
    "settings_of",
    "topics_of",
    "write_page",
]

ProjectName = Annotated[
    str | None,
    typer.Option(
        "--project",
        metavar="MODULE|FILE.py",
        help="What to work on; default: PENSTOCK_PROJECT, else the project that is up here.",
        show_default=False,
    ),
]
ProjectWord = Annotated[
    str | None, typer.Argument(metavar="PROJECT", help="Module or .py file, as with --project.", show_default=False)
]
InJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text.")]
FromTables = Annotated[bool, typer.Option("--tables", help="From the offline tables, as where no broker is.")]


PROJECT_FILE: Final = "project"
"""In the data folder: which project `penstock up` runs."""


class Service(StrEnum):
    """The services; a test compares them with the settings, which are too slow to import for a list of names."""

    FEATURE_STORE = "feature_store"
    INFERENCE = "inference"
    MONITORING = "monitoring"
    TRAINER = "trainer"
    REGISTRY = "registry"
    DASHBOARD = "dashboard"


class Chosen:
    """The project that was named: `penstock --project fraud.py check`, `penstock check --project fraud.py`; and whether topics
    are to be read as tables keep them (`--tables`)."""

    project: str | None = None
    tables: bool = False
    told: str = ""
    """What was said last of where it is all from."""


chosen: Final = Chosen()


def command(
    app: typer.Typer, name: str | None = None, takes_project: bool = False, kept: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command with the options that all have; `takes_project` lets its first word name the project, too; `kept` gives
    it --tables, as it reads nothing but what `broker.read` finds."""
    shared: dict[str, tuple[Any, Any]] = {"project": (ProjectName, None), "json": (InJson, False)}
    shared |= {"tables": (FromTables, False)} if kept else {}
    first: dict[str, tuple[Any, Any]] = {"word": (ProjectWord, None)} if takes_project else {}

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def run(project: str | None, json: bool, word: str | None = None, **given: Any) -> None:
            chosen.project = word or project or chosen.project
            chosen.tables, chosen.told = kept and given.pop("tables"), ""
            screen.form.json = json
            function(**given)

        own = inspect.signature(function, eval_str=True).parameters
        kinds = {n: (p.annotation, p.default) for n, p in own.items()}
        parameters = [
            inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
            for n, (kind, default) in {**first, **kinds, **shared}.items()
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # where Typer looks for options
        app.command(name)(run)
        return function

    return register


def settings_of() -> Settings:
    """The settings in force; SettingError where the data folder cannot be one."""
    from ..settings import load

    settings = load(project=chosen.project) if chosen.project else load()
    wrong = next((each for each in (settings.data, *settings.data.parents) if each.exists() and not each.is_dir()), None)
    if wrong is not None:
        raise SettingError(f"PENSTOCK_DATA is {settings.data}, and {wrong} is a file", "export PENSTOCK_DATA=...   a folder")
    return settings


def project_settings() -> Settings:
    """The settings for commands that work on a project: where none was named, the one that is up here, which is said."""
    from ..local import state

    settings = settings_of()
    kept = settings.data / PROJECT_FILE
    if "project" in settings.model_fields_set:
        return settings
    if not kept.exists() or state.supervisor_of(settings.data) is None:
        last = kept.read_text() if kept.exists() else ""
        which = f"last up here:  export PENSTOCK_PROJECT={last}" if last else "yours:  export PENSTOCK_PROJECT=FILE.py"
        screen.note(f"project {settings.project}, an example, as none is named; {which}")
        return settings
    running = kept.read_text()
    screen.note(f"project {running}, which is up in {settings.data}")
    return settings.model_copy(update={"project": running})


def project_of(settings: Settings) -> Project:
    """The project; DefinitionError names the lines of the file that are wrong."""
    from ..project import load

    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # so that a module in the working folder is found, as `python -m` finds it
    return load(settings.project)


def topics_of(settings: Settings) -> Topics:
    """The topics of the project, for the number of partitions that the settings declare."""
    from ..topics import Topics

    return Topics(project_of(settings), settings.partitions)


def model_of(topics: Topics, name: str) -> Model:
    """The model of that name; PenstockError with the nearest where there is none."""
    from ..mistake import nearest

    models = {each.name: each for each in topics.project.models}
    if name not in models:
        raise PenstockError(f"{topics.prefix} has no model {name}", nearest(name, list(models)))
    return models[name]


def moment(said: str | None, option: str) -> datetime | None:
    """The time that an option names."""
    if said is None:
        return None
    from ..event import moment_of

    try:
        return moment_of(said)
    except ValueError as error:
        what, _, fix = str(error).partition(": ")
        raise PenstockError(f"{option} {what}", fix) from None


def write_page(file: Path, text: str, option: str = "--html") -> None:
    """Write the file that an option names."""
    try:
        file.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise PenstockError(f"{file} cannot be written: {error.strerror}", f"name another file with {option}") from None
