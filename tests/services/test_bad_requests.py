"""Bad input over HTTP: a 4xx and one sentence each, nothing is recorded, and no more is held than an event may be long.

Tensors have a table of their own in test_open_inference, reads of features in test_online_features.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx
import pytest
from tests.services.air import EVENT, Door, said_wrong

from penstock.codec import MAX_BYTES

WHOLE = json.dumps(EVENT).encode()


def with_field(name: str, value: str) -> bytes:
    """The event with one field replaced by raw JSON."""
    return without(name)[:-1] + f', "{name}": {value}}}'.encode()


def without(name: str) -> bytes:
    return json.dumps({k: v for k, v in EVENT.items() if k != name}).encode()


BAD_EVENTS: dict[str, tuple[bytes, int]] = {
    "empty": (b"", 400),
    "truncated JSON": (WHOLE[:-10], 400),
    "not JSON": (b"hello", 400),
    "null": (b"null", 400),
    "invalid UTF-8": (WHOLE.replace(b"JFK", b"J\xffK"), 400),
    "a lone surrogate": (with_field("flight", '"\\ud800"'), 400),
    "a missing field": (without("distance"), 400),
    "a missing key": (without("origin"), 400),
    "a missing id": (without("flight"), 400),
    "a missing time": (without("at"), 400),
    "a null key": (with_field("origin", "null"), 400),
    "an empty id": (with_field("flight", '""'), 400),
    "a wrong type": (with_field("distance", '"100"'), 400),
    "a number for a text": (with_field("origin", "7"), 400),
    "a number for a bool": (with_field("night", "1"), 400),
    "NaN": (with_field("distance", "NaN"), 400),
    "Infinity": (with_field("distance", "Infinity"), 400),
    "-Infinity": (with_field("distance", "-Infinity"), 400),
    "1e999": (with_field("distance", "1e999"), 400),
    "2^70 for an int": (with_field("seats", str(2**70)), 400),
    "a fraction for an int": (with_field("seats", "1.5"), 400),
    "deep nesting": (with_field("unknown", "[" * 100_000 + "]" * 100_000), 400),
    "nothing but nesting": (b"[" * 500_000, 400),
    "a time without a zone": (with_field("at", '"2024-01-01T00:00:00"'), 400),
    "a time that is none": (with_field("at", '"yesterday"'), 400),
    "a time in the future": (with_field("at", '"2999-01-01T00:00:00Z"'), 400),
    "a time before 1970": (with_field("at", '"1960-01-01T00:00:00Z"'), 400),
    "one byte too many": (WHOLE + b" " * (MAX_BYTES + 1 - len(WHOLE)), 413),
    "10 MiB": (with_field("origin", '"' + "x" * (10 << 20) + '"'), 413),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(100), 400),
}
BAD_ADDRESSES = [
    ("POST", "/predict/unknown", 404), ("GET", "/predict/late", 405), ("GET", "/", 404),
    ("GET", "/redoc", 404), ("POST", "/predict/late/", 404), ("POST", "/predict/%2e%2e", 404),
    ("POST", "/predict/%ff%00", 404), ("POST", "/predict/" + "x" * 5000, 404),
    ("GET", "/v2/models/unknown", 404), ("GET", "/v2/models/unknown/ready", 404),
    ("POST", "/v2/models/unknown/infer", 404), ("GET", "/v2/models/late/versions/v9", 404),
    ("GET", "/v2/models/late/versions/v9/ready", 404), ("POST", "/v2/models/late/versions/v9/infer", 404),
    ("DELETE", "/v2/models/late", 405), ("GET", "/V2/health/live", 404),
]  # fmt: skip


@pytest.mark.parametrize(("body", "status"), BAD_EVENTS.values(), ids=BAD_EVENTS)
def test_a_bad_event_is_refused_in_one_sentence_and_recorded_nowhere(door: Door, body: bytes, status: int) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        answer = await client.post("/predict/late", content=body)
        assert answer.status_code == status
        assert len(said_wrong(answer)) < 300
        assert door.recorded == []
        assert (await client.post("/predict/late", json=EVENT)).status_code == 200

    door.run(talk, door.said("champion", "v1"))


@pytest.mark.parametrize(("method", "path", "status"), BAD_ADDRESSES, ids=[path[:40] for _, path, _ in BAD_ADDRESSES])
def test_a_bad_address_is_refused_alike(door: Door, method: str, path: str, status: int) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        answer = await client.request(method, path)
        assert answer.status_code == status
        assert len(said_wrong(answer)) < 300

    door.run(talk, door.said("champion", "v1"))


@pytest.mark.parametrize("path", ["/predict/late", "/v2/models/late/infer"])
def test_of_an_endless_body_no_more_is_read_than_an_event_may_be_long(door: Door, path: str) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1 << 16
            yield bytes(1 << 16)

    async def talk(client: httpx.AsyncClient) -> None:
        answer = await client.post(path, content=endless())
        assert answer.status_code == 413
        said_wrong(answer)
        assert read <= MAX_BYTES + 2 * (1 << 16)

    door.run(talk, door.said("champion", "v1"))


def test_one_mebibyte_is_still_taken(door: Door) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        body = WHOLE + b" " * (MAX_BYTES - len(WHOLE))
        assert (await client.post("/predict/late", content=body)).status_code == 200

    assert MAX_BYTES == 1 << 20
    door.run(talk, door.said("champion", "v1"))


def test_a_float_of_any_size_that_json_can_say_is_taken(door: Door) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        for value in (str(2**70), "1e308", "-0.0", "5e-324"):
            body = with_field("distance", value).replace(b'"f1"', f'"f{value}"'.encode())
            answer = await client.post("/predict/late", content=body)
            assert answer.status_code == 200
            assert 0 <= answer.json()["score"] <= 1

    door.run(talk, door.said("champion", "v1"))
