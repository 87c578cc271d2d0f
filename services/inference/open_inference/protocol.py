"""The Open Inference Protocol v2 over HTTP, whole, as a bare ASGI application: the gateway and `penstock serve` answer by it.

GET   /v2, /v2/, /v2/health/live, /v2/health/ready
GET   /v2/models/M[/versions/V], .../ready, .../stats, /v2/models/stats
POST  /v2/models/M[/versions/V]/infer                                  JSON, or with binary tensors (`tensors`)
POST  /v2/repository/index, /v2/repository/models/M/load, .../unload    for administrators

Every refusal is a status and one sentence, `{"error": "..."}`: 400 bad input, 403 not allowed, 404 no such thing, 405 another
method, 413 too large, 415 compressed, 503 with Retry-After not now. No routing by patterns and no models of bodies lie on
the way of an infer request: they cost three times what the model does.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from penstock.doors.breadth import ASKING
from penstock.errors import Refused
from penstock.runtime.asgi import JSON, Receive, Scope, Send, answer, body_of, refuse
from penstock.runtime.refusals import Failed, refusal

from .batching import Batcher, Overloaded
from .datatypes import Array
from .tally import Tally
from .tensors import Asked, Parameters, Signature, contents, infer_answer, infer_request

__all__ = ["Limits", "Models", "OpenInference", "Version"]

EXTENSIONS: Final = ("binary_tensor_data", "model_repository", "statistics")
PROTOCOL: Final = "2"
LONGEST: Final = 1_024
"""Characters of a path: as many as 1,024 are remembered, whatever somebody makes up."""

_encode = msgspec.json.Encoder().encode
_BINARY: Final = (b"content-type", b"application/octet-stream")


@dataclass(frozen=True)
class Version:
    """One version of a model, open and warm. Who holds it can ask it, whatever takes its place meanwhile."""

    model: str
    name: str
    platform: str
    signature: Signature
    batcher: Batcher
    tally: Tally
    parameters: Parameters
    """What else is known of it, such as its sha256."""


Pairs = Iterable[tuple[bytes, bytes]]
"""Headers of a request."""
Record = Callable[[Version, Asked, Sequence[Array], Pairs, float], Awaitable[None]]
"""Version, request, outputs, headers, and seconds since the request began."""


class Models(Protocol):
    """Whose models are asked."""

    def waiting(self) -> str:
        """What is missing until all are ready, in words; empty: nothing."""

    def versions(self, model: str) -> Sequence[str]:
        """The versions that can be asked, the one that answers when none is named first. Failed 404 for an unknown model."""

    async def version(self, model: str, version: str | None) -> Version:
        """The version to ask. Failed 404 when there is none such, 503 when it cannot answer yet."""

    def tallies(self) -> Mapping[tuple[str, str], Tally]:
        """Counts by model and version."""

    def index(self) -> Sequence[Mapping[str, str]]:
        """name, version, state (READY, UNAVAILABLE) and reason of all there is."""

    async def load(self, model: str) -> None:
        """Open it anew. Failed 400 in words when that cannot be."""

    async def unload(self, model: str) -> None: ...


class Limits(NamedTuple):
    """Beyond these a request is refused with 413."""

    body: int = 16 << 20
    """Bytes."""
    rows: int = 10_000


class Route(NamedTuple):
    method: str
    call: str
    model: str = ""
    version: str | None = None


def route(path: str) -> Route | None:
    """What a path asks for. Paths are case-sensitive; nothing is redirected; none is longer than LONGEST.

    >>> route("/v2/models/late/versions/3/infer")
    Route(method='POST', call='infer', model='late', version='3')
    >>> route("/v2/models/late/"), route("/V2")
    (None, None)
    """
    return _route(path) if len(path) <= LONGEST else None


@lru_cache(maxsize=1024)
def _route(path: str) -> Route | None:
    """The same, remembered."""
    match path.split("/")[1:]:
        case ["v2"] | ["v2", ""]:
            return Route("GET", "server")
        case ["v2", "health", "live" | "ready" as call]:
            return Route("GET", call)
        case ["v2", "models", "stats"]:
            return Route("GET", "all_statistics")
        case ["v2", "repository", "index"]:
            return Route("POST", "index")
        case ["v2", "repository", "models", model, "load" | "unload" as call] if model:
            return Route("POST", call, model)
        case ["v2", "models", model, *rest] if model:
            version = None
            if len(rest) > 1 and rest[0] == "versions" and rest[1]:
                version, rest = rest[1], rest[2:]
            match rest:
                case []:
                    return Route("GET", "metadata", model, version)
                case ["ready"]:
                    return Route("GET", "model_ready", model, version)
                case ["stats"]:
                    return Route("GET", "statistics", model, version)
                case ["infer"]:
                    return Route("POST", "infer", model, version)
    return None


class OpenInference:
    """The application. `admin`: whether the repository may be looked at and changed. `record` makes an answer safe before it is
    given."""

    def __init__(self, models: Models, limits: Limits = Limits(), admin: bool = False, record: Record | None = None) -> None:
        self.models, self.limits, self._admin, self._record = models, limits, admin, record

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"the protocol does not speak {scope['type']}")
        status, headers = 200, [JSON]
        try:
            asked = route(scope["path"])
            if asked is not None and asked.call == "infer" and scope["method"] == "POST":
                body, head = await self._infer(asked, scope, receive)
                if head is not None:
                    headers = [_BINARY, (b"inference-header-content-length", b"%d" % head)]
            else:
                status, value = await self._other(asked, scope, receive)
                body = _encode(value)
        except Exception as error:
            await refuse(scope, send, refusal(error))
        else:
            await answer(scope, send, status, body, headers)

    async def _infer(self, asked: Route, scope: Scope, receive: Receive) -> tuple[bytes, int | None]:
        """The body of the answer, and the length of its JSON part when it is binary."""
        began = time.perf_counter()
        version = await self.models.version(asked.model, asked.version)
        tally = version.tally
        try:
            head = _head(scope["headers"])
            body = await body_of(scope, receive, self.limits.body)
            read = time.perf_counter()
            request = infer_request(body, version.signature, head)
            decoded = time.perf_counter()
            found = await self.ask(version, request, began, scope["headers"])
            encoding = time.perf_counter()
            given = infer_answer(request, version.model, version.name, version.signature, found)
        except Overloaded:
            tally.refused += 1
            raise
        except BaseException:
            tally.failed += 1
            tally.lost += time.perf_counter() - began
            raise
        tally.answered(began, decoded - read, encoding)
        return given

    async def ask(self, version: Version, request: Asked, began: float, headers: Pairs = ()) -> list[Array]:
        """The outputs that are wanted, and recorded where answers are. Raises Refused, Overloaded, and what the model raises."""
        if request.rows > self.limits.rows:
            raise Refused("too_large", f"{request.rows} rows are more than {self.limits.rows} in one request")
        if (asking := ASKING.get()) is not None:
            asking.about(contents(request))
        found = await version.batcher.ask(request)
        if self._record is not None:
            await self._record(version, request, found, headers, time.perf_counter() - began)
        return found

    async def _other(self, asked: Route | None, scope: Scope, receive: Receive) -> tuple[int, Any]:
        """Whatever is not inference: status and value."""
        if asked is None:
            raise Failed(404, f"there is nothing at {scope['path'][:200]}; the protocol's paths begin with /v2/models")
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        if method != asked.method:
            raise Failed(405, f"{scope['path'][:200]} takes {asked.method}", allow=asked.method)
        body = await body_of(scope, receive, self.limits.body) if method == "POST" else b""
        return await self.told(asked, body)

    async def told(self, asked: Route, body: bytes = b"") -> tuple[int, Any]:
        """The answer to a call that is not inference, as HTTP has it: status and value. Raises Failed, Refused."""
        models, call = self.models, asked.call
        if call == "server":
            return 200, {"name": "penstock", "version": PROTOCOL, "extensions": EXTENSIONS}
        if call == "live":
            return 200, {"live": True}
        if call == "ready":
            missing = models.waiting()
            return (503, {"ready": False, "live": True, "error": missing}) if missing else (200, {"ready": True, "live": True})
        if call == "all_statistics":
            return 200, {"model_stats": [tally.shown(*of) for of, tally in models.tallies().items()]}
        if call in ("index", "load", "unload"):
            return await self._repository(asked, body)
        if call == "model_ready":
            try:
                await models.version(asked.model, asked.version)
            except Failed as failed:
                if failed.status != 503:
                    raise
                return 503, {"name": asked.model, "ready": False, "error": str(failed)}
            return 200, {"name": asked.model, "ready": True}
        if call == "statistics":
            models.versions(asked.model)  # 404 for an unknown model
            mine = {
                of: tally for of, tally in models.tallies().items() if of[0] == asked.model and asked.version in (None, of[1])
            }
            if not mine and asked.version is not None:
                await models.version(asked.model, asked.version)
            return 200, {"model_stats": [tally.shown(*of) for of, tally in mine.items()]}
        version = await models.version(asked.model, asked.version)
        return 200, {
            "name": version.model,
            "versions": list(models.versions(asked.model)),
            "platform": version.platform,
            "inputs": version.signature.inputs,
            "outputs": version.signature.outputs,
            "parameters": version.parameters,
        }

    async def _repository(self, asked: Route, body: bytes) -> tuple[int, Any]:
        if not self._admin:
            raise Failed(403, "the repository is for administrators, and this server was started without --admin")
        try:
            options = msgspec.json.decode(body or b"{}", type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Refused("decode", f"not a JSON object: {error}") from None
        if asked.call == "index":
            ready = options.get("ready", False)
            if type(ready) is not bool:
                raise Refused("schema", "`ready` is true or false")
            return 200, [entry for entry in self.models.index() if not ready or entry["state"] == "READY"]
        if asked.call == "unload":
            await self.models.unload(asked.model)
        elif options.get("parameters"):
            raise Refused("schema", "parameters of load are not supported: a model is the file that the server was started with")
        else:
            await self.models.load(asked.model)
        return 200, {}


def _head(headers: Pairs) -> int | None:
    """The length of the JSON part, where there is a binary part."""
    head = None
    for name, value in headers:
        if name == b"inference-header-content-length":
            if head is not None or not value.isdigit() or len(value) > 18:
                raise Refused("decode", "Inference-Header-Content-Length is not one number of bytes")
            head = int(value)
    return head
