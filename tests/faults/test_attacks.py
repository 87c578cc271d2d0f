"""Clients of the worst kind, on real sockets against a real `penstock serve`: each is refused or cut off, and good ones are
answered all the while."""

from __future__ import annotations

import asyncio
import gzip
import json
import resource
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.secure import available, certify
from tests.services import graphs
from tests.services.served import asking, put, tensor, word
from tests.services.test_serve_process import serving

from penstock.doors.keys import Keys, pepper_of
from penstock.runtime.server import MOST, SPARE

MIB = 1 << 20
PATH = b"/v2/models/double/infer"
GOOD = json.dumps(asking(tensor([[1.0, 2.0, 3.0]]))).encode()
BINARY = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": 12}}]}
).encode()  # fmt: skip
IDLE = 10_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("attacked")
    with serving(folder, word(folder, "double", graphs.scaled(2.0)), "--max-body", "1") as said:
        yield {**said, "port": int(said["url"].rpartition(":")[2])}


def request(body: bytes, *headers: bytes, length: int | None = None) -> bytes:
    lines = [
        b"POST " + PATH + b" HTTP/1.1",
        b"Host: localhost",
        b"Content-Length: %d" % (len(body) if length is None else length),
        *headers,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def head(number: bytes) -> bytes:
    return b"Inference-Header-Content-Length: " + number


def chunked(size: int) -> bytes:
    lines = b"POST " + PATH + b" HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    return lines + b"10000\r\n%s\r\n" % bytes(1 << 16) * (size >> 16) + b"0\r\n\r\n"


RAW = bytes(12)
BAD: dict[str, tuple[bytes, int]] = {
    "a byte more than 1 MiB": (request(GOOD + b" " * (MIB + 1 - len(GOOD))), 413),
    "more than 1 MiB in chunks": (chunked(2 * MIB), 413),
    "a length that is a lie": (request(b"", length=1 << 62), 413),
    "gzip": (request(gzip.compress(GOOD), b"Content-Encoding: gzip"), 415),
    "a gzip bomb": (request(gzip.compress(bytes(100 * MIB)), b"Content-Encoding: gzip"), 415),
    "gzip that is not said to be": (request(gzip.compress(GOOD)), 400),
    "a head longer than the body": (request(BINARY + RAW, head(b"%d" % (len(BINARY) + 13))), 400),
    "a head shorter than it is": (request(BINARY + RAW, head(b"%d" % (len(BINARY) - 1))), 400),
    "a head that is no number": (request(BINARY + RAW, head(b"many")), 400),
    "a head below nothing": (request(BINARY + RAW, head(b"-1")), 400),
    "a head too large for any number": (request(BINARY + RAW, head(b"9" * 400)), 400),
    "two heads": (request(BINARY + RAW, head(b"%d" % len(BINARY)), head(b"1")), 400),
    "no head, where there is binary": (request(BINARY + RAW), 400),
    "truncated binary": (request(BINARY + RAW[:-1], head(b"%d" % len(BINARY))), 400),
    "more binary than was said": (request(BINARY + RAW + b"x", head(b"%d" % len(BINARY))), 400),
    "two lengths": (request(GOOD, b"Content-Length: 5"), 400),
    "a length and chunks": (request(GOOD, b"Transfer-Encoding: chunked"), 400),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), 400),
}


async def answer(reader: asyncio.StreamReader) -> tuple[int, Any]:
    first = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    size = int(first.partition("content-length: ")[2].partition("\r\n")[0])
    return int(first.split()[1]), json.loads(await reader.readexactly(size))


async def asked(port: int) -> None:
    """A good client, on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(GOOD))
    status, said = await asyncio.wait_for(answer(reader), 10)
    assert (status, said["outputs"][0]["data"]) == (200, [2.0, 4.0, 6.0])
    writer.close()


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_gets_one_sentence_and_the_next_client_its_answer(server: dict[str, Any], name: str) -> None:
    sent, expected = BAD[name]

    async def whole() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server["port"])
        writer.write(sent)
        if name != "a length that is a lie":
            status, said = await asyncio.wait_for(answer(reader), 20)
            assert (status, set(said)) == (expected, {"error"})
        writer.transport.abort()
        await asked(server["port"])

    asyncio.run(whole())


def test_ten_thousand_idle_connections_keep_nobody_out_and_are_bounded(server: dict[str, Any]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = IDLE + 500
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"only {hard} open files are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))

    async def whole() -> None:
        idle = []
        for number in range(IDLE):
            idle.append(await asyncio.open_connection("127.0.0.1", server["port"]))
            if number % 1000 == 999:
                await asked(server["port"])
        assert open_files(server["pid"]) <= MOST + SPARE
        for _, writer in idle:
            writer.transport.abort()
        await asked(server["port"])

    try:
        asyncio.run(whole())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_clients_that_leave_before_their_answer_cost_nothing_afterwards(server: dict[str, Any]) -> None:
    async def whole() -> None:
        before = open_files(server["pid"])
        for _ in range(300):
            _, writer = await asyncio.open_connection("127.0.0.1", server["port"])
            writer.write(request(GOOD) * 3)
            writer.transport.abort()
        await asked(server["port"])
        async with asyncio.timeout(20):
            while open_files(server["pid"]) > before + 5:
                await asked(server["port"])

    asyncio.run(whole())


def test_a_server_in_the_open_asks_for_keys_and_speaks_https(tmp_path: Path) -> None:
    if why := available():
        pytest.skip(why)
    secret, path = certify(tmp_path / "tls"), tmp_path / "keys.json"
    keys = Keys(path, pepper_of(path, "", make=True))
    asks, words = keys.create("asks", ["predict"])
    _, rules = keys.create("rules", ["admin"])
    tls = ["--certificate", str(secret / "cert.pem"), "--certificate-key", str(secret / "key.pem")]
    file = put(tmp_path / "double.onnx", graphs.scaled(2.0))
    with serving(tmp_path, str(file), "--host", "0.0.0.0", "--keys", str(path), "--admin", *tls) as said:
        assert said["url"].startswith("https://0.0.0.0:")
        url, trusted = said["url"].replace("0.0.0.0", "127.0.0.1"), ssl.create_default_context(cafile=str(secret / "cert.pem"))
        with httpx.Client(base_url=url, verify=trusted) as client:

            def status(method: str, at: str, key: str = "") -> int:
                return client.request(method, at, content=GOOD if "infer" in at else None, headers={"x-api-key": key}).status_code

            infer, load = "/v2/models/double/infer", "/v2/repository/models/double/load"
            live = client.get("/v2/health/live")
            assert live.status_code == 200 and "max-age" in live.headers["strict-transport-security"]
            assert "server" not in live.headers
            assert [status("POST", infer, key) for key in ("", words, rules)] == [401, 200, 403]
            assert [status("POST", load, key) for key in ("", words, rules)] == [401, 403, 200]
            assert [status("GET", "/metrics", key) for key in ("", words, rules)] == [401, 403, 200]
            turned = client.get("/metrics", headers={"x-api-key": rules}).text
            assert 'penstock_http_turned_away_total{status="401"} 3.0' in turned
            keys.revoke(asks.id)
            while status("POST", infer, words) == 200:
                pass
            assert status("POST", infer, words) == 401
        with pytest.raises(httpx.HTTPError):
            httpx.get(url.replace("https", "http") + "/healthz").raise_for_status()
