"""Run a project's processes on one machine: each waited for, restarted, all ended together."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from . import state
from .process import Child, LocalError, end_group, last_words, launch, mark
from .server import LocalServer

__all__ = ["Process", "Supervisor", "pause_after"]

FIRST_PAUSE: Final = 0.2  # before the first restart: most crashes are over when the neighbour is back
LONGEST_PAUSE: Final = 5.0  # a broken service must not take the machine from the healthy ones
HEALTHY_SECONDS: Final = 30.0  # having lived so long, a crash is a new one
LOOK: Final = 0.1  # seconds between looks at a child; the same on every system, unlike pidfd or SIGCHLD
MISUSED: Final = 2  # the exit code for a wrong setting or project: trying again does not help


@dataclass(frozen=True, slots=True)
class Process:
    """One program to keep running. `env` comes on top of this process's; `ready` is asked until it says yes, and must
    answer soon."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    ready: Callable[[], Awaitable[bool]] | None = None
    url: str = ""


def pause_after(previous: float, lived: float) -> float:
    """How long to wait before starting again what lived so long, after the pause before (0: there was none).

    >>> pause_after(0.0, 1.0), pause_after(0.2, 1.0), pause_after(4.0, 1.0), pause_after(5.0, 31.0)
    (0.2, 0.4, 5.0, 0.2)
    """
    if previous == 0.0 or lived >= HEALTHY_SECONDS:
        return FIRST_PAUSE
    return min(previous * 2, LONGEST_PAUSE)


class Supervisor:
    """Servers (broker, Redis) first, then processes; `down` in the opposite order.

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
        self._processes, self._servers = list(processes), list(servers)
        self._ready_seconds, self._grace, self._say = ready_seconds, grace, say
        self._children: dict[str, Child] = {}
        self._entries: dict[str, state.Status] = {}
        self._restarts: Counter[str] = Counter()
        self._ready = {process.name: asyncio.Event() for process in processes}
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
            self._tasks = {process.name: asyncio.create_task(self._keep(process)) for process in self._processes}
            self._tasks |= {server.name: asyncio.create_task(self._keep_server(server)) for server in self._servers}
            await asyncio.gather(*(self._until_ready(name) for name in self._ready))
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
        """Start a process, again whenever it ends, and say when it is ready."""
        pause, log, ready = 0.0, self._log(process.name), self._ready[process.name]
        while True:
            began, asked = time.monotonic(), False
            child = self._children[process.name] = launch(process.argv, log=log, env={**os.environ, **process.env})
            self._note(process.name, child.pid, "starting", process.url)
            while child.poll() is None:
                if not asked and (process.ready is None or await process.ready()):
                    asked = True
                    ready.set()
                    self._note(process.name, child.pid, "ready", process.url)
                await asyncio.sleep(LOOK)
            await asyncio.to_thread(end_group, child.pid, self._grace)  # what it may have left behind
            if child.returncode == MISUSED and not ready.is_set():
                raise self._failure(process.name, "ended with code 2")
            pause = await self._pause(process.name, child.returncode, time.monotonic() - began, pause, log)

    async def _keep_server(self, server: LocalServer) -> None:
        pause = 0.0
        while True:
            began = time.monotonic()
            while server.running:
                await asyncio.sleep(LOOK)
            pause = await self._pause(server.name, server.collect(), time.monotonic() - began, pause, server.log)
            try:
                await self._start_server(server)
            except LocalError as error:  # said, and tried again after a longer pause
                self._say(f"{server.name}: {error}")

    async def _start_server(self, server: LocalServer) -> None:
        await asyncio.to_thread(server.start)
        self._note(server.name, server.pid, "ready", f"{server.name}://127.0.0.1:{server.port}")

    async def _pause(self, name: str, code: int, lived: float, previous: float, log: Path) -> float:
        """Tell that something ended by itself, wait before it is started again, and return for how long."""
        pause = pause_after(previous, lived)
        self._say(f"{name} ended with code {code} after {lived:.1f} s; again in {pause:.1f} s; why:  tail -50 {log}")
        self._restarts[name] += 1
        self._note(name, self._entries[name].pid, "restarting", self._entries[name].url)
        await asyncio.sleep(pause)
        return pause

    async def _until_ready(self, name: str) -> None:
        """Wait for one process; its own failure, or the time being over, is an error that names the log."""
        ready, keeping = asyncio.create_task(self._ready[name].wait()), self._tasks[name]
        done, _ = await asyncio.wait({ready, keeping}, timeout=self._ready_seconds, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if keeping in done:
            keeping.result()
        if not done:
            raise self._failure(name, f"was not ready within {self._ready_seconds:.0f} s")

    def _failure(self, name: str, what: str) -> LocalError:
        log = self._log(name)
        return LocalError(f"{name} {what}: {last_words(log.read_text(errors='replace'))}", f"read its log:  tail -50 {log}")

    def _note(self, name: str, pid: int, status: str, url: str) -> None:
        found = mark(pid)
        self._entries[name] = state.Status(name, pid, found.started if found else "", status, url, self._restarts[name])
        state.write(self.folder, self._entries.values())

    def _log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"
