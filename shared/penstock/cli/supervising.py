"""What `penstock up` does: broker and Redis, topics, then one process per service, all told as they become ready.

Everything that happens is an event: its line for people, and with `--json` a dict with `type`, that line as `text`, and the
facts. In the background the same command runs with `--json` into a file, and the one that started it shows the lines that
are written there until all is up.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from ..errors import PenstockError, SettingError, Unreachable
from ..local import kafka as local_kafka
from ..local import port, state
from ..local import redis as local_redis
from ..local.process import LocalError
from ..local.supervisor import Process, Supervisor
from ..log.security import PLAIN
from . import broker, screen
from .options import PROJECT_FILE

if TYPE_CHECKING:
    from ..local.server import LocalServer
    from ..project import Project
    from ..settings import Settings

__all__ = ["in_background", "in_foreground", "processes"]

TRIES: Final = 4
"""A service that ended so often before it was ready once will not start; what depends on a neighbour waits for it."""

READY_SECONDS: Final = 120.0
"""For a service to answer: the first start compiles the window kernel, six at once on two cores."""

LOOK: Final = 0.1
"""Seconds between two looks at what became ready."""

FIRST_PORTS: Final = {"kafka": 9092, "redis": 6379}
"""Where people look for them; taken ones are replaced by any free port."""

DOORS: Final = (("dashboard", "dashboard"), ("answers", "inference"), ("features", "feature_store"))
"""What people open or call: title, service."""


def tell(kind: str, text: str, **facts: Any) -> None:
    """Something happened."""
    screen.answer({"type": kind, "text": text, **facts}, text)


def _waiting(line: str) -> None:
    tell("waiting", line)


def _ready(name: str, began: float, url: str) -> None:
    seconds = round(time.monotonic() - began, 1)
    tell("ready", f"  {name:14} ready  {seconds:5.1f} s  {url}".rstrip(), name=name, seconds=seconds, url=url)


def command(service: str) -> list[str]:
    """What runs a service."""
    return [sys.executable, "-m", "penstock.services", service]


def processes(settings: Settings, names: Sequence[str], kafka: str, redis: str) -> list[Process]:
    """One process per service, each told where everything is. Pure."""
    shared = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "REDIS_URL": redis,
        "PENSTOCK_KAFKA_SECURITY_PROTOCOL": settings.kafka_security_protocol,
        "PENSTOCK_PROJECT": settings.project,
        "PENSTOCK_DATA": str(settings.data.absolute()),
        "PENSTOCK_HTTP_PORT": "0",  # one port for all of them would be taken by the first
    }
    host = port.LOOPBACK if settings.http_host in ("0.0.0.0", "::") else settings.http_host
    scheme, made = "https" if settings.http_certificate else "http", []
    for name in names:
        number = int(getattr(settings, f"{name}_port"))
        ready = partial(port.http_ok, number, "/readyz", host=host, secure=bool(settings.http_certificate))
        made.append(Process(name, command(name), shared, ready, url=f"{scheme}://{host}:{number}"))
    return made


async def in_foreground(settings: Settings, project: Project, names: Sequence[str]) -> None:
    """Until Ctrl-C or SIGTERM."""
    began, folder = time.monotonic(), settings.data.absolute()
    _refuse_twice(folder)
    _refuse_taken_ports(settings, names)
    _refuse_unwritable(settings)
    _made(folder)
    servers = _servers(settings, folder)
    if "kafka" in servers:  # ours, which needs neither TLS nor a password
        settings = settings.model_copy(update={"kafka_security_protocol": PLAIN.protocol})
    try:
        starting = asyncio.gather(*(_start(server) for server in servers.values()))
        await screen.patiently(starting, "starting Kafka (the first time its jars are fetched) and Redis", _waiting)
        kafka = servers["kafka"].bootstrap if "kafka" in servers else settings.kafka_bootstrap_servers  # type: ignore[attr-defined]
        redis = servers["redis"].url if "redis" in servers else settings.redis_url.get_secret_value()  # type: ignore[attr-defined]
        await screen.patiently(_topics(settings, project, kafka), f"creating topics on {kafka}", _waiting)
        supervisor = _Told(
            folder,
            processes(settings, names, kafka, redis),
            list(servers.values()),
            ready_seconds=READY_SECONDS,
            say=lambda line: tell("said", f"  {line}"),
        )
        own = settings.project
        (folder / PROJECT_FILE).write_text(str(Path(own).absolute()) if own.endswith(".py") else own)
        watching = asyncio.create_task(_watch(supervisor, names, began, own))
        running = asyncio.create_task(supervisor.run())
        await asyncio.wait({running, watching}, return_when=asyncio.FIRST_EXCEPTION)  # the watch ends with the run
        if not running.done():
            signal.raise_signal(signal.SIGTERM)  # what a person would do: all is ended in order, half-started ones too
        for problem in await asyncio.gather(watching, running, return_exceptions=True):
            if isinstance(problem, Exception):
                raise problem
    finally:
        for server in servers.values():
            await asyncio.to_thread(server.stop)  # ended already, unless we never came to supervise it


class _Told(Supervisor):
    """A supervisor that says when it ends."""

    stopping = False

    def gave_up(self, name: str) -> LocalError:
        """Why a service that keeps ending will not start."""
        return self._failure(name, f"ended {TRIES} times while starting")

    async def down(self) -> None:
        began, first, self.stopping = time.monotonic(), not self.stopping, True
        if not self._tasks and not self._children:
            return await super().down()
        if first:
            tell("stopping", "stopping")
        await screen.patiently(super().down(), "ending services, then Kafka and Redis", _waiting)
        seconds = round(time.monotonic() - began, 1)
        tell("down", f"all ended after {seconds:.1f} s; data kept in {self.folder}", seconds=seconds, data=str(self.folder))
        return None


def _refuse_twice(folder: Path) -> None:
    other = state.supervisor_of(folder)
    if other is not None:
        raise LocalError(f"{folder} is already up (process {other})", "look:  penstock status   end it:  penstock down")


def _refuse_taken_ports(settings: Settings, names: Sequence[str]) -> None:
    """Said before anything is started, all at once."""
    numbers = {name: int(getattr(settings, f"{name}_port")) for name in names}
    taken = [name for name, number in numbers.items() if number and not port.is_free(number)]
    if taken:
        what = f"ports are taken: {', '.join(f'{numbers[name]} (for {name})' for name in taken)}"
        another = f"export PENSTOCK_{taken[0].upper()}_PORT=..."
        if others := state.elsewhere(settings.data):
            up = ", ".join(f"{each.project} in {each.folder}" for each in others)
            fix = f"end it:  PENSTOCK_DATA={others[0].folder} penstock down   or choose other ports:  {another} (and so on)"
            raise Unreachable(f"{what}; another project is up: {up}", fix)
        raise Unreachable(what, f"see by whom:  ss -ltnp   or choose another:  {another}")


def _refuse_unwritable(settings: Settings) -> None:
    """Services would wait for ever for storage that a typing error hides."""
    from ..local.doctor import offline

    check = offline(settings.offline)
    if check.ok is False:
        raise Unreachable(check.detail, check.fix)


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingError(
            f"{folder} cannot be made: {error.strerror}", "export PENSTOCK_DATA=...   a folder of your own"
        ) from None
    return folder


def _servers(settings: Settings, folder: Path) -> dict[str, LocalServer]:
    """What has to be started here, because nobody said where it is; refuses where it cannot be. At the usual port where that
    is free, else at any; a Kafka that was here before keeps its own, which clients know."""
    wanted: dict[str, tuple[str | None, type[LocalServer]]] = {}
    if not settings.kafka_bootstrap_servers:
        wanted["kafka"] = (local_kafka.available(), local_kafka.LocalKafka)
    if not settings.redis_url.get_secret_value():
        wanted["redis"] = (local_redis.available(), local_redis.LocalRedis)
    for reason, _ in wanted.values():
        if reason is not None:
            what, _, fix = reason.partition(" -> ")
            raise Unreachable(what, fix)
    made = {}
    for name, (_, kind) in wanted.items():
        usual = port.is_free(FIRST_PORTS[name]) and not (name == "kafka" and (folder / name).exists())
        made[name] = kind(folder / name, FIRST_PORTS[name] if usual else 0)
    return made


async def _start(server: LocalServer) -> None:
    began = time.monotonic()
    tell("starting", f"  {server.name:14} starting", name=server.name)
    await asyncio.to_thread(server.start)
    _ready(server.name, began, f"{server.name}://{port.LOOPBACK}:{server.port}")


async def _topics(settings: Settings, project: Project, kafka: str) -> None:
    from ..topics import Topics

    declared = Topics(project, settings.partitions).all()
    async with broker.connected(settings.model_copy(update={"kafka_bootstrap_servers": kafka})) as log:
        made = len(await log.create(declared))
    kept = len(declared) - made
    tell("topics", f"  {'topics':14} ready  {made} made, {kept} were there", made=made, kept=kept)


async def _watch(supervisor: _Told, names: Sequence[str], began: float, project: str) -> None:
    """Say what became ready, and once that all is; raises when a service ends again and again instead."""
    here, folder = time.monotonic(), supervisor.folder
    missing, remind = list(names), here + screen.SILENCE
    while missing and not supervisor.stopping:
        entries = {entry.name: entry for entry in state.status(folder)}
        for name in [name for name in missing if name in entries]:
            if entries[name].state == "ready":
                missing.remove(name)
                _ready(name, here, entries[name].url)
            elif entries[name].restarts >= TRIES:
                raise supervisor.gave_up(name)
        if missing and time.monotonic() > remind:
            remind = time.monotonic() + screen.AGAIN
            _waiting(f"  waiting for {', '.join(missing)}: {time.monotonic() - here:.0f} s so far")
        await asyncio.sleep(LOOK)
    if missing:
        return
    urls = {title: entries[name].url for title, name in DOORS if name in names}
    seconds = round(time.monotonic() - began, 1)
    lines = [f"up after {seconds:.1f} s   project {project}   data {folder}"]
    lines += [f"  {title:14} {url}" for title, url in urls.items()]
    tell("up", "\n".join(lines), seconds=seconds, project=project, data=str(folder), urls=urls)
    screen.note("Ctrl-C ends all of it")


def in_background(settings: Settings, names: Sequence[str]) -> None:
    """Start the same command as a process of its own, and return when all is up or it has failed."""
    folder = settings.data.absolute()
    _refuse_twice(folder)
    log = _made(folder / "logs") / "supervisor.log"
    only = [word for name in names for word in ("--only", name)]
    with log.open("ab") as output, log.open("rb") as written:
        written.seek(0, os.SEEK_END)
        child = subprocess.Popen(
            [sys.executable, "-m", "penstock.cli", "up", "--json", "--project", settings.project, *only],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _relay(child, written)
        except KeyboardInterrupt:
            child.send_signal(signal.SIGTERM)
            child.wait()
            raise
    screen.note("look:  penstock status     end all:  penstock down")


def _relay(child: subprocess.Popen[bytes], written: IO[bytes]) -> None:
    """Show what the background process tells until it is up; raise what it complains of when it ends before."""
    error, rest = PenstockError("the background process ended", "penstock logs supervisor"), b""
    while True:
        ended = child.poll()
        *lines, rest = (rest + written.read()).split(b"\n")
        for line in lines:
            if not line.startswith(b'{"type":'):  # a note, or the traceback of what was not foreseen
                error = PenstockError(line.decode("utf-8", "replace"), "penstock logs supervisor")
                continue
            event = json.loads(line)
            if event["type"] == "error":
                error = PenstockError(event["text"], event["fix"])
                continue
            screen.answer(event, event["text"])
            if event["type"] == "up":
                return
        if ended is not None:
            error.exit_code = ended if ended in (1, 2, 3) else 1
            raise error
        time.sleep(LOOK)
