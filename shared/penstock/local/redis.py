"""A real Redis (or Valkey) on this machine, for `penstock up` and the tests."""

import shutil
from typing import ClassVar, Final

from . import port as ports
from .process import LocalError
from .server import LocalServer

__all__ = ["LocalRedis", "available", "ping"]

INSTALL: Final = "install one:  apt-get install redis-server   or   brew install redis   or   docker compose up -d --wait redis"


class LocalRedis(LocalServer):
    """A Redis with an append-only file in `folder`: what it acknowledged is there again after a restart.

    `everysec`: a crash of the process loses nothing, a power cut at most the last second, which the services replay
    from the log because their positions are in the same file (design, rule 3).
    """

    name: ClassVar[str] = "redis"
    start_seconds: ClassVar[float] = 20.0  # mostly for reading a large append-only file back
    stop_seconds: ClassVar[float] = 10.0

    @property
    def url(self) -> str:
        """Where it listens, as REDIS_URL wants it."""
        return f"redis://{ports.LOOPBACK}:{self.port}/0"

    def _prepare(self, deadline: float) -> None:
        reason = available()
        if reason is not None:
            raise LocalError(*_split(reason))

    def _command(self) -> list[str]:
        options = {
            "bind": ports.LOOPBACK,
            "port": str(self.port),
            "daemonize": "no",
            "dir": str(self.folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",  # state that silently disappears is worse than a refused write
        }
        return [_program() or "redis-server", *(word for key, value in options.items() for word in (f"--{key}", value))]

    def _answers(self) -> bool:
        return ping(ports.LOOPBACK, self.port, timeout=1.0)


def available() -> str | None:
    """None when a Redis can be started here, else why not and what to type."""
    return None if _program() else f"no redis-server on PATH -> {INSTALL}"


def ping(host: str, port: int, timeout: float) -> bool:
    """Whether a Redis answers there and has finished loading; raises OSError when nothing listens."""
    return ports.exchange(host, port, b"PING\r\n", lambda answer: b"\n" in answer, timeout).startswith(b"+PONG")


def _program() -> str | None:
    return shutil.which("redis-server") or shutil.which("valkey-server")


def _split(reason: str) -> tuple[str, str]:
    what, _, fix = reason.partition(" -> ")
    return what, fix
