"""JSON Web Tokens of an identity provider: its signature, who made it, for whom, until when, and the scopes in it.

The server says which algorithms count, never the token. Only those with a public key are there to choose from: with a shared
secret whoever can check a token could make one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import jwt
import msgspec
import structlog

from ..errors import SettingError
from .scopes import SCOPES, Principal

__all__ = ["ALGORITHMS", "Tokens", "scopes_in"]

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
LEEWAY: Final = 30
"""Seconds that the provider's clock and ours may differ by."""
FRESH: Final = 600.0
"""Seconds that fetched keys are taken to be the provider's."""
AGAIN: Final = 10.0
"""Seconds at least between two fetches, whatever keys tokens name."""
KNOWN: Final = 4096
"""Tokens whose signature is remembered to be right: checking one costs what scoring a row does."""
LONGEST: Final = 8192
"""Bytes of a token."""


class Tokens:
    """Tokens by the keys of a provider (JWKS), which are a file, or fetched from an address. SettingError in words where what
    was said of them cannot be."""

    def __init__(self, jwks: str, issuer: str, audience: str, algorithms: tuple[str, ...] = ("RS256",)) -> None:
        for said, name in ((issuer, "ISSUER"), (audience, "AUDIENCE")):
            if not said:
                fix = f"export PENSTOCK_HTTP_{name}=...   as the identity provider says it"
                raise SettingError(f"tokens are to be taken, and no {name.lower()} is set", fix)
        unknown = ", ".join(name for name in algorithms if name not in ALGORITHMS)
        if unknown or not algorithms:
            raise SettingError(f"tokens cannot be signed by {unknown or 'nothing'}", f"choose from {', '.join(ALGORITHMS)}")
        self._issuer, self._audience, self._algorithms = issuer, audience, list(algorithms)
        self._keys: dict[str, jwt.PyJWK] = {}
        self._right: dict[str, tuple[Principal, float]] = {}
        self._source: jwt.PyJWKClient | None = None
        self._fetching, self._fetched, self._tried = asyncio.Lock(), 0.0, 0.0
        self._refreshing: asyncio.Task[None] | None = None
        address = urlsplit(jwks)
        if address.scheme in ("http", "https"):
            if address.scheme == "http" and address.hostname not in ("127.0.0.1", "::1", "localhost"):
                raise SettingError(f"keys fetched from {jwks} could be anybody's", "fetch them by https://")
            self._source = jwt.PyJWKClient(jwks, cache_jwk_set=False, timeout=5)
            return
        try:
            self._hold(msgspec.json.decode(Path(jwks).read_bytes(), type=dict[str, Any]))
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, jwt.PyJWTError) as error:
            raise SettingError(
                f"{jwks} holds no keys of an identity provider (JWKS): {error}", "name its file, or its URL"
            ) from None

    async def find(self, words: str) -> Principal | str:
        """Whose token it is; else, in words, what is wrong with it."""
        if self._fetched and time.monotonic() - self._fetched > FRESH and (self._refreshing is None or self._refreshing.done()):
            self._refreshing = asyncio.create_task(self._fetch())  # nobody waits for it; it forgets the tokens that were right
        if (known := self._right.get(words)) is not None and known[1] > time.time():
            return known[0]
        if len(words) > LONGEST:
            return f"the token is longer than {LONGEST} bytes"
        try:
            name = str(jwt.get_unverified_header(words).get("kid", ""))
            key = await self._key(name)
            if key is None:
                return "the token is signed with a key that the identity provider does not show"
            claims = jwt.decode(
                words, key, algorithms=self._algorithms, audience=self._audience, issuer=self._issuer, leeway=LEEWAY,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )  # fmt: skip
        except jwt.PyJWTError as error:
            return f"the token is not taken: {_WHY.get(type(error), 'it is not what this server takes')}"
        except (ValueError, TypeError, RecursionError):
            return "the token is none"
        principal = Principal(f"token:{claims['sub']}"[:200], scopes_in(claims))
        if len(self._right) >= KNOWN:
            self._right.clear()
        self._right[words] = principal, float(claims["exp"])
        return principal

    async def _key(self, name: str) -> jwt.PyJWK | None:
        if self._source is not None and name not in self._keys:
            await self._fetch()
        return self._keys.get(name)

    async def _fetch(self) -> None:
        """Fetch the keys anew, unless that was tried a moment ago. Where it cannot be, those before stay, however long: a
        provider that is down must not shut every door."""
        async with self._fetching:
            now = time.monotonic()
            if self._source is None or (self._tried and now - self._tried < AGAIN):
                return
            self._tried = now
            try:
                self._hold(await asyncio.to_thread(self._source.fetch_data))
                self._fetched = now
            except Exception as error:  # whatever an address can answer
                structlog.get_logger().error("the identity provider's keys cannot be fetched", cause=str(error))

    def _hold(self, found: Any) -> None:
        keys = jwt.PyJWKSet.from_dict(found).keys
        self._keys = {key.key_id or "": key for key in keys if key.public_key_use in (None, "sig")}
        self._right.clear()


def scopes_in(claims: Mapping[str, Any]) -> frozenset[str]:
    """Ours among the scopes of a token: `scope` is words (RFC 8693), `scp` words or a list, as providers have it.

    >>> sorted(scopes_in({"scope": "openid predict"})), sorted(scopes_in({"scp": ["label", 7, "root"]}))
    (['predict'], ['label'])
    """
    said = claims.get("scope", claims.get("scp", ()))
    words = said.split() if isinstance(said, str) else said if isinstance(said, list) else ()
    return frozenset(scope for scope in SCOPES if scope in words)


_WHY: Final[Mapping[type[Exception], str]] = {
    jwt.ExpiredSignatureError: "it has expired",
    jwt.ImmatureSignatureError: "it is not valid yet",
    jwt.InvalidAudienceError: "it is for another audience",
    jwt.InvalidIssuerError: "it is of another issuer",
    jwt.InvalidSignatureError: "its signature is wrong",
    jwt.InvalidAlgorithmError: "it is signed by an algorithm that does not count here",
    jwt.MissingRequiredClaimError: "it has to say exp, iss, aud and sub",
}
