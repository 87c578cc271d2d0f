"""up, down, status, logs, run, doctor: the services on this machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ..errors import PenstockError, Unreachable
from . import screen
from .options import InJson, ProjectName, Service, project_of, settings_of

__all__ = ["doctor", "down", "logs", "run", "status", "up"]

FOLLOW: Final = 0.2
"""Seconds between two looks at a log that is followed."""

SERVERS: Final = ("kafka", "redis", "supervisor")
"""What else has a log here."""

OURS: Final = ".penstock"
"""The usual name of the data folder: what is in a folder of this name is ours."""

MADE: Final = frozenset(("demo", "faust", "kafka", "logs", "models", "redis", "state.json", "state.new", "tables"))
"""What Penstock makes in a data folder of another name, where other things may be."""

LAST_SECONDS: Final = 5.0
"""For a supervisor that has ended all others to end itself."""

LOOKS: Final = {True: ("ok", "green"), False: ("FAIL", "red"), None: ("-", "dim")}


def up(
    only: Annotated[list[Service] | None, typer.Option("--only", help="Start this service only; may be repeated.")] = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when all are ready; they go on in the background.")
    ] = False,
    project: ProjectName = None,
    json: InJson = False,
) -> None:
    """Start Kafka, Redis and every service here.

    They run until Ctrl-C, or with --detach until `penstock down`.
    Kafka and Redis are started only where KAFKA_BOOTSTRAP_SERVERS and REDIS_URL are not set.
    """
    from . import supervising

    settings = settings_of(project)
    names = [str(name) for name in only or Service]
    show = screen.answer if json else supervising.show
    if detach:
        supervising.in_background(settings, names, show)
    else:
        supervising.in_foreground(settings, project_of(settings), names, show)


def down(
    wipe: Annotated[
        bool, typer.Option("--wipe", help="Remove the data folder too: logs, models, tables, the broker's data.")
    ] = False,
    json: InJson = False,
) -> None:
    """End everything that runs here."""
    import asyncio

    from .. import local
    from ..local import state
    from ..local.process import mark, wait_until

    settings = settings_of()
    folder = settings.data.resolve()
    doomed = wiped(folder) if wipe else []

    def end() -> list[str]:
        supervisor = state.supervisor_of(folder)
        found = local.down(folder)
        if supervisor is not None:  # it has said that all is ended; now it ends itself
            wait_until(lambda: mark(supervisor) is None, LAST_SECONDS)
        return found

    async def ending() -> list[str]:
        return await screen.patiently(asyncio.to_thread(end), "ending services, then Kafka and Redis")

    ended = asyncio.run(ending())
    for path in doomed:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    if json:
        screen.answer({"ended": ended, "wiped": [str(path) for path in doomed]})
        return
    screen.say(f"ended: {', '.join(ended)}" if ended else f"nothing was running in {folder}")
    for path in doomed:
        screen.say(f"removed {path}")
    if wipe and not doomed:
        screen.say(f"there is nothing of Penstock's in {folder}")
    elif not wipe and folder.exists():
        screen.say(f"kept {folder}; remove it:  penstock down --wipe")


def wiped(folder: Path) -> list[Path]:
    """What `down --wipe` removes: the folder when its name is ours, else only what Penstock makes in it."""
    here, home = Path.cwd().resolve(), Path.home().resolve()
    if folder in (here, *here.parents, home, *home.parents):
        raise PenstockError(
            f"{folder} is more than Penstock's data; nothing was removed", "point PENSTOCK_DATA at a folder of its own"
        )
    if not folder.exists():
        return []
    return [folder] if folder.name == OURS else sorted(path for path in folder.iterdir() if path.name in MADE)


def status(project: ProjectName = None, json: InJson = False) -> None:
    """Show what runs here.

    And which broker, Redis and folder these commands look at. Exit code 0 when all that was started is ready.
    """
    from .. import local

    settings = settings_of(project)
    folder = settings.data.absolute()
    found = local.status(folder)
    urls = {entry.name: entry.url for entry in found if entry.running}
    kafka = settings.kafka_bootstrap_servers or urls.get("kafka", "").removeprefix("kafka://")
    redis = screen_url(settings.redis_url.get_secret_value()) or urls.get("redis", "")
    ready = bool(found) and all(entry.state == "ready" for entry in found)
    if json:
        processes = [{"name": e.name, "state": e.state, "pid": e.pid, "restarts": e.restarts, "url": e.url} for e in found]
        screen.answer(
            {
                "ready": ready,
                "project": settings.project,
                "data": str(folder),
                "kafka": kafka,
                "redis": redis,
                "processes": processes,
            }
        )
    else:
        screen.say(f"project {settings.project}   kafka {kafka or 'none'}   redis {redis or 'none'}   data {folder}")
        for line in process_lines(found):
            screen.say(line)
        if not found:
            screen.say("nothing runs here")
            screen.note("-> penstock up")
        elif not ready:
            late = next(entry for entry in found if entry.state != "ready")
            screen.note(f"-> penstock {'up' if late.state == 'ended' else f'logs {late.name}'}")
    raise typer.Exit(0 if ready else 1)


def screen_url(url: str) -> str:
    """A URL without its password."""
    head, at, tail = url.rpartition("@")
    return f"{head.partition('//')[0]}//***@{tail}" if at else url


def process_lines(found: list[Any]) -> list[str]:
    """Processes as lines of a table."""
    table = []
    for entry in found:
        restarts = screen.count(entry.restarts, "restart") if entry.restarts else ""
        table.append((entry.state, entry.name, f"pid {entry.pid}", entry.url, restarts))
    lines = screen.rows(table) if table else []
    colours = {"ready": "green", "ended": "red", "restarting": "yellow"}
    return [
        line.replace(e.state, screen.paint(e.state, colours.get(e.state, "dim")), 1) for line, e in zip(lines, found, strict=True)
    ]


def logs(
    service: Annotated[str, typer.Argument(help="A service, or kafka, redis, supervisor.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written from now on.")] = False,
    number: Annotated[int, typer.Option("--number", "-n", min=0, help="How many of the newest lines.")] = 50,
    json: InJson = False,
) -> None:
    """Show what a service wrote."""
    folder = settings_of().data
    path = folder / service / f"{service}.log" if service in ("kafka", "redis") else folder / "logs" / f"{service}.log"
    if not path.exists():
        if service not in (*Service, *SERVERS):
            raise PenstockError(f"there is no service {service}", f"one of: {', '.join((*Service, *SERVERS))}")
        raise PenstockError(f"{service} has written nothing here yet ({path} does not exist)", "penstock up")
    if not path.stat().st_size and not json:
        screen.note(f"{path} is empty: {service} had nothing to say")
    for line in _lines(path, number, follow):
        screen.answer({"service": service, "line": line}) if json else screen.say(line)


def _lines(path: Path, number: int, follow: bool) -> Iterator[str]:
    """The newest lines of a file, then, when it is followed, every new one; a file that was cut is read anew."""
    import time
    from collections import deque

    with path.open("rb") as file:
        for line in deque(file, number):
            yield line.decode("utf-8", "replace").rstrip("\n")
        rest = b""
        while follow:
            if path.exists() and path.stat().st_size < file.tell():
                file.seek(0)
            rest += file.read()
            *whole, rest = rest.split(b"\n")
            for line in whole:
                yield line.decode("utf-8", "replace")
            time.sleep(FOLLOW)


def run(service: Annotated[Service, typer.Argument()], project: ProjectName = None, json: InJson = False) -> None:
    """Run one service in this process, as in a container.

    Until SIGTERM or Ctrl-C. It logs JSON when not on a terminal.
    """
    import os
    from importlib import import_module

    settings = settings_of(project)
    os.environ["PENSTOCK_PROJECT"] = settings.project  # the service reads the settings itself
    try:
        machine = import_module("penstock.services.__main__")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("penstock"):
            raise
        raise PenstockError(
            f"{service} needs the package {error.name}, which is not installed", f'pip install "penstock[{service}]"'
        ) from error
    machine.run(str(service))


def doctor(project: ProjectName = None, json: InJson = False) -> None:
    """Look for problems here, and say what to type."""
    from dataclasses import asdict

    from .. import doctor as examination
    from ..local import status as running

    settings = settings_of(project)
    up_here = {entry.name: entry for entry in running(settings.data) if entry.running}
    kafka = settings.kafka_bootstrap_servers or (up_here["kafka"].url.removeprefix("kafka://") if "kafka" in up_here else None)
    redis = settings.redis_url.get_secret_value() or (up_here["redis"].url if "redis" in up_here else None)
    checks = examination.examine(
        bootstrap=kafka,
        redis_url=redis,
        ports={name: settings.port_of(name) for name in Service if name not in up_here},
        data=settings.data,
    )
    code = examination.exit_code(checks)
    if json:
        screen.answer({"exit_code": code, "checks": [asdict(check) for check in checks]})
        raise typer.Exit(code)
    for check in checks:
        word, colour = LOOKS[check.ok]
        screen.say(f"  {screen.paint(f'{word:4}', colour)}  {check.name:22}  {check.detail}")
        if check.fix:
            screen.say(f"        -> {check.fix}")
    wrong = sum(check.ok is False for check in checks)
    screen.say(f"{screen.count(wrong, 'problem')}" if wrong else "no problems")
    raise typer.Exit(code)


def unreachable(reason: str) -> Unreachable:
    """A reason of `local` ("what -> what to type") as an error."""
    what, _, fix = reason.partition(" -> ")
    return Unreachable(what, fix)
