"""up, down, status, logs, run, doctor: the services on this machine."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ..errors import PenstockError
from . import broker, screen
from .options import Service, project_of, project_settings, settings_of

__all__ = ["doctor", "down", "logs", "run", "status", "up"]

FOLLOW: Final = 0.2
"""Seconds between two looks at a log that is followed."""

SERVERS: Final = ("kafka", "redis", "supervisor")
"""What else has a log here."""

OURS: Final = ".penstock"
"""The usual name of the data folder: what is in a folder of this name is ours."""

MADE: Final = frozenset(("demo", "faust", "kafka", "logs", "models", "project", "redis", "state.json", "state.new", "tables"))
"""What Penstock makes in a data folder of another name, where other things may be."""

ASKING: Final = 1.0
"""Seconds that a service here has to say something of itself."""

LAST_SECONDS: Final = 5.0
"""For a supervisor that has ended all others to end itself."""

LOOKS: Final = {True: ("ok", "green"), False: ("FAIL", "red"), None: ("-", "dim")}
COLOURS: Final = {"ready": "green", "ended": "red", "restarting": "yellow"}


def up(
    only: Annotated[list[Service] | None, typer.Option("--only", help="Start this service only; may be repeated.")] = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when all are ready; they go on in the background.")
    ] = False,
) -> None:
    """Start Kafka, Redis and every service here.

    They run until Ctrl-C, or with --detach until `penstock down`.
    Kafka and Redis are started only where KAFKA_BOOTSTRAP_SERVERS and REDIS_URL are not set.
    """
    from . import supervising

    settings = settings_of()
    names = [str(name) for name in only or Service]
    if not only and not project_of(settings).models:
        told = any(url.get_secret_value() for url in (settings.alert_webhook, settings.alert_slack, settings.alert_smtp))
        names = [str(Service.FEATURE_STORE), *([str(Service.MONITORING)] if told else [])]
        beside = ", and monitoring, which tells people of alarms," if told else ""
        screen.note(f"the project has no model: only its feature store{beside} is started")
    if detach:
        supervising.in_background(settings, names)
    else:
        asyncio.run(supervising.in_foreground(settings, project_of(settings), names))


def down(
    wipe: Annotated[
        bool, typer.Option("--wipe", help="Remove the data folder too: logs, models, tables, the broker's data.")
    ] = False,
) -> None:
    """End everything that runs here."""
    from .. import local
    from ..local import state
    from ..local.process import mark, wait_until

    folder = settings_of().data.resolve()
    doomed = wiped(folder) if wipe else []

    def end() -> list[str]:
        supervisor = state.supervisor_of(folder)
        found = local.down(folder)
        if supervisor is not None:  # it has said that all is ended; now it ends itself
            wait_until(lambda: mark(supervisor) is None, LAST_SECONDS)
        return found

    ended = asyncio.run(screen.patiently(asyncio.to_thread(end), "ending services, then Kafka and Redis"))
    for path in doomed:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    lines = [f"ended: {', '.join(ended)}" if ended else f"nothing was running in {folder}"]
    if not ended:
        _tell_of_others(folder, "down")
    lines += [f"removed {path}" for path in doomed]
    if wipe and not doomed:
        lines.append(f"there is nothing of Penstock's in {folder}")
    elif not wipe and folder.exists():
        lines.append(f"kept {folder}; remove it:  penstock down --wipe")
    screen.answer({"ended": ended, "wiped": [str(path) for path in doomed]}, lines)


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


def status() -> None:
    """Show what runs here.

    And which broker, Redis and folder these commands look at. Exit code 0 when all that was started is ready.
    """
    from .. import local
    from ..local.doctor import without_password

    settings = project_settings()
    folder = settings.data.absolute()
    found = local.status(folder)
    kafka, redis = broker.servers(settings)
    ready = bool(found) and all(entry.state == "ready" for entry in found)
    facts = {"project": settings.project, "kafka": kafka, "redis": without_password(redis), "data": str(folder)}
    processes = [{"name": e.name, "state": e.state, "pid": e.pid, "restarts": e.restarts, "url": e.url} for e in found]
    waits = {
        e.name: said
        for e in found
        if e.state == "ready" and e.url.startswith("http") and (said := _asked(f"{e.url}/readyz").get("waiting"))
    }
    table = [(e.name, f"pid {e.pid}", e.url, screen.count(e.restarts, "restart") if e.restarts else "") for e in found]
    states = [f"  {screen.paint(f'{e.state:10}', COLOURS.get(e.state, 'dim'))}" for e in found]
    lines = [state + row for state, row in zip(states, screen.rows(table), strict=True)]
    running = next((_generation(e.url) for e in found if e.name == "feature_store" and e.state == "ready"), None)
    screen.answer(
        {"ready": ready, **facts, "processes": processes, "views": running, "waiting": waits},
        "   ".join(f"{name} {value or 'none'}" for name, value in facts.items()),
        lines or f"nothing runs here, in {folder}",
    )
    for said in dict.fromkeys(waits.values()):
        screen.note(said)
    if not found:
        _tell_of_others(folder, "status")
    if running is not None and running["generation"] != running["in_charge"]:
        own, other = running["generation"], running["in_charge"]
        screen.note(f"generation {other} of the views is in charge; what runs here reads and trains by {own}, a shadow")
        screen.note(f"-> penstock down, then penstock up with the project file of {other}")
    if not ready:
        late = next((entry for entry in found if entry.state != "ready"), None)
        screen.note("-> penstock up" if late is None or late.state == "ended" else f"-> penstock logs {late.name}")
    raise typer.Exit(0 if ready else 1)


def _generation(url: str) -> dict[str, str] | None:
    """Which definitions of the views a feature store runs, and which are in charge; None where it does not say so in time."""
    found = _asked(f"{url}/generation")
    return {name: found[name] for name in ("generation", "in_charge")} if {"generation", "in_charge"} <= found.keys() else None


def _asked(url: str) -> dict[str, Any]:
    """What a service answers; nothing where it does not in time, or nothing that is a record."""
    import httpx

    try:
        found = httpx.get(url, timeout=ASKING).raise_for_status().json()
    except (httpx.HTTPError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _tell_of_others(folder: Path, verb: str) -> None:
    """Commands look at one data folder; whoever looks from another place is told where something is up."""
    from ..local import state

    for up in state.elsewhere(folder):
        screen.note(f"up elsewhere: {up.project}   -> PENSTOCK_DATA={up.folder} penstock {verb}")


def logs(
    service: Annotated[str, typer.Argument(help="A service, or kafka, redis, supervisor.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written from now on.")] = False,
    number: Annotated[int, typer.Option("--number", "-n", min=0, help="How many of the newest lines.")] = 50,
) -> None:
    """Show what a service wrote."""
    folder = settings_of().data
    path = folder / service / f"{service}.log" if service in ("kafka", "redis") else folder / "logs" / f"{service}.log"
    if not path.exists():
        if service not in (*Service, *SERVERS):
            raise PenstockError(f"there is no service {service}", f"one of: {', '.join((*Service, *SERVERS))}")
        raise PenstockError(f"{service} has written nothing here yet ({path} does not exist)", "penstock up")
    if not path.stat().st_size:
        screen.note(f"{path} is empty: {service} had nothing to say")
    if follow:
        screen.note(f"following {path}; Ctrl-C ends it")
    for line in _lines(path, number, follow):
        screen.answer(_fact(service, line) if screen.form.json else None, line)


def _fact(service: str, line: str) -> dict[str, Any]:
    """A line for programs: what was written as JSON stays JSON."""
    import msgspec

    try:
        said = msgspec.json.decode(line)
    except msgspec.DecodeError:
        said = None
    return {"service": service, **said} if isinstance(said, dict) else {"service": service, "line": line}


def _lines(path: Path, number: int, follow: bool) -> Iterator[str]:
    """The newest lines of a file, then, when it is followed, every new one; a file that was cut is read anew."""
    with path.open("rb") as file:
        for line in deque(file, number):
            yield line.decode("utf-8", "replace").rstrip("\n")
        rest = b""
        while follow:
            if path.exists() and path.stat().st_size < file.tell():
                file.seek(0)
            *whole, rest = (rest + file.read()).split(b"\n")
            yield from (line.decode("utf-8", "replace") for line in whole)
            time.sleep(FOLLOW)


def run(service: Annotated[Service, typer.Argument()]) -> None:
    """Run one service in this process, as in a container.

    Until SIGTERM or Ctrl-C. It logs JSON when not on a terminal.
    """
    import os
    from importlib import import_module

    os.environ["PENSTOCK_PROJECT"] = project_settings().project  # the service reads the settings itself
    try:
        machine = import_module("penstock.services.__main__")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("penstock"):
            raise
        raise PenstockError(
            f"{service} needs the package {error.name}, which is not installed", f'pip install "penstock[{service}]"'
        ) from error
    machine.run(str(service))


def doctor() -> None:
    """Look for problems here, and say what to type."""
    from dataclasses import asdict

    from ..local import doctor as examination
    from ..local import status as running

    settings = settings_of()
    up_here = {entry.name for entry in running(settings.data) if entry.running}
    kafka, redis = broker.servers(settings)
    checks = examination.examine(
        bootstrap=kafka,
        redis_url=redis,
        ports={name: settings.port_of(name) for name in Service if name not in up_here},
        data=settings.data,
        tables=settings.offline,
        security=broker.security_of(settings),
    )
    code = examination.exit_code(checks)
    lines = []
    for check in checks:
        word, colour = LOOKS[check.ok]
        lines.append(f"  {screen.paint(f'{word:4}', colour)}  {check.name:22}  {check.detail}")
        if check.fix:
            lines.append(f"        -> {check.fix}")
    wrong = sum(check.ok is False for check in checks)
    told = screen.count(wrong, "problem") if wrong else "no problems"
    screen.answer({"exit_code": code, "checks": [asdict(check) for check in checks]}, lines, told)
    raise typer.Exit(code)
