"""Doors: who is let in, who is turned away and how it is said, and that a server in the open does not start without."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.services.air import TOPICS
from tests.services.opened import opened

import penstock as ps
from penstock.doors.access import Access
from penstock.doors.door import LINES, Door
from penstock.doors.keys import LOOK, Keys
from penstock.doors.scopes import ADMIN, ANY, LABEL, OPEN, PREDICT, PUBLISH, SCOPES, needed
from penstock.errors import PenstockError, SettingError
from penstock.online.reader import OnlineFeatures
from penstock.services.feature_store import api as features
from penstock.store.memory import MemoryStore

EVERYWHERE = "0.0.0.0"


async def inside(scope: Any, receive: Any, send: Any) -> None:
    """An application that says who was let in."""
    body = json.dumps({"who": scope["principal"].name if "principal" in scope else None}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def run(door: Any, talk: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(door), base_url="http://penstock") as client:
            await talk(client)

    asyncio.run(whole())


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys.json", "pepper")


def bearer(words: str) -> dict[str, str]:
    return {"authorization": f"Bearer {words}"}


def door_of(keys: Keys, **more: Any) -> Any:
    return Access(keys=str(keys.path), pepper="pepper", **more).door(inside, EVERYWHERE, {"arrived"})


# --- loopback ---------------------------------------------------------------------------------------------------------

HERE = "http://127.0.0.1:8801"


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("POST", {}, 200), ("POST", {"host": "localhost:8801"}, 200), ("GET", {"host": "[::1]:8801"}, 200),
        ("POST", {"origin": HERE}, 200), ("POST", {"origin": "http://localhost:3000"}, 200),
        ("GET", {"origin": "https://elsewhere.example"}, 200),  # a link; what is answered the browser keeps from the page
        ("POST", {"origin": "https://elsewhere.example"}, 403), ("POST", {"origin": "null"}, 403),
        ("DELETE", {"origin": "http://127.0.0.1.elsewhere.example"}, 403),
        ("GET", {"host": "elsewhere.example:8801"}, 421), ("POST", {"host": "127.0.0.1.nip.example"}, 421),
        ("GET", {"host": "["}, 421),
    ],
)  # fmt: skip
def test_on_loopback_no_page_from_elsewhere_has_a_browser_ask(method: str, headers: dict[str, str], status: int) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        for _ in range(2):  # what was seen before is decided alike
            answer = await client.request(method, f"{HERE}/predict/late", headers=headers)
            assert answer.status_code == status
            assert status == 200 or "error" in answer.json()

    run(Access().door(inside, "127.0.0.1"), talk)


# --- scopes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/healthz", OPEN), ("GET", "/readyz", OPEN), ("GET", "/v2/health/live", OPEN), ("GET", "/v2/health/ready", OPEN),
        ("POST", "/predict/late", PREDICT), ("POST", "/v2/models/late/infer", PREDICT), ("GET", "/v2", PREDICT),
        ("GET", "/v2/models/late/versions/3", PREDICT), ("GET", "/features/Origin/JFK", PREDICT), ("POST", "/features", PREDICT),
        ("POST", "/predict/late?variant=v2", ADMIN), ("POST", "/predict/late?explain=true&variant", ADMIN),
        ("POST", "/predict/late?%76ariant=v2", ADMIN), ("POST", "/predict/late?explain=true", PREDICT),
        ("POST", "/events/scheduled", PUBLISH), ("POST", "/events/arrived", LABEL), ("POST", "/events/arrived/", LABEL),
        ("POST", "/v2/repository/index", ADMIN), ("POST", "/v2/repository/models/late/unload", ADMIN),
        ("GET", "/metrics", ADMIN), ("GET", "/", ADMIN), ("GET", "/picture", ADMIN), ("GET", "/events", ADMIN),
        ("GET", "/docs", ANY), ("GET", "/docs/swagger-ui.css", ANY), ("GET", "/openapi.json", ANY),
        ("GET", "/healthz/", ADMIN), ("GET", "//healthz", ADMIN), ("GET", "/v2x", ADMIN), ("POST", "/anything", ADMIN),
    ],
)  # fmt: skip
def test_each_request_needs_the_scope_that_the_table_says(method: str, path: str, scope: str) -> None:
    place, _, query = path.partition("?")
    assert needed(method, place, query.encode(), {"arrived"}) == scope


@given(st.sampled_from(["GET", "POST", "PUT", "OPTIONS"]), st.text(), st.binary())
def test_nothing_but_health_is_open_whatever_is_asked(method: str, path: str, query: bytes) -> None:
    assert (needed(method, path, query) == OPEN) == (path in {"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})


# --- keys -------------------------------------------------------------------------------------------------------------


def test_a_key_is_kept_as_a_hash_that_only_its_owner_can_read(keys: Keys) -> None:
    key, words = keys.create("reports", ["predict"])
    kept = keys.path.read_text()
    assert words not in kept and words.rpartition("_")[2] not in kept
    assert key.id in words and key.digest in kept
    assert keys.path.stat().st_mode & 0o777 == 0o600
    found = keys.find(words)
    assert found is not None and (found.name, sorted(found.scopes)) == (f"key:{key.id}", ["predict"])
    assert Keys(keys.path, "another pepper").find(words) is None


def test_no_other_words_are_a_key(keys: Keys) -> None:
    _, words = keys.create("reports", ["predict"])

    @given(st.text(max_size=80), st.integers(0, len(words)))
    def check(said: str, kept: int) -> None:
        tried = words[:kept] + said
        assert (keys.find(tried, 1.0) is not None) == (tried == words)

    check()


def test_a_key_counts_once_it_is_made_and_no_longer_once_it_is_revoked(keys: Keys) -> None:
    _, first = keys.create("first", ["predict"])
    server = Keys(keys.path, "pepper")
    assert server.find(first, 1.0)
    second, words = keys.create("second", ["label"])
    assert server.find(words, 1.0 + LOOK)
    keys.revoke(second.id)
    assert server.find(words, 1.0 + 2 * LOOK) is None
    assert server.find(first, 1.0 + 2 * LOOK)


@pytest.mark.parametrize("broken", [None, "", "{}", '{"keys": [{"id": 1}]}', '{"keys": [], "x": \xff}'])
def test_a_file_that_is_gone_or_broken_lets_nobody_in_and_says_so(keys: Keys, broken: str | None) -> None:
    _, words = keys.create("reports", ["predict"])
    assert keys.find(words, 1.0)
    if broken is None:
        keys.path.unlink()
    else:
        keys.path.write_text(broken, encoding="latin-1")
    with capture_logs() as said:
        assert keys.find(words, 1.0 + LOOK) is None
        assert keys.find(words, 1.0 + 2 * LOOK) is None
    assert [line["event"] for line in said] == ["nobody can use a key"]


def test_what_is_no_scope_name_or_key_is_refused(keys: Keys) -> None:
    for name, scopes in (("a", ["root"]), ("", ["predict"]), ("a\nb", ["predict"]), ("x" * 81, ["predict"])):
        with pytest.raises(PenstockError):
            keys.create(name, scopes)
    with pytest.raises(PenstockError, match="there is no key 'none'"):
        keys.revoke("none")
    assert not keys.path.exists()


# --- the door ---------------------------------------------------------------------------------------------------------


def test_each_scope_opens_what_is_its_own_and_nothing_else(keys: Keys) -> None:
    held = {scope: keys.create(scope, [scope])[1] for scope in SCOPES}
    asked = {
        PREDICT: "/predict/late", PUBLISH: "/events/scheduled", LABEL: "/events/arrived", ADMIN: "/v2/repository/index",
        ANY: "/docs",
    }  # fmt: skip

    async def talk(client: httpx.AsyncClient) -> None:
        for scope, words in held.items():
            for need, path in asked.items():
                answer = await client.post(path, headers=bearer(words))
                assert answer.status_code == (200 if need in (scope, ANY) else 403), (scope, need)
                if answer.status_code == 403:
                    assert answer.json() == {"error": f"this needs the scope {need}, and the key has: {scope}"}
                    assert f'scope="{need}"' in answer.headers["www-authenticate"]

    run(door_of(keys), talk)


def test_without_a_key_only_health_answers(keys: Keys) -> None:
    _, words = keys.create("reports", ["predict"])

    async def talk(client: httpx.AsyncClient) -> None:
        assert (await client.get("/healthz")).json() == {"who": None}
        two = [("authorization", f"Bearer {words}"), ("x-api-key", words)]
        basic = {"authorization": "Basic " + base64.b64encode(f"me:{words}".encode()).decode()}
        for headers in (
            {},
            bearer(""),
            bearer("nonsense"),
            bearer(words[:-1]),
            bearer("a.b.c"),
            {"authorization": words},
            two,
            basic,
        ):
            answer = await client.post("/predict/late", headers=headers)
            assert answer.status_code == 401, headers
            assert set(answer.json()) == {"error"}
            assert answer.headers["www-authenticate"] == 'Bearer realm="penstock"'
        assert (await client.post("/predict/late", headers={"x-api-key": words})).status_code == 200
        asking = await client.get("/features/Origin/JFK")
        assert [v[:5] for v in asking.headers.get_list("www-authenticate")] == ["Beare", "Basic"]
        assert (await client.get("/features/Origin/JFK", headers=basic)).status_code == 200  # as a browser sends it
        assert (await client.head("/features/Origin/JFK")).content == b""

    run(door_of(keys), talk)


def test_every_refusal_is_written_down_without_a_word_of_the_key_and_a_flood_of_them_is_bounded(keys: Keys) -> None:
    key, words = keys.create("reports", ["label"])

    async def talk(client: httpx.AsyncClient) -> None:
        await client.post("/predict/late", headers=bearer(words))
        await client.post("/predict/" + "x" * 5000, headers=bearer("penstock_000000000000_guess"))
        for _ in range(200):
            await client.post("/predict/late", headers=bearer("flood"))

    structlog.reset_defaults()  # a command that ran here before may have asked for errors alone
    with capture_logs() as said:
        run(door_of(keys), talk)
    assert [(line["status"], line.get("who")) for line in said[:2]] == [(403, f"key:{key.id}"), (401, None)]
    assert "guess" not in str(said) and words not in str(said) and len(str(said[1])) < 600
    assert LINES <= len(said) <= 3 * LINES


def test_a_key_that_asks_too_often_is_told_when_to_come_back(keys: Keys) -> None:
    often, seldom = keys.create("often", ["predict"])[1], keys.create("seldom", ["predict"], "2/hour")[1]

    async def talk(client: httpx.AsyncClient) -> None:
        assert [(await client.post("/predict/late", headers=bearer(seldom))).status_code for _ in range(3)] == [200, 200, 429]
        answer = await client.post("/predict/late", headers=bearer(seldom))
        assert 0 < int(answer.headers["retry-after"]) <= 2 * 3600
        assert answer.headers["ratelimit-policy"] == '"key";q=2;w=3600'
        assert answer.headers["ratelimit"] == f'"key";r=0;t={answer.headers["retry-after"]}'
        assert answer.json()["error"].startswith("this key may ask 2 times in 3600 s")
        assert [(await client.post("/predict/late", headers=bearer(often))).status_code for _ in range(6)] == [200] * 5 + [429]

    run(door_of(keys, rate="5/hour"), talk)


def test_a_client_of_features_shows_the_key_that_it_was_given(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    _, words = keys.create("reads", ["predict"])

    async def make() -> Any:
        store = features.app(OnlineFeatures(TOPICS, MemoryStore()), ["Origin"], str)
        return Access(keys=str(keys.path), pepper="pepper").door(store, EVERYWHERE)

    with opened(make) as url:
        with ps.FeatureClient(url) as stranger, pytest.raises(PenstockError, match="lets nobody in without a key") as refused:
            stranger.read("Origin", ["JFK"])
        assert "PENSTOCK_KEY" in refused.value.fix
        with ps.FeatureClient(url, key=words) as client:
            assert len(client.read("Origin", ["JFK"]).status["Origin"]) == 1
        monkeypatch.setenv("PENSTOCK_KEY", words)

        async def ask() -> None:
            async with ps.AsyncFeatureClient(url) as client:
                assert len((await client.read("Origin", ["JFK"])).status["Origin"]) == 1

        asyncio.run(ask())


# --- tokens -----------------------------------------------------------------------------------------------------------

SIGNER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CLAIMS = {"iss": "https://id.example", "aud": "penstock", "sub": "ada", "scope": "openid predict"}


def jwks(path: Path) -> str:
    shown = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(SIGNER.public_key()))
    secret = {"kty": "oct", "kid": "shared", "k": base64.urlsafe_b64encode(b"s" * 32).decode().rstrip("="), "alg": "HS256"}
    path.write_text(json.dumps({"keys": [{**shown, "kid": "1", "use": "sig"}, secret]}))
    return str(path)


def token(changes: dict[str, Any] | None = None, key: Any = SIGNER, algorithm: str = "RS256", kid: str = "1") -> str:
    claims = {**CLAIMS, "exp": time.time() + 600, **(changes or {})}
    return jwt.encode({k: v for k, v in claims.items() if v is not None}, key, algorithm, headers={"kid": kid})


def test_a_token_lets_in_by_its_scopes_and_every_lie_in_it_does_not(tmp_path: Path) -> None:
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    whole = token()
    head, body, signature = whole.split(".")
    forged = base64.urlsafe_b64encode(json.dumps({**CLAIMS, "scope": "admin", "exp": 9e9}).encode()).decode().rstrip("=")
    bad = {
        "expired": token({"exp": time.time() - 60}), "no end": token({"exp": None}), "not yet": token({"nbf": time.time() + 600}),
        "another audience": token({"aud": "other"}), "no audience": token({"aud": None}), "another issuer": token({"iss": "x"}),
        "no subject": token({"sub": None}), "a stranger's key": token(key=stranger), "an unknown key": token(kid="2"),
        "signed by nobody": token(key=None, algorithm="none"), "another algorithm": token(algorithm="RS512"),
        "a shared secret": token(key="s" * 32, algorithm="HS256", kid="shared"),
        "the public key as a secret": token(key="s" * 32, algorithm="HS256"), "no signature": f"{head}.{body}.",
        "another body": f"{head}.{forged}.{signature}", "garbage": "a.b.c", "nothing": "..", "long": f"{head}.{'e' * 9000}.x",
    }  # fmt: skip

    async def talk(client: httpx.AsyncClient) -> None:
        for _ in range(2):  # the second is remembered
            assert (await client.post("/predict/late", headers=bearer(whole))).json() == {"who": "token:ada"}
        assert (await client.post("/events/arrived", headers=bearer(whole))).status_code == 403
        assert (await client.post("/events/arrived", headers=bearer(token({"scope": None, "scp": ["label"]})))).status_code == 200
        for name, words in bad.items():
            answer = await client.post("/predict/late", headers=bearer(words))
            assert (answer.status_code, set(answer.json())) == (401, {"error"}), name

    run(
        Access(jwks=jwks(tmp_path / "jwks.json"), issuer=CLAIMS["iss"], audience="penstock").door(
            inside, EVERYWHERE, {"arrived"}
        ),
        talk,
    )


def test_a_token_that_was_right_is_refused_once_it_has_expired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = token()

    async def talk(client: httpx.AsyncClient) -> None:
        assert (await client.post("/predict/late", headers=bearer(words))).status_code == 200
        real = time.time
        monkeypatch.setattr("penstock.doors.tokens.time.time", lambda: real() + 700)
        monkeypatch.setattr("jwt.api_jwt.datetime", _Later)
        assert (await client.post("/predict/late", headers=bearer(words))).status_code == 401

    run(
        Access(jwks=jwks(tmp_path / "jwks.json"), issuer=CLAIMS["iss"], audience="penstock").door(
            inside, EVERYWHERE, {"arrived"}
        ),
        talk,
    )


class _Later:
    @staticmethod
    def now(tz: Any = None) -> Any:
        from datetime import datetime, timedelta

        return datetime.now(tz) + timedelta(seconds=700)


# --- access -----------------------------------------------------------------------------------------------------------


def test_on_loopback_nobody_is_asked_unless_keys_are_set(keys: Keys) -> None:
    for host in ("127.0.0.1", "::1"):
        assert not isinstance(Access().door(inside, host), Door)
    assert Access(open=True).door(inside, EVERYWHERE) is inside
    keys.create("reports", ["predict"])
    assert Access(keys=str(keys.path), pepper="pepper").door(inside, "127.0.0.1") is not inside


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({}, "nothing says who may ask"),
        ({"keys": "{keys}"}, "there is no pepper"),
        ({"keys": "{none}", "pepper": "p"}, "there are no keys in"),
        ({"keys": "{broken}", "pepper": "p"}, "cannot be read"),
        ({"jwks": "{keys}"}, "no issuer is set"),
        ({"jwks": "{keys}", "issuer": "i"}, "no audience is set"),
        ({"jwks": "{broken}", "issuer": "i", "audience": "a"}, "holds no keys of an identity provider"),
        ({"jwks": "{none}", "issuer": "i", "audience": "a"}, "holds no keys of an identity provider"),
        ({"jwks": "http://id.example/jwks", "issuer": "i", "audience": "a"}, "could be anybody's"),
        ({"jwks": "{keys}", "issuer": "i", "audience": "a", "algorithms": "HS256"}, "cannot be signed by HS256"),
        ({"jwks": "{keys}", "issuer": "i", "audience": "a", "algorithms": "none"}, "cannot be signed by none"),
        ({"keys": "{keys}", "pepper": "p", "rate": "often"}, "'often' is no rate"),
    ],
)
def test_a_server_in_the_open_does_not_start_on_what_cannot_be(keys: Keys, said: dict[str, str], words: str) -> None:
    keys.create("reports", ["predict"])
    (keys.path.parent / "broken").write_text("{")
    places = {"keys": keys.path, "none": keys.path.parent / "none", "broken": keys.path.parent / "broken"}
    with pytest.raises(SettingError, match=words) as refused:
        Access(**{k: v.format(**places) for k, v in said.items()}).door(inside, EVERYWHERE)  # type: ignore[arg-type]
    assert refused.value.fix


@pytest.mark.parametrize("service", ["inference", "dashboard"])
def test_a_service_says_so_before_it_looks_for_anything_else(service: str) -> None:
    nowhere = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "REDIS_URL": "redis://127.0.0.1:1"}
    there = {**os.environ, **nowhere, "PENSTOCK_HTTP_HOST": EVERYWHERE}
    run = [sys.executable, "-m", "penstock.services", service]
    done = subprocess.run(run, env=there, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "0.0.0.0 is open to the network" in done.stderr and "penstock keys create" in done.stderr
    assert "Traceback" not in done.stderr
