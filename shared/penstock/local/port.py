"""Ports on the loopback interface: find a free one, ask whether one is, say something to whoever listens."""

import asyncio
import socket
from collections.abc import Callable

__all__ = ["LOOPBACK", "exchange", "free", "http_ok", "is_free"]

LOOPBACK = "127.0.0.1"  # never 0.0.0.0: what runs here has no password


def free() -> int:
    """A port nobody listens on now. Another process may take it before the caller does, so callers retry."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether a server could listen on this port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do, so TIME_WAIT does not count
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def exchange(host: str, port: int, request: bytes, whole: Callable[[bytes], bool], timeout: float) -> bytes:
    """Send a request and read until the answer is whole; raises OSError when there is none in time."""
    answer = b""
    with socket.create_connection((host, port), timeout=timeout) as link:
        link.settimeout(timeout)
        link.sendall(request)
        while not whole(answer):
            more = link.recv(4096)
            if not more:
                raise ConnectionResetError(f"{host}:{port} closed the connection after {len(answer)} bytes")
            answer += more
    return answer


async def http_ok(port: int, path: str, timeout: float = 1.0, host: str = LOOPBACK) -> bool:
    """Whether a plain HTTP GET is answered with a 2xx; never raises: what does not answer is not ready."""
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
                words = (await reader.readline()).split()
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return False
    return len(words) >= 2 and words[1].startswith(b"2")
