"""The port where gRPC is answered: if that is wanted, installed, and lets nobody in whom HTTP would keep out."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from penstock.doors.access import Access, loopback
from penstock.errors import PenstockError, SettingError

from .protocol import OpenInference

__all__ = ["rpc_port"]


def rpc_port(
    protocol: OpenInference, host: str, port: int | None, access: Access = Access()
) -> contextlib.AbstractAsyncContextManager[str]:
    """Answers by gRPC while the context lasts; gives host:port (`port` 0 takes a free one), empty where `port` is None.

    SettingError at once where that would let in whom HTTP, which has this `access`, keeps out: gRPC asks for no keys.
    PenstockError in words when the context begins: the port is taken, or the extra is not installed.
    """
    if port is not None and not loopback(host):
        raise SettingError(
            f"gRPC on {host} would let in anyone: it asks for no keys",
            "keep to 127.0.0.1, and let a proxy that asks for them stand in front",
        )
    if port is not None and access.asked:
        raise SettingError("gRPC asks for no keys, which HTTP here does", "leave out the port for gRPC, or the keys and tokens")
    return _answering(protocol, host, port)


@contextlib.asynccontextmanager
async def _answering(protocol: OpenInference, host: str, port: int | None) -> AsyncIterator[str]:
    if port is None:
        yield ""
        return
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
