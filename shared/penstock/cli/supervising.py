"""What `penstock up` does: broker and Redis, topics, then one process per service, all told as they become ready.

Everything that happens is an event (a dict with `type`), shown as a line of text or as JSON. In the background the same
command runs with `--json` into a file, and the one that started it shows what is written there until all is up.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import PenstockError, Unreachable
from ..local import kafka as local_kafka
from ..local import port, state
from ..local import redis as local_redis
from ..local.process import LocalError
from ..local.supervisor import Process, Supervisor
from ..log import LogError
from . import broker, screen

if TYPE_CHECKING:
    from ..local.server import LocalServer
    from ..project import Project
    from ..settings import Settings

__all__ = ["in_background", "in_foreground", "processes", "show"]

Event = Mapping[str, Any]
Show = Callable[[Event], None]

TRIES: Final = 4
"""A service that ended so often before it was ready once will not start; what depends on a neighbour waits for it."""

READY_SECONDS: Final = 120.0
"""For a service to answer: the first start compiles the window kernel, six at once on two cores."""

LOOK: Final = 0.1
"""Seconds between two looks at what became ready."""

FIRST_PORTS: Final = {"kafka": 9092, "redis": 6379}
"""Where people look for them; taken ones are replaced by any free port."""


def show(event: Event) -> None:
    """An event as a line."""
    kind, name = event["type"], event.get("name", "")
    if kind == "starting":
        screen.say(f"  {name:14} starting")
    elif kind == "ready":
        screen.say(f"  {name:14} {screen.paint('ready', 'green')}  {event['seconds']:5.1f} s  {event.get('url', '')}".rstrip())
    elif kind == "topics":
        screen.say(f"  {'topics':14} {screen.paint('ready', 'green')}  {event['made']} made, {event['kept']} were there")
    elif kind == "waiting":
        screen.say(f"  {event['what']}: {event['seconds']:.0f} s so far")
    elif kind == "said":
        screen.say(f"  {screen.paint(event['line'], 'yellow')}")
    elif kind == "up":
        screen.say(f"up after {event['seconds']:.1f} s   project {event['project']}   data {event['data']}")
        for where, url in event["urls"].items():
            screen.say(f"  {where:14} {url}")
        screen.say("  look:  penstock status     end all:  penstock down" if event["detached"] else "  Ctrl-C ends all of it")
    elif kind == "stopping":
        screen.say("stopping")
    elif kind == "down":
        screen.say(f"all ended after {event['seconds']:.1f} s; data kept in {event['data']}")


def command(service: str) -> list[str]:
    """What runs a service."""
    return [sys.executable, "-m", "penstock.services", service]


def processes(settings: Settings, names: Sequence[str], kafka: str, redis: str) -> list[Process]:
    """One process per service, each told where everything is. Pure."""
    shared = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "REDIS_URL": redis,
        "PENSTOCK_PROJECT": settings.project,
        "PENSTOCK_DATA": str(settings.data.absolute()),
        "PENSTOCK_HTTP_PORT": "0",  # one port for all of them would be taken by the first
    }
    host = port.LOOPBACK if settings.http_host in ("0.0.0.0", "::") else settings.http_host
    made = []
    for name in names:
        number = int(getattr(settings, f"{name}_port"))
        ready = partial(port.http_ok, number, "/readyz", host=host)
        made.append(Process(name, command(name), shared, ready, url=f"http://{host}:{number}"))
    return made


def in_foreground(settings: Settings, project: Project, names: Sequence[str], tell: Show) -> None:
    """Until Ctrl-C or SIGTERM."""
    try:
        asyncio.run(_run(settings, project, names, tell))
    except LogError as error:
        raise broker.refusal(error) from error


async def _run(settings: Settings, project: Project, names: Sequence[str], tell: Show) -> None:
    began, folder = time.monotonic(), settings.data.absolute()
    _refuse_twice(folder)
    _refuse_taken_ports(settings, names)
    servers = _servers(settings, folder)
    try:
        starting = asyncio.gather(*(_start(server, tell) for server in servers.values()))
        await _told(tell, "starting Kafka (the first time its jars are fetched) and Redis", starting)
        kafka = servers["kafka"].bootstrap if "kafka" in servers else settings.kafka_bootstrap_servers  # type: ignore[attr-defined]
        redis = servers["redis"].url if "redis" in servers else settings.redis_url.get_secret_value()  # type: ignore[attr-defined]
        await _told(tell, f"creating topics on {kafka}", _topics(settings, project, kafka, tell))
        supervisor = _Told(
            folder,
            processes(settings, names, kafka, redis),
            list(servers.values()),
            ready_seconds=READY_SECONDS,
            say=lambda line: tell({"type": "said", "line": line}),
        )
        supervisor.tell = tell
        watching = asyncio.create_task(_watch(supervisor, names, tell, began, settings.project))
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

    tell: Show
    stopping = False

    def gave_up(self, name: str) -> LocalError:
        """Why a service that keeps ending will not start."""
        return self._failure(name, f"ended {TRIES} times while starting")

    async def down(self) -> None:
        began, first, self.stopping = time.monotonic(), not self.stopping, True
        if not self._tasks and not self._children:
            return await super().down()
        if first:
            self.tell({"type": "stopping"})
        await _told(self.tell, "ending services, then Kafka and Redis", super().down())
        self.tell({"type": "down", "seconds": round(time.monotonic() - began, 1), "data": str(self.folder)})
        return None


def _refuse_twice(folder: Path) -> None:
    other = state.supervisor_of(folder)
    if other is not None:
        raise LocalError(f"{folder} is already up (process {other})", "look:  penstock status   end it:  penstock down")


def _refuse_taken_ports(settings: Settings, names: Sequence[str]) -> None:
    """Said before anything is started, all at once."""
    taken = {name: getattr(settings, f"{name}_port") for name in names}
    taken = {name: number for name, number in taken.items() if number and not port.is_free(number)}
    if taken:
        first = next(iter(taken))
        listed = ", ".join(f"{number} (for {name})" for name, number in taken.items())
        raise Unreachable(
            f"ports are taken: {listed}",
            f"see by whom:  ss -ltnp   or choose another:  export PENSTOCK_{first.upper()}_PORT=...",
        )


def _servers(settings: Settings, folder: Path) -> dict[str, LocalServer]:
    """What has to be started here, because nobody said where it is; refuses where it cannot be."""
    wanted: dict[str, tuple[str | None, type[LocalServer]]] = {}
    if not settings.kafka_bootstrap_servers:
        wanted["kafka"] = (local_kafka.available(), local_kafka.LocalKafka)
    if not settings.redis_url.get_secret_value():
        wanted["redis"] = (local_redis.available(), local_redis.LocalRedis)
    for reason, _ in wanted.values():
        if reason is not None:
            what, _, fix = reason.partition(" -> ")
            raise Unreachable(what, fix)
    return {name: kind(folder / name, _port_for(name, folder)) for name, (_, kind) in wanted.items()}


def _port_for(name: str, folder: Path) -> int:
    """The usual port where it is free, else 0 (any). A Kafka that was here before keeps its own, which clients know."""
    kept = name == "kafka" and (folder / name).exists()
    return FIRST_PORTS[name] if port.is_free(FIRST_PORTS[name]) and not kept else 0


async def _start(server: LocalServer, tell: Show) -> None:
    began = time.monotonic()
    tell({"type": "starting", "name": server.name})
    await asyncio.to_thread(server.start)
    url = f"{server.name}://{port.LOOPBACK}:{server.port}"
    tell({"type": "ready", "name": server.name, "seconds": round(time.monotonic() - began, 1), "url": url})


async def _topics(settings: Settings, project: Project, kafka: str, tell: Show) -> None:
    from ..topics import Topics

    declared = Topics(project, settings.partitions).all()
    async with broker.connected(settings.model_copy(update={"kafka_bootstrap_servers": kafka})) as log:
        made = await log.create(declared)
    tell({"type": "topics", "made": len(made), "kept": len(declared) - len(made)})


async def _watch(supervisor: _Told, names: Sequence[str], tell: Show, began: float, project: str) -> None:
    """Say what became ready, and once that all is; raises when a service ends again and again instead."""
    here, folder = time.monotonic(), supervisor.folder
    told: set[str] = set()
    all_up, remind = False, here + screen.SILENCE
    while not supervisor.stopping:
        entries = {entry.name: entry for entry in state.status(folder)}
        for name in names:
            entry = entries.get(name)
            if entry is not None and entry.state == "ready" and name not in told:
                told.add(name)
                tell({"type": "ready", "name": name, "seconds": round(time.monotonic() - here, 1), "url": entry.url})
            if entry is not None and entry.restarts >= TRIES and not all_up and name not in told:
                raise supervisor.gave_up(name)
        if not all_up and told == set(names):
            all_up = True
            urls = {title: entries[name].url for title, name in _DOORS if name in told}
            tell(
                {
                    "type": "up",
                    "seconds": round(time.monotonic() - began, 1),
                    "project": project,
                    "data": str(folder),
                    "urls": urls,
                    "detached": False,
                }
            )
        if not all_up and time.monotonic() > remind:
            remind = time.monotonic() + screen.AGAIN
            missing = ", ".join(name for name in names if name not in told)
            tell({"type": "waiting", "what": f"waiting for {missing}", "seconds": round(time.monotonic() - here)})
        await asyncio.sleep(LOOK)


_DOORS: Final = (("dashboard", "dashboard"), ("answers", "inference"), ("features", "feature_store"))
"""What people open or call: title, service."""


async def _told(tell: Show, what: str, work: Any) -> Any:
    """Wait, and say every two seconds for what."""
    began, task = time.monotonic(), asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=screen.SILENCE))[0]:
            tell({"type": "waiting", "what": what, "seconds": round(time.monotonic() - began)})
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise
    return task.result()


def in_background(settings: Settings, names: Sequence[str], tell: Show) -> None:
    """Start the same command as a process of its own, and return when all is up or it has failed."""
    folder = settings.data.absolute()
    _refuse_twice(folder)
    log = folder / "logs" / "supervisor.log"
    log.parent.mkdir(parents=True, exist_ok=True)
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
            _relay(child, written, tell)
        except KeyboardInterrupt:
            child.send_signal(signal.SIGTERM)
            child.wait()
            raise


def _relay(child: subprocess.Popen[bytes], written: Any, tell: Show) -> None:
    """Show what the background process writes until it is up; raise what it complains of when it ends before."""
    plain: list[str] = []
    rest = b""
    while True:
        ended = child.poll() is not None
        *lines, rest = (rest + written.read()).split(b"\n")
        for line in lines:
            try:
                event = json.loads(line)
                event["type"]
            except (ValueError, KeyError, TypeError):
                plain.append(line.decode("utf-8", "replace"))
                continue
            if event["type"] == "up":
                tell({**event, "detached": True})
                return
            tell(event)
        if ended:
            error = _complaint(plain)
            error.exit_code = child.returncode if child.returncode in (1, 2, 3) else 1
            raise error
        time.sleep(LOOK)


def _complaint(lines: Sequence[str]) -> PenstockError:
    """What a command wrote last as its error: one line what, one line what to type."""
    at = next((n for n in range(len(lines) - 1, 0, -1) if lines[n].startswith("-> ")), None)
    if at is None:
        return PenstockError((list(lines) or ["the background process ended"])[-1], "penstock logs supervisor")
    return PenstockError(lines[at - 1], lines[at].removeprefix("-> "))
