"""The door: an ASGI application in front of another, which lets in those who say who they are and may ask what they ask.

request -> needed scope -> who (key or token) -> rate, breadth -> the application, with `scope["principal"]`
                            401    403             429         and of each a line in the log and a count: never a word of a secret
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Final

import msgspec
import structlog
from prometheus_client import Counter

from ..runtime.asgi import JSON, Receive, Scope, Send, answer
from .breadth import ASKING, Asking, Breadth
from .keys import Keys
from .rates import Rates
from .scopes import OPEN, PREDICT, Principal, needed

if TYPE_CHECKING:
    from .tokens import Tokens

__all__ = ["App", "Audit", "Denied", "Door", "turned_away"]

App = Callable[[Scope, Receive, Send], Awaitable[None]]

LINES: Final = 20
"""Refusals that are written down in a second; the rest of them are counted in the last line, so that an attack cannot fill a
disk. The counter counts all."""
LONGEST: Final = 200
"""Characters of a path in the log."""

_REFUSED: Final = Counter("penstock_http_turned_away_total", "Requests turned away at the door.", ["status"])
_BEARER: Final = (b"www-authenticate", b'Bearer realm="penstock"')
_BASIC: Final = (b"www-authenticate", b'Basic realm="penstock: any name, and a key as password", charset="UTF-8"')


class Denied(Exception):
    """Not let in: a status, one sentence, and headers."""

    def __init__(self, status: int, said: str, *headers: tuple[bytes, bytes], who: str = "") -> None:
        super().__init__(said)
        self.status, self.said, self.headers, self.who = status, said, headers, who


class Audit:
    """Writes down who was turned away, at most LINES a second."""

    def __init__(self) -> None:
        self._second, self._lines, self._more = 0, 0, 0
        self._logger = structlog.get_logger()

    def note(self, denied: Denied, scope: Scope) -> None:
        """One refusal."""
        _REFUSED.labels(str(denied.status)).inc()
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._lines = second, 0
        if self._lines >= LINES:
            self._more += 1
            return
        self._lines += 1
        more, self._more = self._more, 0
        client = scope.get("client")
        said = {"who": denied.who, "client": client and client[0], "not_written_before": more}
        path = scope["path"][:LONGEST]
        self._logger.warning(
            "turned away",
            status=denied.status,
            why=denied.said,
            method=scope["method"],
            path=path,
            **{k: v for k, v in said.items() if v},
        )


class Door:
    """Either of `keys` and `tokens` lets in; `labels` are the events that answer others. `breadth` bounds about how much a key
    asks."""

    def __init__(
        self,
        app: App,
        keys: Keys | None,
        tokens: Tokens | None,
        rates: Rates,
        labels: Collection[str] = (),
        breadth: Breadth | None = None,
    ) -> None:
        self._breadth = breadth
        self._app, self._keys, self._tokens, self._rates, self._labels = app, keys, tokens, rates, frozenset(labels)
        self._audit = Audit()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        need = needed(scope["method"], scope["path"], scope["query_string"], self._labels)
        if need != OPEN:
            try:
                principal = scope["principal"] = await self._let_in(scope, need)
                asking = self._asking(principal) if self._breadth is not None and need == PREDICT else None
            except Denied as denied:
                self._audit.note(denied, scope)
                await turned_away(denied, scope, send)
                return
            if asking is not None:
                await self._counted(asking, scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _counted(self, asking: Asking, scope: Scope, receive: Receive, send: Send) -> None:
        token = ASKING.set(asking)
        try:
            await self._app(scope, receive, send)
        finally:
            ASKING.reset(token)

    def _asking(self, principal: Principal) -> Asking:
        assert self._breadth is not None
        found = self._breadth.asking(principal.name, time.time())
        if isinstance(found, Asking):
            return found
        raise Denied(
            429, f"this key may ask about {found.most:,} different inputs in {found.seconds} s; ask again in {found.after} s",
            (b"retry-after", b"%d" % found.after),
            (b"ratelimit-policy", b'"inputs";q=%d;w=%d' % (found.most, found.seconds)),
            (b"ratelimit", b'"inputs";r=0;t=%d' % found.after), who=principal.name,
        )  # fmt: skip

    async def _let_in(self, scope: Scope, need: str) -> Principal:
        """Who asks. Denied: they may not."""
        reads = scope["method"] in ("GET", "HEAD")
        asked = (_BEARER, _BASIC) if reads else (_BEARER,)
        words = credential(scope["headers"], reads)
        if not words:
            raise Denied(401, "this needs a key: send it as `Authorization: Bearer KEY`", *asked)
        principal: Principal | str | None = None
        if self._tokens is not None and words.count(".") == 2:  # no key has a dot
            principal = await self._tokens.find(words)
        elif self._keys is not None:
            principal = self._keys.find(words)
        if not isinstance(principal, Principal):
            raise Denied(401, principal or "this key is not known here", *asked)
        if (spent := await self._rates.hit(principal.name, principal.rate)) is not None:
            raise Denied(
                429, f"this key may ask {spent.most:,} times in {spent.seconds} s; ask again in {spent.after} s",
                (b"retry-after", b"%d" % spent.after),
                (b"ratelimit-policy", b'"key";q=%d;w=%d' % (spent.most, spent.seconds)),
                (b"ratelimit", b'"key";r=0;t=%d' % spent.after), who=principal.name,
            )  # fmt: skip
        if not principal.may(need):
            has = ", ".join(sorted(principal.scopes)) or "none"
            header = b'Bearer realm="penstock", error="insufficient_scope", scope="%s"' % need.encode()
            said = f"this needs the scope {need}, and the key has: {has}"
            raise Denied(403, said, (b"www-authenticate", header), who=principal.name)
        return principal


async def turned_away(denied: Denied, scope: Scope, send: Send) -> None:
    """Answer with why somebody is not let in."""
    await answer(scope, send, denied.status, msgspec.json.encode({"error": denied.said}), [JSON, *denied.headers])


def credential(headers: Collection[tuple[bytes, bytes]], reads: bool = False) -> str:
    """The key or token of a request; empty: there is none, or more than one. A browser, which asks people for a name and a
    password, gives them for reading only: it sends them along whoever made the request.

    >>> credential([(b"authorization", b"Bearer penstock_1_s")]), credential([(b"x-api-key", b"penstock_1_s")])
    ('penstock_1_s', 'penstock_1_s')
    >>> credential([(b"authorization", b"Basic Omtl")], reads=True), credential([(b"authorization", b"Basic Omtl")])
    ('ke', '')
    """
    found = []
    for name, value in headers:
        if name == b"x-api-key":
            found.append(value.decode("latin-1").strip())
        elif name == b"authorization":
            kind, _, rest = value.decode("latin-1").strip().partition(" ")
            if kind.lower() == "bearer":
                found.append(rest.strip())
            elif kind.lower() == "basic" and reads:
                found.append(_password(rest))
            else:
                found.append("")
    return found[0] if len(found) == 1 else ""


def _password(said: str) -> str:
    try:
        return base64.b64decode(said.strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
