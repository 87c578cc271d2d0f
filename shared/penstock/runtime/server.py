"""The HTTP server that all applications run on: uvicorn, silent about itself, bounded in connections and time, with TLS where a
certificate is given."""

from __future__ import annotations

import asyncio
import resource
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Final

import uvicorn

from ..errors import SettingError
from .connection import Connection, Crowd

__all__ = ["MOST", "SETTLING", "Transport", "server"]

SETTLING: Final = 5
"""Seconds that a server which is to stop has to answer what was asked."""
MOST: Final = 4096
"""Connections at once; each takes some 10 kB. Beyond, whoever has been silent longest makes room."""
SPARE: Final = 256
"""Files that a process needs beside its connections, at least."""
NOSNIFF: Final = ("x-content-type-options", "nosniff")
HSTS: Final = ("strict-transport-security", "max-age=31536000")


class Transport:
    """How bytes travel. `certificate` and `key` are PEM files; without one it is plain HTTP."""

    def __init__(self, certificate: str = "", key: str = "") -> None:
        self.certificate, self.key = certificate, key
        for place in filter(None, (certificate, key)):
            if not Path(place).is_file():
                raise SettingError(f"{place}, for HTTPS, is not there", "name the PEM files of a certificate and its key")

    @property
    def scheme(self) -> str:
        """https or http."""
        return "https" if self.certificate else "http"


def server(app: Any, host: str = "127.0.0.1", port: int = 0, transport: Transport | None = None, lifespan: bool = True) -> Any:
    """A uvicorn server, which leaves signals to its process; `serve()` runs it."""
    secure = transport is not None and transport.certificate
    crowd = Crowd(_most())

    async def cut() -> None:
        crowd.cut(asyncio.get_running_loop().time())

    config: Any = uvicorn.Config(
        app, host, port, loop="asyncio", http="httptools", ws="none",
        lifespan="on" if lifespan else "off", log_level="error", access_log=False, server_header=False, proxy_headers=False,
        headers=[NOSNIFF, *([HSTS] if secure else [])], timeout_graceful_shutdown=SETTLING,
        callback_notify=cut, timeout_notify=1,
        ssl_certfile=transport.certificate if transport and secure else None,
        ssl_keyfile=(transport.key or None) if transport and secure else None,
    )  # fmt: skip
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise SettingError(f"HTTPS cannot be spoken: {error}", "give the PEM files of a certificate and its own key") from None
    config.http_protocol_class = partial(Connection, crowd=crowd, tls=config.ssl)
    config.ssl = None  # the connection's own, so that handshakes are bounded as well
    made = uvicorn.Server(config)
    # uvicorn would take the signals and, once HTTP has ended, raise them again: the process would end before its work has
    made.capture_signals = nullcontext  # type: ignore[assignment, method-assign]
    return made


def _most() -> int:
    """The connections that the limit of open files leaves room for, once that is as high as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST + SPARE if hard == resource.RLIM_INFINITY else min(hard, MOST + SPARE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return MOST if soft == resource.RLIM_INFINITY else max(16, min(MOST, soft - SPARE))
