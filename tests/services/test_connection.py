"""Connections as they come: in pieces, in a row, slow, or none of ours. Real sockets, in one process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests import secure
from tests.services import graphs
from tests.services.served import asking, tensor, word

from penstock.runtime.connection import HEAD as MOST_HEAD
from penstock.runtime.connection import WHOLE, Connection, Crowd
from penstock.runtime.server import server as running
from penstock.services.inference.open_inference.protocol import Limits
from penstock.services.inference.open_inference.repository import Repository, named
from penstock.services.inference.open_inference.serve import Serve, bound

Door = tuple[asyncio.StreamReader, asyncio.StreamWriter]
BODY = json.dumps(asking(tensor([[1.0, 2.0, 3.0]]))).encode()
HEAD = b"POST /v2/models/double/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n" % len(BODY)
Talk = Callable[[int, Crowd], Awaitable[None]]


def run(folder: Path, talk: Talk, most: int = 1000, app: Any = None, tls: ssl.SSLContext | None = None) -> None:
    async def whole() -> None:
        repository = Repository([named(word(folder, "double", graphs.scaled(2.0)))])
        await repository.open()
        server, crowd = running(app or Serve(repository, Limits(), False), lifespan=False), Crowd(most)
        server.config.http_protocol_class = partial(Connection, crowd=crowd, tls=tls)
        with bound("127.0.0.1", 0) as taken:
            serving = asyncio.create_task(server.serve(sockets=[taken]))
            while not server.started:
                await asyncio.sleep(0)
            try:
                await asyncio.wait_for(talk(taken.getsockname()[1], crowd), 60)
            finally:
                server.should_exit = server.force_exit = True
                await serving

    asyncio.run(whole())


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers.get("content-length", 0)))


def scores(body: bytes) -> list[float]:
    found: list[float] = json.loads(body)["outputs"][0]["data"]
    return found


def test_requests_in_a_row_are_answered_in_order(tmp_path: Path) -> None:
    async def talk(port: int, crowd: Crowd) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        missing = b"GET /v2/models/none HTTP/1.1\r\nHost: localhost\r\n\r\n"
        writer.write((HEAD + b"\r\n" + BODY) * 3 + missing + HEAD + b"\r\n" + BODY)
        found = [await answer(reader) for _ in range(5)]
        assert [status for status, _, _ in found] == [200, 200, 200, 404, 200]
        assert [scores(body) for status, _, body in found if status == 200] == [[2.0, 4.0, 6.0]] * 4
        writer.close()

    run(tmp_path, talk)


def test_a_request_may_come_a_byte_at_a_time_in_chunks_or_wait_to_be_asked_for_its_body(tmp_path: Path) -> None:
    async def talk(port: int, crowd: Crowd) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for byte in HEAD + b"\r\n" + BODY:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        assert scores((await answer(reader))[2]) == [2.0, 4.0, 6.0]
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (BODY[:7], BODY[7:8], BODY[8:])) + b"0\r\n\r\n"
        writer.write(b"POST /v2/models/double/infer HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
        assert scores((await answer(reader))[2]) == [2.0, 4.0, 6.0]
        writer.write(HEAD + b"Expect: 100-continue\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        writer.write(BODY)
        assert scores((await answer(reader))[2]) == [2.0, 4.0, 6.0]
        writer.close()

    run(tmp_path, talk)


def test_an_answer_without_a_body_is_sent(tmp_path: Path) -> None:
    async def talk(port: int, crowd: Crowd) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HEAD /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.write(HEAD + b"Connection: close\r\n\r\n" + BODY)
        assert scores((await answer(reader))[2]) == [2.0, 4.0, 6.0]
        assert await reader.read() == b""

    run(tmp_path, talk)


def test_what_is_no_http_is_refused_in_the_form_of_all_others_without_a_name_or_version(tmp_path: Path) -> None:
    async def talk(port: int, crowd: Crowd) -> None:
        for garbage in (
            b"\x16\x03\x01\x02\x00\x01\x00",
            b"GET\r\n\r\n",
            b"POST / HTTP/9.9\r\n\r\n",
            HEAD + b"Content-Length: 5\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(garbage)
            status, headers, body = await answer(reader)
            assert (status, set(json.loads(body))) == (400, {"error"})
            assert headers["connection"] == "close"
            assert await reader.read() == b""
            writer.close()

    run(tmp_path, talk)


def test_slow_and_silent_clients_are_cut_off_and_others_are_not(tmp_path: Path) -> None:
    async def talk(port: int, crowd: Crowd) -> None:
        doors = {
            name: await asyncio.open_connection("127.0.0.1", port)
            for name in ("silent", "slow head", "slow body", "good", "idle")
        }
        doors["slow head"][1].write(b"POST /v2/models/double/infer HTTP/1.1\r\nHo")
        doors["slow body"][1].write(HEAD + b"\r\n" + BODY[:10])
        for name in ("good", "idle"):
            doors[name][1].write(HEAD + b"\r\n" + BODY)
            assert (await answer(doors[name][0]))[0] == 200
        now = asyncio.get_running_loop().time()
        crowd.cut(now + WHOLE - 5)
        assert len(crowd.asking) == 5
        soon = asyncio.get_running_loop().time()
        doors["good"][1].write(HEAD + b"\r\n" + BODY)
        assert (await answer(doors["good"][0]))[0] == 200
        crowd.cut(soon + WHOLE)
        for name in ("silent", "slow head", "slow body"):
            assert (await answer(doors[name][0]))[0] == 408
            assert await doors[name][0].read() == b""
        doors["good"][1].write(HEAD + b"\r\n" + BODY)
        assert (await answer(doors["good"][0]))[0] == 200
        for _, writer in doors.values():
            writer.close()

    run(tmp_path, talk)


def test_a_client_that_goes_in_the_middle_of_its_request_harms_nobody(tmp_path: Path) -> None:
    async def talk(port: int, crowd: Crowd) -> None:
        for length in (10, len(HEAD), len(HEAD) + 20, len(HEAD) + 2 + len(BODY)):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write((HEAD + b"\r\n" + BODY)[:length])
            writer.transport.abort()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD + b"\r\n" + BODY)
        assert scores((await answer(reader))[2]) == [2.0, 4.0, 6.0]
        writer.close()

    run(tmp_path, talk)


def test_one_who_sends_empty_lines_between_requests_is_cut_off_too(tmp_path: Path) -> None:
    async def talk(port: int, crowd: Crowd) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD + b"\r\n" + BODY)
        assert (await answer(reader))[0] == 200
        ((connection, began),) = crowd.asking.items()
        writer.write(b"\r\n")
        while connection.timeout_keep_alive_task is not None:  # uvicorn's own wait for a request ends, and none begins
            await asyncio.sleep(0)
        crowd.cut(began + WHOLE + 1)
        assert (await answer(reader))[0] == 408
        assert await reader.read() == b""
        writer.close()

    run(tmp_path, talk)


def test_when_all_connections_are_taken_the_one_that_was_silent_longest_makes_room(tmp_path: Path) -> None:
    async def talk(port: int, crowd: Crowd) -> None:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        while len(crowd.asking) < 3:
            await asyncio.sleep(0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD + b"\r\n" + BODY)
        assert (await answer(reader))[0] == 200
        assert (await answer(silent[0][0]))[0] == 408
        assert await silent[0][0].read() == b""
        assert len(crowd.asking) == 3
        for _, door in (*silent, (reader, writer)):
            door.close()

    run(tmp_path, talk, most=3)


def test_when_all_are_being_answered_one_more_is_told_so(tmp_path: Path) -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        asked.set()
        await go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async def talk(port: int, crowd: Crowd) -> None:
        first = await asyncio.open_connection("127.0.0.1", port)
        first[1].write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asked.wait()
        second = await asyncio.open_connection("127.0.0.1", port)
        status, _, body = await answer(second[0])
        assert (status, json.loads(body)) == (503, {"error": "all connections are busy"})
        go.set()
        assert (await answer(first[0]))[0] == 200
        for _, writer in (first, second):
            writer.close()

    run(tmp_path, talk, most=1, app=slow)


@pytest.mark.parametrize(
    "endless",
    [
        b"GET / HTTP/1.1\r\nX: " + b"x" * MOST_HEAD,
        b"GET /" + b"x" * (2 * MOST_HEAD),
        b"GET / HTTP/1.1\r\n" + b"X: x\r\n" * (MOST_HEAD // 6 + 10),
        b"POST /v2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * (2 * MOST_HEAD),
        b"POST /v2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n" + b"X: x\r\n" * (MOST_HEAD // 6 + 9),
    ],
    ids=["a header", "an address", "headers", "an extension of a chunk", "trailers"],
)
def test_of_what_stands_beside_a_body_no_more_is_read_than_a_head_may_be_long(tmp_path: Path, endless: bytes) -> None:
    async def talk(port: int, crowd: Crowd) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(endless)
        said = b""
        with contextlib.suppress(ConnectionResetError):  # closed with some of it unread
            while more := await reader.read(1 << 16):
                said += more
        assert not said or re.match(rb"HTTP/1.1 (431|400|405) ", said)  # 405: what the body was for is known before its end
        assert not crowd.asking
        writer.close()

    run(tmp_path, talk)


@pytest.fixture
def hands(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Two ends of TLS, the server's first."""
    if why := secure.available():
        pytest.skip(why)
    keys = secure.certify(tmp_path)
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=str(keys / "cert.pem"))
    server.load_cert_chain(keys / "cert.pem", keys / "key.pem")
    client.check_hostname = False
    return server, client


def test_over_tls_requests_are_answered_as_ever(tmp_path: Path, hands: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async def talk(port: int, crowd: Crowd) -> None:
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=hands[1])
            writer.write((HEAD + b"\r\n" + BODY) * 3)
            assert [scores((await answer(reader))[2]) for _ in range(3)] == [[2.0, 4.0, 6.0]] * 3
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()
        while crowd.asking or crowd.greeting:
            await asyncio.sleep(0.001)

    run(tmp_path, talk, tls=hands[0])


def test_those_who_never_shake_hands_are_bounded_and_make_room(
    tmp_path: Path, hands: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    async def talk(port: int, crowd: Crowd) -> None:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(12)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=hands[1])
        writer.write(HEAD + b"\r\n" + BODY)
        assert scores((await answer(reader))[2]) == [2.0, 4.0, 6.0]
        assert len(crowd.greeting) <= 4
        for longest, _ in silent[:8]:
            with contextlib.suppress(ConnectionError):
                assert await longest.read() == b""
        crowd.cut(asyncio.get_running_loop().time() + WHOLE + 1)
        for other, _ in silent[8:]:
            with contextlib.suppress(ConnectionError):
                assert await other.read() == b""
        assert not crowd.greeting
        for _, one in silent:
            one.close()
        writer.close()

    run(tmp_path, talk, most=4, tls=hands[0])


def test_what_is_no_handshake_ends_that_connection_alone(tmp_path: Path, hands: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async def talk(port: int, crowd: Crowd) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD + b"\r\n" + BODY)
        with contextlib.suppress(ConnectionError):
            assert b"HTTP" not in await reader.read()
        secret, safe = await asyncio.open_connection("127.0.0.1", port, ssl=hands[1])
        safe.write(HEAD + b"\r\n" + BODY)
        assert scores((await answer(secret))[2]) == [2.0, 4.0, 6.0]
        safe.close()

    run(tmp_path, talk, tls=hands[0])


def test_one_who_does_not_read_the_answer_is_cut_off(tmp_path: Path) -> None:
    async def long(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(32 << 20)})

    async def talk(port: int, crowd: Crowd) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 10)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while not crowd.reading:
            await asyncio.sleep(0)
        crowd.cut(next(iter(crowd.reading.values())) + WHOLE + 1)
        while crowd.reading:
            await asyncio.sleep(0)
        writer.close()

    run(tmp_path, talk, app=long)


def test_an_answer_says_nothing_of_what_answers(tmp_path: Path) -> None:
    async def talk(port: int, crowd: Crowd) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD + b"\r\n" + BODY + b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for _ in range(2):
            _, headers, body = await answer(reader)
            assert headers["x-content-type-options"] == "nosniff"
            assert set(headers) <= {"x-content-type-options", "date", "content-type", "content-length"}
            assert not any(word in body.lower() for word in (b"uvicorn", b"starlette", b"fastapi", b"python"))
        writer.close()

    run(tmp_path, talk)
