"""A real Redis (or Valkey) on this machine, for `penstock up` and the tests."""

import shutil
from typing import ClassVar, Final

from . import port as ports
from .process import LocalError
from .server import LocalServer

__all__ = ["OPTIONS", "LocalRedis", "available"]

INSTALL: Final = "install one:  apt-get install redis-server   or   docker compose up -d --wait redis"

OPTIONS: Final = {
    "save": "",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "auto-aof-rewrite-min-size": "256mb",  # states are written over and over: at 64 MB it would compact every few seconds
    "maxmemory-policy": "noeviction",  # state that silently disappears is worse than a refused write
}


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
        if reason := available():
            raise LocalError.of(reason)

    def _command(self) -> list[str]:
        places = {"bind": ports.LOOPBACK, "port": str(self.port), "dir": str(self.folder)}
        options = (word for key, value in {**OPTIONS, **places}.items() for word in (f"--{key}", value))
        return [_program() or "redis-server", *options]

    def _answers(self) -> bool:
        with ports.asked(ports.LOOPBACK, self.port, b"PING\r\n", timeout=1.0) as answer:
            return answer.readline().startswith(b"+PONG")  # an error while it still loads


def available() -> str | None:
    """None when a Redis can be started here, else why not and what to type."""
    return None if _program() else f"no redis-server on PATH -> {INSTALL}"


def _program() -> str | None:
    return shutil.which("redis-server") or shutil.which("valkey-server")
