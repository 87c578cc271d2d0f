"""`penstock serve`: ONNX files and Python functions by the Open Inference Protocol v2, in one process and those of the functions;
no broker, Redis or project is needed.

    files --Repository--> versions --OpenInference--> /v2, beside /healthz /readyz /metrics /openapi.json /docs

The port is taken first, then the models are opened and warmed, and only then is anybody answered: who can connect finds all
models ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest

from penstock.doors.access import Access, loopback
from penstock.errors import PenstockError
from penstock.runtime.asgi import Receive, Scope, Send, answer
from penstock.runtime.documentation import page
from penstock.runtime.server import Transport
from penstock.runtime.server import server as running
from penstock.runtime.telemetry import logs
from penstock.scoring.process import Bounds

from .described import document
from .protocol import PROTOCOL, Limits, OpenInference
from .repository import Repository, named
from .rpc_port import rpc_port
from .tally import Tallies

__all__ = ["Bounds", "Serve", "run"]

Told = Callable[[str, Sequence[dict[str, Any]], str], None]

LOOK: Final = 1.0
"""Seconds between two looks at the files: one that changed is served after two."""


class Serve:
    """The ASGI application: the protocol, and what an operator looks at."""

    def __init__(self, repository: Repository, limits: Limits, admin: bool) -> None:
        self._repository, self.protocol = repository, OpenInference(repository, limits, admin)
        self._described = msgspec.json.encode(document("penstock serve", PROTOCOL, repository.models))
        self._meters = CollectorRegistry()
        self._meters.register(Tallies(lambda: {model: tally for (model, _), tally in repository.tallies().items()}))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["type"] == "http" else ""
        if path.startswith("/v2") or scope["method"] not in ("GET", "HEAD"):
            await self.protocol(scope, receive, send)
            return
        status, kind = 200, b"application/json"
        if path == "/healthz":
            body = b'{"live":true}'
        elif path == "/readyz":
            missing = self._repository.waiting()
            status, body = (503, msgspec.json.encode({"error": missing})) if missing else (200, b'{"ready":true}')
        elif path == "/metrics":
            body, kind = generate_latest(REGISTRY) + generate_latest(self._meters), CONTENT_TYPE_LATEST.encode()
        elif path == "/openapi.json":
            body = self._described
        elif (found := page(path)) is not None:
            await send({"type": "http.response.start", "status": status, "headers": found.headers})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else found.body})
            return
        else:
            await self.protocol(scope, receive, send)
            return
        await answer(scope, send, status, body, [(b"content-type", kind)])


def run(
    words: Sequence[str],
    told: Told,
    host: str = "127.0.0.1",
    port: int = 0,
    admin: bool = False,
    memory: int | None = None,
    load_timeout: float = 60.0,
    patience: float = 1.0,
    limits: Limits = Limits(),
    access: Access = Access(),
    transport: Transport | None = None,
    grpc_port: int | None = None,
    bounds: Bounds = Bounds(),
) -> None:
    """Serve until SIGTERM or SIGINT. `told` hears the URL, model by model what is served, and host:port of gRPC, once it is.
    PenstockError in words when a file cannot be served or a port is taken. `grpc_port`: answer by gRPC, too (0: a free port)."""
    if admin and not access.asked and not loopback(host):
        raise PenstockError(
            f"--admin on {host} would let anyone change what is served", "keep to --host 127.0.0.1, or ask for keys:  --keys FILE"
        )
    logs("serve")
    repository = Repository([named(word) for word in words], memory, load_timeout, patience, bounds)
    gc.set_threshold(100_000, 50, 100)  # requests die young and hold no cycles: the default looks at them too often
    app = Serve(repository, limits, admin)
    guarded, rpc = access.door(app, host), rpc_port(app.protocol, host, grpc_port, access)
    asyncio.run(_serve(repository, guarded, bound(host, port), told, transport or Transport(), rpc))


def bound(host: str, port: int) -> socket.socket:
    """The port, taken; nobody is let in yet."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio turns Nagle off only where it sees TCP
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((host, port))
    except (OSError, OverflowError) as error:
        taken.close()
        why = getattr(error, "strerror", None) or error
        raise PenstockError(f"{host}:{port} cannot be listened on: {why}", f"choose another: --port {port + 1}") from None
    return taken


async def _serve(
    repository: Repository,
    app: Any,
    taken: socket.socket,
    told: Told,
    transport: Transport,
    rpc: contextlib.AbstractAsyncContextManager[str],
) -> None:
    async with contextlib.AsyncExitStack() as living:
        living.enter_context(contextlib.closing(taken))
        await repository.open()
        grpc_at = await living.enter_async_context(rpc)
        gc.freeze()
        server = running(app, transport=transport, lifespan=False)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, setattr, server, "should_exit", True)
        watching = asyncio.create_task(_watch(repository))
        serving = asyncio.create_task(server.serve(sockets=[taken]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.001)
        host, port = taken.getsockname()[:2]
        models = [await _about(repository, entry) for entry in repository.index()]
        told(f"{transport.scheme}://{f'[{host}]' if ':' in host else host}:{port}", models, grpc_at)
        try:
            await serving
        finally:
            watching.cancel()


async def _watch(repository: Repository) -> None:
    while True:
        await asyncio.sleep(LOOK)
        await repository.look()


async def _about(repository: Repository, entry: Any) -> dict[str, Any]:
    version = await repository.version(entry["name"], entry["version"])
    signature = version.signature
    return {
        "model": version.model,
        "version": version.name,
        **version.parameters,
        "inputs": [msgspec.to_builtins(tensor) for tensor in signature.inputs],
        "outputs": [msgspec.to_builtins(tensor) for tensor in signature.outputs],
    }
