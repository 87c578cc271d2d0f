"""Run a project's processes on one machine: in order, each waited for, restarted, all ended together."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final

from . import state
from .process import LocalError, end_group, launch, mark
from .server import LocalServer

__all__ = ["Process", "Restart", "Supervisor", "pause_after"]

FIRST_PAUSE: Final = 0.2  # before the first restart: most crashes are over when the neighbour is back
LONGEST_PAUSE: Final = 5.0  # a broken service must not take the machine from the healthy ones
HEALTHY_SECONDS: Final = 30.0  # having lived so long, a crash is a new one
LOOK: Final = 0.1  # seconds between looks at a child; the same on every system, unlike pidfd or SIGCHLD
MISUSED: Final = 2  # the exit code for a wrong setting or project: trying again does not help


@dataclass(frozen=True, slots=True)
class Process:
    """One program to keep running. `env` comes on top of this process's; `ready` is asked until it says yes."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    ready: Callable[[], Awaitable[bool]] | None = None
    after: Sequence[str] = ()
    url: str = ""


@dataclass(frozen=True, slots=True)
class Restart:
    """A process ended by itself and is started again after `pause` seconds."""

    name: str
    code: int
    lived: float
    pause: float


def pause_after(previous: float, lived: float) -> float:
    """How long to wait before starting again what lived so long, after the pause before (0: there was none).

    >>> pause_after(0.0, 1.0), pause_after(0.2, 1.0), pause_after(4.0, 1.0), pause_after(5.0, 31.0)
    (0.2, 0.4, 5.0, 0.2)
    """
    if previous == 0.0 or lived >= HEALTHY_SECONDS:
        return FIRST_PAUSE
    return min(previous * 2, LONGEST_PAUSE)


class Supervisor:
    """Servers (broker, Redis) first, then processes by their `after`; `down` in the opposite order.

    What runs is kept in `folder/state.json`, so that another process can ask (`state.status`) and end it
    (`state.down`); each process writes to `folder/logs/<name>.log`.
    """

    def __init__(
        self,
        folder: Path,
        processes: Sequence[Process],
        servers: Sequence[LocalServer] = (),
        *,
        ready_seconds: float = 60.0,
        grace: float = 8.0,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.folder = folder.absolute()
        self.restarts: list[Restart] = []
        self._processes = {process.name: process for process in _in_order(processes)}
        self._servers = list(servers)
        self._ready_seconds = ready_seconds
        self._grace = grace
        self._say = say
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._entries: dict[str, state.Status] = {}
        self._ready = {name: asyncio.Event() for name in self._processes}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def up(self) -> None:
        """Start everything and return when all are ready. When one is not in time: end all, and say which and why."""
        other = state.supervisor_of(self.folder)
        if other is not None and other != os.getpid():
            raise LocalError(f"{self.folder} is already up (process {other})", "look:  penstock status   end it:  penstock down")
        self.folder.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(state.down, self.folder)  # what a killed supervisor left
        try:
            await asyncio.gather(*(self._start_server(server) for server in self._servers))
            self._tasks = {name: asyncio.create_task(self._keep(process)) for name, process in self._processes.items()}
            for server in self._servers:
                self._tasks[server.name] = asyncio.create_task(self._keep_server(server))
            await asyncio.gather(*(self._until_ready(name) for name in self._processes))
        except BaseException:
            await self.down()
            raise

    async def run(self) -> None:
        """Up, then keep all running until SIGINT or SIGTERM (or cancellation), then down."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        try:
            stopped = asyncio.create_task(stop.wait())
            started = asyncio.create_task(self.up())
            await asyncio.wait({stopped, started}, return_when=asyncio.FIRST_COMPLETED)
            if not stop.is_set():
                await started  # raises what went wrong
                await asyncio.wait({stopped, *self._tasks.values()}, return_when=asyncio.FIRST_COMPLETED)
                for task in self._tasks.values():
                    if task.done():
                        task.result()  # a watcher ends only by a mistake, and then nobody would restart its process
            started.cancel()
            await asyncio.gather(started, return_exceptions=True)
        finally:
            await self.down()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    async def down(self) -> None:
        """End every process group: SIGTERM, the grace, SIGKILL; then the servers. Raises if anything survived."""
        tasks, self._tasks = list(self._tasks.values()), {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        ends = (asyncio.to_thread(end_group, child.pid, self._grace) for child in self._children.values())
        problems = await asyncio.gather(*ends, return_exceptions=True)
        problems += await asyncio.gather(*(asyncio.to_thread(server.stop) for server in self._servers), return_exceptions=True)
        for child in self._children.values():
            child.poll()  # ended: collects it
        for problem in problems:
            if isinstance(problem, BaseException):
                raise problem
        self._children.clear()
        self._entries.clear()
        if state.supervisor_of(self.folder) in (None, os.getpid()):
            await asyncio.to_thread(state.down, self.folder)

    async def _keep(self, process: Process) -> None:
        """Start a process when those before it are ready, and again whenever it ends."""
        for name in process.after:
            await self._ready[name].wait()
        pause = 0.0
        while True:
            began = time.monotonic()
            child = launch(process.argv, log=self._log(process.name), env={**os.environ, **process.env})
            self._children[process.name] = child
            self._note(process.name, child.pid, "starting", process.url)
            asking = asyncio.create_task(self._ask(process, child))
            try:
                while child.poll() is None:
                    if asking.done():
                        asking.result()  # raises what `ready` raised: a mistake in it is not "not yet"
                    await asyncio.sleep(LOOK)
            finally:
                asking.cancel()
            await asyncio.to_thread(end_group, child.pid, self._grace)  # what it may have left behind
            starting, lived = not self._ready[process.name].is_set(), time.monotonic() - began
            if starting and child.returncode == MISUSED:
                raise self._failure(process.name, "ended with code 2")
            pause = pause_after(pause, lived)
            await self._restart(Restart(process.name, child.returncode, lived, pause), self._log(process.name))

    async def _keep_server(self, server: LocalServer) -> None:
        pause, began = 0.0, time.monotonic()
        while True:
            while server.running:
                await asyncio.sleep(LOOK)
            lived = time.monotonic() - began
            pause = pause_after(pause, lived)
            await self._restart(Restart(server.name, server.collect(), lived, pause), server.log)
            began = time.monotonic()
            try:
                await self._start_server(server)
            except LocalError as error:  # said, and tried again after a longer pause
                self._say(f"{server.name}: {error}")

    async def _start_server(self, server: LocalServer) -> None:
        await asyncio.to_thread(server.start)
        self._note(server.name, server.pid, "ready", f"{server.name}://127.0.0.1:{server.port}")

    async def _restart(self, restart: Restart, log: Path) -> None:
        self.restarts.append(restart)
        ended = f"{restart.name} ended with code {restart.code} after {restart.lived:.1f} s"
        self._say(f"{ended}; again in {restart.pause:.1f} s; why:  tail -50 {log}")
        entry = self._entries[restart.name]
        self._note(entry.name, entry.pid, "restarting", entry.url)
        await asyncio.sleep(restart.pause)

    async def _ask(self, process: Process, child: subprocess.Popen[bytes]) -> None:
        """Ask a started process until it is ready."""
        while process.ready is not None and not await process.ready():
            await asyncio.sleep(LOOK)
        self._ready[process.name].set()
        self._note(process.name, child.pid, "ready", process.url)

    async def _until_ready(self, name: str) -> None:
        """Wait for one process; its own failure, or the time being over, is an error that names the log."""
        ready = asyncio.create_task(self._ready[name].wait())
        try:
            await asyncio.wait({ready, self._tasks[name]}, timeout=self._ready_seconds, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                if self._tasks[name].done():
                    await self._tasks[name]
                raise self._failure(name, f"was not ready within {self._ready_seconds:.0f} s")
        finally:
            ready.cancel()

    def _failure(self, name: str, what: str) -> LocalError:
        log = self._log(name)
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
        last = next((line.strip() for line in reversed(lines) if line.strip()), "its log is empty")
        return LocalError(f"{name} {what}: {last}", f"read its log:  tail -50 {log}")

    def _note(self, name: str, pid: int, status: str, url: str) -> None:
        found = mark(pid)
        restarts = sum(restart.name == name for restart in self.restarts)
        self._entries[name] = state.Status(name, pid, found.started if found else "", status, url, restarts)
        state.write(self.folder, self._entries.values())

    def _log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"


def _in_order(processes: Sequence[Process]) -> list[Process]:
    """The processes so that each comes after those it names; refuses unknown names and circles."""
    named = {process.name: process for process in processes}
    if len(named) != len(processes):
        raise LocalError(f"two processes of one name among {[process.name for process in processes]}", "give each its own name")
    for process in processes:
        unknown = set(process.after) - set(named)
        if unknown:
            raise LocalError(f"{process.name} starts after {sorted(unknown)}, which is not there", f"name one of {sorted(named)}")
    try:
        order = list(TopologicalSorter({process.name: process.after for process in processes}).static_order())
    except CycleError as error:
        raise LocalError(f"processes wait for each other: {' -> '.join(error.args[1])}", "take one `after` away") from error
    return [named[name] for name in order]
