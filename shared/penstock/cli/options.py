"""The options that commands share, and what they choose: the settings and the project."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from ..project import Project
    from ..settings import Settings
    from ..topics import Topics

__all__ = ["Chosen", "InJson", "ProjectName", "Service", "chosen", "project_of", "settings_of", "topics_of"]

ProjectName = Annotated[
    str | None,
    typer.Option(
        "--project",
        metavar="MODULE|FILE.py",
        help="What to work on; default: the setting PENSTOCK_PROJECT.",
        show_default=False,
    ),
]
InJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text.")]


class Service(StrEnum):
    """The services; a test compares them with the settings, which are too slow to import for a list of names."""

    FEATURE_STORE = "feature_store"
    INFERENCE = "inference"
    MONITORING = "monitoring"
    TRAINER = "trainer"
    REGISTRY = "registry"
    DASHBOARD = "dashboard"


class Chosen:
    """What was given before the command: `penstock --project fraud.py --debug topics list`."""

    def __init__(self) -> None:
        self.project: str | None = None
        self.debug = False


chosen: Final = Chosen()


def settings_of(project: str | None = None) -> Settings:
    """The settings in force, with the project that was named on the command line."""
    from ..settings import load

    name = project or chosen.project
    return load(project=name) if name else load()


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
