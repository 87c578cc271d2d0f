"""The `penstock` command.

Exit codes: 0 ok, 1 failed, 2 used wrongly (command line, settings, project file), 3 a broker or Redis cannot be
reached, 130 ended by Ctrl-C. Every command takes `--project` and `--json`, which writes errors as JSON, too. Anything
heavy is imported inside the command that needs it.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..errors import PenstockError
from ..log import LogError
from . import (
    alerts,
    config,
    dataset,
    deadletters,
    drift,
    explain,
    fairness,
    features,
    keys,
    loop,
    novelty,
    processes,
    profile,
    publish,
    quality,
    quarantine,
    replay,
    report,
    review,
    schemas,
    scoring,
    screen,
    serve,
    slices,
    tables,
    topics,
)  # fmt: skip
from .broker import refusal
from .options import ProjectName, chosen, command

__all__ = ["app", "main"]


class _Commands(TyperGroup):
    """Says what went wrong in one line, and what to type in another."""

    def main(self, args: Any = None, prog_name: str | None = None, **extra: Any) -> Any:  # type: ignore[override]
        if not extra.pop("standalone_mode", True):
            return super().main(args, prog_name, standalone_mode=False, **extra)
        try:
            code = super().main(args, prog_name, standalone_mode=False, **extra)
            if code == 130:  # Typer's word for Ctrl-C
                screen.note("stopped")
        except BrokenPipeError:  # the reader of a pipe has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 1
        except Exception as error:
            code = _told(error)
        sys.exit(code if isinstance(code, int) else 0)


def _told(error: Exception) -> int:
    """Say what went wrong; returns the exit code."""
    if type(error).__name__ == "NoArgsIsHelpError":
        screen.say(str(getattr(error, "message", "")))
        return 2
    if hasattr(error, "format_message"):  # a usage error: Typer carries a Click of its own, or uses Click's
        context = getattr(error, "ctx", None)
        words = context.command_path if context is not None else "penstock"
        screen.complain(error.format_message().replace("Value error, ", ""), f"{words} --help")
        return int(getattr(error, "exit_code", 2))
    if screen.form.debug:
        raise error
    if isinstance(error, LogError):
        error = refusal(error)
    if isinstance(error, PenstockError):
        screen.complain(str(error), error.fix)
        return error.exit_code
    missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
    if missing and not missing.startswith("penstock"):
        screen.complain(f"this needs the package {missing}, which is not installed", 'pip install "penstock[all]"')
    else:
        words = " ".join(sys.argv[1:])
        screen.complain(f"unexpected: {type(error).__name__}: {error}", f"see where:  penstock --debug {words}")
    return 1


app = typer.Typer(
    cls=_Commands,
    help="Streaming machine learning that closes the loop. Start with:  penstock demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(wanted: bool) -> None:
    if wanted:
        screen.form.json = False
        config.version()
        raise typer.Exit


@app.callback()
def _before(
    project: ProjectName = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where an error comes from (a traceback), and what client libraries log.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    chosen.project, screen.form.debug, screen.form.json = project, debug, False
    if debug:
        import logging

        logging.basicConfig(level=logging.DEBUG)


# In the order in which `penstock --help` lists them.
command(app)(loop.demo)
command(app, takes_project=True)(loop.simulate)
command(app, kept=True)(replay.replay)
command(app, takes_project=True)(processes.up)
for _plain in (processes.down, processes.status, processes.logs, processes.run, processes.doctor):
    command(app)(_plain)
command(app, takes_project=True)(config.check)
command(app, takes_project=True)(config.topology)
command(app)(serve.serve)
command(app)(scoring.score)
command(app)(publish.publish)
command(app, kept=True)(explain.explain)
command(app, kept=True)(quality.quality)
command(app, kept=True)(fairness.fairness)
command(app)(slices.slices)
command(app, kept=True)(report.report)
command(app)(review.flag)
command(app, kept=True)(novelty.novelty)
command(app)(profile.profile)
app.add_typer(topics.app, name="topics")
app.add_typer(deadletters.app, name="dlq")
app.add_typer(drift.app, name="drift")
app.add_typer(alerts.app, name="alerts")
app.add_typer(review.app, name="review")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(features.app, name="features")
app.add_typer(tables.app, name="tables")
app.add_typer(dataset.app, name="dataset")
app.add_typer(schemas.app, name="schemas")
app.add_typer(keys.app, name="keys")
app.add_typer(config.app, name="config")
command(app)(config.version)


def main() -> None:
    """The console script."""
    app(prog_name="penstock")
