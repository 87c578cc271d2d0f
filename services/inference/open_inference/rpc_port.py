"""The port where gRPC is answered: if that is wanted, installed, and lets nobody in whom HTTP would keep out."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Final

from penstock.errors import PenstockError

from .protocol import OpenInference

__all__ = ["rpc_port"]

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


@contextlib.asynccontextmanager
async def rpc_port(protocol: OpenInference, host: str, port: int | None) -> AsyncIterator[str]:
    """Answer by gRPC while the context lasts; gives host:port (`port` 0 takes a free one), empty where `port` is None.

    PenstockError in words: the port is taken, the extra is not installed, or the host is open to the network, as gRPC asks for no
    keys.
    """
    if port is None:
        yield ""
        return
    if host not in LOOPBACK:
        raise PenstockError(
            f"gRPC on {host} would let in anyone: it asks for no keys",
            "keep to 127.0.0.1, and let a proxy that asks for them stand in front",
        )
    try:
        from .rpc import GRACE, served
    except ModuleNotFoundError as error:
        raise PenstockError(
            f"gRPC needs the package {error.name}, which is not installed", 'pip install "penstock[grpc]"'
        ) from None
    server, taken = await served(protocol, host, port)
    try:
        yield f"[{host}]:{taken}" if ":" in host else f"{host}:{taken}"
    finally:
        await server.stop(GRACE)
