"""Ports on the loopback interface: find a free one, ask whether one is, say something to whoever listens."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

__all__ = ["LOOPBACK", "asked", "free", "http_ok", "is_free"]

LOOPBACK = "127.0.0.1"  # never 0.0.0.0: what runs here has no password


def free() -> int:
    """A port nobody listens on now. Another process may take it before the caller does, so callers retry."""
    with socket.create_server((LOOPBACK, 0)) as probe:
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether a server could listen on this port now."""
    try:
        socket.create_server((LOOPBACK, port)).close()  # reuses an address in TIME_WAIT, as servers do
    except OSError:
        return False
    return True


@contextmanager
def asked(host: str, port: int, request: bytes, timeout: float) -> Iterator[BinaryIO]:
    """Send a request; what comes back, to be read. OSError: nothing listens, or nothing came in time."""
    with socket.create_connection((host, port), timeout=timeout) as link, link.makefile("rb") as answer:
        link.sendall(request)
        yield answer


async def http_ok(port: int, path: str, timeout: float = 1.0, host: str = LOOPBACK, secure: bool = False) -> bool:
    """Whether a GET is answered with a 2xx; never raises: what does not answer is not ready. `secure`: by HTTPS, whoever the
    certificate is made out to."""
    try:
        async with asyncio.timeout(timeout):
            tls = ssl._create_unverified_context() if secure else None
            reader, writer = await asyncio.open_connection(host, port, ssl=tls)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
                words = (await reader.readline()).split()
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return False
    return len(words) >= 2 and words[1].startswith(b"2")
